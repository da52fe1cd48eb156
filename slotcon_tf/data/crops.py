"""Two random crops of one image: their boxes, where they overlap, their pixels.

Frames: pixels of the image, x to the right, y down. A box is int (top, left, height,
width). Overlaps are float32 (x_min, y_min, x_max, y_max) in [0, 1] of a crop, after its
flip; crops that do not meet give an inverted box, whose x_min exceeds x_max or y_min
exceeds y_max.

Compiled by Numba and free of Python's global lock, so that the threads of tf.data run
side by side. The random numbers come from outside: all here are pure functions.

Views without an upright (`turned_views`) also go through a vertical flip and up to
three quarter turns. Any such chain is a transposition or none, then a horizontal flip
or none (`flipped`), then a vertical flip or none (`upended`): three bits, which
`slotcon_tf.method` undoes. A quarter turn counter-clockwise is a transposition, then a
vertical flip.

Reference: torchvision's RandomResizedCrop.get_params; the original's
data/transforms.py (CVMI-Lab/SlotCon).
"""

from __future__ import annotations

import math

import numpy as np

from slotcon_tf.data.resize import compiled, resize_crop

TRIES = 10
NUMBERS_PER_CROP = 4 * TRIES
# The first crop, the second's tries, the second without condition, two flips.
NUMBERS_PER_PAIR = 3 * NUMBERS_PER_CROP + 2
MIN_LOG_ASPECT, MAX_LOG_ASPECT = math.log(3 / 4), math.log(4 / 3)
MIN_OVERLAP = 0.01  # share of the second crop's area
FLIP_PROBABILITY = UPEND_PROBABILITY = 0.5


@compiled()
def _candidate(height, width, numbers, min_scale):
    """A random box; height 0 if it does not fit into the image."""
    area = height * width * (min_scale + (1.0 - min_scale) * numbers[0])
    aspect = math.exp(MIN_LOG_ASPECT + (MAX_LOG_ASPECT - MIN_LOG_ASPECT) * numbers[1])
    w = int(round(math.sqrt(area * aspect)))
    h = int(round(math.sqrt(area / aspect)))
    if not (0 < w <= width and 0 < h <= height):
        return 0, 0, 0, 0
    # Uniform over the whole pixels 0 .. height - h, both ends included.
    top = min(int(numbers[2] * (height - h + 1)), height - h)
    left = min(int(numbers[3] * (width - w + 1)), width - w)
    return top, left, h, w


@compiled()
def central_crop(height: int, width: int) -> tuple[int, int, int, int]:
    """The fallback: the largest central box with an aspect between 3/4 and 4/3.

    Example:
        >>> central_crop(300, 600)
        (0, 100, 300, 400)
    """
    h, w = height, width
    if width / height < 3 / 4:
        h = min(height, int(round(width / (3 / 4))))
    elif width / height > 4 / 3:
        w = min(width, int(round(height * (4 / 3))))
    return (height - h) // 2, (width - w) // 2, h, w


@compiled()
def random_crop(
    height: int, width: int, numbers: np.ndarray, min_scale: float
) -> tuple[int, int, int, int]:
    """One box: the first of ten tries that fits, else the central crop.

    Args:
        height, width: Of the image, pixels.
        numbers: float (NUMBERS_PER_CROP,), uniform in [0, 1).
        min_scale: Smallest area of a crop, as a share of the image's.

    Example:
        >>> random_crop(100, 100, np.full(NUMBERS_PER_CROP, 0.5), 0.08)
        (14, 14, 73, 73)
    """
    for i in range(TRIES):
        box = _candidate(height, width, numbers[4 * i : 4 * i + 4], min_scale)
        if box[2] > 0:
            return box
    return central_crop(height, width)


@compiled()
def random_crop_pair(
    height: int, width: int, numbers: np.ndarray, min_scale: float
) -> np.ndarray:
    """Two boxes; the second covers at least 1% of its own area inside the first.

    Each of the second's ten tries must fit into the image *and* meet the first crop;
    if none does, it is drawn anew as `random_crop` draws, without the condition.

    Args:
        height, width: Of the image, pixels.
        numbers: float (3 * NUMBERS_PER_CROP,), uniform in [0, 1).
        min_scale: Smallest area of a crop, as a share of the image's.

    Returns:
        Boxes int64 (2, 4).

    Example:
        >>> random_crop_pair(100, 100, np.full(NUMBERS_PER_PAIR, 0.5), 0.08)
        array([[14, 14, 73, 73],
               [14, 14, 73, 73]])
    """
    boxes = np.empty((2, 4), np.int64)
    n = NUMBERS_PER_CROP
    first = random_crop(height, width, numbers[:n], min_scale)
    boxes[0] = first
    for i in range(TRIES):
        start = n + 4 * i
        box = _candidate(height, width, numbers[start : start + 4], min_scale)
        if box[2] > 0 and _shared(first, box) >= MIN_OVERLAP * box[2] * box[3]:
            boxes[1] = box
            return boxes
    boxes[1] = random_crop(height, width, numbers[2 * n : 3 * n], min_scale)
    return boxes


@compiled()
def _shared(a, b):
    """Pixels that lie in both boxes."""
    height = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    width = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(height, 0) * max(width, 0)


@compiled()
def overlap_boxes(boxes: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """The crops' intersection in each crop's own frame, after its flip.

    Args:
        boxes: int (2, 4).
        flipped: bool (2,).

    Returns:
        float32 (2, 4).

    Example:
        >>> boxes = np.array([[0, 0, 10, 10], [0, 5, 10, 10]])
        >>> overlap_boxes(boxes, np.array([False, False])).tolist()
        [[0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0]]
    """
    overlaps = np.empty((2, 4), np.float32)
    one = np.float32(1.0)
    y_min, x_min = max(boxes[0, 0], boxes[1, 0]), max(boxes[0, 1], boxes[1, 1])
    y_max = min(boxes[0, 0] + boxes[0, 2], boxes[1, 0] + boxes[1, 2])
    x_max = min(boxes[0, 1] + boxes[0, 3], boxes[1, 1] + boxes[1, 3])
    for i in range(2):
        top, left = boxes[i, 0], boxes[i, 1]
        height, width = np.float32(boxes[i, 2]), np.float32(boxes[i, 3])
        x0 = np.float32(x_min - left) / width
        x1 = np.float32(x_max - left) / width
        if flipped[i]:
            x0, x1 = one - x1, one - x0
        overlaps[i, 0], overlaps[i, 2] = x0, x1
        overlaps[i, 1] = np.float32(y_min - top) / height
        overlaps[i, 3] = np.float32(y_max - top) / height
    return overlaps


def crop_views(
    image: np.ndarray, numbers: np.ndarray, image_size: int, min_scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two views of an image before their colours are changed.

    Args:
        image: uint8 (height, width, 3), contiguous.
        numbers: float (NUMBERS_PER_PAIR,), uniform in [0, 1).
        image_size: Edge of the views, pixels.
        min_scale: Smallest area of a crop, as a share of the image's.

    Returns:
        Views uint8 (2, image_size, image_size, 3), overlaps float32 (2, 4) and flipped
        bool (2,).

    Example:
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> numbers = np.full(NUMBERS_PER_PAIR, 0.5)
        >>> views, overlaps, flipped = crop_views(image, numbers, 32, 0.08)
        >>> views.shape, overlaps.shape, flipped.shape
        ((2, 32, 32, 3), (2, 4), (2,))
    """
    height, width = image.shape[0], image.shape[1]
    boxes = random_crop_pair(height, width, numbers, min_scale)
    flipped = numbers[NUMBERS_PER_PAIR - 2 : NUMBERS_PER_PAIR] < FLIP_PROBABILITY
    views = np.empty((2, image_size, image_size, 3), np.uint8)
    for i in range(2):
        resize_crop(image, boxes[i], flipped[i], views[i])
    return views, overlap_boxes(boxes, flipped), flipped


def turned_views(
    image: np.ndarray,
    numbers: np.ndarray,
    image_size: int,
    min_scale: float,
    turns: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """As `crop_views`, with views that are turned as well.

    Args:
        image, numbers, image_size, min_scale: As there.
        turns: float (2, 2) in [0, 1], from `recipe.draw_turns`.

    Returns:
        Views uint8 (2, image_size, image_size, 3), overlaps float32 (2, 4), and bool
        (2,) flipped, upended and transposed.

    Example:
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> numbers = np.full(NUMBERS_PER_PAIR, 0.5)
        >>> *_, upended, _ = turned_views(image, numbers, 32, 0.08, np.zeros((2, 2)))
        >>> upended
        array([ True,  True])
    """
    boxes = random_crop_pair(*image.shape[:2], numbers, min_scale)
    mirrored = numbers[NUMBERS_PER_PAIR - 2 : NUMBERS_PER_PAIR] < FLIP_PROBABILITY
    upended, quarters = turns[:, 0] < UPEND_PROBABILITY, (4 * turns[:, 1]).astype(int)
    marks = np.array(
        [_three_bits(*row) for row in zip(mirrored, upended, quarters, strict=True)]
    )
    views = np.empty((2, image_size, image_size, 3), np.uint8)
    upright = np.zeros(2, bool)
    overlaps = overlap_boxes(boxes, upright)
    for i, (flipped, upended, transposed) in enumerate(marks):
        resize_crop(image, boxes[i], False, views[i])
        views[i] = _turned(views[i].copy(), flipped, upended, transposed)
        overlaps[i] = _turned_box(overlaps[i], flipped, upended, transposed)
    return views, overlaps, *np.ascontiguousarray(marks.T)


def _three_bits(mirrored, upended, quarters):
    """A mirrored, then upended, then turned view as (flipped, upended, transposed)."""
    if quarters % 2:  # the transposition lets each flip become the other
        mirrored, upended = upended, mirrored
    return (
        bool(mirrored) ^ (quarters in (2, 3)),
        bool(upended) ^ (quarters in (1, 2)),
        bool(quarters % 2),
    )


def _turned(view, flipped, upended, transposed):
    if transposed:
        view = view.swapaxes(0, 1)
    if flipped:
        view = view[:, ::-1]
    return view[::-1] if upended else view


def _turned_box(box, flipped, upended, transposed):
    x0, y0, x1, y1 = box
    if transposed:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if flipped:
        x0, x1 = 1 - x1, 1 - x0
    if upended:
        y0, y1 = 1 - y1, 1 - y0
    return np.array([x0, y0, x1, y1], np.float32)
