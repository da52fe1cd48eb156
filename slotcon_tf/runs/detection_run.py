"""A fine-tuning for detection: from its settings to a detector and its scores."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
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
from slotcon_tf.evaluation.results import write_result
from slotcon_tf.images.statistics import PixelRange
from slotcon_tf.progress import bar
from slotcon_tf.runs import report
from slotcon_tf.runs.detection_config import DetectionConfig
from slotcon_tf.runs.finetune_inputs import TrainImages
from slotcon_tf.runs.initialization import begin_as_detector
from slotcon_tf.runs.places import DETECTIONS, DETECTOR_FILE, RESULTS
from slotcon_tf.runs.precise_run import PreciseRun
from slotcon_tf.runs.products import Products
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.runs.statistics_pass import StatisticsPass
from slotcon_tf.training.optimizers import SGD
from slotcon_tf.training.schedules import WarmupSteps


def finetune_detection(
    config: DetectionConfig, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> DetectionRun:
    """Trains a Mask R-CNN on an encoder, or goes on with what workdir holds.

    As `finetune`, with its arguments. Writes into the work directory what that does,
    but for finetune_detection.flags, detector.keras (loads after
    `import slotcon_tf.detection`), results.json (what was found at the newest
    evaluation, in COCO's layout) beside scores.json (average precision), and
    detections.png.

    Returns:
        The run: `model`, the trained `MaskRCNN`; `workdir`, a pathlib.Path; `scores`,
        a dict of those of `val_split`.

    Raises:
        HostError: If hosts of the run are missing, differ, or one of them has ended;
            else as `finetune`.

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


class DetectionRun(PreciseRun):
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
