"""Charts as inline SVG that follows the page's text colour, and as PNG."""

import io
import re

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slotcon_tf.visualize.colors import label_colors

INK = "#010203"  # becomes the page's text colour
GRID = "#8a8f98"  # grey that shows on white and on black
# Colour, line and mark: told apart by colour-blind people, and in black and white.
_STYLES = {
    "training": {"color": "#2a85c0", "linestyle": "-", "marker": "o"},
    "validation": {"color": "#d55e00", "linestyle": "--", "marker": "s"},
}
_MARKED = 20  # values up to which a line has a mark at each
_RC = {
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


def svg_of(figure):
    """A figure as SVG for a page: no XML prologue, no addresses, no fixed size."""
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


def line_chart(epochs, lines, title):
    """A small chart of one quantity over epochs.

    Args:
        epochs: (E,).
        lines: Dict of "training", "validation" or both to float (E,), NaN where it
            was not measured.
        title: Written above.

    Returns:
        A matplotlib Figure.
    """
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(3.3, 2.2), layout="constrained")
        axes = figure.subplots()
        for name, values in lines.items():
            known = np.isfinite(values)
            style = dict(_STYLES[name])
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


def usage_chart(usage, most=256):
    """Bars of the share of positions per prototype, most used first.

    Args:
        usage: A `Usage`.
        most: Bars at most.

    Returns:
        A matplotlib Figure.
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
