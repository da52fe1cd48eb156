"""Callbacks of `fit`: throughput, guards, checkpoints, slot pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.training.nonfinite import NONFINITE

Logs: TypeAlias = dict[str, Any] | None
SIGNAL, CALLBACK = "a signal", "a callback"  # who may stop a run


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second` (images of the epoch's steps) to the epoch's logs.

    Placed before the callbacks that write logs. The first step of a run, which traces
    and compiles, is left out; where it is the only one, the rate is NaN.

    Args:
        batch_size: Images per step, of all replicas.

    Example:
        >>> callbacks = [Throughput(batch_size=512)]  # model.fit(callbacks=callbacks)
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._traced = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._start, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if not self._traced:
            self._traced, self._start = True, time.perf_counter()
            return
        self._steps += 1

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        seconds = time.perf_counter() - self._start
        if logs is not None:
            # Always there: a CSV's columns are those of its first row.
            known = self._steps and seconds > 0
            rate = self._steps * self.batch_size / seconds if known else math.nan
            logs["images_per_second"] = rate


class NonFiniteError(RuntimeError):
    """A loss, a gradient or a weight became NaN or infinite.

    Example:
        >>> issubclass(NonFiniteError, RuntimeError)
        True
    """


class Interrupted(RuntimeError):
    """The run was asked to stop, and has saved its state.

    Example:
        >>> issubclass(Interrupted, RuntimeError)
        True
    """


class StoppedByCallback(RuntimeError):
    """A callback has set `stop_training`; the run has saved its state.

    Example:
        >>> issubclass(StoppedByCallback, RuntimeError)
        True
    """


class NanGuard(keras.callbacks.Callback):
    """Stops the run on the first step whose loss or metric is not finite.

    With `SlotCon(skip_nonfinite=True)` such steps are skipped, and the run stops on the
    first one above `max_skipped`.

    Args:
        last_checkpoint: Function without arguments that returns the path of the
            newest checkpoint, or None.
        max_skipped: Steps of a run that may be skipped.
        advice: What the error says one can do.

    Raises:
        NonFiniteError: It names the quantities, the step and that checkpoint.

    Example:
        >>> guard = NanGuard(max_skipped=10)  # for SlotCon(..., skip_nonfinite=True)
    """

    def __init__(
        self,
        last_checkpoint: Callable[[], Any] = lambda: None,
        max_skipped: int = 0,
        advice: str = "with a lower `base_lr`, with precision=float32, or with "
        "`max_skipped_steps` to leave such steps out",
    ) -> None:
        super().__init__()
        self.advice = advice
        self.last_checkpoint = last_checkpoint
        self.max_skipped = max_skipped

    def on_train_begin(self, logs: Logs = None) -> None:
        self._seen = self.model.nonfinite.numpy() if self.model.skip_nonfinite else None

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.model.skip_nonfinite:
            self._count()
            return
        bad = [k for k, v in (logs or {}).items() if not math.isfinite(v)]
        if bad:
            self._stop(f"{', '.join(bad)} of step {self._step()}")

    def _count(self) -> None:
        counts = self.model.nonfinite.numpy()
        new = counts > self._seen
        self._seen = counts
        if not new[-1]:
            return
        named = [n for n, is_new in zip(NONFINITE, new, strict=True) if is_new]
        what = f"{', '.join(named[:-1])} of step {self._step()}"
        if counts[-1] > self.max_skipped:
            self._stop(f"{what}, the {counts[-1]}th of {self.max_skipped} allowed")
        logging.warning(
            "Not finite: %s. The step was skipped, %d of at most %d.",
            what,
            counts[-1],
            self.max_skipped,
        )

    def _step(self) -> int:
        return int(self.model.step.numpy())

    def _stop(self, what: str) -> None:
        raise NonFiniteError(
            f"Losses, metrics and gradients must be finite. Not finite: {what}. The "
            f"last good checkpoint is {self.last_checkpoint() or 'none'}. Start in "
            f"another `workdir` {self.advice}."
        )


class Checkpointing(keras.callbacks.Callback):
    """Saves at the ends of epochs, between them, and before a stop.

    Args:
        save: Function without arguments that writes a checkpoint and returns its path.
        epochs: Epochs of the whole run; its end is always saved.
        every_epochs: Epochs between saves.
        every_steps: Steps between saves; 0 for none.
        every_minutes: Minutes between saves; 0 for none.
        stop_requested: Function without arguments, asked after every step: who wants
            the run to stop, `SIGNAL`, `CALLBACK`, or "" for nobody.

    Raises:
        Interrupted: After the save, if a signal asked for a stop.
        StoppedByCallback: After the save, if a callback did.
        NonFiniteError: If a weight is not finite; nothing is saved then.

    Example:
        >>> saving = Checkpointing(lambda: "checkpoints/7", epochs=10, every_epochs=2)
    """

    def __init__(
        self,
        save: Callable[[], Any],
        *,
        epochs: int,
        every_epochs: int = 1,
        every_steps: int = 0,
        every_minutes: float = 0.0,
        stop_requested: Callable[[], str] = lambda: "",
    ) -> None:
        super().__init__()
        self.save = save
        self.epochs = epochs
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.stop_requested = stop_requested
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        # What falls on an epoch's last step waits for the epoch's row of the history.
        if batch + 1 != (self.params or {}).get("steps"):
            self._after_step(self._due())

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        done = epoch + 1
        whole = done % self.every_epochs == 0 or done == self.epochs
        self._after_step(whole or self._due(), last=done == self.epochs)

    def after_others(self, epoch: int, logs: Logs = None) -> None:
        """Asks again at an epoch's end, after callbacks that may stop training there.

        Not after the last epoch, which is the end anyway.
        """
        del logs
        if epoch + 1 < self.epochs:
            self._after_step(False)

    def _due(self) -> bool:
        step = int(self.model.step.numpy())
        minutes = (time.monotonic() - self._last) / 60
        by_steps = self.every_steps and step % self.every_steps == 0
        by_time = self.every_minutes and minutes >= self.every_minutes
        return bool(by_steps or by_time)

    def _after_step(self, due: bool, last: bool = False) -> None:
        stop = self.stop_requested()
        if last and stop == CALLBACK:
            stop = ""  # there is nothing left to stop
        path = self._save() if due or stop else None
        step = int(self.model.step.numpy())
        if stop == SIGNAL:
            raise Interrupted(
                f"Stopped by a signal after step {step}, which is saved in {path}. The "
                "same command goes on from there."
            )
        if stop:
            raise StoppedByCallback(
                f"A callback stopped training after step {step}, which is saved in "
                f"{path}: nothing is made of a part of a run. The same command goes on "
                "from there."
            )

    def _save(self) -> Any:
        for variable in self.model.trainable_variables:
            if not tf.math.is_finite(tf.nn.l2_loss(variable)):
                raise NonFiniteError(
                    "Weights must be finite to be saved. Received: NaN or infinity in "
                    f"{variable.path} after step {int(self.model.step.numpy())}. "
                    "Start another `workdir` with a lower `base_lr`."
                )
        path = self.save()
        self._last = time.monotonic()
        return path


class ContinueMetrics(keras.callbacks.Callback):
    """Puts back an epoch's running means where a run goes on in its middle.

    `fit` resets them at the start of what it takes for an epoch.

    Args:
        model: Whose metrics' present values are put back, once.

    Example:
        >>> callbacks = [ContinueMetrics(keras.Sequential())]
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        variables = [v for m in model.metrics for v in m.variables]
        self._values = [(v, v.numpy()) for v in variables]

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        for variable, value in self._values:
            variable.assign(value)
        self._values = []


class CollapseWarning(keras.callbacks.Callback):
    """Warns, in the log and in TensorBoard, when groups or features collapse.

    Args:
        log_dir: TensorBoard folder, or None.
        min_prototypes: Share of the prototypes that a batch should use at least; two
            prototypes are always too few.
        min_feature_std: Smallest `feature_std`.
        every_steps: Steps between looks; the end of an epoch is one too.

    Example:
        >>> callbacks = [CollapseWarning(min_feature_std=0.2)]
    """

    def __init__(
        self,
        log_dir: str | None = None,
        *,
        min_prototypes: float = 0.05,
        min_feature_std: float = 0.1,
        every_steps: int = 200,
    ) -> None:
        super().__init__()
        self.log_dir = log_dir
        self.min_prototypes = min_prototypes
        self.min_feature_std = min_feature_std
        self.every_steps = every_steps
        self._warned: set[str] = set()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if (batch + 1) % self.every_steps == 0:
            self._look(logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._look(logs or {})

    def _look(self, logs: dict[str, Any]) -> None:
        limits = {
            "prototypes_used": max(
                2.5, self.min_prototypes * self.model.num_prototypes
            ),
            "feature_std": self.min_feature_std,
        }
        for name, limit in limits.items():
            value = float(logs.get(name, math.inf))
            if value >= limit:
                self._warned.discard(name)
            elif name not in self._warned:
                self._warned.add(name)
                self._warn(
                    f"Collapse: {name} is {value:.3g} in step "
                    f"{int(self.model.step.numpy())}, below {limit:.3g}. A lower "
                    "`base_lr`, a longer warm-up or a lower `teacher_temperature` "
                    "may help."
                )

    def _warn(self, text: str) -> None:
        logging.warning("%s", text)
        if self.log_dir:
            with tf.summary.create_file_writer(self.log_dir).as_default():
                tf.summary.text("collapse", text, step=int(self.model.step.numpy()))


class SlotPictures(keras.callbacks.Callback):
    """Writes a picture of the groups to TensorBoard at the end of epochs.

    Args:
        log_dir: TensorBoard folder.
        draw: Function without arguments that returns a picture uint8 (H, W, 3).
        every_epochs: Epochs between pictures; the last epoch has one always.
        epochs: Epochs of the whole run.
        name: Of the pictures.

    Example:
        >>> draw = lambda: np.zeros((64, 96, 3), np.uint8)
        >>> callbacks = [SlotPictures("tb", draw, every_epochs=5, epochs=10)]
    """

    def __init__(
        self,
        log_dir: str,
        draw: Callable[[], np.ndarray],
        *,
        every_epochs: int,
        epochs: int,
        name: str = "slots",
    ) -> None:
        super().__init__()
        self.log_dir = log_dir
        self.draw = draw
        self.every_epochs = every_epochs
        self.epochs = epochs
        self.picture_name = name

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if (epoch + 1) % self.every_epochs and epoch + 1 != self.epochs:
            return
        picture = self.draw()
        with tf.summary.create_file_writer(self.log_dir).as_default():
            tf.summary.image(self.picture_name, picture[None], step=epoch + 1)
