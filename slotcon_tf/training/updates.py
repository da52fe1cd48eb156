"""Updates of whole variables in one pass over memory each.

TensorFlow's kernels for optimizers read and write in place what `assign` of an
expression would carry through several temporaries. A step of a ResNet-50 with its
heads updates 69 million numbers, so passes over memory are what it costs.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from slotcon_tf.types import Tensor, Variable


def subtract_scaled(variable: Variable, scale: Tensor, delta: Tensor) -> None:
    """`variable -= scale * delta`, in place.

    Args:
        variable: keras.Variable or tf.Variable; a mirrored one is updated on this
            replica only.
        scale: Scalar.
        delta: Tensor of the variable's shape.

    Example:
        >>> variable = tf.Variable([1.0, 2.0])
        >>> subtract_scaled(variable, 0.5, tf.constant([2.0, 2.0]))
        >>> variable.numpy().tolist()
        [0.0, 1.0]
    """
    tf.raw_ops.ResourceApplyGradientDescent(
        var=_handle(variable), alpha=_as(scale, delta.dtype), delta=delta
    )


def apply_momentum(
    variable: Variable,
    buffer: Variable,
    direction: Tensor,
    learning_rate: Tensor,
    momentum: Tensor,
) -> None:
    """`buffer = momentum * buffer + direction; variable -= learning_rate * buffer`.

    Args:
        variable, buffer: keras.Variable or tf.Variable of one shape.
        direction: Tensor of that shape.
        learning_rate, momentum: Scalars.

    Example:
        >>> variable, buffer = tf.Variable([1.0]), tf.Variable([2.0])
        >>> apply_momentum(variable, buffer, tf.constant([1.0]), 0.1, 0.5)
        >>> float(buffer[0]), round(float(variable[0]), 4)
        (2.0, 0.8)
    """
    tf.raw_ops.ResourceApplyMomentum(
        var=_handle(variable),
        accum=_handle(buffer),
        lr=_as(learning_rate, direction.dtype),
        grad=direction,
        momentum=_as(momentum, direction.dtype),
    )


def _as(number: Tensor, dtype: Any) -> Tensor:
    """A number in a dtype; Python's without the float32 that tf.cast makes of it."""
    return tf.cast(tf.convert_to_tensor(number, dtype_hint=dtype), dtype)


def norm(x: Tensor) -> Tensor:
    """Euclidean norm of all elements, without a temporary of their squares.

    Example:
        >>> float(norm(tf.constant([3.0, 4.0])))
        5.0
    """
    return tf.sqrt(2.0 * tf.nn.l2_loss(x))


def _handle(variable: Variable) -> Tensor:
    if isinstance(variable, keras.Variable):
        variable = variable.value
    return variable.handle
