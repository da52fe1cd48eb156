"""The teacher: an exponential moving average of the student's parameters."""

import math

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.training.fused import subtract_scaled


def teacher_update_rate(step, total_steps, base_momentum):
    """`1 - momentum` of the teacher at a step; it falls from `1 - base_momentum` to 0.

    The rate and not the momentum is computed, since float32 holds 1e-4 far better
    than 0.9999.

    Args:
        step: Number of steps done so far, a scalar tensor or number.
        total_steps: The rate reaches 0 here, and stays there.
        base_momentum: Momentum at step 0 (0.99).

    Returns:
        Scalar float tensor.

    Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A; the cosine is BYOL's.
    """
    progress = ops.minimum(ops.cast(step, keras.config.floatx()) / total_steps, 1.0)
    return (1.0 - base_momentum) * (ops.cos(math.pi * progress) + 1.0) / 2.0


def update_teacher(teacher_variables, student_variables, rate):
    """Moves each teacher variable towards its student by `rate`, in place.

    Args:
        teacher_variables, student_variables: Lists of variables of equal shapes.
        rate: `1 - momentum`, scalar.
    """
    for teacher, student in zip(teacher_variables, student_variables, strict=True):
        subtract_scaled(teacher, rate, tf.subtract(teacher, student))
