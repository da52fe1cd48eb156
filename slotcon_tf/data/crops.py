"""Two random crops of one image: their boxes, where they overlap, their pixels.

Frames: pixels of the image, x to the right, y down. A box is int (top, left, height,
width). Overlaps are float32 (x_min, y_min, x_max, y_max) in [0, 1] of a crop, after its
flip; crops that do not meet give an inverted box, whose x_min exceeds x_max or y_min
exceeds y_max.

Compiled by Numba and free of Python's global lock, so that the threads of tf.data run
side by side. The random numbers come from outside: everything here is a pure function.

Reference: torchvision's RandomResizedCrop.get_params; the original's
data/transforms.py (CVMI-Lab/SlotCon).
"""

import math

import numpy as np

from slotcon_tf.data.compiled import compiled
from slotcon_tf.data.resize import resize_crop

TRIES = 10
NUMBERS_PER_CROP = 4 * TRIES
# The first crop, the second's tries, the second without condition, two flips.
NUMBERS_PER_PAIR = 3 * NUMBERS_PER_CROP + 2
MIN_LOG_ASPECT, MAX_LOG_ASPECT = math.log(3 / 4), math.log(4 / 3)
MIN_OVERLAP = 0.01  # share of the second crop's area
FLIP_PROBABILITY = 0.5


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
def central_crop(height, width):
    """The fallback: the largest central box with an aspect between 3/4 and 4/3."""
    h, w = height, width
    if width / height < 3 / 4:
        h = min(height, int(round(width / (3 / 4))))
    elif width / height > 4 / 3:
        w = min(width, int(round(height * (4 / 3))))
    return (height - h) // 2, (width - w) // 2, h, w


@compiled()
def random_crop(height, width, numbers, min_scale):
    """One box: the first of ten tries that fits, else the central crop."""
    for i in range(TRIES):
        box = _candidate(height, width, numbers[4 * i : 4 * i + 4], min_scale)
        if box[2] > 0:
            return box
    return central_crop(height, width)


@compiled()
def random_crop_pair(height, width, numbers, min_scale):
    """Two boxes; the second covers at least 1% of its own area inside the first.

    Each of the second's ten tries must fit into the image *and* meet the first crop;
    if none does, it is drawn anew as `random_crop` draws, without the condition.

    Args:
        height, width: Of the image, pixels.
        numbers: float (3 * NUMBERS_PER_CROP,), uniform in [0, 1).
        min_scale: Smallest area of a crop, as a share of the image's.

    Returns:
        Boxes int64 (2, 4).
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
def overlap_boxes(boxes, flipped):
    """The crops' intersection in each crop's own frame, after its flip.

    Args:
        boxes: int (2, 4).
        flipped: bool (2,).

    Returns:
        float32 (2, 4).
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


def crop_views(image, numbers, image_size, min_scale):
    """Two views of an image before their colours are changed.

    Args:
        image: uint8 (height, width, 3), contiguous.
        numbers: float (NUMBERS_PER_PAIR,), uniform in [0, 1).
        image_size: Edge of the views, pixels.
        min_scale: Smallest area of a crop, as a share of the image's.

    Returns:
        Views uint8 (2, image_size, image_size, 3), overlaps float32 (2, 4) and flipped
        bool (2,).
    """
    height, width = image.shape[0], image.shape[1]
    boxes = random_crop_pair(height, width, numbers, min_scale)
    flipped = numbers[NUMBERS_PER_PAIR - 2 : NUMBERS_PER_PAIR] < FLIP_PROBABILITY
    views = np.empty((2, image_size, image_size, 3), np.uint8)
    for i in range(2):
        resize_crop(image, boxes[i], flipped[i], views[i])
    return views, overlap_boxes(boxes, flipped), flipped
