"""A fine-tuning for detection: from its settings to a detector and its scores."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.labelled import check_same_classes
from slotcon_tf.data.objects import open_objects
from slotcon_tf.detection import (
    Detector,
    Found,
    MaskRCNN,
    evaluate_detector,
    write_results,
)
from slotcon_tf.detection.dataset import AnnotatedImages, object_batches
from slotcon_tf.detection.pictures import save_detections
from slotcon_tf.detection.scoring import check_scoring
from slotcon_tf.encoders.copies import strided
from slotcon_tf.encoders.resnet import ResNet, backbone
from slotcon_tf.errors import first_line
from slotcon_tf.evaluation.results import SCORES, write_result
from slotcon_tf.images.statistics import PixelRange
from slotcon_tf.progress import bar
from slotcon_tf.runs import report
from slotcon_tf.runs.detection_config import DetectionConfig
from slotcon_tf.runs.finetune_inputs import TrainImages
from slotcon_tf.runs.initialization import begin_as_detector
from slotcon_tf.runs.labelled_run import LabelledRun
from slotcon_tf.runs.places import DETECTIONS, DETECTOR_FILE, RESULTS
from slotcon_tf.runs.products import Products
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.runs.statistics_pass import StatisticsPass
from slotcon_tf.training.optimizers import SGD
from slotcon_tf.training.schedules import WarmupSteps

# What is measured anew where a run's detector is not there yet, as hosts tell it.
_MISSING, _THERE = "missing", "there"


def finetune_detection(
    config: DetectionConfig, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> DetectionRun:
    """Trains a Mask R-CNN on an encoder, or goes on with what workdir holds.

    Writes into the work directory: finetune_detection.flags (every setting; repeats the
    run), checkpoints/, history.csv, tensorboard/, detector.keras (loads after
    `import slotcon_tf.detection`), scores.json and results.json (of `val_split`, newest
    evaluation: average precision, and what was found in COCO's layout), detections.png
    and finished.json (what was made after the last step). Called again for a finished
    run it writes nothing, or what is missing.

    Args:
        config: What is learned from what, and how long. With `dry_run` a plan is
            printed and nothing is written; `slotcon_tf.runs.plan` returns it.
        callbacks: Keras callbacks of the training, such as loggers, beside those that
            `config.callbacks` names.

    Returns:
        The run: `model`, the trained `MaskRCNN`; `workdir`, a pathlib.Path; `scores`,
        a dict of those of `val_split`.

    Raises:
        SettingError, ValueError, OSError: If a setting or an image set cannot be used.
        WorkdirError: If the work directory is another run's, or of other data.
        HostError: If hosts of the run are missing, differ, or one of them has ended.
        RunStopped: If training broke off, by a signal too; the same call goes on.
        RunUnfinished: If training is done and saved, and detector.keras or the scores
            could not be written; the same call writes them.

    Example:
        ```python
        from slotcon_tf.runs import DetectionConfig, finetune_detection

        config = DetectionConfig.from_recipe(
            "coco_mask_rcnn", init_from="runs/coco", data_dir="/data/coco"
        )
        box_ap = finetune_detection(config).scores["box_ap"]
        ```
        >>> config = DetectionConfig(data_dir="nowhere")
        >>> finetune_detection(config)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: ...
    """
    report.start_logging()
    with DetectionRun.begun(config, callbacks) as run:
        return run.to_the_end()


class DetectionRun(LabelledRun):
    """One fine-tuning for detection; see `finetune_detection`.

    Args:
        config: `DetectionConfig`.
        callbacks: As `finetune_detection` takes them.
        hosts: As `meet_hosts` returns them; None: this one is alone.

    Example:
        >>> DetectionRun(DetectionConfig(data_dir="nowhere"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: ...
    """

    config: DetectionConfig
    model_file = DETECTOR_FILE
    picture, found = DETECTIONS, "the detections"

    @property
    def batches_vary(self) -> bool:
        return not self.config.fixed_sizes

    def open_splits(self, pixel_range: PixelRange | None) -> None:
        config = self.config
        if self.batches_vary and isinstance(self.strategy, tf.distribute.TPUStrategy):
            raise SettingError(
                "strategy=tpu needs `fixed_sizes`. Received: none. Set "
                "fixed_sizes=800x1344,1344x800."
            )
        check_scoring()
        opened = functools.partial(
            open_objects,
            config.dataset,
            config.data_dir,
            masks=not config.box_only,
            pixel_range=pixel_range,
        )
        train = opened(
            config.train_split, max_images=config.max_train_images, training=True
        )
        self.val_images = opened(config.val_split, max_images=config.max_val_images)
        self.train_images = TrainImages(train)
        check_same_classes(train, self.val_images)
        if not (train.has_masks or config.box_only):
            raise SettingError(
                "Masks are learned from outlines of objects. Received: none in "
                f"{train!r}. Set box_only=true for a detector of boxes."
            )
        if not (self.val_images.has_masks or config.box_only):
            logging.warning(
                "Masks are learned and not measured: scores are of boxes alone, since "
                "there are no outlines of objects in %r.",
                self.val_images,
            )

    def build_model(self) -> MaskRCNN:
        config = self.config
        encoder = self._encoder()
        encoder.trainable = not config.freeze_encoder
        model = MaskRCNN(
            encoder,
            class_names=self.train_images.class_names,
            name="detector",
            **config.model_settings(),
        )
        if config.init_part == "detector":
            begin_as_detector(model, config.init_from)
        # Reference: biases decay, scales and shifts of normalisation do not.
        optimizer = SGD(self._schedule(), l2=config.weight_decay, decays_norms=False)
        # Without fixed sizes a step's shapes are of what it meets.
        jit: Any = config.jit if config.fixed_sizes else False
        model.compile(optimizer=optimizer, jit_compile=jit)
        return model

    def _schedule(self) -> WarmupSteps:
        config = self.config
        return WarmupSteps(
            peak=config.learning_rate,
            total_steps=config.steps,
            warmup_steps=config.warmup_steps,
            start_factor=config.warmup_factor,
            milestones=config.shares,
        )

    def log_start(self) -> None:
        super().log_start()
        config = self.config
        first_fall = min((*config.falls_at, config.steps))
        if config.warmup_steps >= first_fall:
            highest = np.max(self._schedule()(np.arange(config.steps)))
            logging.warning(
                "The learning rate of %g is never reached, %.2g at most: the warm-up "
                "of %d steps is not over when it falls, or the run ends, at step %d. "
                "Set `warmup_steps` far below %d.",
                config.learning_rate,
                highest,
                config.warmup_steps,
                first_fall,
                first_fall,
            )

    def _encoder(self) -> ResNet:
        if self._pretrained is None:
            return backbone(self.config.arch, output_stride=32)
        try:
            return strided(self._pretrained)
        except ValueError as error:
            raise SettingError(
                f"init_from={self.config.init_from}: {error} Pretrain with "
                "output_stride=32, as recipe=scenes_r18 and recipe=coco do."
            ) from None

    def prepare(self) -> None:
        config = self.config
        self.detector = Detector(self.model)
        self.statistics = StatisticsPass(
            self.model,
            self.distributed,
            config.precise_batches,
            of_any_size=self.batches_vary,
            shows_progress=self.chief,
        )
        self._is_final = False  # whether the model has its last statistics

    def dataset(
        self, step: int, context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        config, images = self.config, self.train_images
        return object_batches(
            cast(AnnotatedImages, images),
            short_edges=config.train_short_edges,
            long_edge=config.long_edge,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=step,
            statistics=self.model.statistics,
            fixed_sizes=config.padded_sizes,
            max_objects=config.max_objects,
            max_corners=config.max_corners,
            flip=config.flip,
            input_context=context,
        )

    def look_at(self, batch: dict[str, tf.Tensor]) -> None:
        images, valid = batch["images"], batch["valid"]
        logging.info(
            "First batch: images %s in [%.2f, %.2f], %d objects",
            tuple(images.shape),
            tf.reduce_min(images),
            tf.reduce_max(images),
            tf.math.count_nonzero(valid),
        )

    @property
    def evaluation_epochs(self) -> int:
        return 1 if self.config.eval_every_steps else self.epochs

    @property
    def schedule_name(self) -> str:
        config = self.config
        falls = " and ".join(f"{step:,}" for step in config.falls_at) or "no step"
        return f"warm-up of {config.warmup_steps} steps, times 0.1 at {falls}"

    def evaluation_seconds(self) -> float:
        return self.statistics.seconds() + super().evaluation_seconds()

    def of_all_hosts(self, stop: Callable[[], bool]) -> list[keras.callbacks.Callback]:
        def measure(epoch, logs=None):
            done = epoch + 1
            if done == self.epochs or done % self.evaluation_epochs == 0:
                self._measure_statistics(stop)

        def make_up(logs=None):
            if self._lacks_scores():
                self._measure_statistics(stop)
                epoch = self.first_step // self.steps_per_epoch - 1
                with self.troubles.of("evaluation", epoch):
                    if self.chief:
                        self._add_scores(epoch)

        return [
            keras.callbacks.LambdaCallback(on_train_begin=make_up, on_epoch_end=measure)
        ]

    def _lacks_scores(self) -> bool:
        """Whether a run that goes on was stopped before its last row was measured."""
        epochs, rest = divmod(self.first_step, self.steps_per_epoch)
        if not epochs or rest or epochs % self.evaluation_epochs:
            return False
        row = self.history.rows.get(epochs - 1, {}) if self.chief else {}
        there = any(value for key, value in row.items() if key.startswith("val_"))
        said = self.hosts.first_says({SCORES: _THERE if there else _MISSING})
        return said[SCORES] == _MISSING

    def after_training(self, stop: Callable[[], bool]) -> None:
        """Gives the model its last statistics, where training has not done so just now.

        Those of detector.keras, if it is there: a run that was killed after it goes on.
        """
        if self._is_final:
            return
        there = self.chief and self._load_detector()
        said = self.hosts.first_says({DETECTOR_FILE: _THERE if there else _MISSING})
        if said[DETECTOR_FILE] == _MISSING:
            self._measure_statistics(stop)

    def _load_detector(self) -> bool:
        """Gives the model what detector.keras holds; whether it is there, and whole."""
        path = self._products().path_of(DETECTOR_FILE)
        if path is None:
            return False
        try:
            self.model.load_weights(path)
        except Exception as error:  # noqa: BLE001  whatever Keras meets in a damaged one
            told = first_line(error, 200)
            logging.warning("%s cannot be read (%s): it is made anew.", path, told)
            path.unlink()
            self.checkpoints.restore()  # a part may have been read
            return False
        return True

    def _measure_statistics(self, stop: Callable[[], bool]) -> None:
        if not self.statistics.gather(stop):
            raise self.interrupted()
        if int(self.model.step.numpy()) == self._last_step:
            self.statistics.apply()
            self._is_final = True

    def evaluate(self) -> dict[str, float]:
        with self.statistics.applied():
            results, found = evaluate_detector(
                self.detector,
                self.val_images,
                progress=lambda numbers: bar(numbers, desc="detect", unit="image"),
            )
        write_results(self.workdir / RESULTS, results)
        about = {"split": self.config.val_split, "step": int(self.model.step.numpy())}
        write_result(self._scores_file, found.result(repr(self.val_images), **about))
        return found.scores

    def measured(self) -> bool:
        return super().measured() and (self.workdir / RESULTS).is_file()

    def predict_one(self, sample: Any) -> Found:
        image, _ = sample
        return self.detector(image)

    def finish(self, products: Products) -> None:
        super().finish(products)
        products.make(RESULTS, self._last_results)

    def _last_results(self) -> pathlib.Path:
        self.last_scores()
        return self.workdir / RESULTS

    def draw(self, path: pathlib.Path, shown: list[Any]) -> None:
        found = ((image, truth, self.detector(image)) for image, truth in shown)
        save_detections(path, found, self.model.class_names)
