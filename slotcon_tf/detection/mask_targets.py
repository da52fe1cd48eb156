"""Mask targets: polygons filled on the small grid of a proposal, as COCO fills them.

Frame of the grid: cell (row r, column c) covers [c, c + 1] x [r, r + 1] of the box that
is stretched to (0, 0, size, size). COCO's fill walks every edge of a polygon on a grid
five times as fine, and notes where the walk steps over the middle of a column: at that
row the column changes between outside and inside. Only the walk's steps over the
columns of the grid matter, and each is found without walking: on an edge the place
comes from the slope, put right by the very rounding that the walk would have done.

Reference: pycocotools' rleFrPoly (maskApi.c), bit for bit; detectron2's
rasterize_polygons_within_box.
"""

from __future__ import annotations

import tensorflow as tf

from slotcon_tf.types import Tensor

_FINE = 5  # fine cells in a cell, each way
_MIDDLE = 2  # the fine cell of a column whose right border the walk is seen to cross
_MIN_SIDE = 0.1  # pixels; a thinner box is stretched as one of this side


def mask_targets(
    starts: Tensor,
    ends: Tensor,
    parts: Tensor,
    boxes: Tensor,
    size: int,
    num_parts: int | None = None,
) -> Tensor:
    """Masks of objects within boxes, one box for each object.

    Args:
        starts, ends: (R, E, 2), corners x, y in pixels: the edges of the polygons of
            an object. An edge from a corner to itself is none, so that objects of
            fewer edges are padded.
        parts: int32 (R, E), which polygon of its object an edge belongs to, from 0 on.
            What any of them covers is covered.
        boxes: (R, 4) in pixels.
        size: Of the grid, along each edge.
        num_parts: Polygons of an object at most. None: as many as there are; XLA has
            to know it.

    Returns:
        bool (R, size, size). Compiled by XLA, which does not round a product before a
        sum, a line that runs exactly between two cells may fall to the other one.

    Example:
        >>> corners = tf.constant([[[0.0, 0], [4, 0], [4, 2], [0, 2]]])
        >>> parts, box = tf.zeros([1, 4], tf.int32), tf.constant([[0.0, 0, 4, 4]])
        >>> mask = mask_targets(corners, tf.roll(corners, -1, 1), parts, box, 4)
        >>> tf.cast(mask[0], tf.int32).numpy().tolist()
        [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    boxes = tf.cast(boxes, tf.float64)
    scale = size / tf.maximum(boxes[:, 2:] - boxes[:, :2], _MIN_SIDE)  # (R, 2)
    first, last = (
        _fine((tf.cast(x, tf.float64) - boxes[:, None, :2]) * scale[:, None, :])
        for x in (starts, ends)
    )
    crossed, row = _crossings(first, last, size)  # (R, E, size) each
    count: Tensor = tf.reduce_max(parts) + 1 if num_parts is None else num_parts
    return _filled(crossed, row, parts, size, count)


def _fine(corners):
    """Corners on the fine grid; casts cut towards 0, as C does."""
    return tf.cast(_FINE * corners + 0.5, tf.int32)


def _crossings(first, last, size):
    """Whether an edge crosses the middle of a column, and at which row.

    The walk goes a fine cell at a time along the longer axis, from the smaller end on,
    and takes the nearest fine cell of the other. Between two steps that differ in x it
    crosses a border, and is at the smaller y of both.
    """
    apart = tf.abs(last - first)  # (R, E, 2)
    flat = apart[..., 0] >= apart[..., 1]  # walks along x
    turned = tf.where(flat, first[..., 0] > last[..., 0], first[..., 1] > last[..., 1])
    turned = tf.expand_dims(turned, -1)  # (R, E, 1)
    first, last = tf.where(turned, last, first), tf.where(turned, first, last)
    corners: list[Tensor] = [*_xy(first), *_xy(last)]
    x0, y0, x1, y1 = (v[..., None] for v in corners)  # (R, E, 1)
    rise, run = tf.cast(y1 - y0, tf.float64), tf.cast(x1 - x0, tf.float64)
    left = _FINE * tf.range(size) + _MIDDLE  # fine x before the border, (size,)
    crossed = (tf.minimum(x0, x1) <= left) & (left < tf.maximum(x0, x1))

    def at(start, slope, step):
        moved = slope * tf.cast(step, tf.float64)
        return tf.cast(tf.cast(start, tf.float64) + moved + 0.5, tf.int32)

    # Along x: the steps before and after the border are known.
    slope = tf.math.divide_no_nan(rise, run)
    step = left - x0
    along_x = tf.minimum(at(y0, slope, step), at(y0, slope, step + 1))
    # Along y: the last step that is not over the border yet; near where the line is.
    slope = tf.math.divide_no_nan(run, rise)
    guess = tf.math.divide_no_nan(tf.cast(left - x0, tf.float64) + 0.5, slope)
    guess = tf.cast(guess, tf.int32)
    last_step = guess - 2
    for step in (guess - 1, guess, guess + 1):
        x = at(x0, slope, step)
        before = tf.where(x0 < x1, x <= left, x > left)
        last_step = tf.where(before, step, last_step)
    along_y = y0 + last_step
    fine_row = tf.where(tf.expand_dims(flat, -1), along_x, along_y)
    # ceil((fine_row + 0.5) / 5 - 0.5), in whole numbers.
    return crossed, tf.clip_by_value((fine_row + _MIDDLE) // _FINE, 0, size)


def _xy(corners):
    return corners[..., 0], corners[..., 1]


def _filled(crossed, row, parts, size, num_parts):
    """A column is inside after an odd number of crossings, of any of the parts."""
    objects = tf.shape(parts)[0]
    shape = tf.stack([objects, num_parts, size, size + 1])
    columns = tf.broadcast_to(tf.range(size), tf.shape(row))
    numbers = tf.broadcast_to(tf.range(objects)[:, None, None], tf.shape(row))
    parts = tf.broadcast_to(parts[..., None], tf.shape(row))
    places = tf.stack([numbers, parts, columns, row], axis=-1)  # (R, E, size, 4)
    counts = tf.scatter_nd(places, tf.cast(crossed, tf.int32), shape)
    inside = tf.cumsum(counts, axis=-1)[..., :size] % 2 == 1  # (R, P, column, row)
    return tf.transpose(tf.reduce_any(inside, axis=1), (0, 2, 1))
