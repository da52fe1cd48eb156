"""Training curves from the CSV of a run."""

import csv
import math
import pathlib
from typing import NamedTuple

import numpy as np

# What a column is called on the page, and how to read it.
TITLES = {
    "loss": ("total loss", "What training lowers: both losses, weighted."),
    "grouping_loss": (
        "grouping loss",
        "How far the student is from predicting its teacher's groups.",
    ),
    "slot_contrastive_loss": (
        "slot contrastive loss",
        "How hard it is to find a slot among those of all images.",
    ),
    "prototypes_used": (
        "prototypes used per batch",
        "Near 1 all images are one group: collapsed.",
    ),
    "active_slots": ("active slots per view", "Groups found in one view, on average."),
    "assignment_entropy": (
        "entropy of the mean assignment, nats",
        "0: one group holds everything. The log of K: all are used alike.",
    ),
    "agreement": (
        "teacher-student agreement",
        "Share of positions that both give to the same group.",
    ),
    "feature_std": (
        "spread of features",
        "1: they point everywhere. 0: they are all the same, collapsed.",
    ),
    "images_per_second": ("images per second", "Speed of training."),
    "nmi": ("NMI", "What groups tell of the true classes: 0 nothing, 1 everything."),
    "ari": ("ARI", "Pairs of pixels grouped as in the true masks: 0 by chance, 1 all."),
    "miou": ("mIoU", "Overlap of groups with the classes matched to them."),
    "pixel_accuracy": (
        "pixel accuracy",
        "Pixels in the group of their class.",
    ),
    "miou_majority": ("mIoU, many to one", "Every group takes its commonest class."),
    "majority_accuracy": (
        "pixel accuracy, many to one",
        "Every group takes its commonest class; grows with their number.",
    ),
    "knn_accuracy": ("nearest neighbours", "Images whose class their neighbours tell."),
}
_LOSSES = ("loss", "grouping_loss", "slot_contrastive_loss")
_VALIDATION = "val_"


class Curve(NamedTuple):
    """One chart's data.

    Attributes:
        name: Of the CSV's column.
        title: What it is.
        help: How to read it; may be empty.
        lines: Dict of "training", "validation" or both to float (E,), NaN where it was
            not measured.
    """

    name: str
    title: str
    help: str
    lines: dict


def read_history(path):
    """Columns of a run's history.csv.

    Args:
        path: Of the file. Half a row at its end, of a run that goes on, is left out.

    Returns:
        Tuple of epochs int (E,), counted from 1, and a dict of column to float (E,),
        NaN where nothing was measured. Columns without any number are left out.
    """
    with pathlib.Path(path).open(newline="") as file:
        rows = list(csv.reader(file))
    names = rows[0] if rows else []
    whole = [r for r in rows[1:] if len(r) == len(names) and r[0].isdigit()]
    columns = {
        name: np.array([_number(row[i]) for row in whole])
        for i, name in enumerate(names)
        if i
    }
    columns = {k: v for k, v in columns.items() if np.isfinite(v).any()}
    return np.array([int(row[0]) + 1 for row in whole], int), columns


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def grouped_curves(columns):
    """Curves by what they tell.

    Args:
        columns: Dict of column to float (E,), as `read_history` gives them.

    Returns:
        Dict of "Losses", "Health" and "Evaluation" to lists of `Curve`. A column
        `val_NAME` joins NAME's chart where there is one.
    """
    groups = {"Losses": [], "Health": [], "Evaluation": []}
    known = [name for name in TITLES if name in columns]
    others = [n for n in columns if n not in TITLES and not n.startswith(_VALIDATION)]
    for name in known + others:
        lines = {"training": columns[name]}
        if _VALIDATION + name in columns:
            lines["validation"] = columns[_VALIDATION + name]
        group = "Losses" if name in _LOSSES or name.endswith("_loss") else "Health"
        groups[group].append(_curve(name, lines))
    for name in columns:
        alone = name.removeprefix(_VALIDATION)
        if name.startswith(_VALIDATION) and alone not in columns:
            groups["Evaluation"].append(_curve(alone, {"validation": columns[name]}))
    return {name: curves for name, curves in groups.items() if curves}


def _curve(name, lines):
    title, help_text = TITLES.get(name, (name.replace("_", " "), ""))
    return Curve(name, title, help_text, lines)
