"""A fine-tuning for segmentation: from its settings to a segmenter and its scores."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.encoders.resnet import backbone
from slotcon_tf.evaluation.results import (
    TRAINED,
    result,
    write_result,
)
from slotcon_tf.images.statistics import PixelRange
from slotcon_tf.runs import report
from slotcon_tf.runs.cluster import num_workers
from slotcon_tf.runs.finetune_config import FinetuneConfig
from slotcon_tf.runs.finetune_inputs import open_images
from slotcon_tf.runs.labelled_run import LabelledRun
from slotcon_tf.runs.places import SEGMENTER_FILE
from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.segmentation import (
    HEADS,
    OUTPUT_STRIDES,
    Augmentation,
    Predictor,
    Segmenter,
    crop_dataset,
    dilated,
    evaluate,
    save_masks,
)
from slotcon_tf.training.optimizers import SGD
from slotcon_tf.training.schedules import Poly, Steps

_SCHEDULES = {"poly": Poly, "steps": Steps}
REPORTED = ("miou", "pixel_accuracy", "mean_accuracy")


def finetune(
    config: FinetuneConfig, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> FinetuneRun:
    """Fine-tunes an encoder for segmentation, or goes on with what workdir holds.

    Writes into the work directory: finetune.flags (every setting; repeats the run),
    checkpoints/, history.csv, tensorboard/, scores.json (of `val_split`, newest
    evaluation), segmenter.keras (loads after `import slotcon_tf.segmentation`),
    masks.png and finished.json (what was made after the last step). Called again for a
    finished run it writes nothing, or what is missing.

    Args:
        config: What is learned from what, and how long. With `dry_run` a plan is
            printed and nothing is written; `slotcon_tf.runs.plan` returns it.
        callbacks: Keras callbacks of the training, such as loggers, beside those that
            `config.callbacks` names.

    Returns:
        The run: `model`, the trained `Segmenter`; `workdir`, a pathlib.Path; `scores`,
        a dict of those of `val_split`.

    Raises:
        SettingError, ValueError, OSError: If a setting or an image set cannot be used.
        WorkdirError: If the work directory is another run's, or of other data.
        RunStopped: If training broke off, by a signal too; the same call goes on.
        RunUnfinished: If training is done and saved, and segmenter.keras or the scores
            could not be written; the same call writes them.

    Example:
        ```python
        from slotcon_tf.runs import FinetuneConfig, finetune

        config = FinetuneConfig.from_recipe(
            "voc_fcn", init_from="runs/coco", data_dir="/data/VOCdevkit/VOC2012"
        )
        miou = finetune(config).scores["miou"]
        ```
        >>> finetune(FinetuneConfig(data_dir="nowhere"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: ...
    """
    report.start_logging()
    with FinetuneRun.begun(config, callbacks) as run:
        return run.to_the_end()


class FinetuneRun(LabelledRun):
    """One fine-tuning; see `finetune`.

    Args:
        config: `FinetuneConfig`.

    Example:
        >>> FinetuneRun(FinetuneConfig(strategy="multi_worker"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: Fine-tuning runs on one host...
    """

    config: FinetuneConfig
    model_file = SEGMENTER_FILE
    picture, found = "masks.png", "the masks"

    def build_strategy(self, config: RunSettings) -> tf.distribute.Strategy:
        several = config.strategy == "auto" and num_workers() > 1
        if several or config.strategy == "multi_worker":
            raise SettingError(
                "Fine-tuning runs on one host. Received: strategy=multi_worker, or a "
                "TF_CONFIG of several workers. Unset TF_CONFIG; strategy=mirrored "
                "takes all GPUs of this host."
            )
        return super().build_strategy(config)

    def open_splits(self, pixel_range: PixelRange | None) -> None:
        self.train_images, self.val_images = open_images(self.config, pixel_range)

    def build_model(self) -> Segmenter:
        config = self.config
        encoder = self._pretrained or backbone(config.arch)
        model = Segmenter(
            dilated(encoder, OUTPUT_STRIDES[config.head]),
            class_names=self.val_images.class_names,
            seed=config.seed,
            name="segmenter",
            **HEADS[config.head],
        )
        schedule = _SCHEDULES[config.schedule](
            peak=config.learning_rate, total_steps=config.steps
        )
        optimizer = SGD(schedule, l2=config.weight_decay)
        jit: Any = config.jit
        model.compile(optimizer=optimizer, jit_compile=jit)
        return model

    def prepare(self) -> None:
        config = self.config
        self.predict = Predictor(
            self.model,
            scale=config.fit_edges,
            window=config.crop_size if config.sliding_stride else 0,
            stride=config.sliding_stride,
        )

    def dataset(
        self, step: int, context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        config = self.config
        augment = Augmentation(
            scale=config.fit_edges,
            crop_size=config.crop_size,
            ratios=(config.min_ratio, config.max_ratio),
            cat_max_ratio=config.cat_max_ratio,
            distort=config.distort,
        )
        return crop_dataset(
            self.train_images,
            augment,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=step,
            statistics=self.model.statistics,
        )

    def evaluate(self) -> dict[str, float]:
        scores = evaluate(self.predict, self.val_images)
        names = self.val_images.class_names
        found = result(
            "segmentation",
            {name: {TRAINED: [scores[name], None, None]} for name in REPORTED},
            {
                name: {TRAINED: float(iou)}
                for name, iou in zip(names, scores["class_iou"], strict=True)
            },
            dataset=repr(self.val_images),
            split=self.config.val_split,
            step=int(self.model.step.numpy()),
        )
        write_result(self._scores_file, found)
        return {name: scores[name] for name in REPORTED}

    @property
    def schedule_name(self) -> str:
        return self.config.schedule

    def predict_one(self, sample: Any) -> np.ndarray:
        return self.predict(sample.image)

    def draw(self, path: pathlib.Path, shown: list[Any]) -> None:
        images, truths = [s.image for s in shown], [s.labels for s in shown]
        predicted = [self.predict(image) for image in images]
        save_masks(path, images, truths, predicted, self.val_images.class_names)
