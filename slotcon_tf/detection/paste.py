"""Pasting: a detection's small mask on the pixels of its image.

NumPy only: clients of a server do it.
"""

from __future__ import annotations

import numpy as np

THRESHOLD = 0.5


def paste_masks(
    probabilities: np.ndarray,
    boxes: np.ndarray,
    height: int,
    width: int,
    threshold: float = THRESHOLD,
) -> np.ndarray:
    """Masks of an image's size: the small ones stretched over their boxes.

    A pixel's centre takes the bilinear mean of the small mask, whose cells have their
    centres at (i + 0.5) / m of the box, with zeros around it.

    Args:
        probabilities: (D, m, m) in [0, 1].
        boxes: (D, 4), x1, y1, x2, y2 in the image's pixels.
        height, width: Of the image.
        threshold: Pixels of so much and more are the object's.

    Returns:
        bool (D, height, width).

    Example:
        >>> mask = paste_masks(np.ones((1, 2, 2)), np.array([[1, 0, 3, 2]]), 2, 4)
        >>> mask.astype(int).tolist()
        [[[0, 1, 1, 0], [0, 1, 1, 0]]]

    Reference: detectron2's paste_masks_in_image.
    """
    pasted = np.zeros((len(boxes), height, width), bool)
    for mask, found, box in zip(pasted, probabilities, boxes, strict=True):
        rows, columns, within = pasted_within(found, box, height, width, threshold)
        mask[rows, columns] = within
    return pasted


def pasted_within(
    probabilities: np.ndarray,
    box: np.ndarray,
    height: int,
    width: int,
    threshold: float = THRESHOLD,
) -> tuple[slice, slice, np.ndarray]:
    """The part of an image that one of `paste_masks` reaches, and the mask there.

    Args:
        probabilities: (m, m).
        box: (4,).
        height, width, threshold: As of `paste_masks`.

    Returns:
        Tuple of slices of rows and of columns, and bool (rows, columns).

    Example:
        >>> rows, columns, mask = pasted_within(np.ones((2, 2)), [1, 0, 3, 2], 2, 9)
        >>> rows, columns, mask.astype(int).tolist()
        (slice(0, 2, None), slice(0, 4, None), [[0, 1, 1, 0], [0, 1, 1, 0]])
    """
    x, columns = _weights(box[0], box[2], probabilities.shape[1], width)
    y, rows = _weights(box[1], box[3], probabilities.shape[0], height)
    return y, x, rows @ probabilities @ columns.T >= threshold


def _weights(low, high, cells, pixels):
    """The pixels that the cells reach, and the weights (pixels, cells) there."""
    side = high - low
    margin = side / cells  # a cell reaches its neighbours' centres
    if not (np.isfinite(side) and side > 0):
        return slice(0, 0), np.zeros((0, cells))
    first = int(np.clip(np.floor(low - margin), 0, pixels))
    last = int(np.clip(np.ceil(high + margin), first, pixels))
    centres = np.arange(first, last) + 0.5
    places = (centres - low) / side * cells - 0.5
    weights = np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0)
    return slice(first, last), weights
