"""Updates of whole variables in one pass over memory each.

TensorFlow's kernels for optimizers read and write in place what `assign` of an
expression would carry through several temporaries. A step of a ResNet-50 with its
heads updates 69 million numbers, so passes over memory are what it costs.
"""

import keras
import tensorflow as tf


def subtract_scaled(variable, scale, delta):
    """`variable -= scale * delta`, in place.

    Args:
        variable: keras.Variable or tf.Variable; a mirrored one is updated on this
            replica only.
        scale: Scalar.
        delta: Tensor of the variable's shape.
    """
    tf.raw_ops.ResourceApplyGradientDescent(
        var=_handle(variable), alpha=tf.cast(scale, delta.dtype), delta=delta
    )


def apply_momentum(variable, buffer, direction, learning_rate, momentum):
    """`buffer = momentum * buffer + direction; variable -= learning_rate * buffer`.

    Args:
        variable, buffer: keras.Variable or tf.Variable of one shape.
        direction: Tensor of that shape.
        learning_rate, momentum: Scalars.
    """
    tf.raw_ops.ResourceApplyMomentum(
        var=_handle(variable),
        accum=_handle(buffer),
        lr=tf.cast(learning_rate, direction.dtype),
        grad=direction,
        momentum=tf.cast(momentum, direction.dtype),
    )


def norm(x):
    """Euclidean norm of all elements, without a temporary of their squares."""
    return tf.sqrt(2.0 * tf.nn.l2_loss(x))


def _handle(variable):
    if isinstance(variable, keras.Variable):
        variable = variable.value
    return variable.handle
