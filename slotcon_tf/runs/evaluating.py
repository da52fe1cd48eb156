"""Measures a trained model against labelled images."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from slotcon_tf.detection.results import write_results
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.evaluation.results import result_of, show_result, write_result
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.evaluate_config import DETECTION, DETECTOR_SETTINGS, EvaluateConfig
from slotcon_tf.runs.evaluating_all import evaluate_all
from slotcon_tf.runs.evaluation_tasks import LabelledTasks, result_name, untrained
from slotcon_tf.runs.loading import load_trained, results_folder
from slotcon_tf.runs.measured_detector import MeasuredDetector, check_alone
from slotcon_tf.runs.settings import SettingError

__all__ = ["EvaluateConfig", "evaluate"]
_NOT_TOLD = ("task", "output", "all", *DETECTOR_SETTINGS)


def evaluate(config: EvaluateConfig) -> list[dict[str, Any]]:
    """Measures a model by every task; prints tables and writes JSON files.

    Every score stands beside that of the same network untrained, with the difference,
    and with 95% intervals of a bootstrap over images. Those of a detector stand alone;
    what it found is written, too, as COCO's results.

    With `all` every checkpoint of a run is measured, those that are there when it
    begins, while the run goes on, too. The table (CSV) and the curve (PNG) of each
    task are written after each checkpoint, and the same call goes on from there.

    Args:
        config: What is measured, and how.

    Returns:
        A result for each task, as `slotcon_tf.evaluation.results` describes it; with
        `all` for each task and checkpoint, in the order of steps, with "checkpoint",
        its name, and "epoch", float or None.

    Raises:
        SettingError: If settings do not go together.
        ValueError, OSError: If the model or the images cannot be read, or do not fit.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from slotcon_tf import backbone
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> backbone("resnet10", width=4).save(folder / "encoder.keras")
        >>> for color in ("red", "blue"):
        ...     (folder / "all" / color).mkdir(parents=True)
        ...     Image.new("RGB", (32, 32), color).save(folder / "all" / color / "a.png")
        >>> found = evaluate(EvaluateConfig(
        ...     model=folder / "encoder.keras", task=("knn",), dataset="class_folders",
        ...     data_dir=folder, split="all", train_split="all", crop_size=32,
        ...     baseline=False, resamples=0, output=folder / "scores.json",
        ... ))  # doctest: +ELLIPSIS
        knn: class_folders .../all: 2 images, 2 classes
        score     trained
        accuracy    1.000
        Written: .../scores.json
    """
    if config.output and len(config.task) > 1 and not config.all:
        raise SettingError(
            f"`output` is for one task. Received: {len(config.task)}. Leave it out, or "
            "call once for each."
        )
    if "linear" in config.task and not config.train_split:
        raise SettingError("The task linear learns from `train_split`. Received: none.")
    check_alone(config)
    if config.all:
        return evaluate_all(config)
    _check_output(config)
    whole = DETECTION in config.task
    model, _ = load_trained(config.model, detectors=whole, prefix=config.prefix)
    if whole:
        return [_measure_detector(MeasuredDetector(config, model), config)]
    networks = {"trained": Inference(model, config.which, config.scale)}
    if config.baseline:
        blank = untrained(model, config.seed)
        networks = {
            "untrained": Inference(blank, config.which, config.scale),
            **networks,
        }
    labelled = LabelledTasks(config, statistics_of(model).pixel_range)
    step = int(model.step.numpy()) if isinstance(model, SlotCon) else None
    return [_measure(name, labelled, networks, step) for name in config.task]


def _check_output(config: EvaluateConfig) -> None:
    """Refuses a place that cannot be written before hours of work, not after."""
    if config.output is None:
        return
    path = pathlib.Path(config.output)
    if path.is_dir():
        raise SettingError(
            f"`output` must be a file to write. Received: output={path}, a folder. "
            f"Take {path / result_name(config, config.task[0])}.json."
        )
    path.parent.mkdir(parents=True, exist_ok=True)


def _measure_detector(
    measure: MeasuredDetector, config: EvaluateConfig
) -> dict[str, Any]:
    found, results = measure()
    show_result(found)
    if path := _write(found, config):
        path = path.parent / "detections" / path.name
        write_results(path, results)
        print(f"Written: {path} (COCO's results)")
    return found


def _measure(
    name: str,
    labelled: LabelledTasks,
    networks: dict[str, Inference],
    step: int | None,
) -> dict[str, Any]:
    config = labelled.config
    data, task = labelled.task(name, networks["trained"])
    known = dataclasses.asdict(config)
    found = result_of(
        name,
        task,
        {which: task.measure(inference) for which, inference in networks.items()},
        dataset=repr(data),
        split=config.split,
        settings={k: v for k, v in known.items() if k not in _NOT_TOLD},
        step=step,
        resamples=config.resamples,
        seed=config.seed,
    )
    show_result(found)
    _write(found, config)
    return found


def _write(result: dict[str, Any], config: EvaluateConfig) -> pathlib.Path | None:
    """Writes a result as JSON, where `output` or the run's folder says."""
    folder = results_folder(config.model)
    if config.output:
        path = pathlib.Path(config.output)
    elif folder:
        path = folder / "evaluation" / f"{result_name(config, result['task'])}.json"
    else:
        return None
    write_result(path, result)
    print(f"Written: {path}")
    return path
