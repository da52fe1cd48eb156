"""Pictures of groups: images, true masks and slot masks side by side."""

import colorsys
import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from slotcon_tf.evaluation.groups import predict_groups

# Palettes that colour-blind people tell apart: Okabe and Ito 2008 without black, then
# Paul Tol's "muted".
_NAMED = (
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#E69F00",
    "#D55E00",
    "#CC79A7",
    "#F0E442",
    "#332288",
    "#44AA99",
    "#882255",
    "#DDCC77",
    "#117733",
    "#AA4499",
    "#661100",
)
_GOLDEN_RATIO = 0.618034
OVERLAY = 0.6  # share of the group's colour
_BOUNDARY = np.array([255, 255, 255], np.uint8)


def label_colors(count):
    """Colours of labels 0 .. count - 1: a label's colour depends on its id alone.

    The first fourteen are picked by hand; the others walk around the hue circle while
    their brightness alternates, so that neighbours differ in more than hue.

    Returns:
        uint8 (count, 3).
    """
    colors = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in _NAMED]
    for index in range(len(colors), count):
        hue = (index * _GOLDEN_RATIO) % 1.0
        value, saturation = ((0.95, 0.45), (0.55, 0.8), (0.8, 0.65))[index % 3]
        rgb = colorsys.hsv_to_rgb(hue, saturation, value)
        colors.append(tuple(round(255 * c) for c in rgb))
    return np.array(colors[:count], np.uint8)


def overlay(image, labels, colors):
    """Colours of labels over an image, with white lines between regions.

    Args:
        image: uint8 (H, W, 3).
        labels: int (H, W); ids outside the colours (void) leave the image as it is.
        colors: uint8 (count, 3).

    Returns:
        uint8 (H, W, 3).
    """
    known = (labels >= 0) & (labels < len(colors))
    color = colors[np.where(known, labels, 0)].astype(np.float32)
    share = np.where(known, OVERLAY, 0.0)[..., None]
    out = (image * (1 - share) + color * share).astype(np.uint8)
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    out[edge] = _BOUNDARY
    return out


def matched_colors(num_groups, matching, num_classes):
    """Colours of groups: of its class where a group has one, its own elsewhere.

    Args:
        num_groups: Number of groups.
        matching: Dict of group to class.
        num_classes: Number of classes; their colours are `label_colors(num_classes)`.

    Returns:
        uint8 (num_groups, 3).
    """
    colors = label_colors(num_classes + num_groups)
    return np.array(
        [
            colors[matching[g]] if g in matching else colors[num_classes + g]
            for g in range(num_groups)
        ]
    )


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


def picture_of(model, images):
    """The teacher's slots on images, as one picture uint8 (height, width, 3)."""
    canvas = FigureCanvasAgg(slots_figure(images, predict_groups(model, images)))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
