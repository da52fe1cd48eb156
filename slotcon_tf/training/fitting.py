"""What Keras asks of a model around its step: compile, fit, evaluate, export."""

from __future__ import annotations

import functools
import inspect
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.images.statistics import ImageStatistics
from slotcon_tf.training.batches import (
    LOOKED_AT,
    check_kind,
    check_normalised,
    check_values,
    checked,
)
from slotcon_tf.types import Shape

_FIT = inspect.signature(keras.Model.fit)
_EVALUATE = inspect.signature(keras.Model.evaluate)


class Fitting(keras.Model):
    """What a model that learns from pairs of views tells Keras's users.

    The subclass has `train_step` and `test_step`, and answers the four questions
    below. What a batch must be is looked at before the first step of every `fit` and
    `evaluate`, and never again.

    Example:
        >>> from slotcon_tf import SlotCon
        >>> issubclass(SlotCon, Fitting)
        True
    """

    # Function of an epoch's steps, between `fit` and its first step.
    _planned: Callable[[int | None], None] | None = None
    _traced_flags: str | None = None

    def before_step(self) -> None:
        """Puts right, before a step is made, what users may have changed meanwhile."""
        raise NotImplementedError

    def progress(self) -> tuple[int, float]:
        """Steps done, and steps of the whole run."""
        raise NotImplementedError

    def learning_parts(self) -> tuple[keras.Layer, ...]:
        """The layers that hold what learns; a step is made anew where one is frozen."""
        raise NotImplementedError

    def images_taken(self) -> tuple[Shape, ImageStatistics]:
        """Shape (None, height, width, 3) of images, and how they are normalised."""
        raise NotImplementedError

    def compile(
        self,
        optimizer: str | keras.Optimizer = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        *args: Any,
        **options: Any,
    ) -> None:
        """As of Keras, without its losses and metrics: the model has its own."""
        given = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        ignored = [name for name, value in given.items() if value]
        if ignored:
            warnings.warn(
                f"{type(self).__name__} has losses and metrics of its own: compile "
                f"ignores {', '.join(ignored)}. Subclasses return diagnostics of "
                "their own from compute_losses.",
                stacklevel=2,
            )
        super().compile(optimizer, None, None, None, None, *args, **options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a model that is loaded; Keras leaves it to whoever has `compile`."""
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As of Keras, on batches of view pairs.

        Raises:
            ValueError: Before the first step: if a batch is something else, see
                `slotcon_tf.training.batches`, an epoch has no end, or layers that
                the optimizer does not know were thawed.

        Warns if the run will not end at `total_steps`, or nobody can tell.
        """
        given = _FIT.bind(self, *args, **kwargs)
        given.apply_defaults()
        given = given.arguments
        del given["self"]
        self._check_data(given)
        _check_files(given["callbacks"])
        for name in ("x", "validation_data"):
            given[name] = _of_tuples(given[name])
        step, total_steps = self.progress()
        length = functools.partial(
            check_length,
            step=step,
            total_steps=total_steps,
            epochs=given["epochs"] - given["initial_epoch"],
        )
        self._looks = True
        self._planned = length
        try:
            return super().fit(**given)
        finally:
            self._planned = None

    def _check_data(self, given: dict[str, Any]) -> None:
        check_kind(given["x"])
        _check_end(given["x"], given["steps_per_epoch"], "fitted", "steps_per_epoch")
        ignored = ["y", "sample_weight", "class_weight"]
        ignored = [name for name in ignored if given[name] is not None]
        if ignored:
            warnings.warn(
                f"{type(self).__name__} learns without labels: fit ignores "
                f"{', '.join(ignored)}.",
                stacklevel=3,
            )
            given.update(dict.fromkeys(ignored))
        validation = given["validation_data"]
        if validation is not None:
            check_kind(validation)
            steps = given["validation_steps"]
            _check_end(validation, steps, "evaluated", "validation_steps")

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """As of Keras, as a .keras file.

        Raises:
            ValueError: If the file is to be a legacy HDF5 file.
        """
        _check_ending(filepath)
        super().save(filepath, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As of Keras, on batches of view pairs: both losses, moving statistics."""
        given = _EVALUATE.bind(self, *args, **kwargs)
        given.apply_defaults()
        data = given.arguments["x"]
        check_kind(data)
        _check_end(data, given.arguments["steps"], "evaluated", "steps")
        given.arguments["x"] = _of_tuples(data)
        self._looks_at_test = True
        return super().evaluate(*given.args[1:], **given.kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As of Keras, on normalised images (B, height, width, 3): the teacher's.

        Raises:
            ValueError: If an array holds images that are not normalised.
        """
        if isinstance(x, np.ndarray) or tf.is_tensor(x):
            check_normalised("x", x[:LOOKED_AT], self.images_taken()[1])
        return super().predict(x, *args, **kwargs)

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        """Builds what `fit` needs without a batch, and looks at the run's length.

        Under a strategy Keras 3.15 would take a batch off the stream and average it
        over replicas, which booleans do not survive; all but the optimizer is built.
        """
        planned, self._planned = self._planned, None
        if planned is not None:
            planned(iterator.num_batches)
        self.before_step()
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> Callable[..., Any]:
        """As of Keras; made anew where layers were frozen or thawed meanwhile."""
        self.before_step()
        _check_known(self.optimizer, self.trainable_variables)
        layers = [x for part in self.learning_parts() for x in part._flatten_layers()]
        flags = str([layer.trainable for layer in layers])  # Keras would track a list
        stale = force or flags != self._traced_flags
        if self.train_function is None or stale:
            self._traced_flags = flags
            super().make_train_function(force=True)
            self.train_function = self._looking(self.train_function, "_looks")
        return self.train_function

    def make_test_function(self, force: bool = False) -> Callable[..., Any]:
        if self.test_function is None or force:
            super().make_test_function(force=True)
            self.test_function = self._looking(self.test_function, "_looks_at_test")
        return self.test_function

    def _looking(self, function: Callable[..., Any], flag: str) -> Callable[..., Any]:
        """A step function that first looks at a batch, where the flag is set."""

        def run(iterator: Any) -> Any:
            looks = getattr(self, flag, True)
            if not looks and self.steps_per_execution > 1:
                return function(iterator)
            # A single step takes its batch from here later too: Keras would make, and
            # optimize, another graph of it.
            iterator = iter(iterator)
            first = next(iterator)
            if looks:
                self._look_at(first)
                setattr(self, flag, False)
            return function(itertools.chain([first], iterator))

        return run

    def _look_at(self, data: Any) -> None:
        """Checks a batch, of one replica; on failure nothing has been learned."""
        check_kind(data)
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        local = self.distribute_strategy.experimental_local_results
        batch = tf.nest.map_structure(lambda x: local(x)[0], dict(batch))
        shape, statistics = self.images_taken()
        checked(batch, shape)
        check_values(batch, statistics)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: Any = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """As of Keras: the teacher, of normalised images, also of an uncalled model.

        `python -m export.saved_model` writes what TF Serving answers: images as files,
        groups and objects.
        """
        if input_signature is None:
            shape = (None, *self.images_taken()[0][1:])
            spec = keras.InputSpec(shape=shape, dtype=self.variable_dtype)
            input_signature = [spec]
        super().export(
            filepath,
            format=format,
            verbose=verbose,
            input_signature=input_signature,
            **kwargs,
        )


def check_length(
    steps: int | None, *, step: int, total_steps: float, epochs: int
) -> None:
    """Warns, before the first step, of a run that does not end at `total_steps`.

    Args:
        steps: Of an epoch, or None if that is not known: then it only says so.
        step: Steps done so far.
        total_steps: Of the model.
        epochs: That `fit` will run.

    Example:
        >>> check_length(10, step=20, total_steps=50, epochs=3)  # all is well
    """
    if steps is None:
        warnings.warn(
            "fit cannot tell whether it will end at the model's "
            f"total_steps={total_steps}: the data's length is not known. Past it the "
            "teacher stands still, and so does a learning rate of that length. Give "
            "fit(..., steps_per_epoch=N), N = images // batch_size.",
            stacklevel=6,
        )
        return
    end = step + max(epochs, 0) * int(steps)
    if end == total_steps:
        return
    how = f"{epochs} epochs of {steps} steps" + (f" after {step}" if step else "")
    if end > total_steps:
        text = (
            f"fit will end at step {end} ({how}), {end - total_steps} steps past "
            f"total_steps={total_steps}. From there on the teacher stands still, and "
            "so does a learning rate of that length. Make SlotCon, and its schedule, "
            f"with total_steps={end}, or train for fewer epochs."
        )
    else:
        text = (
            f"fit will end at step {end} ({how}), before total_steps={total_steps}: "
            "the teacher's momentum, and a learning rate of that length, will not "
            "reach their ends. Make SlotCon, and its schedule, with "
            f"total_steps={end}, train for more epochs, or go on with another fit."
        )
    warnings.warn(text, stacklevel=6)  # where fit was called


def _check_files(callbacks: Any) -> None:
    """Refuses callbacks that would fail when an epoch of work is to be saved."""
    if callbacks is None or isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = getattr(callbacks, "callbacks", [])
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    for callback in callbacks:
        whole = not getattr(callback, "save_weights_only", True)
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and whole:
            _check_ending(callback.filepath)


def _check_ending(path: Any) -> None:
    if str(path).lower().endswith((".h5", ".hdf5")):
        raise ValueError(
            "A whole model is saved as a .keras file: Keras's legacy HDF5 files cannot "
            f"hold one with parts of its own. Received: {path}. Take .keras, or "
            "save_weights (save_weights_only=True) and .weights.h5."
        )


def _of_tuples(data: Any) -> Any:
    """Data as they are; a generator's batches as tuples: Keras takes no others."""
    if not inspect.isgenerator(data):
        return data
    return (batch if isinstance(batch, tuple) else (batch,) for batch in data)


def _check_end(data: Any, steps: int | None, done: str, name: str) -> None:
    endless = isinstance(data, keras.utils.PyDataset) and data.num_batches is None
    count = getattr(data, "cardinality", None)  # of a distributed data set a number
    if count is not None:
        count = count() if callable(count) else count
        endless = count == tf.data.INFINITE_CARDINALITY
    if endless and not steps:
        raise ValueError(
            f"A data set that is {done} must have an end. Received: an endless "
            f"one. Give {name}=N, N = images // batch_size, or data.take(N)."
        )


def _check_known(optimizer: Any, variables: list[Any]) -> None:
    """Refuses to train what was frozen when the optimizer was built."""
    if optimizer is None or not optimizer.built:
        return
    # Not public; Keras looks here too, and names one variable in an error of its own.
    known = {id(variable) for variable in optimizer._trainable_variables}
    missing = [v.path for v in variables if id(v) not in known]
    if missing:
        raise ValueError(
            "The optimizer must know all variables that learn. Received: "
            f"{len(missing)} that were thawed since it was built, the first "
            f"{missing[0]}. Call compile again, with a new optimizer."
        )
