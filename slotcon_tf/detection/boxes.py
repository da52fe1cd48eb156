"""Boxes: overlap, clipping, and the deltas that turn one box into another.

Boxes are (x1, y1, x2, y2) in pixels of the network's input, x to the right, y down;
pixel (i, j) covers [j, j + 1] x [i, i + 1], so that a whole image is (0, 0, W, H). All
arithmetic is in the boxes' own dtype: float32, or float64 to compare.

Reference: detectron2's Boxes and Box2BoxTransform; Girshick et al. 2014
(arXiv 1311.2524), appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras import ops

from slotcon_tf.types import Tensor

RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of proposals' deltas
ROI_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the box head's; Fast R-CNN's 1 / std
# exp of a larger delta of a side would overflow before it means anything.
MAX_LOG_SCALE = math.log(1000.0 / 16)


def areas(boxes: Tensor) -> Tensor:
    """Areas (...,) of boxes (..., 4), in pixels; of turned ones 0 or less.

    Example:
        >>> areas(ops.array([[1.0, 1.0, 3.0, 5.0]])).numpy().tolist()
        [8.0]
    """
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair; 0 where boxes do not meet.

    Args:
        first: (..., A, 4).
        second: (..., B, 4).

    Returns:
        (..., A, B) in [0, 1].

    Example:
        >>> box = ops.array([[0.0, 0.0, 2.0, 2.0]])
        >>> others = ops.array([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]])
        >>> pairwise_iou(box, others).numpy().round(3).tolist()
        [[1.0, 0.333...]]
    """
    a, b = first[..., :, None, :], second[..., None, :, :]
    width = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    height = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    meeting = ops.relu(width) * ops.relu(height)  # (..., A, B)
    union = areas(first)[..., :, None] + areas(second)[..., None, :] - meeting
    apart = meeting <= 0
    return ops.where(apart, 0.0, meeting / ops.where(apart, 1.0, union))


def clip_boxes(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes with their corners moved into an image.

    Args:
        boxes: (..., 4).
        size: Height and width in pixels, (..., 2) but for the boxes' last axis but one.

    Example:
        >>> clip_boxes(ops.array([[-1.0, 2.0, 9.0, 9.0]]), ops.array([8, 6])).numpy()
        array([[0., 2., 6., 8.]], dtype=float32)
    """
    size = ops.cast(size, boxes.dtype)
    limits = ops.stack([size[..., 1], size[..., 0]] * 2, axis=-1)  # (..., 4)
    return ops.clip(boxes, 0.0, limits[..., None, :])


def encode(
    boxes: Tensor, targets: Tensor, weights: Sequence[float] = RPN_WEIGHTS
) -> Tensor:
    """Deltas that `decode` turns boxes into targets by.

    Centres move in units of the box's sides, sides by logarithms:
    `wx * (gx - x) / w, wy * (gy - y) / h, ww * log(gw / w), wh * log(gh / h)`.

    Args:
        boxes: (..., 4); sides above 0.
        targets: (..., 4); sides above 0.
        weights: Of the four deltas.

    Returns:
        (..., 4).

    Example:
        >>> box = ops.array([0.0, 0.0, 2.0, 2.0])
        >>> encode(box, box + ops.array([1.0, 0.0, 1.0, 0.0])).numpy().tolist()
        [0.5, 0.0, 0.0, 0.0]
    """
    x, y, width, height = _centred(boxes)
    goal_x, goal_y, goal_width, goal_height = _centred(targets)
    deltas = (
        (goal_x - x) / width,
        (goal_y - y) / height,
        ops.log(goal_width / width),
        ops.log(goal_height / height),
    )
    return ops.stack(
        [weight * one for weight, one in zip(weights, deltas, strict=True)], axis=-1
    )


def decode(
    boxes: Tensor, deltas: Tensor, weights: Sequence[float] = RPN_WEIGHTS
) -> Tensor:
    """Boxes moved by deltas; of each class by its own, if there are several.

    Args:
        boxes: (..., 4).
        deltas: (..., 4), or (..., C, 4) for boxes (..., 4).
        weights: Of the four deltas.

    Returns:
        As deltas.

    Example:
        >>> decode(ops.array([0.0, 0.0, 2.0, 2.0]), ops.array([0.5, 0, 0, 0])).numpy()
        array([1., 0., 3., 2.], dtype=float32)
    """
    x, y, width, height = _centred(boxes)
    if len(deltas.shape) > len(boxes.shape):
        x, y, width, height = (side[..., None] for side in (x, y, width, height))
    dx, dy, dw, dh = (deltas[..., i] / weights[i] for i in range(4))
    new_x, new_y = dx * width + x, dy * height + y
    half_width = 0.5 * ops.exp(ops.minimum(dw, MAX_LOG_SCALE)) * width
    half_height = 0.5 * ops.exp(ops.minimum(dh, MAX_LOG_SCALE)) * height
    return ops.stack(
        [
            new_x - half_width,
            new_y - half_height,
            new_x + half_width,
            new_y + half_height,
        ],
        axis=-1,
    )


def _centred(boxes):
    """Centre x and y, width and height."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height, width, height
