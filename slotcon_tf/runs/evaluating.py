"""Measures a trained model against labelled images."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import keras

from slotcon_tf.data.labelled import (
    SEGMENTED,
    ClassifiedImages,
    SegmentedImages,
    open_classified,
    open_segmented,
)
from slotcon_tf.data.labelled.classified import CLASSIFIED
from slotcon_tf.encoders.copies import twin
from slotcon_tf.evaluation import classification, tasks
from slotcon_tf.evaluation.bootstrap import RESAMPLES
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.evaluation.linear import LinearSettings
from slotcon_tf.evaluation.results import result_of, show_result, write_result
from slotcon_tf.images.statistics import PixelRange, statistics_of
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.progress import bar
from slotcon_tf.runs.label_settings import LabelSettings, label_options
from slotcon_tf.runs.load_settings import ModelSettings, scale_setting, which_setting
from slotcon_tf.runs.loading import load_trained, results_folder
from slotcon_tf.runs.settings import SettingError, setting

TASKS = ("groups", "linear", "retrieval", "knn", "classification")
_LINEAR = LinearSettings()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(LabelSettings, ModelSettings):
    """What is measured, on what, and how; see `evaluate`.

    Example:
        >>> EvaluateConfig(model="runs/photos", data_dir="camvid").task
        ('groups',)
    """

    task: tuple[str, ...] = setting(
        ("groups",), "What is measured, with commas.", choices=TASKS
    )
    dataset: str = setting(
        "folders",
        f"Label maps: {', '.join(SEGMENTED)}. Classes: {', '.join(CLASSIFIED)}.",
    )
    data_dir: str | None = setting(None, "Folder of the labelled images.")
    split: str = setting("val", "What is measured.")
    train_split: str = setting(
        "train", "What probes learn from; '' for none (retrieval)."
    )
    which: str = which_setting()
    scale: float = scale_setting()
    crop_size: int | None = setting(
        None,
        "Edge of the square that is cut of an image, whose shorter edge is resized to "
        "it first; 0: whole images. Default: 320 for coco_stuff27, 224 for classes, 0 "
        "elsewhere.",
        low=0,
    )
    image_list: str | None = setting(
        None, "Text file of image names to keep, of the measured split."
    )
    max_images: int | None = setting(
        None, "Evenly spaced images of the measured split.", low=1
    )
    max_train_images: int | None = setting(
        None, "Evenly spaced images of train_split.", low=1
    )
    batch_size: int = setting(16, "Images at once.", low=1)
    steps: int = setting(_LINEAR.steps, "Training steps, of the linear probe.", low=1)
    learning_rate: float = setting(
        _LINEAR.learning_rate, "Of the linear probe.", low=0.0
    )
    probe_batch_size: int = setting(
        _LINEAR.batch_size, "Images per step of the probe.", low=1
    )
    label_stride: int = setting(
        _LINEAR.label_stride, "Pixels between trained labels.", low=1
    )
    memory_gb: float = setting(_LINEAR.memory_gb, "Maps that the probe keeps.", low=0.0)
    neighbors: int = setting(classification.NEIGHBORS, "Of knn.", low=1)
    baseline: bool = setting(True, "Measure the network untrained, too.")
    resamples: int = setting(RESAMPLES, "Of the bootstrap; 0: no intervals.", low=0)
    seed: int = setting(0, "Of the untrained weights, probes and resamples.", low=0)
    output: str | None = setting(
        None, "JSON file to write, for one task; default: in a run's folder."
    )


def evaluate(config: EvaluateConfig) -> list[dict[str, Any]]:
    """Measures a model by every task; prints tables and writes JSON files.

    Every score stands beside that of the same network untrained, with the difference,
    and with 95% intervals of a bootstrap over images.

    Args:
        config: What is measured, and how.

    Returns:
        A result for each task, as `slotcon_tf.evaluation.results` describes it.

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
    if config.output and len(config.task) > 1:
        raise SettingError(
            f"`output` is for one task. Received: {len(config.task)}. Leave it out, or "
            "call once for each."
        )
    if "linear" in config.task and not config.train_split:
        raise SettingError("The task linear learns from `train_split`. Received: none.")
    model, _ = load_trained(config.model, prefix=config.prefix)
    networks = {"trained": Inference(model, config.which, config.scale)}
    if config.baseline:
        blank = _untrained(model, config.seed)
        networks = {
            "untrained": Inference(blank, config.which, config.scale),
            **networks,
        }
    labelled = _Labelled(config, statistics_of(model).pixel_range)
    return [_measure(name, labelled, networks) for name in config.task]


def _measure(
    name: str, labelled: _Labelled, networks: dict[str, Inference]
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
        settings={k: v for k, v in known.items() if k not in ("task", "output")},
        resamples=config.resamples,
        seed=config.seed,
    )
    show_result(found)
    _write(found, config)
    return found


def _untrained(model: keras.Model, seed: int) -> keras.Model:
    """A model of the same architecture, with first weights drawn by a seed."""
    keras.utils.set_random_seed(seed)
    if isinstance(model, SlotCon):
        return SlotCon.from_config(model.get_config())
    return twin(model)


class _Labelled:
    """The labelled images of a configuration, which several tasks share."""

    def __init__(self, config: EvaluateConfig, pixel_range: PixelRange | None) -> None:
        self.config = config
        self._pixel_range = pixel_range
        # Label maps are looked through once.
        self._segmented = functools.cache(self._open_segmented)

    def task(
        self, name: str, inference: Inference
    ) -> tuple[SegmentedImages | ClassifiedImages, tasks.Task]:
        """The set that is measured, and the task on it."""
        config = self.config
        options = {"batch_size": config.batch_size, "progress": _progress}
        if name in ("knn", "classification"):
            train = self._classified(config.train_split, config.max_train_images)
            data = self._classified(config.split, config.max_images)
            fit = classification.linear_classifier
            if name == "knn":
                fit = functools.partial(
                    classification.nearest_neighbours, neighbors=config.neighbors
                )
            return data, tasks.classification_task(fit, train, data, **options)
        data = self._segmented(config.split, config.max_images, config.image_list)
        if name == "groups":
            inference.need_groups()
            return data, tasks.groups_task(data, inference.num_prototypes, **options)
        train: Any = None
        if config.train_split:
            train = self._segmented(config.train_split, config.max_train_images)
        if name == "retrieval":
            inference.need_groups()
            return data, tasks.retrieval_task(train, data, **options)
        probe = LinearSettings(
            steps=config.steps,
            batch_size=config.probe_batch_size,
            learning_rate=config.learning_rate,
            label_stride=config.label_stride,
            memory_gb=config.memory_gb,
            seed=config.seed,
        )
        return data, tasks.linear_task(train, data, probe, **options)

    def _open_segmented(
        self, split: str, most: int | None, image_list: str | None = None
    ) -> SegmentedImages:
        return open_segmented(
            self.config.dataset,
            self.config.data_dir,
            split,
            crop_size=self.config.crop_size,
            image_list=image_list,
            max_images=most,
            pixel_range=self._pixel_range,
            **label_options(self.config),
        )

    def _classified(self, split: str, most: int | None) -> ClassifiedImages:
        size = self.config.crop_size
        options = {} if size is None else {"crop_size": size}
        return open_classified(
            self.config.dataset,
            self.config.data_dir,
            split,
            max_images=most,
            pixel_range=self._pixel_range,
            **options,
        )


def _progress(items: Iterable) -> Iterable:
    return bar(items, desc="evaluate", leave=False)


def _write(result: dict[str, Any], config: EvaluateConfig) -> None:
    """Writes a result as JSON, where `output` or the run's folder says."""
    folder = results_folder(config.model)
    if config.output:
        path = pathlib.Path(config.output)
    elif folder:
        name = f"{result['task']}_{config.dataset}_{config.split}_{config.which}"
        path = folder / "evaluation" / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.json"
    else:
        return
    write_result(path, result)
    print(f"Written: {path}")
