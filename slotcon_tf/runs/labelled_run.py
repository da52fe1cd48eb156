"""LabelledRun: what fine-tunings for segmentation and for detection share."""

from __future__ import annotations

import abc
import pathlib
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.identity import Identity
from slotcon_tf.evaluation.results import (
    SCORES,
    TRAINED,
    read_result,
    show_result,
)
from slotcon_tf.images.statistics import PixelRange, statistics_of
from slotcon_tf.runs.finetune_inputs import TrainImages, pretrained_encoder
from slotcon_tf.runs.finetune_settings import FinetuneSettings
from slotcon_tf.runs.plan_steps import bytes_of, seconds_of
from slotcon_tf.runs.products import Products
from slotcon_tf.runs.run import Run
from slotcon_tf.training.callbacks import NanGuard
from slotcon_tf.training.monitoring import PeriodicEvaluation, val_logs

_TRIED = 4  # images that tell how long an evaluation takes
_ADVICE = "with a lower `learning_rate`, or with precision=float32"


class LabelledRun(Run):
    """One fine-tuning of an encoder on labelled images, which measures itself.

    A subclass says what is learned, and how it is measured.

    Attributes:
        train_images: `TrainImages` of `train_split`.
        val_images: Those of `val_split`.

    Example:
        >>> from slotcon_tf.runs.finetuning import FinetuneRun
        >>> issubclass(FinetuneRun, LabelledRun)
        True
    """

    config: FinetuneSettings
    model_file: ClassVar[str]  # what the run is for
    picture: ClassVar[str]  # of what the model finds
    found: ClassVar[str]  # ... in words
    train_images: TrainImages
    val_images: Any

    def open_images(self) -> None:
        config = self.config
        replicas = self.strategy.num_replicas_in_sync
        config.check_batch(replicas, f"the {replicas} replicas")
        self._pretrained = None
        if config.init_from:
            self._pretrained = pretrained_encoder(config.init_from, config.prefix)
        self.open_splits(statistics_of(self._pretrained).pixel_range)

    @abc.abstractmethod
    def open_splits(self, pixel_range: PixelRange | None) -> None:
        """Sets `train_images` and `val_images`.

        Args:
            pixel_range: That of the pretrained encoder.
        """

    @abc.abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Scores of `val_split` by name, which are also written to scores.json."""

    @abc.abstractmethod
    def predict_one(self, sample: Any) -> Any:
        """What the model finds in a sample of `val_images`."""

    @abc.abstractmethod
    def draw(self, path: pathlib.Path, shown: list[Any]) -> None:
        """Writes a picture of what is found in the samples `shown`."""

    def identify(self) -> Identity:
        train, val = self.train_images.images.identity(), self.val_images.identity()
        return Identity(train=train, val=val)

    @property
    def images(self) -> Any:
        return self.train_images.images

    @property
    def steps_per_epoch(self) -> int:
        return self.config.steps_between_rows

    @property
    def epochs(self) -> int:
        return self.config.steps // self.steps_per_epoch

    @property
    def length(self) -> str:
        return f"All {self.config.steps} steps"

    @property
    def fatal(self) -> BaseException | None:
        return self.train_images.error

    def guard(self) -> NanGuard:
        return NanGuard(self.checkpoints.latest, advice=_ADVICE)

    def monitors(self, board: str) -> dict[str, keras.callbacks.Callback]:
        often = {"every_epochs": self.evaluation_epochs, "epochs": self.epochs}
        return {"evaluation": PeriodicEvaluation(self.evaluate, **often)}

    def evaluation_seconds(self) -> float:
        shown = list(self.val_images.sample(_TRIED))
        for sample in shown:
            self.predict_one(sample)  # traces, once for every size
        seconds = seconds_of(lambda: [self.predict_one(sample) for sample in shown])
        return seconds / len(shown) * self.val_images.num_images

    def model_bytes(self) -> int:
        return bytes_of([*self.model.variables, *self.model.optimizer.variables])

    @property
    def _scores_file(self) -> pathlib.Path:
        return self.workdir / SCORES

    @property
    def scores(self) -> dict[str, float]:
        """Of `val_split`, at the newest evaluation, by name."""
        rows = read_result(self._scores_file)["rows"]
        return {name: stages[TRAINED][0] for name, stages in rows.items()}

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
            "%r; batch %d = %d x %d replica(s); %d steps = %.1f passes, %s on %r; "
            "learning rate %g, %s",
            self.images,
            config.batch_size,
            config.batch_size // replicas,
            replicas,
            config.steps,
            config.steps * config.batch_size / self.images.num_images,
            self._when_measured(),
            self.val_images,
            config.learning_rate,
            self.schedule_name,
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

    def _when_measured(self) -> str:
        if self.evaluation_epochs == self.epochs:
            return "measured at the end"
        return f"measured every {self.evaluation_epochs * self.steps_per_epoch} steps"

    @property
    @abc.abstractmethod
    def schedule_name(self) -> str:
        """Of the learning rate, in words."""

    def finish(self, products: Products) -> None:
        products.make(
            self.model_file, lambda: self.save_model(self.model_file), needed=True
        )
        if products.make(SCORES, self.last_scores, needed=True):
            with self.troubles.of(SCORES):
                show_result(read_result(self._scores_file))
        count = self.config.num_pictures
        if count and (picture := products.make(self.picture, self._draw, of=count)):
            print(f"Picture of {self.found}: {picture}")

    def last_scores(self) -> pathlib.Path:
        """Those of the last evaluation, unless a kill or a failure came before it."""
        if not self.measured():
            self._add_scores(self.epochs - 1)
        return self._scores_file

    def _add_scores(self, epoch: int) -> None:
        """Measures the model as it is, for the row of an epoch that is there."""
        logs = val_logs(self.evaluate())
        with self.troubles.of("history", epoch):
            self.history.on_epoch_end(epoch, logs)

    def measured(self) -> bool:
        """Whether the scores that are there are of the last step."""
        try:
            return read_result(self._scores_file)["step"] == self.config.steps
        except (OSError, ValueError, LookupError):
            return False

    def _draw(self) -> pathlib.Path:
        picture = self.workdir / self.picture
        self.draw(picture, list(self.val_images.sample(self.config.num_pictures)))
        return picture
