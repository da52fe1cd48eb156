"""Results of one task over the checkpoints of a run, as a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from slotcon_tf.evaluation.results import DIFFERENCE, TRAINED, UNTRAINED, score_text

Result = Mapping[str, Any]  # in the schema of slotcon_tf.evaluation.results

# Columns of a score, and where they stand in a result's row.
_COLUMNS = {
    "": (TRAINED, 0),
    "_low": (TRAINED, 1),
    "_high": (TRAINED, 2),
    "_untrained": (UNTRAINED, 0),
    "_difference": (DIFFERENCE, 0),
    "_difference_low": (DIFFERENCE, 1),
    "_difference_high": (DIFFERENCE, 2),
}


def series_csv(results: Sequence[Result]) -> str:
    """A row per checkpoint: step, epoch, and each score with what belongs to it.

    Args:
        results: With "step", "epoch" and "checkpoint".

    Returns:
        Text of a CSV file: of each score the trained network's, the ends of its
        interval, the untrained one's, and the difference with its interval. What was
        not measured is empty.

    Example:
        >>> rows = {"miou": {"trained": [0.5, 0.4, 0.6]}}
        >>> print(series_csv([{"step": 8, "epoch": 2.0, "rows": rows}]).strip())
        step,epoch,checkpoint,miou,miou_low,miou_high
        8,2,,0.5,0.4,0.6
    """
    table = [_row(result) for result in results]
    there = dict.fromkeys(name for row in table for name, text in row.items() if text)
    names = dict.fromkeys(["step", "epoch", "checkpoint", *there])
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, names, restval="", extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _row(result: Result) -> dict[str, str]:
    row = {
        "step": str(result["step"]),
        "epoch": _number(result.get("epoch"), "g"),
        "checkpoint": str(result.get("checkpoint") or ""),
    }
    for score, stages in result["rows"].items():
        for ending, (stage, place) in _COLUMNS.items():
            row[score + ending] = _number((stages.get(stage) or [None] * 3)[place])
    return row


def series_line(result: Result) -> str:
    """A result in one line, for a log.

    Example:
        >>> rows = {"miou": {"trained": [0.5, 0.4, 0.6]}}
        >>> series_line({"task": "groups", "step": 8, "epoch": None, "rows": rows})
        'groups, step 8: miou 0.500'
    """
    scores = ", ".join(f"{n} {v}" for n, v in _scores(result).items())
    epoch = _number(result.get("epoch"), "g")
    where = f"step {result['step']}" + (f", epoch {epoch}" if epoch else "")
    return f"{result['task']}, {where}: {scores}"


def show_series(results: Sequence[Result], console: Console | None = None) -> None:
    """Prints the scores of the trained network by step, the untrained one's first.

    Args:
        results: Of one task, in the order of steps.
        console: Of rich; default: stdout, 100 columns.

    Example:
        >>> rows = {"nmi": {"untrained": [0.1, 0.0, 0.2], "trained": [0.4, 0.3, 0.5]}}
        >>> about = {"task": "groups", "dataset": "camvid", "rows": rows}
        >>> show_series([{**about, "step": 9, "epoch": 3}])  # doctest: +ELLIPSIS
        groups: camvid
             step  epoch ...
    """
    console = console or Console(width=100)
    console.print(
        f"{results[-1]['task']}: {results[-1].get('dataset')}", highlight=False
    )
    names = list(results[-1]["rows"])
    table = Table(box=None, pad_edge=False)
    for name in ("step", "epoch", *names):
        table.add_column(name, justify="right")
    if any(stages.get(UNTRAINED) for stages in results[-1]["rows"].values()):
        blank = _scores(results[-1], UNTRAINED)
        table.add_row("untrained", "", *(blank[name] for name in names))
    for result in results:
        scores = _scores(result)
        epoch = _number(result.get("epoch"), "g")
        table.add_row(str(result["step"]), epoch, *(scores.get(n, "-") for n in names))
    console.print(table)


def _scores(result: Result, stage: str = TRAINED) -> dict[str, str]:
    return {
        name: score_text((stages.get(stage) or [None])[0])
        for name, stages in result["rows"].items()
    }


def _number(value: float | None, form: str = ".6g") -> str:
    if value is None or not math.isfinite(value):
        return ""
    return format(value, form)
