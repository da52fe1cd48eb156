"""The teacher: a copy of the student that follows it as a moving average."""

from __future__ import annotations

import math

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.training.updates import subtract_scaled
from slotcon_tf.types import Tensor, Variable


def teacher_update_rate(
    step: Tensor, total_steps: float, base_momentum: float
) -> Tensor:
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

    Example:
        >>> [round(float(teacher_update_rate(s, 10, 0.99)), 4) for s in (0, 5, 10, 11)]
        [0.01, 0.005, 0.0, 0.0]
    """
    progress = ops.minimum(ops.cast(step, keras.config.floatx()) / total_steps, 1.0)
    return (1.0 - base_momentum) * (ops.cos(math.pi * progress) + 1.0) / 2.0


def update_teacher(
    teacher_variables: list[Variable], student_variables: list[Variable], rate: Tensor
) -> None:
    """Moves each teacher variable towards its student by `rate`, in place.

    Args:
        teacher_variables, student_variables: Lists of variables of equal shapes.
        rate: `1 - momentum`, scalar.

    Example:
        >>> teacher, student = keras.Variable([0.0]), keras.Variable([10.0])
        >>> update_teacher([teacher], [student], 0.1)
        >>> teacher.numpy().tolist()
        [1.0]
    """
    for teacher, student in zip(teacher_variables, student_variables, strict=True):
        subtract_scaled(teacher, rate, tf.subtract(teacher, student))
