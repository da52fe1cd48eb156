"""What measures a model, whose weights change, by each task of a configuration."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import keras

from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.evaluation.results import result_of
from slotcon_tf.evaluation.tasks import Sums
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.runs.evaluate_config import DETECTION, DETECTOR_SETTINGS, EvaluateConfig
from slotcon_tf.runs.evaluation_tasks import LabelledTasks, untrained
from slotcon_tf.runs.loading import measured_part
from slotcon_tf.runs.measured_detector import MeasuredDetector

# Settings on which no number depends, or which say where numbers go.
_NOT_COMPARED = ("model", "prefix", "task", "output", "all", "batch_size")
_NOT_COMPARED += DETECTOR_SETTINGS


class Measure(Protocol):
    """Measures the present weights of a model by one task.

    Attributes:
        name: Of the task.
        dataset: What it is measured on.
        settings: What the numbers depend on.

    Call arguments:
        step: That the weights are of.

    Returns:
        A result, as `slotcon_tf.evaluation.results` describes it.

    Example:
        >>> issubclass(Measure, Protocol)
        True
    """

    name: str
    dataset: str
    settings: dict[str, Any]

    def __call__(self, step: int) -> dict[str, Any]: ...


def measures_of(config: EvaluateConfig, model: keras.Model) -> list[Measure]:
    """What measures a model's weights, whatever they are by then, of each task.

    Args:
        config: Which tasks, on which images.
        model: Of a run.

    Raises:
        SettingError, ValueError, OSError: If model, tasks and images do not fit.

    Example:
        >>> from slotcon_tf import backbone
        >>> config = EvaluateConfig(model="a", task=("knn",), dataset="nothing")
        >>> measures_of(config, backbone("resnet10", width=4))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: `dataset` ...
    """
    if DETECTION in config.task:
        return [_DetectorMeasure(config, model)]
    part = measured_part(model)
    inference = Inference(part, config.which, config.scale)
    labelled = LabelledTasks(config, statistics_of(part).pixel_range)
    baseline = _Baseline(part, config)
    return [_TaskMeasure(name, labelled, inference, baseline) for name in config.task]


class _DetectorMeasure:
    """Measures the detector of a run."""

    name = DETECTION

    def __init__(self, config: EvaluateConfig, model: keras.Model) -> None:
        self._measure = MeasuredDetector(config, model)
        self.dataset = repr(self._measure.images)
        known = self._measure.settings
        self.settings = {k: v for k, v in known.items() if k != "model"}

    def __call__(self, step: int) -> dict[str, Any]:
        return {**self._measure()[0], "step": step, "settings": self.settings}


class _TaskMeasure:
    """Measures one task on labelled images."""

    def __init__(
        self,
        name: str,
        labelled: LabelledTasks,
        inference: Inference,
        baseline: _Baseline,
    ) -> None:
        self.name = name
        self._config, self._inference = labelled.config, inference
        self._baseline = baseline
        data, self._task = labelled.task(name, inference)
        self.dataset = repr(data)
        known = dataclasses.asdict(labelled.config)
        self.settings = {k: v for k, v in known.items() if k not in _NOT_COMPARED}

    def __call__(self, step: int) -> dict[str, Any]:
        counts = self._baseline.counts(self.name, self._task)
        counts |= {"trained": self._task.measure(self._inference)}
        return result_of(
            self.name,
            self._task,
            counts,
            dataset=self.dataset,
            split=self._config.split,
            settings=self.settings,
            step=step,
            resamples=self._config.resamples,
            seed=self._config.seed,
        )


class _Baseline:
    """What the untrained network comes to: measured once for a task, if ever."""

    def __init__(self, model: keras.Model, config: EvaluateConfig) -> None:
        self._model, self._config = model, config
        self._inference: Inference | None = None
        self._counts: dict[str, Sums] = {}

    def counts(self, name: str, task: Any) -> dict[str, Sums]:
        """Dict of "untrained" to its sums by image; empty without a baseline."""
        config = self._config
        if not config.baseline:
            return {}
        if self._inference is None:
            blank = untrained(self._model, config.seed)
            self._inference = Inference(blank, config.which, config.scale)
        if name not in self._counts:
            self._counts[name] = task.measure(self._inference)
        return {"untrained": self._counts[name]}
