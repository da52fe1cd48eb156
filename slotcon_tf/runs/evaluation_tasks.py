"""The tasks of an evaluation on its labelled images, and the network to beat."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

import keras

from slotcon_tf.data.labelled import (
    ClassifiedImages,
    SegmentedImages,
    open_classified,
    open_segmented,
)
from slotcon_tf.encoders.copies import twin
from slotcon_tf.evaluation import classification, tasks
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.evaluation.linear import LinearSettings
from slotcon_tf.images.statistics import PixelRange
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.progress import bar
from slotcon_tf.runs.evaluate_config import DETECTION, EvaluateConfig
from slotcon_tf.runs.label_settings import label_options


def result_name(config: EvaluateConfig, task: str) -> str:
    """What the files of a result are called, without an ending.

    Example:
        >>> result_name(EvaluateConfig(model="a", dataset="tfds:voc"), "groups")
        'groups_tfds-voc_val_teacher'
    """
    name = f"{task}_{config.dataset}_{config.split}"
    if task != DETECTION:  # a detector is one network
        name += f"_{config.which}"
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)


def untrained(model: keras.Model, seed: int) -> keras.Model:
    """A model of the same architecture, with first weights drawn by a seed.

    Args:
        model: A `SlotCon` or an encoder.
        seed: Of the weights.

    Example:
        >>> dense = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> untrained(dense, 0).output_shape
        (None, 1)
    """
    keras.utils.set_random_seed(seed)
    if isinstance(model, SlotCon):
        return SlotCon.from_config(model.get_config())
    return twin(model)


class LabelledTasks:
    """The labelled images of a configuration, which several tasks share.

    Args:
        config: Which images, and how tasks measure them.
        pixel_range: That of the model.

    Example:
        >>> config = EvaluateConfig(model="runs/photos", data_dir="camvid")
        >>> LabelledTasks(config, None).config.split
        'val'
    """

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
