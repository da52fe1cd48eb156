"""Goals: what anchors and regions are to learn, from the true objects of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from slotcon_tf.detection.boxes import encode, pairwise_iou
from slotcon_tf.detection.matching import FOREGROUND, IGNORED, match
from slotcon_tf.detection.sampling import gathered, sample
from slotcon_tf.types import Tensor

FOREGROUND_SHARE = 0.25  # of an image's regions, at most
_POSITIVE_ANCHORS = 0.5  # the same of anchors
_ANCHOR_LIMITS, _REGION_LIMITS = (0.3, 0.7), (0.5, 0.5)  # IoU
_UNIT = (0.0, 0.0, 1.0, 1.0)  # a box in place of one that is not there


class Regions(NamedTuple):
    """What the heads learn from: regions of all images, foreground first in each.

    Attributes:
        boxes: (N * R, 4).
        images: int32 (N * R,), which image each is of.
        classes: int32 (N * R,), `num_classes` for the background.
        objects: int32 (N * R,), the ground truth of its image that each matches.
        goals: (N * R, 4), its box; of the background anything finite.
        valid: bool (N * R,), regions that are there.

    Example:
        >>> Regions._fields[:2]
        ('boxes', 'images')
    """

    boxes: Tensor
    images: Tensor
    classes: Tensor
    objects: Tensor
    goals: Tensor
    valid: Tensor


def anchor_goals(
    anchors: Tensor, boxes: Tensor, valid: Tensor, number: int, choose: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """What an image's anchors learn.

    Args:
        anchors: (A, 4) in pixels.
        boxes: (G, 4), the true ones.
        valid: bool (G,), which of them are there.
        number: Of anchors that are sampled.
        choose: As `sample` takes it.

    Returns:
        Tuple of deltas (A, 4), and bool (A,) each, the positive and the negative
        anchors that are sampled.

    Example:
        >>> from slotcon_tf.detection.sampling import random_choice
        >>> boxes, valid = tf.constant([[0.0, 0, 8, 8]]), tf.constant([True])
        >>> anchors = tf.constant([[0.0, 0, 8, 8], [20, 20, 28, 28]])
        >>> choose = random_choice(tf.constant([0, 7]))
        >>> found = anchor_goals(anchors, boxes, valid, 2, choose)
        >>> [x.numpy().tolist() for x in found[1:]]
        [[True, False], [False, True]]
    """
    goals = tf.cast(boxes, anchors.dtype)
    goals = tf.where(valid[:, None], goals, tf.constant(_UNIT, anchors.dtype))
    index, label = match(
        pairwise_iou(goals, anchors), *_ANCHOR_LIMITS, valid=valid, keeps_best=True
    )
    positive, negative = sample(label, number, _POSITIVE_ANCHORS, choose)
    return encode(anchors, tf.gather(goals, index)), positive, negative


def sampled_regions(
    found: tuple[Tensor, Tensor, Tensor],
    batch: Mapping[str, Tensor],
    chosen: Sequence[Any],
    number: int,
    num_classes: int,
) -> Regions:
    """The regions that the heads learn from: proposals and the true boxes, sampled.

    Args:
        found: Proposals, as `select_proposals` returns them.
        batch: As `MaskRCNN.compute_losses` takes it.
        chosen: Of each image what `sample` takes.
        number: Of regions of an image.
        num_classes: Which is the background's number.

    Example:
        >>> from slotcon_tf.detection.sampling import random_choice
        >>> box, there = tf.constant([[[0.0, 0, 8, 8]]]), tf.constant([[True]])
        >>> batch = {"boxes": box, "valid": there, "classes": tf.constant([[1]])}
        >>> chosen = [random_choice(tf.constant([0, 7]))]
        >>> found = sampled_regions((box, there, there), batch, chosen, 4, 2)
        >>> found.classes.numpy().tolist(), found.valid.numpy().tolist()
        ([1, 2, 2, 2], [True, False, False, False])
    """
    boxes, _, there = found  # (N, P, ...)
    goals, valid = tf.cast(batch["boxes"], boxes.dtype), batch["valid"]
    # What is to be found is proposed as well: the heads learn from the start.
    boxes = tf.concat([boxes, goals], axis=1)
    there = tf.concat([there, valid], axis=1)
    index, label = match(pairwise_iou(goals, boxes), *_REGION_LIMITS, valid=valid)
    label = tf.where(there, label, tf.constant(IGNORED, label.dtype))
    taken = [
        sample(one, number, FOREGROUND_SHARE, choose)
        for one, choose in zip(tf.unstack(label), chosen, strict=True)
    ]
    first, second = (tf.stack(x) for x in zip(*taken, strict=True))
    places, there = gathered(first, second, number)

    def at(values, places):  # (N, M, ...), (N, R)
        return tf.gather(values, places, batch_dims=1)

    boxes, index = at(boxes, places), at(index, places)
    foreground = there & (at(label, places) == FOREGROUND)
    classes = at(tf.cast(batch["classes"], tf.int32), index)
    unit = tf.constant(_UNIT, boxes.dtype)
    parts = {
        "boxes": tf.where(there[..., None], boxes, unit),
        "images": tf.repeat(tf.range(len(chosen))[:, None], number, axis=1),
        "classes": tf.where(foreground, classes, num_classes),
        "objects": index,
        "goals": tf.where(foreground[..., None], at(goals, index), unit),
        "valid": there,
    }
    rows = len(chosen) * number
    return Regions(
        **{name: tf.reshape(x, [rows, *x.shape[2:]]) for name, x in parts.items()}
    )
