"""Scores that other commands left in a run's folder, as rows of tables."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from slotcon_tf.evaluation.results import (
    SCORES,
    class_columns,
    read_result,
    score_text,
    stages_of,
)

EVALUATION = "evaluation"


class ScoreTable(NamedTuple):
    """A table of scores.

    Attributes:
        title: What was measured, and on what.
        header: Names of the columns.
        rows: Lists of text.
        classes: Rows of name and scores; may be empty.
        settings: Dict of text.
        columns: Names of the scores of classes.

    Example:
        >>> found = ScoreTable("groups", ["score", "trained"], [["nmi", "0.4"]], [], {})
        >>> dict(zip(found.header, found.rows[0], strict=True))
        {'score': 'nmi', 'trained': '0.4'}
    """

    title: str
    header: list
    rows: list
    classes: list
    settings: dict
    columns: list = ["untrained", "trained"]


def read_scores(folder: str | pathlib.Path) -> tuple[list[ScoreTable], list[str]]:
    """Tables of `evaluation/*.json` and `scores.json` in a folder.

    Args:
        folder: Of a run.

    Returns:
        Tuple of a list of `ScoreTable` and a list of sentences about files that could
        not be read.

    Example:
        >>> text = '{"task": "groups", "rows": {"nmi": {"trained": 0.41}}}'
        >>> _ = pathlib.Path("scores.json").write_text(text)
        >>> tables, troubles = read_scores(".")
        >>> tables[0].title, tables[0].rows, troubles
        ('groups', [['nmi', '0.410']], [])
    """
    folder = pathlib.Path(folder)
    paths = sorted((folder / EVALUATION).glob("*.json"))
    if (folder / SCORES).is_file():
        paths.append(folder / SCORES)
    tables, troubles = [], []
    for path in paths:
        try:
            tables.append(_table(read_result(path), path.stem))
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            troubles.append(f"{path.name} is no file of scores: {error}")
    return tables, troubles


def _table(content, stem):
    where = content.get("dataset")
    task = str(content.get("task") or stem).replace("_", " ")
    rows, classes = content["rows"], content.get("classes") or {}
    there, columns = stages_of(rows), class_columns(classes)
    settings = {k: str(v) for k, v in (content.get("settings") or {}).items()}
    if "which" in settings:
        task += f" ({settings['which']})"
    return ScoreTable(
        f"{task}: {where}" if where else task,
        ["score", *there],
        [[name, *(_text(row.get(s)) for s in there)] for name, row in rows.items()],
        [
            [name, *(_text(row.get(c)) for c in columns)]
            for name, row in classes.items()
        ],
        settings,
        columns,
    )


def _text(values):
    # The spaces inside do not break: a narrow page cuts before the bracket.
    interval = " ({}\u00a0to\u00a0{})"
    return score_text(values, interval=interval, missing="–").replace("-", "−")
