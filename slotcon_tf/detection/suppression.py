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
        boxes: (M, 4), the best first.
        threshold: IoU.
        groups: Integers (M,): boxes of other groups do not count. None: one group.
        valid: bool (M,); others neither stay nor count. None: all are.
        limit: Boxes that are wanted: what comes after so many that stay is not looked
            at, and goes. None: all.

    Returns:
        bool (M,).

    Example:
        >>> boxes = tf.constant([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]])
        >>> suppress(boxes, 0.5).numpy().tolist()
        [True, False, True]

    Reference: torchvision.ops.batched_nms.
    """
    count = tf.shape(boxes)[0]
    groups = tf.zeros([count], tf.int32) if groups is None else groups
    valid = tf.ones([count], tf.bool) if valid is None else valid
    block = min(_BLOCK, boxes.shape[0] or _BLOCK)
    # Static where the number is, as XLA wants.
    known = boxes.shape[0]
    missing = -known % block if known is not None else -count % block
    boxes = tf.pad(boxes, [[0, missing], [0, 0]])
    groups, valid = (tf.pad(x, [[0, missing]]) for x in (groups, valid))
    places = tf.range(tf.shape(boxes)[0])
    earlier = tf.range(block)[None, :] < tf.range(block)[:, None]  # (block, block)

    def overlapping(rows, row_groups, others, other_groups):
        iou = pairwise_iou(rows, others)
        return (iou > threshold) & (row_groups[:, None] == other_groups[None, :])

    def decide(start, stays):
        rows = tf.slice(boxes, (start, 0), (block, 4))
        row_groups = tf.slice(groups, (start,), (block,))
        before = stays & (places < start)
        gone = overlapping(rows, row_groups, boxes, groups) & before[None, :]
        may = tf.slice(valid, (start,), (block,)) & ~tf.reduce_any(
            gone, axis=1
        )  # (block,)
        rivals = overlapping(rows, row_groups, rows, row_groups) & earlier

        def again(now, last):
            return tf.reduce_any(now != last)

        def once(now, last):
            del last
            return may & ~tf.reduce_any(rivals & now[None, :], axis=1), now

        nobody = tf.zeros_like(may)
        found, _ = tf.while_loop(again, once, (may, nobody), maximum_iterations=block)
        stays = tf.tensor_scatter_nd_update(
            stays, (start + tf.range(block))[:, None], found
        )
        return start + block, stays

    def unfinished(start, stays):
        more = start < count
        if limit is None:
            return more
        return more & (tf.math.count_nonzero(stays, dtype=tf.int32) < limit)

    _, stays = tf.while_loop(unfinished, decide, (0, tf.zeros_like(valid)))
    return stays[:count]
