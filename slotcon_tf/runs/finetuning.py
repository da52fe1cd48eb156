"""A fine-tuning for segmentation: from its settings to a segmenter and its scores."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.identity import Identity
from slotcon_tf.data.labelled import SegmentedImages
from slotcon_tf.encoders.resnet import backbone
from slotcon_tf.evaluation.results import (
    SCORES,
    TRAINED,
    read_result,
    result,
    show_result,
    write_result,
)
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.runs import report
from slotcon_tf.runs.cluster import num_workers
from slotcon_tf.runs.finetune_config import FinetuneConfig
from slotcon_tf.runs.finetune_inputs import open_images, pretrained_encoder
from slotcon_tf.runs.places import SEGMENTER_FILE
from slotcon_tf.runs.plan_steps import bytes_of, seconds_of
from slotcon_tf.runs.products import Products
from slotcon_tf.runs.run import Run
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
from slotcon_tf.training.callbacks import NanGuard
from slotcon_tf.training.monitoring import PeriodicEvaluation, val_logs
from slotcon_tf.training.optimizers import SGD
from slotcon_tf.training.schedules import Poly, Steps

_SCHEDULES = {"poly": Poly, "steps": Steps}
REPORTED = ("miou", "pixel_accuracy", "mean_accuracy")
_TRIED = 4  # images that tell how long an evaluation takes
_ADVICE = "with a lower `learning_rate`, or with precision=float32"


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


class FinetuneRun(Run):
    """One fine-tuning; see `finetune`.

    Args:
        config: `FinetuneConfig`.

    Example:
        >>> FinetuneRun(FinetuneConfig(strategy="multi_worker"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: Fine-tuning runs on one host...
    """

    config: FinetuneConfig

    def build_strategy(self, config: RunSettings) -> tf.distribute.Strategy:
        several = config.strategy == "auto" and num_workers() > 1
        if several or config.strategy == "multi_worker":
            raise SettingError(
                "Fine-tuning runs on one host. Received: strategy=multi_worker, or a "
                "TF_CONFIG of several workers. Unset TF_CONFIG; strategy=mirrored "
                "takes all GPUs of this host."
            )
        return super().build_strategy(config)

    def open_images(self) -> None:
        config = self.config
        replicas = self.strategy.num_replicas_in_sync
        config.check_batch(replicas, f"the {replicas} replicas")
        self._pretrained = None
        if config.init_from:
            self._pretrained = pretrained_encoder(config.init_from, config.prefix)
        pixel_range = statistics_of(self._pretrained).pixel_range
        self.train_images, self.val_images = open_images(config, pixel_range)

    def identify(self) -> Identity:
        train, val = self.train_images.images.identity(), self.val_images.identity()
        return Identity(train=train, val=val)

    @property
    def images(self) -> SegmentedImages:
        return self.train_images.images

    @property
    def steps_per_epoch(self) -> int:
        return self.config.steps_between_evaluations

    @property
    def epochs(self) -> int:
        return self.config.steps // self.steps_per_epoch

    @property
    def length(self) -> str:
        return f"All {self.config.steps} steps"

    @property
    def fatal(self) -> BaseException | None:
        return self.train_images.error

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

    def guard(self) -> NanGuard:
        return NanGuard(self.checkpoints.latest, advice=_ADVICE)

    def monitors(self, board: str) -> dict[str, keras.callbacks.Callback]:
        often = {"every_epochs": 1, "epochs": self.epochs}
        return {"evaluation": PeriodicEvaluation(self._measure, **often)}

    def evaluation_seconds(self) -> float:
        shown = [sample.image for sample in self.val_images.sample(_TRIED)]
        for image in shown:
            self.predict(image)  # traces, once for every size
        seconds = seconds_of(lambda: [self.predict(image) for image in shown])
        return seconds / len(shown) * self.val_images.num_images

    def model_bytes(self) -> int:
        return bytes_of([*self.model.variables, *self.model.optimizer.variables])

    @property
    def _scores_file(self):
        return self.workdir / SCORES

    @property
    def scores(self) -> dict[str, float]:
        """Of `val_split`, at the newest evaluation, by name."""
        rows = read_result(self._scores_file)["rows"]
        return {name: stages[TRAINED][0] for name, stages in rows.items()}

    def _measure(self):
        """Scores of `val_split`, which are also written to scores.json."""
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

    def log_start(self) -> None:
        config, replicas = self.config, self.strategy.num_replicas_in_sync
        logging.info("TensorFlow %s, Keras %s", tf.__version__, keras.__version__)
        logging.info(
            "%s, %d replica(s); precision %s, XLA %s",
            type(self.strategy).__name__,
            replicas,
            config.precision,
            self.model.jit_compile,
        )
        logging.info(
            "%r; batch %d = %d x %d replica(s); %d steps = %.1f passes, measured every "
            "%d steps on %r; learning rate %g, %s",
            self.train_images.images,
            config.batch_size,
            config.batch_size // replicas,
            replicas,
            config.steps,
            config.steps * config.batch_size / self.train_images.num_images,
            self.steps_per_epoch,
            self.val_images,
            config.learning_rate,
            config.schedule,
        )
        encoder, whole = self.model.encoder, self.model
        counts = [
            sum(int(np.prod(v.shape)) for v in part.trainable_variables)
            for part in (encoder, whole)
        ]
        logging.info(
            "Encoder %s of output stride %d, as %s: %s parameters of %s",
            encoder.name,
            encoder.output_stride,
            config.init_from or "random weights",
            *(f"{count:,}" for count in counts),
        )

    def finish(self, products: Products) -> None:
        products.make(
            SEGMENTER_FILE, lambda: self.save_model(SEGMENTER_FILE), needed=True
        )
        if products.make(SCORES, self._last_scores, needed=True):
            with self.troubles.of(SCORES):
                show_result(read_result(self._scores_file))
        count = self.config.num_pictures
        if count and (picture := products.make("masks.png", self._draw, of=count)):
            print(f"Picture of the masks: {picture}")

    def _last_scores(self) -> pathlib.Path:
        """Those of the last evaluation, unless a kill or a failure came before it."""
        path = self._scores_file
        try:
            measured = read_result(path)["step"] == self.config.steps
        except (OSError, ValueError, LookupError):
            measured = False
        if not measured:
            logs = val_logs(self._measure())
            with self.troubles.of("history", self.epochs - 1):
                self.history.on_epoch_end(self.epochs - 1, logs)
        return path

    def _draw(self) -> pathlib.Path:
        shown = list(self.val_images.sample(self.config.num_pictures))
        images, truths = [s.image for s in shown], [s.labels for s in shown]
        predicted = [self.predict(image) for image in images]
        picture = self.workdir / "masks.png"
        save_masks(picture, images, truths, predicted, self.val_images.class_names)
        return picture
