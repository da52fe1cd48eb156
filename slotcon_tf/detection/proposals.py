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
    """The best boxes of one image: `before` of each level, then `after` of all.

    Boxes that are not finite drop out, the others are clipped to the image, empty ones
    drop out, and suppression runs within each level.

    Args:
        boxes: Of each level (A_l, 4), decoded.
        logits: Of each level (A_l,).
        size: (2,) height and width of the image without its padding.
        before: Boxes of a level that suppression sees.
        after: Boxes in the end.
        threshold: IoU of suppression.

    Returns:
        Tuple of boxes (after, 4) by descending logit, logits (after,), and bool
        (after,), which of them are there; the others are zeros.

    Example:
        >>> boxes = [tf.constant([[0.0, 0, 4, 4], [0, 0, 4, 3.9], [9, 9, 9, 9]])]
        >>> logits, size = [tf.constant([0.1, 0.2, 0.3])], tf.constant([8, 8])
        >>> found, _, there = select_proposals(boxes, logits, size, before=3, after=2)
        >>> found.numpy()[0].round(1).tolist(), there.numpy().tolist()
        ([0.0, 0.0, 4.0, 3.9...], [True, False])

    Reference: detectron2's find_top_rpn_proposals.
    """
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for level in zip(boxes, logits, strict=True):
        level_boxes, level_logits = (tf.convert_to_tensor(x) for x in level)
        count = tf.minimum(tf.shape(level_logits)[0], before)
        if level_logits.shape[0] is not None:
            count = min(level_logits.shape[0], before)
        # An unordered number would be anywhere; it drops out below.
        order = tf.where(
            tf.math.is_nan(level_logits), level_logits.dtype.min, level_logits
        )
        order = tf.math.top_k(order, count).indices  # stable
        best, score = tf.gather(level_boxes, order), tf.gather(level_logits, order)
        finite = tf.reduce_all(tf.math.is_finite(best), axis=-1)
        finite &= tf.math.is_finite(score)
        best = clip_boxes(tf.where(finite[:, None], best, 0), size)
        sides = best[:, 2:] - best[:, :2]
        valid = finite & tf.reduce_all(sides > 0, axis=-1)
        stays = suppress(best, threshold, valid=valid)
        kept.append((best, score, stays))
    found, scores, stays = (
        tf.concat(parts, axis=0) for parts in zip(*kept, strict=True)
    )
    return best_of(found, scores, stays, after)


def best_of(
    boxes: Tensor, scores: Tensor, stays: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best of those that stay, padded with zeros to a fixed number.

    Args:
        boxes: (M, ...).
        scores: (M,).
        stays: bool (M,).
        count: Of the result.

    Returns:
        Tuple of (count, ...), (count,), and bool (count,), which are there.

    Example:
        >>> boxes, scores = tf.constant([[1.0], [2.0]]), tf.constant([0.3, 0.4])
        >>> found = best_of(boxes, scores, tf.constant([True, True]), 3)
        >>> [x.numpy().tolist() for x in found[1:]]
        [[0.4000..., 0.3000..., 0.0], [True, True, False]]
    """
    lowest = scores.dtype.min
    missing = tf.maximum(count - tf.shape(scores)[0], 0)
    if scores.shape[0] is not None:
        missing = max(count - scores.shape[0], 0)
    scores = tf.pad(
        tf.where(stays, scores, lowest), [[0, missing]], constant_values=lowest
    )
    stays = tf.pad(stays, [[0, missing]])
    rest = [[0, 0]] * (boxes.shape.rank - 1)
    boxes = tf.pad(boxes, [[0, missing], *rest])
    order = tf.math.top_k(scores, count).indices
    there = tf.gather(stays, order)
    shape = [count, *[1] * len(rest)]
    boxes = tf.where(tf.reshape(there, shape), tf.gather(boxes, order), 0)
    return boxes, tf.where(there, tf.gather(scores, order), 0), there
