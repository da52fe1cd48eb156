"""The winner at every pixel of a map that is resized first: once, for all who ask."""

from __future__ import annotations

import tensorflow as tf

from slotcon_tf.types import Tensor

_CHANNELS_AT_ONCE = 64  # whose values are held at the result's size


def upsampled_argmax(logits: Tensor, size: Tensor) -> Tensor:
    """Argmax of logits upsampled bilinearly, some channels at a time.

    All 2,048 prototypes of a published model, at the size of one photograph, would be
    gigabytes.

    Args:
        logits: (B, H, W, K).
        size: Height and width of the result, pixels.

    Returns:
        int32 (B, height, width), the lowest of a tie.

    Example:
        >>> logits = tf.constant([[[[1.0, 0.0], [0.0, 1.0]]]])  # (1, 1, 2, 2)
        >>> upsampled_argmax(logits, (1, 4)).numpy().tolist()
        [[[0, 0, 1, 1]]]
    """
    return _scan(logits, size)[0]


def upsampled_confidence(
    logits: Tensor, size: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """`upsampled_argmax`, and the winner's share of the softmax at every pixel.

    Args:
        logits: Cosines (B, H, W, K).
        size: Height and width of the result, pixels.
        temperature: Of the softmax.

    Returns:
        Tuple of int32 (B, height, width) and float32 (B, height, width).

    Example:
        >>> logits = tf.constant([[[[1.0, 1.0]]]])
        >>> upsampled_confidence(logits, (1, 1), 0.1)[1].numpy().tolist()
        [[[0.5]]]
    """
    winner, best, total = _scan(logits, size, temperature)
    return winner, tf.exp(best / temperature) / total


def _scan(
    logits: Tensor, size: Tensor, temperature: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Winners, their values, and, at a temperature, the sums of exponentials."""
    winner: Tensor = None
    best: Tensor = None
    total: Tensor = 0.0
    for start in range(0, logits.shape[-1], _CHANNELS_AT_ONCE):
        some = logits[..., start : start + _CHANNELS_AT_ONCE]
        some = tf.image.resize(some, size)  # (B, height, width, k)
        index = tf.argmax(some, axis=-1, output_type=tf.int32) + start
        value = tf.reduce_max(some, axis=-1)
        if temperature is not None:
            # Cosines: the exponents lie within 1 / temperature of 0.
            total += tf.reduce_sum(tf.exp(some / temperature), axis=-1)
        if best is None:
            winner, best = index, value
        else:
            better = value > best  # on a tie the lower id stays, as in one argmax
            winner, best = tf.where(better, index, winner), tf.maximum(best, value)
    return winner, best, total
