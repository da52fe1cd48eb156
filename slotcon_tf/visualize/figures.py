"""Figures: images, true masks and groups or predictions side by side."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from slotcon_tf.evaluation.groups import predict_groups
from slotcon_tf.files import written_whole
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.visualize.colors import label_colors, matched_colors
from slotcon_tf.visualize.overlays import overlay

_CELL = 2.4  # inches, a column
_LEGEND_COLUMNS = 7


def slots_figure(
    images: Sequence[np.ndarray] | np.ndarray,
    groups: np.ndarray,
    masks: np.ndarray | None = None,
    *,
    class_names: Sequence[str] = (),
    matching: Mapping[int, int] | None = None,
) -> Figure:
    """A row per image: the image, its true mask if known, and its groups.

    Args:
        images: uint8 (N, H, W, 3).
        groups: int (N, H, W) of prototype ids.
        masks: int (N, H, W) of class ids, or None.
        class_names: Names of the classes, for the legend.
        matching: Dict of group to class; matched groups take the class's colour.

    Returns:
        A matplotlib Figure.

    Example:
        >>> images = np.zeros((2, 8, 8, 3), np.uint8)
        >>> figure = slots_figure(images, np.zeros((2, 8, 8), int))
        >>> len(figure.axes)  # image and groups of either
        4
    """
    num_groups = int(groups.max()) + 1
    columns: list[tuple[str, Any, Any]] = [("image", None, None)]
    if masks is None:
        columns.append(("groups", groups, label_colors(num_groups)))
    else:
        num_classes = len(class_names) or int(masks.max()) + 1
        columns.append(("true categories", masks, label_colors(num_classes)))
        colors = matched_colors(num_groups, matching or {}, num_classes)
        columns.append(("groups", groups, colors))
    rows = [
        [
            image if labels is None else overlay(image, labels[row], colors)
            for _, labels, colors in columns
        ]
        for row, image in enumerate(images)
    ]
    titles = [title for title, _, _ in columns]
    legend = zip(class_names, label_colors(len(class_names)), strict=True)
    return _picture_grid(rows, titles, list(legend))


def _picture_grid(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    legend: Sequence[tuple[str, np.ndarray]] = (),
) -> Figure:
    """Pictures in rows, with titles above the columns and a legend below.

    Args:
        rows: Lists of uint8 (H, W, 3); all pictures of a row have one size.
        titles: Of the columns.
        legend: List of (name, colour uint8 (3,)).

    Returns:
        A matplotlib Figure.
    """
    heights = [_CELL * row[0].shape[0] / row[0].shape[1] for row in rows]
    below = 0.3 + 0.2 * -(-len(legend) // _LEGEND_COLUMNS)
    size = (_CELL * len(titles), sum(heights) + 0.3 + below)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(
        len(rows),
        len(titles),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for places, pictures in zip(axes, rows, strict=True):
        for place, picture in zip(places, pictures, strict=True):
            place.imshow(picture, interpolation="nearest")
            place.set_axis_off()
    for place, title in zip(axes[0], titles, strict=True):
        place.set_title(title, fontsize=9)
    if legend:
        figure.legend(
            handles=[Patch(color=color / 255.0, label=name) for name, color in legend],  # pyright: ignore[reportArgumentType]
            loc="outside lower center",
            ncols=_LEGEND_COLUMNS,
            fontsize=7,
            frameon=False,
        )
    return figure


def save_slots(path: str | pathlib.Path, *args: Any, **options: Any) -> None:
    """Writes `slots_figure(*args, **options)` to a picture file.

    Example:
        >>> import tempfile
        >>> images = np.zeros((1, 8, 8, 3), np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture = pathlib.Path(folder) / "slots.png"
        ...     save_slots(picture, images, np.zeros((1, 8, 8), int))
        ...     picture.exists()
        True
    """
    write_figure(path, slots_figure(*args, **options))


def picture_of(model: SlotCon, images: np.ndarray) -> np.ndarray:
    """The teacher's groups on images, as one picture.

    Args:
        model: A `SlotCon`.
        images: uint8 (N, H, W, 3).

    Returns:
        uint8 (height, width, 3).

    Example:
        >>> from slotcon_tf import SlotCon, backbone
        >>> encoder = backbone("resnet10", width=8)
        >>> model = SlotCon(
        ...     encoder, total_steps=1, num_prototypes=4, hidden_dim=8, projection_dim=4
        ... )
        >>> picture_of(model, np.zeros((1, 32, 32, 3), np.uint8)).shape[-1]
        3
    """
    return figure_pixels(slots_figure(images, predict_groups(model, images)))


def write_figure(path: str | os.PathLike[str], figure: Figure) -> None:
    """Writes a matplotlib Figure to a picture file, whole or not at all.

    Example:
        >>> write_figure("empty.png", Figure())
        >>> pathlib.Path("empty.png").exists()
        True
    """
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=150)


def figure_pixels(figure: Figure) -> np.ndarray:
    """A matplotlib Figure as uint8 (height, width, 3).

    Example:
        >>> figure_pixels(Figure(figsize=(2, 1), dpi=50)).shape
        (50, 100, 3)
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def masks_figure(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    class_names: Sequence[str],
) -> Figure:
    """A row per image, of any size: the image, its true classes, its predicted ones.

    Args:
        images: List of uint8 (H, W, 3).
        truths, predictions: Lists of integers (H, W); ids that are no class (void)
            leave the image as it is.
        class_names: Names of the classes. The legend shows those that occur.

    Returns:
        A matplotlib Figure.

    Example:
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> labels = np.arange(48 * 64).reshape(48, 64) % 2
        >>> figure = masks_figure([image], [labels], [labels], ("sky", "road", "car"))
        >>> [label.get_text() for label in figure.legends[0].get_texts()]
        ['sky', 'road']
    """
    colors = label_colors(len(class_names))
    rows = [
        [image, *(overlay(image, np.asarray(m, np.int64), colors) for m in maps)]
        for image, *maps in zip(images, truths, predictions, strict=True)
    ]
    seen = np.unique(np.concatenate([np.ravel(m) for m in (*truths, *predictions)]))
    legend = [(str(class_names[c]), colors[c]) for c in seen if c < len(class_names)]
    return _picture_grid(rows, ("image", "truth", "prediction"), legend)


def save_masks(path: str | pathlib.Path, *args: Any) -> None:
    """Writes `masks_figure(*args)` to a picture file.

    Example:
        >>> images = np.zeros((1, 48, 64, 3), np.uint8)
        >>> labels = np.arange(3072).reshape(1, 48, 64) % 2
        >>> save_masks("masks.png", images, labels, labels, ("sky", "road"))
        >>> pathlib.Path("masks.png").exists()
        True
    """
    write_figure(path, masks_figure(*args))
