"""Work: what a kind of run says of itself."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from slotcon_tf.data.identity import Identity
from slotcon_tf.runs.hosts import Hosts, meet_hosts
from slotcon_tf.runs.products import Products, is_finished
from slotcon_tf.runs.run_settings import HostSettings, RunSettings
from slotcon_tf.runs.strategy import build_strategy
from slotcon_tf.training.callbacks import NanGuard


class Work(abc.ABC):
    """What is learned from which images, how often it is measured, and what is left.

    `Run` trains it. The methods without a body are those that every kind has.

    Attributes:
        look_at: Function that is called with the first batch of one replica, or None.
        batches_vary: Whether batches are of many sizes, all of which one graph takes.

    Example:
        >>> sorted(Work.__abstractmethods__)[:3]
        ['build_model', 'dataset', 'epochs']
    """

    look_at: Callable[[dict[str, tf.Tensor]], None] | None = None
    batches_vary = False

    @classmethod
    def meet(cls, config: RunSettings) -> Hosts:
        """The hosts of a run, once all of them are there, if it may have several."""
        if not isinstance(config, HostSettings):
            return Hosts()
        return meet_hosts(
            config.strategy,
            config.host_wait_minutes,
            lambda: is_finished(config.workdir),
        )

    def build_strategy(self, config: RunSettings) -> tf.distribute.Strategy:
        """The strategy; called before anything else asks for devices."""
        return build_strategy(config.strategy, config.tpu)

    @abc.abstractmethod
    def open_images(self) -> None:
        """Opens and checks the images, before anything is written."""

    @property
    @abc.abstractmethod
    def images(self) -> Any:
        """The images, which know their number (`num_images`) and what they are."""

    @abc.abstractmethod
    def identify(self) -> Identity:
        """What `open_images` has opened."""

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

    def of_all_hosts(self, stop: Callable[[], bool]) -> list[keras.callbacks.Callback]:
        """Callbacks that every host has, after an epoch's checkpoint; errors end all.

        Args:
            stop: Says whether any host wants the run to stop; all must ask together.
        """
        del stop
        return []

    def after_training(self, stop: Callable[[], bool]) -> None:  # noqa: B027
        """What all hosts do together after the last step, before the first finishes.

        Args:
            stop: As of `of_all_hosts`.
        """

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

    @property
    def length(self) -> str:
        """What the run is long, in words."""
        return f"All {self.epochs} epochs"

    def evaluation_seconds(self) -> float | None:
        """How long one evaluation takes, tried; None if there are none on the way."""
        return None

    @property
    def evaluation_epochs(self) -> int:
        """Epochs between evaluations."""
        return 1

    def model_bytes(self) -> int:
        """Of the models that are written in the end, beside checkpoints; about."""
        return 0
