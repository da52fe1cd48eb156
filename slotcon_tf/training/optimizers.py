"""LARS, and SGD with weight decay coupled into the gradient as torch has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import ops

from slotcon_tf.training.updates import apply_momentum, norm
from slotcon_tf.types import Tensor, Variable

# Keras declares a float alone.
LearningRate: TypeAlias = (
    float
    | keras.optimizers.schedules.LearningRateSchedule
    | Callable[[], Tensor]
    | dict[str, Any]
)
_OF_NORMS = ("gamma", "beta")
TRUST_COEFFICIENT = 0.001  # You et al. 2017 (arXiv 1708.03888), eta


class _CoupledMomentum(keras.optimizers.Optimizer):
    """`buffer = momentum * buffer + d; w -= lr * buffer`, for a direction d.

    The weight decay is an attribute of its own (`l2`), since Keras applies its
    `weight_decay` decoupled and to every variable. While the variable `gate` is 0,
    `apply_gradients` counts a step and changes nothing else.
    """

    def __init__(
        self,
        learning_rate: LearningRate,
        *,
        momentum: float,
        l2: float,
        name: str,
        **kwargs: Any,
    ) -> None:
        rate: Any = learning_rate
        super().__init__(learning_rate=rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2 = l2
        self.gated = False  # whether `gate` is looked at

    def build(self, variables: list[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        # As add_optimizer_variables of Keras 3.9 does, in older ones, too.
        self.buffers = [
            self.add_variable_from_reference(v, name="momentum") for v in variables
        ]
        # A variable, since a strategy carries no tensor into its update of variables.
        self.gate = self.add_variable((), name="gate", initializer="ones")

    def direction(self, gradient: Tensor, variable: Variable) -> Tensor:
        """d, from the gradient of a variable."""
        raise NotImplementedError

    def update_step(
        self, gradient: Tensor, variable: Variable, learning_rate: Tensor
    ) -> None:
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

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "l2": self.l2}


@keras.saving.register_keras_serializable(package="slotcon_tf")
class SGD(_CoupledMomentum):
    """Momentum SGD; `d = gradient + l2 * w` for every variable, as in torch.

    Args:
        learning_rate: Float or schedule.
        momentum: Share of the old buffer kept.
        l2: Weight decay, coupled.
        decays_norms: Whether scales and shifts of normalisation (gamma, beta) decay,
            too; detectron2's do not, though its biases do.

    Reference: torch.optim.SGD(momentum=..., weight_decay=...).

    Example:
        >>> weight = keras.Variable([1.0])
        >>> SGD(0.1, l2=0.0).apply([ops.array([2.0])], [weight])
        >>> round(float(weight[0]), 4)
        0.8
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        *,
        momentum: float = 0.9,
        l2: float = 1e-5,
        decays_norms: bool = True,
        name: str = "coupled_sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, momentum=momentum, l2=l2, name=name, **kwargs)
        self.decays_norms = decays_norms

    def build(self, variables: list[Variable]) -> None:
        if not self.built:
            # Keras's names: an update meets components, "layer/gamma/replica_1:0".
            names = [v.path.rpartition("/")[-1] for v in variables]
            self._norms = frozenset(i for i, n in enumerate(names) if n in _OF_NORMS)
        super().build(variables)

    def direction(self, gradient: Tensor, variable: Variable) -> Tensor:
        index = self._get_variable_index(variable)
        if not self.decays_norms and index in self._norms:
            return gradient
        return gradient + self.l2 * variable

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decays_norms": self.decays_norms}


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

    Example:
        >>> weight = keras.Variable([[3.0, 4.0]])
        >>> LARS(1.0, l2=0.0).apply([ops.array([[0.0, 2.0]])], [weight])
        >>> weight.numpy().round(3).tolist()  # 0.001 of its norm, whatever the gradient
        [[3.0, 3.99...]]
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        *,
        momentum: float = 0.9,
        l2: float = 1e-5,
        trust_coefficient: float = TRUST_COEFFICIENT,
        name: str = "lars",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, momentum=momentum, l2=l2, name=name, **kwargs)
        self.trust_coefficient = trust_coefficient

    def direction(self, gradient: Tensor, variable: Variable) -> Tensor:
        if len(variable.shape) < 2:
            return gradient
        weights = ops.convert_to_tensor(variable)
        gradient = gradient + self.l2 * weights
        weight_norm, gradient_norm = norm(weights), norm(gradient)
        nonzero = (weight_norm > 0) & (gradient_norm > 0)
        safe_norm = ops.where(nonzero, gradient_norm, 1.0)
        ratio = self.trust_coefficient * weight_norm / safe_norm
        return gradient * ops.where(nonzero, ratio, ops.ones_like(ratio))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "trust_coefficient": self.trust_coefficient}
