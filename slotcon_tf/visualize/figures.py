"""Figures of groups: images, true masks and slot masks side by side."""

import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from slotcon_tf.evaluation.groups import predict_groups
from slotcon_tf.visualize.colors import label_colors, matched_colors
from slotcon_tf.visualize.overlays import overlay


def slots_figure(images, groups, masks=None, *, class_names=(), matching=None):
    """A row per image: the image, its true mask if known, and its slots.

    Args:
        images: uint8 (N, H, W, 3).
        groups: int (N, H, W) of prototype ids.
        masks: int (N, H, W) of class ids, or None.
        class_names: Names of the classes, for the legend.
        matching: Dict of group to class; matched groups take the class's colour.

    Returns:
        A matplotlib Figure.
    """
    num_groups = int(groups.max()) + 1
    columns = [("image", None, None)]
    if masks is None:
        columns.append(("slots", groups, label_colors(num_groups)))
    else:
        num_classes = len(class_names) or int(masks.max()) + 1
        columns.append(("true categories", masks, label_colors(num_classes)))
        colors = matched_colors(num_groups, matching or {}, num_classes)
        columns.append(("slots", groups, colors))
    count, (height, width) = len(images), images.shape[1:3]
    cell = 2.4  # inches, a column
    legend = 0.7 if len(class_names) else 0.0
    size = (cell * len(columns), cell * height / width * count + 0.3 + legend)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(count, len(columns), squeeze=False)
    for row in range(count):
        for column, (title, labels, colors) in enumerate(columns):
            picture = images[row]
            if labels is not None:
                picture = overlay(picture, labels[row], colors)
            axes[row, column].imshow(picture, interpolation="nearest")
            axes[row, column].set_axis_off()
            if row == 0:
                axes[row, column].set_title(title, fontsize=9)
    if len(class_names):
        colors = label_colors(len(class_names)) / 255.0
        handles = [
            Patch(color=c, label=n) for c, n in zip(colors, class_names, strict=True)
        ]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=7,
            fontsize=7,
            frameon=False,
        )
    return figure


def save_slots(path, *args, **options):
    """Writes `slots_figure(*args, **options)` to a picture file."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    slots_figure(*args, **options).savefig(path, dpi=150)


def picture_of(model, images, masks=None, **options):
    """The teacher's slots on images, as one picture uint8 (height, width, 3).

    Args:
        model: A `SlotCon`.
        images, masks, **options: Of `slots_figure`.
    """
    groups = predict_groups(model, images)
    canvas = FigureCanvasAgg(slots_figure(images, groups, masks, **options))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
