"""LARS, and SGD with weight decay coupled into the gradient as torch has it."""

import keras
from keras import ops

from slotcon_tf.training.updates import apply_momentum, norm

TRUST_COEFFICIENT = 0.001  # You et al. 2017 (arXiv 1708.03888), eta


class _CoupledMomentum(keras.optimizers.Optimizer):
    """`buffer = momentum * buffer + d; w -= lr * buffer`, for a direction d.

    The weight decay is an attribute of its own (`l2`), since Keras applies its
    `weight_decay` decoupled and to every variable. While the variable `gate` is 0,
    `apply_gradients` counts a step and changes nothing else.
    """

    def __init__(self, learning_rate, *, momentum, l2, name, **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2 = l2
        self.gated = False  # whether `gate` is looked at

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.buffers = self.add_optimizer_variables(variables, "momentum")
        # A variable, since a strategy carries no tensor into its update of variables.
        self.gate = self.add_variable((), name="gate", initializer="ones")

    def update_step(self, gradient, variable, learning_rate):
        buffer = self.buffers[self._get_variable_index(variable)]
        gradient = ops.cast(gradient, variable.dtype)
        direction = self.direction(gradient, variable)
        if self.gated:
            gate = ops.cast(self.gate, variable.dtype)
            # Selected, not multiplied: what is skipped may be NaN.
            direction = ops.where(gate > 0, direction, ops.zeros_like(direction))
            momentum = ops.where(gate > 0, self.momentum, 1.0)
            learning_rate = ops.cast(learning_rate, variable.dtype) * gate
        else:
            momentum = self.momentum
        apply_momentum(variable, buffer, direction, learning_rate, momentum)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum, "l2": self.l2}


@keras.saving.register_keras_serializable(package="slotcon_tf")
class SGD(_CoupledMomentum):
    """Momentum SGD; `d = gradient + l2 * w` for every variable, as in torch.

    Args:
        learning_rate: Float or schedule.
        momentum: Share of the old buffer kept.
        l2: Weight decay, coupled.

    Reference: torch.optim.SGD(momentum=..., weight_decay=...).
    """

    def __init__(
        self, learning_rate=1.0, *, momentum=0.9, l2=1e-5, name="coupled_sgd", **kwargs
    ):
        super().__init__(learning_rate, momentum=momentum, l2=l2, name=name, **kwargs)

    def direction(self, gradient, variable):
        return gradient + self.l2 * variable


@keras.saving.register_keras_serializable(package="slotcon_tf")
class LARS(_CoupledMomentum):
    """Layer-wise adaptive rate scaling.

    `d = gradient + l2 * w; d *= trust * |w| / |d|`, the factor 1 where either norm is
    0. Variables of rank 1 (biases, normalisation) get neither decay nor adaptation.

    Args:
        learning_rate: Float or schedule.
        momentum: Share of the old buffer kept.
        l2: Weight decay, coupled.
        trust_coefficient: Of the adaptation.

    Reference: You et al. 2017 (arXiv 1708.03888); the original's utils/lars.py.
    """

    def __init__(
        self,
        learning_rate=1.0,
        *,
        momentum=0.9,
        l2=1e-5,
        trust_coefficient=TRUST_COEFFICIENT,
        name="lars",
        **kwargs,
    ):
        super().__init__(learning_rate, momentum=momentum, l2=l2, name=name, **kwargs)
        self.trust_coefficient = trust_coefficient

    def direction(self, gradient, variable):
        if len(variable.shape) < 2:
            return gradient
        weights = ops.convert_to_tensor(variable)
        gradient = gradient + self.l2 * weights
        weight_norm, gradient_norm = norm(weights), norm(gradient)
        nonzero = (weight_norm > 0) & (gradient_norm > 0)
        safe_norm = ops.where(nonzero, gradient_norm, 1.0)
        ratio = self.trust_coefficient * weight_norm / safe_norm
        return gradient * ops.where(nonzero, ratio, ops.ones_like(ratio))

    def get_config(self):
        return {**super().get_config(), "trust_coefficient": self.trust_coefficient}
