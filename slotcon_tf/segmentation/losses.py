"""The pixels' cross-entropy."""

from __future__ import annotations

from keras import ops

from slotcon_tf.data.labelled import VOID
from slotcon_tf.types import Tensor


def pixel_cross_entropy(
    logits: Tensor, labels: Tensor, *, num_replicas: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of valid pixels over the number of *all* pixels.

    Void pixels add nothing to the sum and count in its divisor, so that a replica's
    share needs no word from the others, and the shares of all sum to the loss of the
    global batch.

    Args:
        logits: (B, H, W, C) float32 or float64.
        labels: Integers (B, H, W), `VOID` where a pixel counts nowhere.
        num_replicas: Replicas with as many images each.

    Returns:
        Tuple of the loss, this replica's share, and a dict of `correct` and `valid`:
        its numbers of rightly named and of valid pixels.

    Reference: mmsegmentation's CrossEntropyLoss, avg_non_ignore=False (the default).

    Example:
        >>> logits = ops.zeros((1, 1, 2, 4))
        >>> loss, found = pixel_cross_entropy(logits, ops.array([[[0, VOID]]]))
        >>> round(float(loss), 4), float(found["valid"])  # log(4) / 2
        (0.6931, 1.0)
    """
    labels = ops.cast(labels, "int32")
    valid = ops.not_equal(labels, VOID)  # (B, H, W)
    weight = ops.cast(valid, logits.dtype)
    known = ops.where(valid, labels, 0)
    # Fused: no probabilities of all classes are kept at every pixel.
    entropy = ops.sparse_categorical_crossentropy(known, logits, from_logits=True)
    pixels = ops.cast(ops.prod(ops.shape(labels)), logits.dtype)
    loss = ops.sum(entropy * weight) / (pixels * num_replicas)
    found = ops.cast(ops.argmax(logits, axis=-1), "int32")
    correct = ops.cast(ops.equal(found, labels), logits.dtype) * weight
    return loss, {"correct": ops.sum(correct), "valid": ops.sum(weight)}
