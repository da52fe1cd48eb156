"""Proposals: the few of all anchors' boxes that the heads look at."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from slotcon_tf.detection.boxes import clip_boxes
from slotcon_tf.detection.suppression import suppress
from slotcon_tf.types import Tensor

THRESHOLD = 0.7  # IoU


def select_proposals(
    boxes: Sequence[Tensor],
    logits: Sequence[Tensor],
    size: Tensor,
    *,
    before: int,
    after: int,
    threshold: float = THRESHOLD,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best boxes of an image: `before` of each level, then `after` of all.

    Boxes that are not finite drop out, the others are clipped to the image, empty ones
    drop out, and suppression runs within each level.

    Args:
        boxes: Of each level (..., A_l, 4), decoded.
        logits: Of each level (..., A_l).
        size: (..., 2) height and width of the image without its padding.
        before: Boxes of a level that suppression sees.
        after: Boxes in the end.
        threshold: IoU of suppression.

    Returns:
        Tuple of boxes (..., after, 4) by descending logit, logits (..., after), and
        bool (..., after), which of them are there; the others are zeros.

    Example:
        >>> boxes = [tf.constant([[0.0, 0, 4, 4], [0, 0, 4, 3.9], [9, 9, 9, 9]])]
        >>> logits, size = [tf.constant([0.1, 0.2, 0.3])], tf.constant([8, 8])
        >>> found, _, there = select_proposals(boxes, logits, size, before=3, after=2)
        >>> found.numpy()[0].round(1).tolist(), there.numpy().tolist()
        ([0.0, 0.0, 4.0, 3.9...], [True, False])

    Reference: detectron2's find_top_rpn_proposals.
    """
    sizes = [x.shape[-1] for x in logits]
    widest = before if None in sizes else min(before, max(sizes))
    parts = [
        _best(tf.convert_to_tensor(a), tf.convert_to_tensor(b), before, widest)
        for a, b in zip(boxes, logits, strict=True)
    ]
    best, scores, there = zip(*parts, strict=True)
    best = tf.stack(best, axis=-3)  # (..., L, K, 4)
    scores, there = tf.stack(scores, axis=-2), tf.stack(there, axis=-2)  # (..., L, K)
    finite = tf.reduce_all(tf.math.is_finite(best), axis=-1)
    finite &= tf.math.is_finite(scores) & there
    best = tf.where(finite[..., None], best, 0)
    best = clip_boxes(best, tf.expand_dims(size, -2))
    sides = best[..., 2:] - best[..., :2]
    valid = finite & tf.reduce_all(sides > 0, axis=-1)
    stays = suppress(best, threshold, valid=valid)
    shape = tf.concat([tf.shape(scores)[:-2], [len(parts) * widest]], 0)
    scores, stays = tf.reshape(scores, shape), tf.reshape(stays, shape)
    best = tf.reshape(best, tf.concat([shape, [4]], 0))
    return best_of(best, scores, stays, after)


def _best(boxes, logits, count, width):
    """The best `count` of a level, and which are there, padded to a width."""
    count = tf.minimum(tf.shape(logits)[-1], count)
    if logits.shape[-1] is not None:
        count = min(logits.shape[-1], width)
    # An unordered number would be anywhere; it drops out below.
    order = tf.where(tf.math.is_nan(logits), logits.dtype.min, logits)
    order = tf.math.top_k(order, count).indices  # stable
    batch = logits.shape.rank - 1
    pads = [*[[0, 0]] * batch, [0, width - count]]
    boxes, logits = (tf.gather(x, order, batch_dims=batch) for x in (boxes, logits))
    there = tf.pad(tf.ones_like(logits, tf.bool), pads)
    return tf.pad(boxes, [*pads, [0, 0]]), tf.pad(logits, pads), there


def best_of(
    boxes: Tensor, scores: Tensor, stays: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best of those that stay, padded with zeros to a fixed number.

    Args:
        boxes: (..., M, K).
        scores: (..., M).
        stays: bool (..., M).
        count: Of the result.

    Returns:
        Tuple of (..., count, K), (..., count), and bool (..., count), which are there.

    Example:
        >>> boxes, scores = tf.constant([[1.0], [2.0]]), tf.constant([0.3, 0.4])
        >>> found = best_of(boxes, scores, tf.constant([True, True]), 3)
        >>> [x.numpy().tolist() for x in found[1:]]
        [[0.4000..., 0.3000..., 0.0], [True, True, False]]
    """
    lowest, known = scores.dtype.min, scores.shape[-1]
    missing = tf.maximum(count - tf.shape(scores)[-1], 0)
    if known is not None:
        missing = max(count - known, 0)
    batch = scores.shape.rank - 1
    pads = [*[[0, 0]] * batch, [0, missing]]
    scores = tf.where(stays, scores, lowest)
    scores = tf.pad(scores, pads, constant_values=lowest)
    stays, boxes = tf.pad(stays, pads), tf.pad(boxes, [*pads, [0, 0]])
    order = tf.math.top_k(scores, count).indices
    boxes, scores, there = (
        tf.gather(x, order, batch_dims=batch) for x in (boxes, scores, stays)
    )
    return tf.where(there[..., None], boxes, 0), tf.where(there, scores, 0), there
