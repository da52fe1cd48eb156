"""Training curves from the CSV of a run, and charts as inline SVG and as PNG."""

from __future__ import annotations

import csv
import io
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slotcon_tf.visualize.colors import label_colors
from slotcon_tf.visualize.prototypes import Usage

# What a column is called on the page, and how to read it.
TITLES = {
    "loss": ("total loss", "What training lowers: the others' weighted sum."),
    "grouping_loss": (
        "grouping loss",
        "How far the student is from predicting its teacher's groups.",
    ),
    "slot_contrastive_loss": (
        "slot contrastive loss",
        "How hard it is to find a slot among those of all images.",
    ),
    "rpn_class_loss": ("proposals: thing or not", "Of the first stage's guesses."),
    "rpn_box_loss": ("proposals: boxes", "Of the first stage's guesses."),
    "class_loss": ("classes of boxes", "Background is one of them."),
    "box_loss": ("boxes", "How far boxes of found things are off."),
    "mask_loss": ("masks", "Of the pixels in boxes of found things."),
    "learning_rate": ("learning rate", "How far a step goes."),
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
_PRECISIONS = {
    "ap": ("AP", "Average precision over IoU 0.50 to 0.95; 1 is perfect."),
    "ap50": ("AP at IoU 0.50", "Half of the overlap will do."),
    "ap75": ("AP at IoU 0.75", "Three quarters of the overlap will do."),
    "aps": ("AP of small objects", "Below 32 x 32 pixels."),
    "apm": ("AP of medium objects", "Of 32 x 32 to 96 x 96 pixels."),
    "apl": ("AP of large objects", "Above 96 x 96 pixels."),
}
TITLES |= {
    f"{kind}_{name}": (f"{kind} {title}", help_text)
    for kind in ("box", "mask")
    for name, (title, help_text) in _PRECISIONS.items()
}
_VALIDATION = "val_"


class Curve(NamedTuple):
    """One chart's data.

    Attributes:
        name: Of the CSV's column.
        title: What it is.
        help: How to read it; may be empty.
        lines: Dict of "training", "validation" or both to float (E,), NaN where it was
            not measured.

    Example:
        >>> curve = Curve("loss", "total loss", "", {"training": np.array([2.5, 2.0])})
        >>> f"{curve.title}: {curve.lines['training'][-1]}"
        'total loss: 2.0'
    """

    name: str
    title: str
    help: str
    lines: dict


def read_history(path: str | pathlib.Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Columns of a run's history.csv.

    Args:
        path: Of the file. Half a row at its end, of a run that goes on, is left out.

    Returns:
        Tuple of epochs int (E,), counted from 1, and a dict of column to float (E,),
        NaN where nothing was measured. Columns without any number are left out.

    Example:
        >>> text = "epoch,loss,val_nmi\\n0,2.5,\\n1,2.0,0.25\\n2,1"
        >>> _ = pathlib.Path("history.csv").write_text(text)
        >>> epochs, columns = read_history("history.csv")
        >>> epochs, columns["val_nmi"]
        (array([1, 2]), array([ nan, 0.25]))
    """
    with pathlib.Path(path).open(newline="", errors="replace") as file:
        rows = list(csv.reader(file))
    names = rows[0] if rows else []
    whole = [r for r in rows[1:] if r and len(r) == len(names) and r[0].isdecimal()]
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


def grouped_curves(columns: Mapping[str, np.ndarray]) -> dict[str, list[Curve]]:
    """Curves by what they tell.

    Args:
        columns: Dict of column to float (E,), as `read_history` gives them.

    Returns:
        Dict of "Losses", "Health" and "Evaluation" to lists of `Curve`. A column
        `val_NAME` joins NAME's chart where there is one.

    Example:
        >>> names = ("loss", "val_loss", "active_slots", "val_nmi")
        >>> groups = grouped_curves({name: np.ones(2) for name in names})
        >>> {name: [curve.title for curve in curves] for name, curves in groups.items()}
        {'Losses': ['total loss'], 'Health': ['active slots per view'],
         'Evaluation': ['NMI']}
    """
    groups = {"Losses": [], "Health": [], "Evaluation": []}
    known = [name for name in TITLES if name in columns]
    others = [n for n in columns if n not in TITLES and not n.startswith(_VALIDATION)]
    for name in known + others:
        lines = {"training": columns[name]}
        if _VALIDATION + name in columns:
            lines["validation"] = columns[_VALIDATION + name]
        is_loss = name == "loss" or name.endswith("_loss")
        group = "Losses" if is_loss else "Health"
        groups[group].append(_curve(name, lines))
    for name in columns:
        alone = name.removeprefix(_VALIDATION)
        if name.startswith(_VALIDATION) and alone not in columns:
            groups["Evaluation"].append(_curve(alone, {"validation": columns[name]}))
    return {name: curves for name, curves in groups.items() if curves}


def _curve(name, lines):
    title, help_text = TITLES.get(name, (name.replace("_", " "), ""))
    return Curve(name, title, help_text, lines)


INK = "#010203"  # becomes the page's text colour
GRID = "#8a8f98"  # grey that shows on white and on black
# Colour, line and mark: told apart by colour-blind people, and in black and white.
_STYLES = {
    "training": {"color": "#2a85c0", "linestyle": "-", "marker": "o"},
    "validation": {"color": "#d55e00", "linestyle": "--", "marker": "s"},
}
_MARKED = 20  # values up to which a line has a mark at each
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slotcon_tf",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
}
_LABELLED_BARS = 64
_UPRIGHT_DIGITS = 64  # what fits side by side below the bars
_STEPS = [1, 2, 5, 10]


def svg_of(figure: Figure) -> str:
    """A figure as SVG for a page: no XML prologue, no addresses, no fixed size.

    Example:
        >>> text = svg_of(Figure(figsize=(2, 1)))
        >>> text[:38], text[-6:]
        ('<svg viewBox="0 0 144 72" aria-hidden=', '</svg>')
    """
    file = io.StringIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head).group()
    rest = rest.replace("xlink:href", "href").replace(INK, "currentColor")
    rest = rest.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', sans-serif")
    return f'<svg {view} aria-hidden="true">{rest}'.strip()


def line_chart(
    epochs: np.ndarray, lines: Mapping[str, np.ndarray], title: str
) -> Figure:
    """A small chart of one quantity over epochs.

    Args:
        epochs: (E,).
        lines: Dict of "training", "validation" or both to float (E,), NaN where it
            was not measured.
        title: Written above.

    Returns:
        A matplotlib Figure.

    Example:
        >>> lines = {"training": np.array([2.5, 2.0])}
        >>> drawing = line_chart(np.array([1, 2]), lines, "loss")
        >>> drawing.axes[0].get_title(loc="left")
        'loss'
        >>> drawing.savefig("loss.png")
    """
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(3.3, 2.2), layout="constrained")
        axes = figure.subplots()
        for name, values in lines.items():
            known = np.isfinite(values)
            style: dict[str, Any] = dict(_STYLES[name])
            if known.sum() > _MARKED:
                style["marker"] = None
            axes.plot(
                np.asarray(epochs)[known],
                np.asarray(values)[known],
                markersize=3.5,
                linewidth=1.8,
                label=name,
                **style,
            )
        axes.set_title(title, fontsize=9.5, loc="left")
        axes.set_xlabel("epoch", fontsize=8)
        if len(lines) > 1:
            axes.legend(fontsize=7.5, frameon=False)
        _plain(axes)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=_STEPS))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
        if min(map(np.nanmin, lines.values())) >= 0:
            # From 0: a small change must not look like a large one.
            axes.set_ylim(0, 1.08 * max(map(np.nanmax, lines.values())) or 1)
    return figure


def usage_chart(usage: Usage, most: int = 256) -> Figure:
    """Bars of the share of positions per prototype, most used first.

    Args:
        usage: A `Usage`.
        most: Bars at most.

    Returns:
        A matplotlib Figure.

    Example:
        >>> from slotcon_tf.visualize.prototypes import usage_of
        >>> drawing = usage_chart(usage_of(np.array([6, 3, 0, 1])))
        >>> [label.get_text() for label in drawing.axes[0].get_xticklabels()]
        ['0', '1', '3']
    """
    shown = usage.order[usage.shares[usage.order] > 0][:most]
    colors = label_colors(len(usage.shares))[shown] / 255.0
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(8, 2.6), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(shown))
        heights = 100 * usage.shares[shown]
        axes.bar(places, heights, 0.85, color=colors, edgecolor=GRID, linewidth=0.6)
        even = 100 / len(usage.shares)
        axes.axhline(even, color=INK, linewidth=0.9, linestyle=":")
        axes.annotate(
            f"all {len(usage.shares)} alike: {even:.2g}%",
            (1, even),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
        labelled = len(shown) <= _LABELLED_BARS
        axes.set_xticks(places if labelled else [], shown if labelled else [])
        axes.set_xlim(-0.6, max(len(shown), 8) - 0.4)
        axes.set_xlabel("prototype", fontsize=8)
        axes.set_ylabel("% of positions", fontsize=8)
        _plain(axes)
        axes.grid(False, axis="x")
        if labelled and sum(len(str(k)) for k in shown) > _UPRIGHT_DIGITS:
            axes.tick_params(axis="x", labelsize=7, rotation=90)
    return figure


def _plain(axes):
    axes.grid(True, linewidth=0.5, alpha=0.4)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[["top", "right"]].set_visible(False)
