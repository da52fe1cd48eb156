"""Non-maximum suppression: of boxes that overlap, the best one stays."""

from __future__ import annotations

import tensorflow as tf

from slotcon_tf.detection.boxes import pairwise_iou
from slotcon_tf.types import Tensor

_BLOCK = 512  # boxes that are decided at once


def suppress(
    boxes: Tensor,
    threshold: float,
    *,
    groups: Tensor | None = None,
    valid: Tensor | None = None,
    limit: int | None = None,
) -> Tensor:
    """Which boxes stay: those that overlap no better one that stays.

    Greedy, and exactly so: a box goes if its IoU with a better box of its group that
    stays is above the threshold. Equal to it stays, as an empty box does.

    Boxes are decided in blocks, each at first against those that stay of the blocks
    before, then within: "stays unless a better one that stays overlaps" is applied
    until nothing changes, which is the greedy answer, after as many rounds as boxes
    hang on each other in a chain. Fixed shapes compile for XLA; what is computed in is
    the boxes' dtype (tf.image's suppression knows float32 and half only).

    Args:
        boxes: (..., M, 4), the best first.
        threshold: IoU.
        groups: Integers (..., M): boxes of other groups do not count. None: one group.
        valid: bool (..., M); others neither stay nor count. None: all are.
        limit: Boxes that are wanted: what comes after so many that stay is not looked
            at, and goes. None: all.

    Returns:
        bool (..., M).

    Example:
        >>> boxes = tf.constant([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]])
        >>> suppress(boxes, 0.5).numpy().tolist()
        [True, False, True]

    Reference: torchvision.ops.batched_nms.
    """
    shape, known = tf.shape(boxes)[:-1], boxes.shape[-2]
    count: Tensor = (
        shape[-1] if known is None else known
    )  # static where it is: XLA wants that
    if groups is None:
        groups = tf.zeros(shape, tf.int32)
    if valid is None:
        valid = tf.ones(shape, tf.bool)
    block = min(_BLOCK, known or _BLOCK)
    blocks = -(-count // block)
    pad = [[0, 0], [0, blocks * block - count]]
    boxes = tf.pad(tf.reshape(boxes, (-1, count, 4)), [*pad, [0, 0]])  # (B, M, 4)
    groups = tf.pad(tf.reshape(groups, (-1, count)), pad)
    valid = tf.pad(tf.reshape(valid, (-1, count)), pad)
    earlier = tf.range(block)[None, :] < tf.range(block)[:, None]  # (block, block)
    numbers = tf.range(blocks)

    def overlapping(rows, row_groups, others, other_groups):
        iou = pairwise_iou(rows, others)
        return (iou > threshold) & (row_groups[..., None] == other_groups[:, None, :])

    def decide(number, stays):
        """`stays` is bool (B, blocks, block), False from this block on."""
        start, size = number * block, tf.shape(boxes)[0]
        rows = tf.slice(boxes, (0, start, 0), (size, block, 4))
        row_groups = tf.slice(groups, (0, start), (size, block))
        better = tf.reshape(stays, tf.shape(valid))[:, None, :]
        gone = overlapping(rows, row_groups, boxes, groups) & better
        may = tf.slice(valid, (0, start), (size, block))
        may &= ~tf.reduce_any(gone, axis=-1)  # (B, block)
        rivals = overlapping(rows, row_groups, rows, row_groups) & earlier

        def again(now, last):
            return tf.reduce_any(now != last)

        def once(now, last):
            del last
            return may & ~tf.reduce_any(rivals & now[:, None, :], axis=-1), now

        nobody = tf.zeros_like(may)
        found, _ = tf.while_loop(again, once, (may, nobody), maximum_iterations=block)
        here = (numbers == number)[:, None]
        return number + 1, stays | (here & found[:, None, :])

    def unfinished(number, stays):
        more = number < blocks
        if limit is None:
            return more
        staying = tf.math.count_nonzero(stays, axis=(1, 2), dtype=tf.int32)
        return more & tf.reduce_any(staying < limit)

    nothing = tf.zeros((tf.shape(boxes)[0], blocks, block), tf.bool)
    _, stays = tf.while_loop(unfinished, decide, (0, nothing))
    return tf.reshape(tf.reshape(stays, tf.shape(valid))[:, :count], shape)
