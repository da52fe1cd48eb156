"""The learning rate per step: of pretraining, and of fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from slotcon_tf.types import Tensor


@keras.saving.register_keras_serializable(package="slotcon_tf")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from `peak / 100`, then half a cosine down to `final`.

    Args:
        peak: Learning rate at the end of the warm-up (base_lr * batch / 256).
        warmup_steps: Steps of the warm-up; 0 starts at the peak.
        total_steps: Steps of the whole run, warm-up included.
        start_factor: Share of the peak at step 0.
        final: Learning rate at `total_steps` and after.

    Raises:
        ValueError: If the warm-up does not fit into the run.

    Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A.

    Example:
        >>> rate = WarmupCosine(peak=2.0, warmup_steps=10, total_steps=110)
        >>> [round(float(rate(step)), 3) for step in (0, 10, 60, 110)]
        [0.02, 2.0, 1.0, 0.0]
    """

    def __init__(
        self,
        *,
        peak: float,
        warmup_steps: int,
        total_steps: int,
        start_factor: float = 0.01,
        final: float = 1e-6,
        name: str = "warmup_cosine",
    ) -> None:
        super().__init__()
        if not 0 <= warmup_steps <= total_steps or total_steps < 1:
            raise ValueError(
                "warmup_steps must lie between 0 and total_steps, and total_steps "
                f"must be positive. Received: warmup_steps={warmup_steps}, "
                f"total_steps={total_steps}. Train longer or warm up for less."
            )
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.start_factor = start_factor
        self.final = final
        self.name = name

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, keras.config.floatx())
        warm = step / max(self.warmup_steps, 1)
        start = self.peak * self.start_factor
        warmup = start + (self.peak - start) * warm
        span = max(self.total_steps - self.warmup_steps, 1)
        done = ops.clip((step - self.warmup_steps) / span, 0.0, 1.0)
        cosine = 0.5 * (ops.cos(math.pi * done) + 1.0)
        decay = self.final + (self.peak - self.final) * cosine
        return ops.where(step < self.warmup_steps, warmup, decay)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "start_factor": self.start_factor,
            "final": self.final,
            "name": self.name,
        }


@keras.saving.register_keras_serializable(package="slotcon_tf")
class Poly(keras.optimizers.schedules.LearningRateSchedule):
    """`floor + (peak - floor) * (1 - step / total_steps) ** power`.

    Args:
        peak: Learning rate at step 0.
        total_steps: Steps of the whole run.
        power: 1 falls linearly.
        floor: Learning rate at `total_steps` and after.

    Raises:
        ValueError: If `total_steps` is not positive.

    Reference: mmsegmentation 0.x, PolyLrUpdaterHook. (1.x arrives at the floor with the
    last step, one step earlier.)

    Example:
        >>> rate = Poly(peak=1.0, total_steps=100, power=1.0, floor=0.0)
        >>> [round(float(rate(step)), 3) for step in (0, 50, 100)]
        [1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        *,
        peak: float,
        total_steps: int,
        power: float = 0.9,
        floor: float = 1e-4,
        name: str = "poly",
    ) -> None:
        super().__init__()
        _check_length(total_steps)
        self.peak = peak
        self.total_steps = total_steps
        self.power = power
        self.floor = floor
        self.name = name

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, keras.config.floatx())
        left = ops.clip(1.0 - step / self.total_steps, 0.0, 1.0)
        return self.floor + (self.peak - self.floor) * left**self.power

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "power": self.power,
            "floor": self.floor,
            "name": self.name,
        }


@keras.saving.register_keras_serializable(package="slotcon_tf")
class Steps(keras.optimizers.schedules.LearningRateSchedule):
    """Constant, and times `gamma` from each milestone on.

    Args:
        peak: Learning rate at step 0.
        total_steps: Steps of the whole run.
        milestones: Shares of the run, rounded down to steps.
        gamma: Factor per milestone.

    Raises:
        ValueError: If `total_steps` is not positive.

    Reference: Wen et al. 2022 (arXiv 2205.15288), appendix: the learning rate falls
    at 70% and 90% of the run on PASCAL VOC and Cityscapes.

    Example:
        >>> rate = Steps(peak=1.0, total_steps=100)
        >>> [round(float(rate(step)), 3) for step in (0, 69, 70, 90)]
        [1.0, 1.0, 0.1, 0.01]
    """

    def __init__(
        self,
        *,
        peak: float,
        total_steps: int,
        milestones: Iterable[float] = (0.7, 0.9),
        gamma: float = 0.1,
        name: str = "steps",
    ) -> None:
        super().__init__()
        _check_length(total_steps)
        self.peak = peak
        self.total_steps = total_steps
        self.milestones = tuple(milestones)
        self.gamma = gamma
        self.name = name

    def __call__(self, step: Tensor) -> Tensor:
        rate = ops.cast(self.peak, keras.config.floatx())
        for milestone in milestone_steps(self.milestones, self.total_steps):
            rate = ops.where(step >= milestone, rate * self.gamma, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "milestones": list(self.milestones),
            "gamma": self.gamma,
            "name": self.name,
        }


@keras.saving.register_keras_serializable(package="slotcon_tf")
class WarmupSteps(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then constant, and times `gamma` from each milestone on.

    The ramp ends at the value that the steps have where it ends, as detectron2's does;
    it may be longer than the run.

    Args:
        peak: Learning rate between the warm-up and the first milestone.
        total_steps: Steps of the whole run.
        warmup_steps: Steps of the warm-up; 0 starts at the peak.
        start_factor: Share of the peak at step 0.
        milestones: Shares of the run, rounded down to steps: a shorter run has the same
            form.
        gamma: Factor per milestone.

    Raises:
        ValueError: If `total_steps` is not positive.

    Reference: detectron2's WarmupMultiStepLR; its 1x schedule falls at 60,000 and
    80,000 of 90,000 steps.

    Example:
        >>> rate = WarmupSteps(peak=1.0, total_steps=90, warmup_steps=10)
        >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 59, 60, 80)]
        [0.001, 0.501, 1.0, 1.0, 0.1, 0.01]
    """

    def __init__(
        self,
        *,
        peak: float,
        total_steps: int,
        warmup_steps: int = 0,
        start_factor: float = 0.001,
        milestones: Iterable[float] = (2 / 3, 8 / 9),
        gamma: float = 0.1,
        name: str = "warmup_steps",
    ) -> None:
        super().__init__()
        milestones = tuple(milestones)
        self.steps = Steps(
            peak=peak, total_steps=total_steps, milestones=milestones, gamma=gamma
        )
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.start_factor = start_factor
        self.milestones = milestones
        self.gamma = gamma
        self.name = name

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, keras.config.floatx())
        warm = ops.clip(step / max(self.warmup_steps, 1), 0.0, 1.0)
        start = self.peak * self.start_factor
        warmup = start * (1.0 - warm) + self.steps(self.warmup_steps) * warm
        return ops.where(step < self.warmup_steps, warmup, self.steps(step))

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "start_factor": self.start_factor,
            "milestones": list(self.milestones),
            "gamma": self.gamma,
            "name": self.name,
        }


def milestone_steps(shares: Iterable[float], total_steps: int) -> tuple[int, ...]:
    """Shares of a run, rounded down to steps.

    Example:
        >>> milestone_steps((0.7, 0.9), 30_000)
        (21000, 27000)
    """
    # Floats: 0.7 * 30_000 is 20_999.999...
    return tuple(int(share * total_steps + 1e-6) for share in shares)


def _check_length(total_steps: int) -> None:
    if total_steps < 1:
        raise ValueError(
            f"total_steps must be positive. Received: total_steps={total_steps}."
        )
