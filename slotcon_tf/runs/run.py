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
from slotcon_tf.runs.checkpoints import CheckpointError, Checkpoints
from slotcon_tf.runs.products import Products, RunUnfinished
from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.signals import StopRequest, told_in_training
from slotcon_tf.runs.strategy import (
    any_worker,
    build_strategy,
    check_same_everywhere,
    is_chief,
    spans_hosts,
)
from slotcon_tf.training.auxiliaries import Auxiliary, Troubles
from slotcon_tf.training.callbacks import (
    Checkpointing,
    Interrupted,
    NanGuard,
    Throughput,
)
from slotcon_tf.training.monitoring import CsvHistory

_HISTORY = "history.csv"


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
        troubles: Record of the auxiliaries (evaluation, history, pictures ...) that
            failed; they end nothing.
        look_at: Function that is called with the first batch of one replica, or None.

    Raises:
        ValueError, OSError: If a setting or an image set cannot be used.
        CheckpointError: If no checkpoint of the run can be read.
    """

    look_at: Callable[[dict[str, tf.Tensor]], None] | None = None
    history: CsvHistory  # of the process that writes

    def __init__(self, config: RunSettings) -> None:
        self.strategy = self.build_strategy(config)
        self.chief = is_chief(self.strategy)
        if config.precision == "auto":
            # Resolved for good: a run that goes on elsewhere must not change.
            config = config.replace(precision=best_precision())
        self.config = config
        self.troubles = Troubles(fatal=(CheckpointError,))
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

    def monitors(self, board: str) -> dict[str, keras.callbacks.Callback]:
        """Callbacks, by name, before those that write logs.

        Args:
            board: TensorBoard's folder.
        """
        return {}

    def pictures(self, board: str) -> dict[str, keras.callbacks.Callback]:
        """Callbacks, by name, after those that write logs."""
        return {}

    @property
    @abc.abstractmethod
    def fatal(self) -> BaseException | None:
        """The error that ended the input pipeline, or None."""

    @abc.abstractmethod
    def finish(self, products: Products) -> None:
        """The scores, the pictures, and the models for others, each once."""

    def to_the_end(self) -> Self:
        """Trains what is left, and makes what is missing of what the run is for.

        Raises:
            RunStopped: If training broke off.
            RunUnfinished: If training is done, and a model for others is missing.
        """
        with told_in_training(lambda: self.fatal), StopRequest() as stop:
            self.train(stop)
            if stop():  # since the last save
                raise Interrupted(
                    "Stopped by a signal after the last step, which is saved in "
                    f"{self.checkpoints.latest()}. The same command goes on from there."
                )
        if self.chief:
            self._complete()
        return self

    def _complete(self) -> None:
        products = self._products()
        self.finish(products)
        if failed := self.troubles.summary():
            logging.warning("Auxiliaries that failed in this run: %s.", failed)
        if products.missing:
            raise RunUnfinished(
                f"Training is done and saved in {self.checkpoints.latest()}, and "
                f"{' and '.join(products.missing)} could not be written, as a warning "
                "above says. The same command writes what is missing."
            )

    def _products(self) -> Products:
        return Products(self.workdir, self.epochs * self.steps_per_epoch, self.troubles)

    def train(self, stop: Callable[[], bool]) -> None:
        """Trains to the end, or until `stop()` asks for the end after a step."""
        self.log_start()
        if self.chief:
            self._open_history()
        if self.first_step >= self.epochs * self.steps_per_epoch:
            logging.info("%s are done already.", self.length)
            return
        if self.first_step:
            latest = self.checkpoints.latest()
            logging.info("Resumed after step %d from %s", self.first_step, latest)
        if self.chief:
            self._products().forget()
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

    def _open_history(self) -> None:
        """The rows of the epochs that are done, of the file and of the checkpoint."""
        latest = self.checkpoints.latest()
        self.history = CsvHistory(
            self.workdir / _HISTORY,
            self.first_step // self.steps_per_epoch,
            kept=latest / _HISTORY if self.first_step and latest else None,
        )
        with self.troubles.of("history"):
            self.history.write()

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
        """Of the whole training, in their order.

        An epoch's checkpoint comes before all that may fail or take long.
        """
        anyone = any_worker(self.strategy)
        checkpointing = Checkpointing(
            self._save if self.chief else self.checkpoints.latest,
            epochs=self.epochs,
            every_epochs=self.checkpoint_epochs,
            every_steps=self.config.checkpoint_steps,
            every_minutes=self.config.checkpoint_minutes,
            # A signal may reach one host only; all of them must stop at one step.
            stop_requested=lambda: anyone(stop()),
        )
        if not self.chief:
            return [self.guard(), checkpointing]
        board = str(self.workdir / "tensorboard")
        auxiliaries = {
            **self.monitors(board),
            "history": self.history,
            "TensorBoard": keras.callbacks.TensorBoard(board, write_graph=False),
            **self.pictures(board),
        }
        return [
            Throughput(self.config.batch_size),
            self.guard(),
            keras.callbacks.LambdaCallback(on_epoch_end=self.history.note),
            checkpointing,
            *(Auxiliary(*pair, self.troubles) for pair in auxiliaries.items()),
        ]

    def _save(self) -> pathlib.Path:
        return self.checkpoints.save({_HISTORY: self.history.text()})


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
