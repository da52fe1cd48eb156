"""Pictures of predictions: image, truth, prediction."""

import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from slotcon_tf.visualize import label_colors, overlay

_COLUMNS = ("image", "truth", "prediction")
_CELL = 3.0  # inches, a column


def masks_figure(images, truths, predictions, class_names):
    """A row per image, of any size: the image, its true classes, its predicted ones.

    Args:
        images: List of uint8 (H, W, 3).
        truths, predictions: Lists of integers (H, W); ids that are no class (void)
            leave the image as it is.
        class_names: Names of the classes. The legend shows those that occur.

    Returns:
        A matplotlib Figure.
    """
    colors = label_colors(len(class_names))
    heights = [_CELL * image.shape[0] / image.shape[1] for image in images]
    seen = np.unique(np.concatenate([np.ravel(m) for m in (*truths, *predictions)]))
    seen = [int(c) for c in seen if c < len(class_names)]
    legend = 0.3 + 0.2 * (len(seen) // 6 + 1)
    figure = Figure(figsize=(3 * _CELL, sum(heights) + legend), layout="constrained")
    axes = figure.subplots(
        len(images), 3, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    rows = zip(images, truths, predictions, strict=True)
    for row, (image, *maps) in enumerate(rows):
        shown = [overlay(image, np.asarray(m, np.int64), colors) for m in maps]
        for column, picture in enumerate([image, *shown]):
            axes[row, column].imshow(picture, interpolation="nearest")
            axes[row, column].set_axis_off()
            if row == 0:
                axes[row, column].set_title(_COLUMNS[column], fontsize=9)
    handles = [Patch(color=colors[c] / 255.0, label=class_names[c]) for c in seen]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=6,
        fontsize=7,
        frameon=False,
    )
    return figure


def save_masks(path, *args):
    """Writes `masks_figure(*args)` to a picture file."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure = masks_figure(*args)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)
