"""The task detection: a trained detector on images with objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from slotcon_tf.data.class_names import class_difference
from slotcon_tf.data.objects import ObjectImages, open_objects
from slotcon_tf.detection import Detector, MaskRCNN, evaluate_detector
from slotcon_tf.detection.resize import detector_edges
from slotcon_tf.detection.results import Result
from slotcon_tf.detection.scoring import check_scoring
from slotcon_tf.progress import bar
from slotcon_tf.runs.evaluate_config import DETECTION, DETECTOR_SETTINGS, EvaluateConfig
from slotcon_tf.runs.settings import SettingError, check_left_out

_SETTINGS = ("model", "dataset", "data_dir", "split", "max_images")
_TAKEN = (*_SETTINGS, *DETECTOR_SETTINGS, "prefix", "task", "output", "all")


def check_alone(config: EvaluateConfig) -> None:
    """Refuses detection beside other tasks, and settings of theirs: models differ.

    Raises:
        SettingError: If it is, or a setting would do nothing.

    Example:
        >>> check_alone(EvaluateConfig(model="a", task=("detection",)))
    """
    if DETECTION in config.task and len(config.task) > 1:
        others = ",".join(name for name in config.task if name != DETECTION)
        raise SettingError(
            f"The task {DETECTION} is measured alone: it takes detectors. Received: "
            f"task={','.join(config.task)}. Call once with {DETECTION}, and once with "
            f"{others}, which takes the detector's encoder."
        )
    if DETECTION in config.task:
        others = [name for name in config.settings() if name not in _TAKEN]
        check_left_out(config, others, f"with task={DETECTION}")
    else:
        check_left_out(config, DETECTOR_SETTINGS, f"without task={DETECTION}")


class MeasuredDetector:
    """A detector, and the images that it is measured on.

    Args:
        config: Which images, and at which size.
        model: Of a run or a file; its present weights are measured at every call.

    Attributes:
        images: `ObjectImages`.
        settings: What the numbers depend on.

    Raises:
        SettingError: If the model is no detector.
        ValueError, OSError: If the images cannot be used, or have other classes.
        MissingExtra: If faster-coco-eval is not installed.

    Example:
        >>> from slotcon_tf import backbone
        >>> config = EvaluateConfig(model="a.keras", task=("detection",))
        >>> MeasuredDetector(config, backbone("resnet10"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: The task detection needs a detector...
    """

    def __init__(self, config: EvaluateConfig, model: keras.Model) -> None:
        if not isinstance(model, MaskRCNN):
            raise SettingError(
                "The task detection needs a detector. Received: "
                f"model={config.model}, a {type(model).__name__} without one. Train it "
                f"with slotcon-finetune-detection and init_from={config.model}."
            )
        check_scoring()
        self._model = model
        edges = checked_edges(model, config.short_edge, config.long_edge)
        self._detector = Detector(model, *edges)
        self.images = open_objects(
            config.dataset,
            config.data_dir,
            config.split,
            max_images=config.max_images,
            masks=model.masks,
            pixel_range=model.statistics.pixel_range,
        )
        check_detector_classes(model.class_names, self.images)
        self.settings = {name: getattr(config, name) for name in _SETTINGS}
        for name in DETECTOR_SETTINGS:
            self.settings[name] = getattr(self._detector, name)

    def __call__(self) -> tuple[dict[str, Any], list[Result]]:
        """Scores, as `slotcon_tf.evaluation.results` describes them, and results."""
        results, scores = evaluate_detector(
            self._detector, self.images, progress=_progress
        )
        about = {"settings": self.settings, "step": int(self._model.step.numpy())}
        split = self.settings["split"]
        return scores.result(repr(self.images), split, **about), results


def checked_edges(
    model: MaskRCNN, short_edge: int | None, long_edge: int | None
) -> tuple[int, int]:
    """`detector_edges` of settings.

    Raises:
        SettingError: If the longest would be shorter than the shortest.

    Example:
        >>> from types import SimpleNamespace
        >>> checked_edges(SimpleNamespace(short_edge=800, long_edge=1333), None, 1000)
        (800, 1000)
    """
    try:
        return detector_edges(model, short_edge, long_edge)
    except ValueError as error:
        raise SettingError(str(error)) from None


def _progress(numbers: Iterable[int]) -> Iterable[int]:
    return bar(numbers, desc="detect", unit="image", leave=False)


def check_detector_classes(class_names: tuple[str, ...], images: ObjectImages) -> None:
    """Refuses images of other classes than a detector's.

    Raises:
        ValueError: If they differ; it names those that do.

    Example:
        >>> from types import SimpleNamespace
        >>> sky = SimpleNamespace(class_names=("sky", "cat"), name="photos")
        >>> check_detector_classes(("cat", "dog"), sky)
        Traceback (most recent call last):
        ValueError: Detector and images must have the same classes. Received: 'dog' of
        the detector only, 'sky' of photos only. ...
    """
    whose = ("the detector", images.name)
    odd = class_difference(class_names, images.class_names, whose)
    if odd:
        raise ValueError(
            "Detector and images must have the same classes. Received: "
            f"{odd}. Take the images that it was trained for."
        )
