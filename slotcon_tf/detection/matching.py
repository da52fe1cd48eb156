"""Matching: which ground truth a box is about, and whether it is about any."""

from __future__ import annotations

import tensorflow as tf

from slotcon_tf.types import Tensor

FOREGROUND, BACKGROUND, IGNORED = 1, 0, -1


def match(
    overlap: Tensor,
    low: float,
    high: float,
    *,
    valid: Tensor | None = None,
    keeps_best: bool = False,
) -> tuple[Tensor, Tensor]:
    """The ground truth of the largest overlap, and a label, for every box.

    A box is foreground from an overlap of `high` on, background below `low`, and
    ignored between. With `keeps_best` the boxes whose overlap with a ground truth
    equals the largest that it has with any box are foreground too, but stay with their
    own best one; a ground truth that no box touches has the largest overlap 0, and
    makes all boxes of overlap 0 foreground, as the original does.

    Args:
        overlap: IoU (..., G, A) of ground truths and boxes; G may be 0.
        low, high: Limits; equal ones ignore nothing.
        valid: bool (..., G); False rows are no ground truths. None: all are.
        keeps_best: See above; for anchors.

    Returns:
        Tuple of int32 (..., A), the first one where several are best, 0 where there is
        none, and int8 (..., A) of `FOREGROUND`, `BACKGROUND`, `IGNORED`.

    Example:
        >>> index, label = match(tf.constant([[0.1, 0.8], [0.4, 0.2]]), 0.3, 0.7)
        >>> index.numpy().tolist(), label.numpy().tolist()
        ([1, 0], [-1, 1])

    Reference: detectron2's Matcher.
    """
    nothing = tf.constant(-1, overlap.dtype)  # less than any overlap
    if valid is not None:
        overlap = tf.where(valid[..., None], overlap, nothing)
    # A row of nothing: there is always one to be the best.
    pads = [[0, 0]] * (overlap.shape.rank - 2) + [[0, 1], [0, 0]]
    overlap = tf.pad(overlap, pads, constant_values=nothing)
    best = tf.reduce_max(overlap, axis=-2)  # (..., A)
    index = tf.argmax(overlap, axis=-2, output_type=tf.int32)  # (..., A)
    label = tf.where(
        best >= high, FOREGROUND, tf.where(best < low, BACKGROUND, IGNORED)
    )
    if keeps_best:
        largest = tf.reduce_max(overlap, axis=-1, keepdims=True)  # (..., G, 1)
        equal = (overlap == largest) & (largest >= 0)
        label = tf.where(tf.reduce_any(equal, axis=-2), FOREGROUND, label)
    some = best >= 0  # whether there is any ground truth
    return tf.where(some, index, 0), tf.cast(tf.where(some, label, BACKGROUND), tf.int8)
