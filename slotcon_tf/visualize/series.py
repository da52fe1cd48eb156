"""The curve of a task's scores over the checkpoints of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slotcon_tf.evaluation.results import TRAINED, UNTRAINED
from slotcon_tf.visualize.charts import TITLES

_WIDE = 3  # charts side by side
_INCHES = (3.6, 2.6)  # of one chart
_TRAINED, _UNTRAINED = "#2a85c0", "#d55e00"


def series_figure(results: Sequence[Mapping[str, Any]]) -> Figure:
    """A chart per score: the trained network by step, the untrained one as a line.

    Args:
        results: Of one task, in the order of steps, in the schema of
            `slotcon_tf.evaluation.results`. Intervals are bands.

    Returns:
        A matplotlib Figure.

    Example:
        >>> rows = {"nmi": {"trained": [0.5, 0.4, 0.6], "untrained": [0.1, None, None]}}
        >>> one = {"task": "groups", "step": 8, "rows": rows}
        >>> len(series_figure([one, {**one, "step": 16}]).axes)
        1
    """
    names = list(results[-1]["rows"])
    columns = min(len(names), _WIDE)
    rows = -(-len(names) // columns)
    size = (columns * _INCHES[0], rows * _INCHES[1] + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{results[-1]['task']}: {results[-1].get('dataset', '')}")
    steps = np.array([result["step"] for result in results])
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        value, low, high = _stage(results, name, TRAINED).T
        axes.plot(steps, value, marker="o", markersize=3, color=_TRAINED)
        axes.fill_between(steps, low, high, color=_TRAINED, alpha=0.2, linewidth=0)
        blank = _stage(results, name, UNTRAINED)[:, 0]
        axes.plot(steps, blank, "--", color=_UNTRAINED, label="untrained")
        axes.set_title(TITLES.get(name, (name.replace("_", " "),))[0], fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.set_xlabel("step", fontsize=8)
        if not place and np.isfinite(blank).any():
            axes.legend(fontsize=8)
    return figure


def _stage(results: Sequence[Mapping[str, Any]], name: str, stage: str) -> np.ndarray:
    """Value, low and high by result, (R, 3); NaN for what is not there."""
    nothing = [None] * 3
    rows = (result["rows"].get(name, {}).get(stage) or nothing for result in results)
    return np.array([row for row in rows], dtype=float)
