"""Run: what pretraining and fine-tuning share."""

from __future__ import annotations

import abc
import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Self

import keras
import tensorflow as tf
from absl import logging

from slotcon_tf.devices import best_precision
from slotcon_tf.runs import loop, workdir
from slotcon_tf.runs.checkpoints import Checkpoints
from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.signals import StopRequest, told_in_training
from slotcon_tf.runs.strategy import (
    any_worker,
    build_strategy,
    check_same_everywhere,
    is_chief,
    spans_hosts,
)
from slotcon_tf.training.callbacks import Checkpointing, NanGuard, Throughput
from slotcon_tf.training.monitoring import CsvHistory


class Run(abc.ABC):
    """One run: everything is checked and built here, before training starts.

    A subclass says what is learned from which images: the methods without a body.

    Args:
        config: Its settings.

    Attributes:
        config: The settings; `precision` is no longer "auto".
        workdir: pathlib.Path of what it writes.
        model: The compiled model.
        strategy: The tf.distribute strategy.
        chief: Whether this process writes files.
        first_step: The step it goes on from; 0 at the start.
        look_at: Function that is called with the first batch of one replica, or None.

    Raises:
        ValueError, OSError: If a setting or an image set cannot be used.
        CheckpointError: If no checkpoint of the run can be read.

    Example:
        >>> import tempfile
        >>> from slotcon_tf.runs import PretrainConfig
        >>> from slotcon_tf.runs.pretraining import PretrainRun
        >>> config = PretrainConfig(
        ...     dataset="fake", arch="resnet10", image_size=32, batch_size=2, epochs=3,
        ...     max_steps_per_epoch=2, num_prototypes=4, hidden_dim=8, projection_dim=8,
        ...     warmup_epochs=0, precision="float32", workdir=tempfile.mkdtemp(),
        ... )
        >>> with own_process():
        ...     run: Run = PretrainRun(config)  # nothing is trained yet
        >>> run.first_step, run.steps_per_epoch, run.length
        (0, 2, 'All 3 epochs')
    """

    look_at: Callable[[dict[str, tf.Tensor]], None] | None = None

    def __init__(self, config: RunSettings) -> None:
        self.strategy = self.build_strategy(config)
        self.chief = is_chief(self.strategy)
        if config.precision == "auto":
            # Resolved for good: a run that goes on elsewhere must not change.
            config = config.replace(precision=best_precision())
        self.config = config
        self.workdir = pathlib.Path(config.workdir)
        keras.config.set_dtype_policy(config.precision)
        self.open_images()
        # Just before the weights are drawn: what came before may have used randomness.
        keras.utils.set_random_seed(config.seed)
        with self.strategy.scope():
            self.model = self.build_model()
            # Not only at the first step: checkpoints hold it.
            self.model.optimizer.build(self.model.trainable_variables)
        workdir.check(config, self.chief)
        self.checkpoints = Checkpoints(
            self.workdir / "checkpoints",
            self.model,
            config,
            steps_per_epoch=self.steps_per_epoch,
            keep=config.keep_checkpoints,
            keep_every_epochs=self.keep_every_epochs,
            writes=self.chief,
            means=not spans_hosts(self.strategy),
        )
        self.first_step = self.checkpoints.restore()
        check_same_everywhere(self.strategy, "The step to go on from", self.first_step)
        self.prepare()
        if self.chief:
            workdir.claim(config)
        self.begin()

    def build_strategy(self, config: RunSettings) -> tf.distribute.Strategy:
        """The strategy; called before anything else asks for devices."""
        return build_strategy(config.strategy, config.tpu)

    @abc.abstractmethod
    def open_images(self) -> None:
        """Opens and checks the images, before anything is written."""

    @abc.abstractmethod
    def build_model(self) -> keras.Model:
        """The compiled model, with a variable `step`; in the strategy's scope."""

    @property
    @abc.abstractmethod
    def steps_per_epoch(self) -> int:
        """Steps between two rows of the history."""

    @property
    @abc.abstractmethod
    def epochs(self) -> int:
        """Rows of the history, in the end."""

    @property
    def keep_every_epochs(self) -> int:
        """Checkpoints of these epochs stay; 0: none."""
        return 0

    @abc.abstractmethod
    def prepare(self) -> None:
        """What else may be refused, after `first_step` is known; writes nothing."""

    def begin(self) -> None:  # noqa: B027  not every kind has any
        """The first files: the work directory is this run's."""

    @abc.abstractmethod
    def log_start(self) -> None:
        """The first lines of the log."""

    @abc.abstractmethod
    def dataset(
        self, step: int, context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """The stream from a step on, in batches of all replicas of this host."""

    @property
    def checkpoint_epochs(self) -> int:
        """Epochs between checkpoints."""
        return 1

    @abc.abstractmethod
    def guard(self) -> NanGuard:
        """What ends a run whose numbers are no longer finite."""

    def monitors(self, board: str) -> list[keras.callbacks.Callback]:
        """Callbacks before those that write logs, for TensorBoard's folder `board`."""
        return []

    def pictures(self, board: str) -> list[keras.callbacks.Callback]:
        """Callbacks after those that write logs."""
        return []

    @property
    @abc.abstractmethod
    def fatal(self) -> BaseException | None:
        """The error that ended the input pipeline, or None."""

    @abc.abstractmethod
    def finish(self) -> None:
        """The scores, the pictures, and the models for others."""

    def to_the_end(self) -> Self:
        """Trains what is left, and finishes.

        Raises:
            RunStopped: If training broke off.
        """
        with told_in_training(lambda: self.fatal), StopRequest() as stop:
            self.train(stop)
        if self.chief:
            self.finish()
        return self

    def train(self, stop: Callable[[], bool]) -> None:
        """Trains to the end, or until `stop()` asks for the end after a step."""
        self.log_start()
        if self.first_step >= self.epochs * self.steps_per_epoch:
            logging.info("%s are done already.", self.length)
            return
        if self.first_step:
            latest = self.checkpoints.latest()
            logging.info("Resumed after step %d from %s", self.first_step, latest)
        loop.train(
            self.model,
            self._distributed,
            batch_size=self.config.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.epochs,
            callbacks=self.callbacks(stop),
            look_at=self.look_at,
            shows_progress=self.chief,
        )

    @property
    def length(self) -> str:
        """What the run is long, in words."""
        return f"All {self.epochs} epochs"

    def _distributed(self, step: int) -> Any:
        """The stream from a step on, cut for the replicas."""
        if self.strategy.num_replicas_in_sync == 1:
            return self.dataset(step)
        batch = self.config.batch_size
        return self.strategy.distribute_datasets_from_function(
            lambda context: self.dataset(step, context).rebatch(
                context.get_per_replica_batch_size(batch), drop_remainder=True
            )
        )

    def callbacks(self, stop: Callable[[], bool]) -> list[keras.callbacks.Callback]:
        """Of the whole training, in their order."""
        anyone = any_worker(self.strategy)
        checkpointing = Checkpointing(
            self.checkpoints.save if self.chief else self.checkpoints.latest,
            epochs=self.epochs,
            every_epochs=self.checkpoint_epochs,
            every_steps=self.config.checkpoint_steps,
            every_minutes=self.config.checkpoint_minutes,
            # A signal may reach one host only; all of them must stop at one step.
            stop_requested=lambda: anyone(stop()),
        )
        if not self.chief:
            return [self.guard(), checkpointing]
        history = self.workdir / "history.csv"
        workdir.trim_history(history, self.first_step // self.steps_per_epoch)
        board = str(self.workdir / "tensorboard")
        return [
            Throughput(self.config.batch_size),
            self.guard(),
            *self.monitors(board),
            CsvHistory(history),
            keras.callbacks.TensorBoard(board, write_graph=False),
            *self.pictures(board),
            checkpointing,
        ]


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """Context of a run: Keras's policy, which it sets for the process, ends with it.

    Example:
        >>> with own_process():
        ...     keras.config.set_dtype_policy("mixed_bfloat16")
        >>> keras.config.dtype_policy().name
        'float32'
    """
    policy = keras.config.dtype_policy()
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
