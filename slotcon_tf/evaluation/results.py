"""Results: what every evaluation writes, and the tables that it prints.

One schema of JSON for all, whatever measured it:

    {"task": "groups", "dataset": "scenes (test): 100 images, 14 classes",
     "split": "test", "step": 450,
     "rows": {"miou": {"untrained": [0.05, 0.04, 0.06], "trained": [0.17, 0.15, 0.18],
                       "difference": [0.12, 0.10, 0.13]}, ...},
     "classes": {"bus": {"untrained": 0.0, "trained": 0.31}, ...},
     "settings": {"which": "teacher", ...}}

Numbers stand with the ends of their interval, which may be null; so may be the scores
of classes that do not occur. Of a detector a class has several scores, by their names,
in place of stages: {"bus": {"box_ap": 0.31, "mask_ap": 0.27}, ...}.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slotcon_tf.evaluation.bootstrap import LEVEL, compare, summed
from slotcon_tf.evaluation.tasks import Sums, Task
from slotcon_tf.files import write_text

SCORES = "scores.json"  # in the folder of what was measured
UNTRAINED, TRAINED, DIFFERENCE = STAGES = ("untrained", "trained", "difference")


def result_of(
    name: str,
    task: Task,
    counts: Mapping[str, Sums | None],
    *,
    dataset: str,
    split: str,
    settings: Mapping[str, Any] | None = None,
    step: int | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """What a `Task` has measured, in the schema of this module.

    Args:
        name: Of the task.
        task: The `Task` itself.
        counts: What it measured by stage, of "untrained" and "trained".
        dataset, split: What it was measured on.
        settings: What the numbers depend on.
        step: Training steps of the trained network.
        resamples, seed: Of `compare`.

    Example:
        >>> task = Task(lambda inference: None, lambda total: {"accuracy": total[0]})
        >>> counts = {"trained": np.array([[0.25], [0.5]])}  # (N, M)
        >>> found = result_of("knn", task, counts, dataset="photos", split="val")
        >>> found["rows"]["accuracy"]["trained"][0]
        0.75
    """
    known = {stage: sums for stage, sums in counts.items() if sums is not None}
    pair = {stage: counts.get(stage) for stage in (UNTRAINED, TRAINED)}
    if pair[TRAINED] is None:
        pair = {UNTRAINED: None, TRAINED: pair[UNTRAINED]}
    rows = compare(task.score, **pair, resamples=resamples, seed=seed)  # pyright: ignore[reportArgumentType]
    if TRAINED not in known:
        rows = {k: {UNTRAINED: row[TRAINED]} for k, row in rows.items()}
    scores = {}
    if task.class_scores is not None:
        scores = {s: task.class_scores(summed(sums)) for s, sums in known.items()}
    classes = {
        label: {stage: float(found[i]) for stage, found in scores.items()}
        for i, label in enumerate(task.class_names if scores else ())
    }
    return result(name, rows, classes, dataset, split, settings, step)


def result(
    name: str,
    rows: Mapping[str, Mapping[str, Any]],
    classes: Mapping[str, Mapping[str, float]],
    dataset: str,
    split: str,
    settings: Mapping[str, Any] | None = None,
    step: int | None = None,
) -> dict[str, Any]:
    """A result in the schema of this module, of rows that are there already.

    Example:
        >>> rows = {"miou": {"trained": [0.5, None, None]}}
        >>> found = result("segmentation", rows, {}, "voc (val)", "val", step=10)
        >>> found["rows"]["miou"]["trained"][0]
        0.5
    """
    found: dict[str, Any] = {"task": name, "dataset": dataset, "split": split}
    if step is not None:
        found["step"] = step
    return found | {
        "rows": dict(rows),
        "classes": dict(classes),
        "settings": dict(settings or {}),
    }


def joined(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Two results of one task, the first of the untrained network, as one.

    The difference has no interval: that takes both networks' images side by side.

    Example:
        >>> nmi = {"nmi": {"untrained": [0.25, None, None]}}
        >>> one = result("groups", nmi, {}, "scenes (test)", "test")
        >>> nmi = {"nmi": {"trained": [0.5, None, None]}}
        >>> two = result("groups", nmi, {}, "scenes (test)", "test")
        >>> joined(one, two)["rows"]["nmi"]["difference"]
        [0.25, None, None]
    """
    rows = {}
    for metric, stages in after["rows"].items():
        row = {**before["rows"].get(metric, {}), **stages}
        if UNTRAINED in row:
            value = row[TRAINED][0] - row[UNTRAINED][0]
            row[DIFFERENCE] = [value, None, None]
        rows[metric] = row
    classes = {
        label: {**before["classes"].get(label, {}), **stages}
        for label, stages in after["classes"].items()
    }
    return {**after, "rows": rows, "classes": classes}


def write_result(path: str | pathlib.Path, found: Mapping[str, Any]) -> None:
    """Writes a result as JSON, whole or not at all; NaN, which JSON has not, is null.

    Args:
        path: File; its folder is made.
        found: Of `result_of` or `result`.

    Example:
        >>> import tempfile
        >>> rows = {"nmi": {"trained": [math.nan, None, None]}}
        >>> found = result("groups", rows, {}, "scenes (test)", "test")
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "evaluation" / "groups.json"
        >>> write_result(path, found)
        >>> json.loads(path.read_text())["rows"]
        {'nmi': {'trained': [None, None, None]}}
    """
    text = json.dumps(_finite(found), indent=1, allow_nan=False)
    write_text(path, text + "\n")


def read_result(path: str | pathlib.Path) -> dict[str, Any]:
    """A result from its file, those of earlier versions included; null is NaN again.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds no result.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "scores.json"
        >>> _ = path.write_text('{"before": {"nmi": 0.1}, "after": {"nmi": 0.4}}')
        >>> read_result(path)["rows"]["nmi"]["trained"]
        [0.4, None, None]
    """
    content = json.loads(pathlib.Path(path).read_text())
    if isinstance(content, dict) and "before" in content:
        content = _of_scenes(content)
    elif isinstance(content, dict) and "miou" in content:
        content = _of_segmentation(content)
    if not isinstance(content, dict) or not isinstance(content.get("rows"), dict):
        raise ValueError('there are no "rows"')
    return {
        **content,
        "rows": _with_nan(content["rows"]),
        "classes": _with_nan(content.get("classes") or {}),
    }


def _with_nan(value: Any) -> Any:
    """NaN for null, but for the ends of intervals: they are not there."""
    if isinstance(value, dict):
        return {name: _with_nan(v) for name, v in value.items()}
    if isinstance(value, list):
        return [*map(_with_nan, value[:1]), *value[1:]]
    return math.nan if value is None else value


def _of_scenes(content: dict) -> dict:
    """Of the days before this schema: {"before": {"nmi": 0.1}, "after": ...}."""
    rows: dict[str, dict] = {}
    for stage, when in ((UNTRAINED, "before"), (TRAINED, "after")):
        for name, value in content.get(when, {}).items():
            rows.setdefault(name, {})[stage] = [value, None, None]
    return result("groups", rows, {}, "scenes (test)", "test")


def _of_segmentation(content: dict) -> dict:
    """Of the days before this schema: {"step": 10, "miou": 0.1, "classes": ...}."""
    known = ("step", "split", "images", "classes")
    rows = {k: {TRAINED: [v, None, None]} for k, v in content.items() if k not in known}
    classes = {k: {TRAINED: v} for k, v in content.get("classes", {}).items()}
    split, step = content.get("split", ""), content.get("step")
    return result("segmentation", rows, classes, split, split, None, step)


def show_result(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the tables of a result.

    Args:
        found: Of `result_of` or `result`.
        console: Of rich; default: stdout, 100 columns.

    Example:
        >>> rows = {"miou": {"trained": [0.4, 0.3, 0.5]}, "nmi": {"trained": [0.2] * 3}}
        >>> show_result(result("groups", rows, {}, "scenes (test)", "test"))
        groups: scenes (test)
        score        trained [95%]
        miou  0.400 [0.300, 0.500]
        nmi   0.200 [0.200, 0.200]
    """
    console = console or Console(width=100)
    console.print(f"{found['task']}: {found['dataset']}", highlight=False)
    stages = stages_of(found["rows"])
    table = Table(box=None, pad_edge=False)
    table.add_column("score")
    certain = any(
        _has_interval(v) for row in found["rows"].values() for v in row.values()
    )
    for stage in stages:
        title = f"{stage} [{LEVEL:.0%}]" if certain else stage
        table.add_column(Text(title), justify="right")
    for name, row in found["rows"].items():
        cells = (_signed(row.get(stage), stage) for stage in stages)
        table.add_row(name, *map(Text, cells))
    console.print(table)
    if not found["classes"]:
        return
    columns = class_columns(found["classes"])
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in found["classes"].items():
        table.add_row(name, *(score_text(row.get(column)) for column in columns))
    console.print(table)


def stages_of(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The stages that a result's rows or classes have, in their order.

    Example:
        >>> stages_of({"miou": {"trained": [0.4, None, None]}})
        ['trained']
    """
    there = {stage for row in rows.values() for stage in row}
    return [stage for stage in STAGES if stage in there]


def class_columns(classes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The columns of a result's table of classes: stages, or scores by their names.

    Example:
        >>> class_columns({"bus": {"trained": 0.4, "untrained": 0.1}})
        ['untrained', 'trained']
        >>> class_columns({"bus": {"box_ap": 0.4, "mask_ap": 0.3}})
        ['box_ap', 'mask_ap']
    """
    there = dict.fromkeys(name for row in classes.values() for name in row)
    return [*stages_of(classes), *(name for name in there if name not in STAGES)]


def score_text(
    values: list[float | None] | float | None,
    *,
    sign: str = "",
    interval: str = " [{}, {}]",
    missing: str = "-",
) -> str:
    """A score, with its interval if it has one, as tables show it.

    Args:
        values: [value, low, high], or a value alone; each may be missing: None, or not
            finite.
        sign: "+" for differences, "" for others.
        interval: Format of the ends.
        missing: What stands for a value that is missing.

    Example:
        >>> score_text([0.4, 0.3, 0.5]), score_text([0.4, None, None]), score_text(None)
        ('0.400 [0.300, 0.500]', '0.400', '-')
    """
    values = values if isinstance(values, list) else [values]
    text, *ends = (format(v, f"{sign}.3f") if _is_there(v) else missing for v in values)
    return text + interval.format(*ends) if _has_interval(values) else text


def _signed(values: list | None, stage: str) -> str:
    return score_text(values, sign="+" if stage == DIFFERENCE else "")


def _has_interval(values: list) -> bool:
    return len(values) == 3 and all(map(_is_there, values[1:]))


def _is_there(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and value != value else value
