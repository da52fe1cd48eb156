"""StatisticsPass: a run's batch normalisation measured anew, on batches to come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from slotcon_tf.progress import Stopwatch, bar
from slotcon_tf.training.precise import PreciseStatistics


class StatisticsPass:
    """PreciseBN of a run: weights stay, statistics are those of its next batches.

    Every batch goes through the model as it would in training, with the random choices
    that its step would have: what comes out follows from the weights, the seed and the
    step alone. The moving statistics stay as they are until `apply`.

    Args:
        model: With `compute_losses` and a variable `step`. The pass is made in the
            scope of its strategy.
        make_dataset: Function of a step that returns the batches from there on, cut for
            the strategy.
        count: Batches; 0: nothing is measured, and nothing changes.
        of_any_size: As of `slotcon_tf.runs.loop.train`.
        shows_progress: Whether this process tells how far it is.

    Example:
        >>> import keras
        >>> from slotcon_tf.training.normalization import BatchNormalization
        >>> class Centred(keras.Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.norm = BatchNormalization()
        ...         self.norm.build((None, 1))
        ...         self.step = self.add_weight(dtype="int64", initializer="zeros")
        ...
        ...     def compute_losses(self, batch, training):
        ...         return self.norm(batch, training=training)
        >>> model = Centred()
        >>> data = tf.data.Dataset.range(100).map(
        ...     lambda n: tf.cast([[n], [n + 2]], tf.float32)
        ... )
        >>> measured = StatisticsPass(model, data.skip, count=3)
        >>> measured.gather()
        True
        >>> with measured.applied():
        ...     print(float(model.norm.moving_mean[0]))
        2.0
    """

    def __init__(
        self,
        model: Any,
        make_dataset: Callable[[int], Any],
        count: int,
        *,
        of_any_size: bool = False,
        shows_progress: bool = False,
    ) -> None:
        self.model = model
        self.count = count
        self._make_dataset = make_dataset
        self._of_any_size = of_any_size
        self._shows_progress = shows_progress
        self._run: Any = None
        with model.distribute_strategy.scope():
            self._precise = PreciseStatistics(model)

    def gather(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Measures the batches after the model's step.

        Args:
            stop: Asked before every batch: whether to leave it at that.

        Returns:
            Whether they were all measured; if not, nothing is.

        Raises:
            NonFiniteError: If a statistic is NaN or infinite; nothing is measured then.
        """
        return self._gathered(stop, self.count, self._shows_progress)

    def _gathered(self, stop, count, shows_progress):
        step = int(self.model.step.numpy())
        self._precise.reset()
        if not count:
            return True
        numbers = range(count)
        if shows_progress:
            logging.info("PreciseBN: %d batches after step %d", count, step)
            numbers = bar(numbers, desc="PreciseBN", unit="batch")
        try:
            batches = iter(self._traced(step))
            for number in numbers:
                if stop():
                    self._precise.reset()
                    return False
                self.model.step.assign(step + number)
                self._run(next(batches))
        finally:
            self.model.step.assign(step)
        self._precise.check()
        return True

    def applied(self) -> contextlib.AbstractContextManager[None]:
        """Context in which the model has what was gathered, and no longer."""
        return self._precise.applied()

    def apply(self) -> None:
        """Gives the model what was gathered, for good."""
        self._precise.apply()

    def seconds(self) -> float:
        """How long `gather` takes, by one batch; it measures nothing."""
        watch = Stopwatch()
        for _ in range(2):  # the first one traces
            watch = Stopwatch()
            with watch:
                self._gathered(lambda: False, min(self.count, 1), False)
        self._precise.reset()
        return self.count * watch.seconds

    def _traced(self, step):
        dataset = self._make_dataset(step)
        if self._run is None:
            self._run = self._function(getattr(dataset, "element_spec", None))
        return dataset

    def _function(self, spec):
        strategy = self.model.distribute_strategy

        def own(batch):
            with self._precise.gathering():
                self.model.compute_losses(batch, training=True)

        if getattr(self.model, "jit_compile", False):
            own = tf.function(own, autograph=False, jit_compile=True)
        signature = [spec] if self._of_any_size and spec is not None else None

        @tf.function(autograph=False, input_signature=signature)
        def run(batch):
            strategy.run(own, args=(batch,))

        return run
