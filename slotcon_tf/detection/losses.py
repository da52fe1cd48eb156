"""The five losses of Mask R-CNN, as sums over what was sampled.

Each returns a sum, and what it is divided by; the quotient of both sums over all
replicas is the loss of the global batch, so that gradients which a strategy sums over
replicas are those of one device.

Reference: detectron2's RPN.losses, FastRCNNOutputLayers.losses and mask_rcnn_loss; the
sums over several processes differ: there each divides by its own counts.
"""

from __future__ import annotations

import tensorflow as tf

from slotcon_tf.types import Tensor

NAMES = ("rpn_class", "rpn_box", "class", "box", "mask")


def proposal_losses(
    logits: Tensor,
    deltas: Tensor,
    goals: Tensor,
    positive: Tensor,
    negative: Tensor,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of sampled anchors, and L1 of the positive ones' deltas.

    Args:
        logits: (N, A).
        deltas: (N, A, 4).
        goals: (N, A, 4), what deltas should be; anything finite where not positive.
        positive, negative: bool (N, A), the anchors that were sampled.

    Returns:
        Tuple of two sums.

    Example:
        >>> yes, no = tf.constant([[True, False]]), tf.constant([[False, True]])
        >>> zeros = tf.zeros([1, 2, 4])
        >>> losses = proposal_losses(tf.zeros([1, 2]), zeros, zeros + 1, yes, no)
        >>> [round(float(loss), 3) for loss in losses]
        [1.386, 4.0]
    """
    labels = tf.cast(positive, logits.dtype)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
    sampled = tf.logical_or(positive, negative)
    entropy = tf.reduce_sum(tf.where(sampled, entropy, 0))
    apart = tf.reduce_sum(tf.abs(deltas - goals), axis=-1)
    return entropy, tf.reduce_sum(tf.where(positive, apart, 0))


def box_losses(
    logits: Tensor, deltas: Tensor, classes: Tensor, goals: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of all sampled regions, and L1 of the deltas of the true class.

    Args:
        logits: (R, C + 1), the background last.
        deltas: (R, C, 4).
        classes: int32 (R,), C for the background.
        goals: (R, 4), what deltas should be; anything finite for the background.
        valid: bool (R,), regions that are there.

    Returns:
        Tuple of two sums.

    Example:
        >>> logits, deltas = tf.zeros([2, 2]), tf.zeros([2, 1, 4])
        >>> classes, there = tf.constant([0, 1]), tf.constant([True, True])
        >>> losses = box_losses(logits, deltas, classes, tf.ones([2, 4]), there)
        >>> [round(float(loss), 3) for loss in losses]
        [1.386, 4.0]
    """
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
    entropy = tf.reduce_sum(tf.where(valid, entropy, 0))
    background = logits.shape[-1] - 1
    foreground = valid & (classes < background)
    own = tf.gather(deltas, tf.minimum(classes, background - 1), batch_dims=1)  # (R, 4)
    apart = tf.reduce_sum(tf.abs(own - goals), axis=-1)
    return entropy, tf.reduce_sum(tf.where(foreground, apart, 0))


def mask_loss(
    logits: Tensor, classes: Tensor, targets: Tensor, valid: Tensor
) -> Tensor:
    """Binary cross-entropy of the mask of the true class, summed over cells.

    Args:
        logits: (R, m, m, C).
        classes: int32 (R,).
        targets: bool (R, m, m).
        valid: bool (R,), regions that are there.

    Returns:
        Scalar.

    Example:
        >>> logits, classes = tf.zeros([1, 2, 2, 3]), tf.constant([2])
        >>> targets, there = tf.ones([1, 2, 2], tf.bool), tf.constant([True])
        >>> round(float(mask_loss(logits, classes, targets, there)), 3)
        2.773
    """
    channels = tf.transpose(logits, (0, 3, 1, 2))
    own = tf.gather(channels, classes, batch_dims=1)  # (R, m, m)
    labels = tf.cast(targets, own.dtype)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels, own)
    return tf.reduce_sum(tf.where(valid[:, None, None], entropy, 0))
