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
    cells = np.pad(probabilities, 1)  # zeros around
    x, left, right = _between(box[0], box[2], probabilities.shape[1], width)
    y, above, below = _between(box[1], box[3], probabilities.shape[0], height)
    # No products of matrices: for these few numbers their threads cost ten times more.
    rows = cells[above[0]] * above[1] + cells[below[0]] * below[1]  # (rows, m + 2)
    rows = np.ascontiguousarray(rows.T)
    mask = rows[left[0]] * left[1] + rows[right[0]] * right[1]  # (columns, rows)
    return y, x, (mask >= threshold).T


def _between(low, high, cells, pixels):
    """The pixels that the cells reach, and the cells on both sides of each.

    Of a cell: its number, counted from the zeros before the first, and its share.
    """
    side = high - low
    margin = side / cells  # a cell reaches its neighbours' centres
    if not (np.isfinite(side) and side > 0):
        nothing = np.zeros(0, int), np.zeros((0, 1))
        return slice(0, 0), nothing, nothing
    first = int(np.clip(np.floor(low - margin), 0, pixels))
    last = int(np.clip(np.ceil(high + margin), first, pixels))
    centres = np.arange(first, last) + 0.5
    places = np.clip((centres - low) / side * cells + 0.5, 0, cells + 1)
    before = np.minimum(places.astype(int), cells)
    share = (places - before)[:, None]
    return slice(first, last), (before, 1 - share), (before + 1, share)
