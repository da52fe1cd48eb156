"""What is to be found in an image that was resized and flipped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import logging

from slotcon_tf.data.objects import Annotation
from slotcon_tf.data.objects.outlines import fewer_corners

_MIN_SIDE = 1e-5  # pixels; an object of a thinner box is left out


def moved_objects(
    annotation: Annotation, height: int, width: int, flipped: bool
) -> tuple[np.ndarray, np.ndarray, list[list[np.ndarray]]]:
    """Boxes, classes and polygons of a resized image.

    Boxes are cut at the image's edges, polygons are not. What has no box then is left
    out.

    Args:
        annotation: Of the image as it is stored.
        height, width: Of the resized image.
        flipped: Whether left and right change places: x becomes width - x.

    Returns:
        Tuple of float64 (n, 4), int32 (n,) and a list of lists of float64 (k, 2).

    Example:
        >>> box, corners = np.array([[1.0, 0, 9, 2]]), [[np.array([[1.0, 0], [8, 2]])]]
        >>> truth = Annotation(1, "a.jpg", 6, 8, box, np.zeros(1, np.int32), corners)
        >>> boxes, _, polygons = moved_objects(truth, 3, 4, flipped=True)
        >>> boxes.tolist(), polygons[0][0].tolist()
        ([[0.0, 0.0, 3.5, 1.0]], [[3.5, 0.0], [0.0, 1.0]])

    Reference: detectron2's transform_instance_annotations.
    """
    scale = np.array([width / annotation.width, height / annotation.height])

    def moved(corners):  # (..., 2)
        corners = corners * scale
        if flipped:
            corners[..., 0] = width - corners[..., 0]
        return corners

    corners = moved(annotation.boxes.reshape(-1, 2, 2))  # (n, corner, x y)
    corners = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    boxes = np.clip(corners, 0, [width, height, width, height])
    kept = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] > _MIN_SIDE).all(1))
    polygons = [[moved(p) for p in annotation.polygons[i]] for i in kept]
    return boxes[kept], annotation.classes[kept], polygons


def largest_objects(
    boxes: np.ndarray, classes: np.ndarray, polygons: list[list[np.ndarray]], most: int
) -> tuple[np.ndarray, np.ndarray, list[list[np.ndarray]]]:
    """At most so many objects, those of the largest boxes, in their order.

    Args:
        boxes, classes, polygons: As `moved_objects` returns them.
        most: Objects.

    Example:
        >>> boxes = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 3, 3]])
        >>> largest_objects(boxes, np.arange(3), [[], [], []], 2)[1]
        array([0, 2])
    """
    if len(boxes) <= most:
        return boxes, classes, polygons
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept = np.sort(np.argsort(-areas, kind="stable")[:most])
    return boxes[kept], classes[kept], [polygons[i] for i in kept]


def limited_corners(
    polygons: list[list[np.ndarray]], most: int, annotation: Annotation
) -> list[list[np.ndarray]]:
    """Polygons of objects with at most so many corners each; the first time it tells.

    Args:
        polygons: Of each object.
        most: Corners of an object.
        annotation: Of the image, for the message.

    Example: See `fewer_corners`.
        >>> truth = Annotation(1, "a.jpg", 6, 8, np.zeros((1, 4)), np.zeros(1), [[]])
        >>> limited_corners([[np.zeros((3, 2))]], 8, truth)[0][0].shape
        (3, 2)
    """
    if all(sum(map(len, own)) <= most for own in polygons):
        return polygons
    logging.log_first_n(
        logging.WARNING,
        "Polygons of more than %d corners are thinned out, as in %s. A larger "
        "max_corners keeps them, for more memory.",
        1,
        most,
        annotation.file_name,
    )
    return [fewer_corners(own, most) for own in polygons]


def edges_of(
    polygons: Sequence[Sequence[np.ndarray]], length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polygons of objects as the edges that `mask_targets` takes.

    Args:
        polygons: Of each of n objects, float64 (k, 2) each.
        length: E, edges of an object at least.

    Returns:
        Tuple of starts and ends float64 (n, E, 2), parts int32 (n, E).

    Example:
        >>> starts, ends, parts = edges_of([[np.array([[1, 0], [2, 0], [2, 3]])]], 4)
        >>> starts[0].tolist()
        [[1.0, 0.0], [2.0, 0.0], [2.0, 3.0], [0.0, 0.0]]
        >>> ends[0].tolist()
        [[2.0, 0.0], [2.0, 3.0], [1.0, 0.0], [0.0, 0.0]]
    """
    starts, ends = np.zeros((2, len(polygons), length, 2))
    parts = np.zeros((len(polygons), length), np.int32)
    for number, own in enumerate(polygons):
        first = 0
        for part, corners in enumerate(own):
            here = number, slice(first, first + len(corners))
            starts[here], ends[here] = corners, np.roll(corners, -1, axis=0)
            parts[here] = part
            first += len(corners)
    return starts, ends, parts
