"""The loop that trains, on one device, several, or several hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from slotcon_tf.progress import Progress, Stopwatch
from slotcon_tf.training.callbacks import ContinueMetrics

Batch = Any  # a structure of tensors, of one replica or of all
_AT_ONCE = 0.1  # of a step's time: a batch that takes longer was not there yet
_AT_ONCE_SECONDS = 0.005  # at least: handing over a batch takes its time, too
_MOST_PILED = 16  # batches


def train(
    model: keras.Model,
    make_dataset: Callable[[int], Iterable[Batch]],
    *,
    batch_size: int,
    steps_per_epoch: int,
    epochs: int,
    callbacks: list[keras.callbacks.Callback],
    look_at: Callable[[Batch], None] | None = None,
    shows_progress: bool = True,
    of_any_size: bool = False,
) -> None:
    """Trains from the model's step on to the end, in the middle of an epoch too.

    `fit` in its essence, with the model's own step and Keras's callbacks. Not `fit`
    itself: it does not tell how long a step waited for its data; it traces anew where
    a run goes on in the middle of an epoch; and under MultiWorkerMirroredStrategy that
    of Keras 3.15 fails at the first step, since it averages the step's logs along
    their first axis, and logs are scalars.

    Args:
        model: A compiled `SlotCon`, `Segmenter` or `MaskRCNN`.
        make_dataset: Function of a step that returns the dataset from there on, cut
            for the model's strategy.
        batch_size: Images per step, of all replicas.
        steps_per_epoch, epochs: Of the whole run.
        callbacks: List of Keras callbacks.
        look_at: Function that is called with the first batch of one replica, or None.
        shows_progress: Whether this process tells how far training is.
        of_any_size: Whether batches are of many sizes, all of which one graph takes.

    Example:
        >>> class Counter(keras.Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.step = self.add_weight(dtype="int64", initializer="zeros")
        ...
        ...     def train_step(self, batch):
        ...         self.step.assign_add(1)
        ...         return {"loss": batch}
        >>> model = Counter()
        >>> model.compile(optimizer="sgd")
        >>> data = tf.data.Dataset.from_tensors(0.5).repeat()
        >>> steps = {"batch_size": 1, "steps_per_epoch": 2, "epochs": 2}
        >>> train(model, data.skip, callbacks=[], shows_progress=False, **steps)
        >>> int(model.step)
        4
    """
    waiting = Stopwatch()
    progress = Progress(
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        waiting=waiting,
    )
    if shows_progress:
        callbacks = [*callbacks, progress]
    start = int(model.step.numpy())
    epoch, offset = divmod(start, steps_per_epoch)
    if offset:
        callbacks = [ContinueMetrics(model), *callbacks]
    calls = keras.callbacks.CallbackList(
        callbacks, model=model, epochs=epochs, steps=steps_per_epoch
    )
    model.stop_training = False
    logs = {}
    try:
        calls.on_train_begin()
        batches, step = _begun(model, make_dataset(start), of_any_size)
        while epoch < epochs and not model.stop_training:
            model.reset_metrics()
            calls.on_epoch_begin(epoch)
            for number in range(offset, steps_per_epoch):
                calls.on_train_batch_begin(number)
                with waiting:
                    batch = next(batches)
                if look_at is not None:
                    look_at(_of_one_replica(model, batch))
                    look_at = None
                logs = step(batch)
                calls.on_train_batch_end(number, logs)
            logs = dict(logs)
            calls.on_epoch_end(epoch, logs)
            epoch, offset = epoch + 1, 0
        calls.on_train_end(logs)
    except Exception:
        # Of any end: a tracker would take the run for crashed, since a process that
        # ends at once calls nothing that is registered for its exit.
        with contextlib.suppress(Exception):  # the first error is told
            calls.on_train_end(logs)
        raise
    finally:
        progress.close()


def _begun(model, dataset, of_any_size):
    """Iterator of the batches, and the step."""
    spec = getattr(dataset, "element_spec", None) if of_any_size else None
    return iter(dataset), distributed_step(model, spec)


def _of_one_replica(model, batch):
    local = model.distribute_strategy.experimental_local_results
    return {name: local(value)[0] for name, value in batch.items()}


def distributed_step(
    model: keras.Model, spec: Any = None
) -> Callable[[Batch], dict[str, float]]:
    """Function of a batch: a step on all replicas, whose logs it returns as numbers.

    Args:
        model: Compiled.
        spec: What all batches are, a dataset's `element_spec`; None: the graph is made
            anew for every size.

    Example:
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer="sgd", loss="mse")
        >>> list(distributed_step(model)((tf.ones((2, 1)), tf.ones((2, 1)))))
        ['loss']
    """
    strategy = model.distribute_strategy
    own = model.train_step
    if model.jit_compile:
        own = tf.function(own, autograph=False, jit_compile=True)

    # Steps hold no Python control flow that depends on tensors.
    @tf.function(autograph=False, input_signature=None if spec is None else [spec])
    def step(batch):
        return strategy.run(own, args=(batch,))

    def run(batch):
        # Reduced over replicas in the step: each of them knows the same.
        return {
            name: float(strategy.experimental_local_results(value)[0])
            for name, value in step(batch).items()
        }

    return run


@dataclasses.dataclass(frozen=True)
class Trial:
    """What the first steps of a run took.

    Attributes:
        steps: That were taken.
        first_seconds: Of the first, which opens the data, traces and compiles.
        step_seconds: Mean of a later one, with its wait for data; None without any.
        waiting_share: Of it, spent waiting for data; None where it was not measured.

    Example:
        >>> Trial(1, 3.5, None, None).first_seconds
        3.5
    """

    steps: int
    first_seconds: float
    step_seconds: float | None
    waiting_share: float | None


def try_steps(
    model: keras.Model,
    make_dataset: Callable[[int], Iterable[Batch]],
    steps: int,
    *,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    look_at: Callable[[Batch], None] | None = None,
    drain: bool = True,
    of_any_size: bool = False,
) -> Trial:
    """Takes the next steps of a training as `train` would, and measures them.

    While the first step is traced, batches pile up behind it. They are thrown away
    after the second: what follows waits for data as a long run would.

    Args:
        model, make_dataset, look_at, of_any_size: Of `train`.
        steps: Number of them, 1 or more.
        callbacks: Keras callbacks that are told of every step.
        drain: Whether to throw away what has piled up. Several hosts must ask for
            batches in step, and cannot.

    Example:
        >>> class Counter(keras.Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.step = self.add_weight(dtype="int64", initializer="zeros")
        ...
        ...     def train_step(self, batch):
        ...         self.step.assign_add(1)
        ...         return {"loss": batch}
        >>> model = Counter()
        >>> model.compile(optimizer="sgd")
        >>> data = tf.data.Dataset.from_tensors(0.5).repeat()
        >>> trial = try_steps(model, data.skip, 4)
        >>> trial.steps, 0 <= trial.waiting_share < 1
        (4, True)
    """
    calls = keras.callbacks.CallbackList(list(callbacks), model=model)
    waiting = Stopwatch()

    def timed(number, batch):
        start = time.perf_counter()
        logs = run_step(batch)
        seconds = time.perf_counter() - start
        logging.info("Step %d of %d: %.2f s", number + 1, steps, seconds)
        calls.on_train_batch_end(number, logs)
        return seconds

    calls.on_train_begin()
    start = time.perf_counter()
    dataset = make_dataset(int(model.step.numpy()))
    batches, run_step = _begun(model, dataset, of_any_size)
    batch = next(batches)
    if look_at is not None:
        look_at(_of_one_replica(model, batch))
    timed(0, batch)
    first = time.perf_counter() - start
    if steps == 1:
        return Trial(1, first, None, None)
    second = timed(1, next(batches))
    if steps == 2:
        return Trial(2, first, second, None)
    at_once = max(_AT_ONCE * second, _AT_ONCE_SECONDS)
    batch = _waited_for(batches, at_once, _MOST_PILED if drain else 1)
    start = time.perf_counter()
    for number in range(2, steps):
        timed(number, batch)
        with waiting:
            batch = next(batches)
    seconds = time.perf_counter() - start
    return Trial(steps, first, seconds / (steps - 2), waiting.seconds / seconds)


def _waited_for(batches, seconds, most):
    """The first batch that takes longer than so many seconds, or the last of `most`."""
    for _ in range(most):
        start = time.perf_counter()
        batch = next(batches)
        if time.perf_counter() - start > seconds:
            break
    return batch
