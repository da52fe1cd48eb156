"""Callbacks of `fit`: throughput, NaN guard, checkpoints, slot pictures."""

import math
import time

import keras
import tensorflow as tf
from absl import logging


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second` (images of the epoch's steps) to the epoch's logs.

    Placed before the callbacks that write logs. The first step of a run, which traces
    and compiles, is left out.

    Args:
        batch_size: Images per step, of all replicas.
    """

    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size
        self._traced = False

    def on_epoch_begin(self, epoch, logs=None):
        self._start, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        if not self._traced:
            self._traced, self._start = True, time.perf_counter()
            return
        self._steps += 1

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self._start
        if logs is not None and self._steps and seconds > 0:
            logs["images_per_second"] = self._steps * self.batch_size / seconds


class NonFiniteError(RuntimeError):
    """A loss or metric became NaN or infinite."""


class NanGuard(keras.callbacks.Callback):
    """Stops the run on the first step whose loss or metric is not finite.

    Args:
        last_checkpoint: Function without arguments that returns the path of the
            newest checkpoint, or None.

    Raises:
        NonFiniteError: It names the quantities, the step and that checkpoint.
    """

    def __init__(self, last_checkpoint=lambda: None):
        super().__init__()
        self.last_checkpoint = last_checkpoint

    def on_train_batch_end(self, batch, logs=None):
        bad = {k: float(v) for k, v in (logs or {}).items() if not math.isfinite(v)}
        if not bad:
            return
        named = ", ".join(f"{name} = {value}" for name, value in bad.items())
        step = int(self.model.step.numpy())
        raise NonFiniteError(
            f"Every loss and metric must be finite. Received: {named} in step {step}. "
            f"The last good checkpoint is {self.last_checkpoint() or 'none'}; resume "
            "from it with a lower --base_lr or with --precision=float32."
        )


class EpochCheckpoint(keras.callbacks.Callback):
    """Saves model, teacher, center, optimizer and epoch at the end of epochs.

    Args:
        manager: tf.train.CheckpointManager whose checkpoint has an `epoch` variable.
        every_epochs: Epochs between saves; the last epoch is always saved.
        epochs: Epochs of the whole run.
    """

    def __init__(self, manager, *, every_epochs, epochs):
        super().__init__()
        self.manager = manager
        self.every_epochs = every_epochs
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        if done % self.every_epochs and done != self.epochs:
            return
        self.manager.checkpoint.epoch.assign(done)
        path = self.manager.save(checkpoint_number=done)
        logging.debug("Saved %s", path)


class SlotPictures(keras.callbacks.Callback):
    """Writes slot overlays of a few images to TensorBoard at the end of epochs.

    Args:
        log_dir: TensorBoard folder.
        images: uint8 (N, height, width, 3).
        draw: Function `(model, images) -> uint8 (H, W, 3)`, one picture.
        every_epochs: Epochs between pictures.
    """

    def __init__(self, log_dir, images, draw, *, every_epochs):
        super().__init__()
        self.log_dir = log_dir
        self.images = images
        self.draw = draw
        self.every_epochs = every_epochs

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every_epochs:
            return
        picture = self.draw(self.model, self.images)
        with tf.summary.create_file_writer(self.log_dir).as_default():
            tf.summary.image("slots", picture[None], step=epoch + 1)
