"""The loop that trains, on one device, several, or several hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from slotcon_tf.progress import Progress, Stopwatch
from slotcon_tf.training.callbacks import ContinueMetrics

Batch = Any  # a structure of tensors, of one replica or of all


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
) -> None:
    """Trains from the model's step on to the end, in the middle of an epoch too.

    `fit` in its essence, with the model's own step and Keras's callbacks. Not `fit`
    itself: it does not tell how long a step waited for its data; it traces anew where
    a run goes on in the middle of an epoch; and under MultiWorkerMirroredStrategy that
    of Keras 3.15 fails at the first step, since it averages the step's logs along
    their first axis, and logs are scalars.

    Args:
        model: A compiled `SlotCon` or `Segmenter`.
        make_dataset: Function of a step that returns the dataset from there on, cut
            for the model's strategy.
        batch_size: Images per step, of all replicas.
        steps_per_epoch, epochs: Of the whole run.
        callbacks: List of Keras callbacks.
        look_at: Function that is called with the first batch of one replica, or None.
        shows_progress: Whether this process tells how far training is.

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
    step = distributed_step(model)
    start = int(model.step.numpy())
    epoch, offset = divmod(start, steps_per_epoch)
    if offset:
        callbacks = [ContinueMetrics(model), *callbacks]
    calls = keras.callbacks.CallbackList(
        callbacks, model=model, epochs=epochs, steps=steps_per_epoch
    )
    model.stop_training = False
    try:
        calls.on_train_begin()
        batches = iter(make_dataset(start))
        logs = {}
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
    finally:
        progress.close()


def _of_one_replica(model, batch):
    local = model.distribute_strategy.experimental_local_results
    return {name: local(value)[0] for name, value in batch.items()}


def distributed_step(model: keras.Model) -> Callable[[Batch], dict[str, float]]:
    """Function of a batch: a step on all replicas, whose logs it returns as numbers.

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
    @tf.function(autograph=False)
    def step(batch):
        return strategy.run(own, args=(batch,))

    def run(batch):
        # Reduced over replicas in the step: each of them knows the same.
        return {
            name: float(strategy.experimental_local_results(value)[0])
            for name, value in step(batch).items()
        }

    return run
