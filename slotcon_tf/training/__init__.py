"""What any method of this kind trains with: optimizers, schedules, replicas."""

from slotcon_tf.training.normalization import BatchNormalization
from slotcon_tf.training.optimizers import LARS, SGD
from slotcon_tf.training.schedules import Poly, Steps, WarmupCosine

__all__ = ["LARS", "SGD", "BatchNormalization", "Poly", "Steps", "WarmupCosine"]
