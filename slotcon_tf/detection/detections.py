"""Detections: the best boxes of every class, of what the box head says."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from slotcon_tf.detection.boxes import clip_boxes
from slotcon_tf.detection.suppression import suppress
from slotcon_tf.types import Tensor

MIN_SCORE = 0.05
THRESHOLD = 0.5  # IoU
MAX_DETECTIONS = 100


class Detections(NamedTuple):
    """The detections of one image, best first, padded to a fixed number D.

    Attributes:
        boxes: (D, 4).
        scores: (D,).
        classes: int32 (D,).
        rows: int32 (D,), the proposal that each comes from.
        there: bool (D,); the others are zeros.

    Example:
        >>> Detections._fields
        ('boxes', 'scores', 'classes', 'rows', 'there')
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    rows: Tensor
    there: Tensor


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    size: Tensor,
    *,
    valid: Tensor | None = None,
    min_score: float = MIN_SCORE,
    threshold: float = THRESHOLD,
    count: int = MAX_DETECTIONS,
) -> Detections:
    """The best `count` (box, class) of one image after suppression within classes.

    A proposal of which any number is not finite drops out whole. Suppression looks at
    the candidates in the order of their scores and ends when `count` stay.

    Args:
        boxes: (R, C, 4) of each class, decoded, not clipped.
        scores: (R, C) of the classes without the background.
        size: (2,) height and width of the image without its padding.
        valid: bool (R,), proposals that are there. None: all are.
        min_score: Candidates score more.
        threshold: IoU.
        count: D.

    Example:
        >>> boxes = tf.constant([[[0.0, 0, 4, 4]], [[0, 0, 4, 3.9]], [[4, 4, 8, 8]]])
        >>> scores = tf.constant([[0.9], [0.8], [0.7]])
        >>> found = select_detections(boxes, scores, tf.constant([8, 8]), count=2)
        >>> found.rows.numpy().tolist()
        [0, 2]

    Reference: detectron2's fast_rcnn_inference.
    """
    num_classes = scores.shape[-1]
    finite = tf.reduce_all(tf.math.is_finite(boxes), axis=(1, 2))
    finite &= tf.reduce_all(tf.math.is_finite(scores), axis=1)  # (R,)
    if valid is not None:
        finite &= valid
    boxes = clip_boxes(tf.where(finite[:, None, None], boxes, 0), size)
    candidate = finite[:, None] & (scores > min_score)  # (R, C)
    flat = tf.reshape(tf.where(candidate, scores, scores.dtype.min), [-1])  # (R * C,)
    total = tf.shape(flat)[0] if flat.shape[0] is None else flat.shape[0]
    order = tf.math.top_k(flat, total).indices  # stable
    rows, classes = order // num_classes, order % num_classes
    best = tf.gather(tf.reshape(boxes, (-1, 4)), order)
    there = tf.gather(tf.reshape(candidate, [-1]), order)
    stays = suppress(best, threshold, groups=classes, valid=there, limit=count)
    missing = max(count - total, 0) if isinstance(total, int) else count
    # Stable: the first `count` that stay, in their order.
    first = tf.math.top_k(tf.cast(tf.pad(stays, [[0, missing]]), tf.int32), count)
    there, places = first.values > 0, first.indices

    def taken(values):
        pads = [[0, missing], *[[0, 0]] * (values.shape.rank - 1)]
        values = tf.gather(tf.pad(values, pads), places)
        return tf.where(there[:, None] if values.shape.rank > 1 else there, values, 0)

    scores = tf.gather(flat, order)
    return Detections(taken(best), taken(scores), taken(classes), taken(rows), there)
