"""Views without an upright: turned upside down and by quarters, each by itself.

A view that was cut by `crops` goes through a horizontal flip, a vertical flip and up to
three quarter turns. Any such chain is a transposition or none, then a horizontal flip
or none (`flipped`), then a vertical flip or none (`upended`): three bits, which
`alignment.align` undoes. A quarter turn counter-clockwise is a transposition, then a
vertical flip. Overlaps are boxes in the frame of the finished view, as in `crops`.
"""

import numpy as np

from slotcon_tf.data.crops import (
    FLIP_PROBABILITY,
    NUMBERS_PER_PAIR,
    overlap_boxes,
    random_crop_pair,
)
from slotcon_tf.data.resize import resize_crop

UPEND_PROBABILITY = 0.5


def turned_views(image, numbers, image_size, min_scale, turns):
    """`crops.crop_views`, with views that are turned as well.

    Args:
        image, numbers, image_size, min_scale: As there.
        turns: float (2, 2) in [0, 1], from `recipe.draw_turns`.

    Returns:
        Views uint8 (2, image_size, image_size, 3), overlaps float32 (2, 4), and bool
        (2,) flipped, upended and transposed.
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
