"""Pictures of what a detector found, beside what is true."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from slotcon_tf.detection.inference import Found
from slotcon_tf.detection.paste import paste_masks
from slotcon_tf.visualize.detections import (
    EDGE,
    LEAST_EDGE,
    Objects,
    objects_overlay,
    polygon_masks,
    side_by_side,
    write_png,
)
from slotcon_tf.visualize.overlays import fit_edge

if TYPE_CHECKING:
    from slotcon_tf.data.objects import Annotation

SHOWN_SCORE = 0.5  # less certain ones are left out of pictures
TITLES = ("truth", "found")


def certain(found: Found, min_score: float = SHOWN_SCORE) -> Found:
    """Those of a score and more, or the best one alone: its score tells.

    Example:
        >>> found = Found(np.zeros((2, 4)), np.array([0.4, 0.2]), np.array([0, 1]))
        >>> len(certain(found)), len(certain(found, 0.1))
        (1, 2)
    """
    return found.above(min(min_score, float(found.scores.max(initial=0))))


def draw_found(
    image: np.ndarray,
    found: Found,
    class_names: Sequence[str],
    *,
    min_score: float = SHOWN_SCORE,
    edge: int = EDGE,
) -> np.ndarray:
    """An image of any size with what was found in it, at a size to look at.

    Args:
        image: uint8 (height, width, 3).
        found: `Found`, in its pixels.
        class_names: Names of the classes.
        min_score: Of `certain`.
        edge: Longer edge of the picture, pixels.

    Returns:
        uint8 (h, w, 3).

    Example:
        >>> box = np.array([[10.0, 10, 50, 30]])
        >>> found = Found(box, np.array([0.9]), np.array([0]), np.ones((1, 28, 28)))
        >>> draw_found(np.zeros((60, 80, 3), np.uint8), found, ("cat",)).shape
        (360, 480, 3)
    """
    shown = certain(found, min_score)
    picture = fit_edge(image, edge, min(edge, LEAST_EDGE))
    boxes = shown.boxes * _scale(picture, *image.shape[:2])
    masks = None
    if shown.masks is not None:
        masks = paste_masks(shown.masks, boxes, *picture.shape[:2])
    objects = Objects(boxes, shown.classes, masks, shown.scores)
    return objects_overlay(picture, objects, class_names)


def draw_true(
    image: np.ndarray,
    annotation: Annotation,
    class_names: Sequence[str],
    *,
    edge: int = EDGE,
) -> np.ndarray:
    """The same of an image's true objects.

    Args:
        image: uint8 (height, width, 3).
        annotation: `Annotation`.
        class_names, edge: As of `draw_found`.

    Returns:
        uint8 (h, w, 3).

    Example:
        >>> import types
        >>> corners = np.array([[10.0, 10], [50, 10], [30, 30]])
        >>> about = types.SimpleNamespace(
        ...     height=60, width=80, boxes=np.array([[10.0, 10, 50, 30]]),
        ...     classes=np.array([0]), polygons=[[corners]],
        ... )
        >>> draw_true(np.zeros((60, 80, 3), np.uint8), about, ("cat",)).shape
        (360, 480, 3)
    """
    picture = fit_edge(image, edge, min(edge, LEAST_EDGE))
    scale = _scale(picture, annotation.height, annotation.width)
    masks = None
    if any(annotation.polygons):
        polygons = [[p * scale[:2] for p in parts] for parts in annotation.polygons]
        masks = polygon_masks(polygons, *picture.shape[:2])
    objects = Objects(annotation.boxes * scale, annotation.classes, masks)
    return objects_overlay(picture, objects, class_names)


def _scale(picture, height, width):
    """Of x, y, x, y."""
    return np.array([picture.shape[1] / width, picture.shape[0] / height] * 2)


def detections_picture(
    shown: Iterable[tuple[np.ndarray, Annotation, Found]],
    class_names: Sequence[str],
    min_score: float = SHOWN_SCORE,
) -> np.ndarray:
    """Images with their true objects, each beside what was found in it.

    Args:
        shown: Tuples of an image uint8 (height, width, 3), its `Annotation` and
            `Found`.
        class_names: Names of the classes.
        min_score: As of `draw_found`.

    Returns:
        uint8 (h, w, 3), a row for each image.

    Example:
        >>> import types
        >>> nothing = np.zeros((0, 4)), np.zeros(0, int)
        >>> found = Found(nothing[0], np.zeros(0), nothing[1])
        >>> about = types.SimpleNamespace(
        ...     height=60, width=80, boxes=nothing[0], classes=nothing[1], polygons=[]
        ... )
        >>> image = np.zeros((60, 80, 3), np.uint8)
        >>> detections_picture([(image, about, found)], ("cat",)).shape
        (410, 970, 3)
    """
    rows = [
        (
            draw_true(image, annotation, class_names),
            draw_found(image, found, class_names, min_score=min_score),
        )
        for image, annotation, found in shown
    ]
    return side_by_side(rows, TITLES)


def save_detections(
    path: str | pathlib.Path,
    shown: Iterable[tuple[np.ndarray, Annotation, Found]],
    class_names: Sequence[str],
    min_score: float = SHOWN_SCORE,
) -> None:
    """Writes `detections_picture` as a PNG file, whole or not at all.

    Example:
        >>> import types
        >>> nothing = np.zeros((0, 4)), np.zeros(0, int)
        >>> found = Found(nothing[0], np.zeros(0), nothing[1])
        >>> about = types.SimpleNamespace(
        ...     height=60, width=80, boxes=nothing[0], classes=nothing[1], polygons=[]
        ... )
        >>> image = np.zeros((60, 80, 3), np.uint8)
        >>> save_detections("detections.png", [(image, about, found)], ("cat",))
        >>> pathlib.Path("detections.png").exists()
        True
    """
    write_png(path, detections_picture(shown, class_names, min_score=min_score))
