"""Checkpoints of a run: written whole or not at all, and found again."""

from __future__ import annotations

import os
import pathlib
import shutil
import time
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.errors import first_line
from slotcon_tf.files import to_disk
from slotcon_tf.runs import workdir
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.kept_data import RunData, check_data, read_data, write_data
from slotcon_tf.runs.lock import check_held
from slotcon_tf.runs.model_config import write_model_config
from slotcon_tf.runs.places import PREFIX as _PREFIX
from slotcon_tf.runs.places import checkpoint_paths, step_of
from slotcon_tf.runs.run_settings import RunSettings

STATE = "state"
# What reading a damaged checkpoint raises, from TensorFlow's readers too.
_UNREADABLE = (
    OSError,
    tf.errors.OpError,
    AssertionError,
    LookupError,
    RuntimeError,
    ValueError,
)


class CheckpointError(CommandError):
    """A checkpoint cannot be written, or none can be read.

    Example:
        >>> CheckpointError("No space is left.").status  # a command ends with it
        1
    """


class Checkpoints:
    """Model, teacher, center, optimizer, step, flags and data of a run, by step.

    A checkpoint is a folder that is written under another name and then renamed: what
    is killed while it writes leaves nothing that counts. The position in the data is
    the model's step, from which every random choice follows.

    Args:
        folder: Of all checkpoints.
        model: A compiled model with a built optimizer, and its `step`.
        config: Of the run; its flags are kept with every checkpoint.
        steps_per_epoch: Of the run.
        data: `RunData` that it is trained on; None: it is neither kept nor compared.
        keep: Newest checkpoints kept.
        keep_every_epochs: Checkpoints at the ends of these epochs are kept for good; 0
            for none.
        writes: Whether this process writes, or reads only.
        means: Whether an epoch's running means are kept too. Several hosts would have
            to meet to write those, and one of them writes alone.

    Attributes:
        ended: Whether `restore` found the end of a run on other data.

    Example:
        >>> import tempfile
        >>> from slotcon_tf.runs import PretrainConfig
        >>> class Counter(keras.Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.step = self.add_weight(dtype="int64", initializer="zeros")
        >>> model = Counter()
        >>> model.compile(optimizer="sgd")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = Checkpoints(
        ...         folder, model, PretrainConfig(), steps_per_epoch=1, keep=2
        ...     )
        ...     _ = model.step.assign(7)
        ...     print(kept.save().name, kept.restore())
        step_000000007 7
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        model: keras.Model,
        config: RunSettings,
        *,
        steps_per_epoch: int,
        keep: int,
        data: RunData | None = None,
        keep_every_epochs: int = 0,
        writes: bool = True,
        means: bool = True,
    ) -> None:
        self.folder = pathlib.Path(folder)
        self.model = model
        self.config = config
        self.data = data
        self.ended = False
        self.keep = keep
        self.writes = writes
        self.steps_per_epoch = steps_per_epoch
        self.keep_every_epochs = keep_every_epochs
        # The running means of an epoch; Keras leaves them out of its model.
        metrics = [v.value for m in model.metrics for v in m.variables if means]
        self.variables = [*model.variables, *model.optimizer.variables, *metrics]
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizer=model.optimizer, metrics=metrics
        )

    def paths(self) -> list[pathlib.Path]:
        """Folders of all checkpoints, the newest first."""
        return checkpoint_paths(self.folder)

    def latest(self) -> pathlib.Path | None:
        """Folder of the newest checkpoint, or None."""
        return next(iter(self.paths()), None)

    def save(self, texts: Mapping[str, str] | None = None) -> pathlib.Path:
        """Writes a checkpoint of this step, unless there is one, and drops old ones.

        Args:
            texts: Of files that lie beside the state, by their names.

        Returns:
            Its folder.

        Raises:
            CheckpointError: If it cannot be written; the others stay as they are.
            WorkdirBusy: If another run has taken the work directory over.
        """
        check_held(self.folder.parent)
        step = int(self.model.step.numpy())
        target = self.folder / f"{_PREFIX}{step:09d}"
        if target.exists():
            return target
        aside, start = self.folder / ".writing", time.monotonic()
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            self._checkpoint.write(str(aside / STATE))
            lines = "\n".join(workdir.kept_lines(self.config))
            texts = {self.config.flagfile: lines + "\n", **(texts or {})}
            for name, text in texts.items():
                (aside / name).write_text(text)
            if self.data is not None:
                write_data(aside, self.folder, self.data)
            write_model_config(aside, self.model)
            to_disk(aside)  # a power cut must not leave a whole name of half a file
            aside.rename(target)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointError(
                f"A checkpoint of step {step} must be written to {self.folder}. "
                f"Received: {first_line(error, 400)}. Free some space or allow "
                "writing, and give the same command again: it goes on from "
                f"{self.latest() or 'the start'}."
            ) from error
        logging.info("Saved %s in %.2f s", target, time.monotonic() - start)
        self._drop_old()
        return target

    def _drop_old(self):
        for path in self.paths()[self.keep :]:
            if not self._for_good(path):
                shutil.rmtree(path, ignore_errors=True)

    def _for_good(self, path):
        """Whether it ends an epoch that is kept: one of now, or of its own data."""
        every, step = self.keep_every_epochs, step_of(path)
        if not every or step % (every * self.steps_per_epoch) == 0:
            return bool(every)
        try:
            then = (read_data(path) or {}).get("steps_per_epoch", 0)
        except (OSError, ValueError):
            return False
        return bool(then) and step % (every * then) == 0

    def keep_data(self) -> None:
        """Notes the data of now in the newest checkpoint, of which none will follow.

        Raises:
            OSError: If it cannot be written.
        """
        latest = self.latest()
        if self.data is not None and latest is not None:
            write_data(latest, self.folder, self.data)

    def restore(self) -> int:
        """Reads the newest checkpoint that is whole.

        Returns:
            The step that it was written after; 0 if there is no checkpoint.

        Raises:
            workdir.WorkdirError: If it belongs to another configuration, or to other
                data.
            CheckpointError: If there are checkpoints, and none can be read.
        """
        damaged = []
        for path in self.paths():
            try:
                self._read(path)
            except workdir.WorkdirError:
                raise
            except _UNREADABLE as error:
                logging.warning(
                    "The checkpoint %s is damaged (%s); the one before it is tried.",
                    path,
                    first_line(error, 200),
                )
                damaged.append(path)
                continue
            if self.writes:
                self._set_aside(damaged)
            return int(self.model.step.numpy())
        if damaged:
            raise CheckpointError(
                f"One checkpoint at least must be readable in {self.folder}. Received: "
                f"{len(damaged)}, all damaged. Start again with another `workdir`, or "
                "delete them to start here."
            )
        return 0

    def _set_aside(self, damaged):
        """Renames what is damaged: these steps will be written again."""
        for path in damaged:
            aside = path.with_name(f"damaged_{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)

    def _read(self, path):
        written = (path / self.config.flagfile).read_text().splitlines()
        if not written:
            raise ValueError("its flags are missing")
        old = workdir.check_same(path, written, self.config)
        if self.data is not None:
            self.ended = check_data(path, self.data, self.config, old)
        status = self._checkpoint.read(str(path / STATE))
        status.assert_existing_objects_matched()
        step = int(self.model.step.numpy())
        if step != step_of(path):
            raise ValueError(f"it holds step {step}")


def largest_difference(
    first: pathlib.Path, second: pathlib.Path, part: str = ""
) -> float:
    """Largest absolute difference between any numbers of two checkpoints.

    Args:
        first, second: Folders of checkpoints.
        part: "model" or "optimizer" to compare only that.

    Returns:
        float; infinity if they do not hold the same variables, or none of that part.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = [pathlib.Path(folder, name) for name in "ab"]
        ...     for number, path in enumerate(paths):
        ...         state = tf.train.Checkpoint(x=tf.Variable(number / 2))
        ...         _ = state.write(str(path / STATE))
        ...     largest_difference(*paths, part="x")
        0.5
    """
    readers = [tf.train.load_checkpoint(str(path / STATE)) for path in (first, second)]
    names = [
        {name for name in reader.get_variable_to_shape_map() if name.startswith(part)}
        for reader in readers
    ]
    if names[0] != names[1] or not names[0]:
        return float("inf")
    errors = [0.0]
    for name in names[0] - {"_CHECKPOINTABLE_OBJECT_GRAPH"}:
        a, b = (np.asarray(r.get_tensor(name), np.float64) for r in readers)
        errors.append(np.abs(a - b).max(initial=0.0))
    return float(np.max(errors))  # NaN stays NaN
