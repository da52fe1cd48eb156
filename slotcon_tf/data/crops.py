"""Two random crops of one image, and where they overlap.

Frames: pixels of the image, x to the right, y down. A box is int32
(top, left, height, width). Overlaps are float32 (x_min, y_min, x_max, y_max) in
[0, 1] of a crop, after its flip; crops that do not meet give an inverted box, whose
x_min exceeds x_max or y_min exceeds y_max.

Reference: torchvision's RandomResizedCrop.get_params; the original's
data/transforms.py (CVMI-Lab/SlotCon).
"""

import math

import tensorflow as tf

TRIES = 10
LOG_ASPECT = (math.log(3 / 4), math.log(4 / 3))
MIN_OVERLAP = 0.01  # share of the second crop's area


def crop_candidates(size, seed, min_scale, max_scale=1.0):
    """`TRIES` random boxes, of which some may not fit into the image.

    Args:
        size: int32 (height, width) of the image.
        seed: int32 (2,).
        min_scale, max_scale: Area of a box, as a share of the image's.

    Returns:
        Tuple of boxes int32 (TRIES, 4) and fits bool (TRIES,).
    """
    seeds = tf.random.split(seed, 3)
    height, width = tf.cast(size[0], tf.float32), tf.cast(size[1], tf.float32)
    area = (
        height
        * width
        * tf.random.stateless_uniform([TRIES], seeds[0], min_scale, max_scale)
    )
    aspect = tf.exp(tf.random.stateless_uniform([TRIES], seeds[1], *LOG_ASPECT))
    w = tf.cast(tf.round(tf.sqrt(area * aspect)), tf.int32)
    h = tf.cast(tf.round(tf.sqrt(area / aspect)), tf.int32)
    fits = (w > 0) & (h > 0) & (h <= size[0]) & (w <= size[1])
    place = tf.random.stateless_uniform([2, TRIES], seeds[2])
    # Uniform over the whole pixels 0 .. size - h, both ends included.
    top = _whole(place[0], size[0] - h)
    left = _whole(place[1], size[1] - w)
    return tf.stack([top, left, h, w], axis=1), fits


def _whole(uniform, last):
    value = tf.cast(uniform * tf.cast(last + 1, tf.float32), tf.int32)
    return tf.clip_by_value(value, 0, tf.maximum(last, 0))


def central_crop(size):
    """The fallback: the largest central box with an aspect between 3/4 and 4/3."""
    height, width = size[0], size[1]
    h, w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    ratio = w / h
    narrow = tf.minimum(height, tf.cast(tf.round(w / (3 / 4)), tf.int32))
    wide = tf.minimum(width, tf.cast(tf.round(h * (4 / 3)), tf.int32))
    out_h = tf.where(ratio < 3 / 4, narrow, height)
    out_w = tf.where(ratio > 4 / 3, wide, width)
    return tf.stack([(height - out_h) // 2, (width - out_w) // 2, out_h, out_w])


def random_crop(size, seed, min_scale):
    """One box: the first of ten tries that fits, else the central crop."""
    boxes, fits = crop_candidates(size, seed, min_scale)
    first = tf.argmax(tf.cast(fits, tf.int32))  # the first of equals
    return tf.where(tf.reduce_any(fits), boxes[first], central_crop(size))


def random_crop_pair(size, seed, min_scale):
    """Two boxes; the second covers at least 1% of its own area inside the first.

    Each of the second's ten tries must fit into the image *and* meet the first crop;
    if none does, it is drawn anew as `random_crop` draws, without the condition.

    Args:
        size: int32 (height, width).
        seed: int32 (2,).
        min_scale: Smallest area of a crop, as a share of the image's.

    Returns:
        Boxes int32 (2, 4).
    """
    seeds = tf.random.split(seed, 3)
    first = random_crop(size, seeds[0], min_scale)
    boxes, fits = crop_candidates(size, seeds[1], min_scale)
    area = tf.cast(boxes[:, 2] * boxes[:, 3], tf.float32)
    shared = tf.cast(_intersection_area(first[None], boxes), tf.float32)
    good = fits & (shared >= MIN_OVERLAP * area)
    chosen = boxes[tf.argmax(tf.cast(good, tf.int32))]
    anyway = random_crop(size, seeds[2], min_scale)
    return tf.stack([first, tf.where(tf.reduce_any(good), chosen, anyway)])


def _intersection_area(a, b):
    height = tf.minimum(a[:, 0] + a[:, 2], b[:, 0] + b[:, 2]) - tf.maximum(
        a[:, 0], b[:, 0]
    )
    width = tf.minimum(a[:, 1] + a[:, 3], b[:, 1] + b[:, 3]) - tf.maximum(
        a[:, 1], b[:, 1]
    )
    return tf.maximum(height, 0) * tf.maximum(width, 0)


def overlap_boxes(boxes, flipped):
    """The crops' intersection in each crop's own frame, after its flip.

    Args:
        boxes: int32 (2, 4).
        flipped: bool (2,).

    Returns:
        float32 (2, 4).
    """
    boxes = tf.cast(boxes, tf.float32)
    top, left = boxes[:, 0], boxes[:, 1]
    height, width = boxes[:, 2], boxes[:, 3]
    x_min, y_min = tf.reduce_max(left), tf.reduce_max(top)
    x_max, y_max = tf.reduce_min(left + width), tf.reduce_min(top + height)
    x0, x1 = (x_min - left) / width, (x_max - left) / width
    y0, y1 = (y_min - top) / height, (y_max - top) / height
    x0, x1 = tf.where(flipped, 1 - x1, x0), tf.where(flipped, 1 - x0, x1)
    return tf.stack([x0, y0, x1, y1], axis=1)
