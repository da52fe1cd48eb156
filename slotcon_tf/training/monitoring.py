"""Callbacks of `fit` that keep records: the CSV of epochs, evaluation on the way."""

from __future__ import annotations

import csv
import io
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras

from slotcon_tf.files import write_text


class CsvHistory(keras.callbacks.Callback):
    """A row per epoch in a CSV file; goes on below the rows that are there.

    Keras's CSVLogger fixes its columns by the first epoch, and invents validation
    columns where there is no validation. Here a column that comes later is added, and
    what an epoch has no value for stays empty.

    Args:
        path: Of the file.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "history.csv"
        >>> CsvHistory(path).on_epoch_end(0, {"loss": 0.5})
        >>> path.read_text().split()
        ['epoch,loss', '0,0.5']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = pathlib.Path(path)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        row = {"epoch": epoch, **{k: f"{float(v):.9g}" for k, v in logs.items()}}
        header = self._header()
        if header is not None and set(row) <= set(header):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, header, lineterminator="\n").writerow(row)
            return
        rows = []
        if header is not None:
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        names = dict.fromkeys([*(header or ["epoch"]), *sorted(row)])
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])
        write_text(self.path, text.getvalue())

    def _header(self) -> list[str] | None:
        if not self.path.exists():
            return None
        with self.path.open(newline="") as file:
            return next(csv.reader(file), None)


class PeriodicEvaluation(keras.callbacks.Callback):
    """Adds scores on labelled images to the logs of some epochs.

    Placed before the callbacks that write logs: progress bar, CSV and TensorBoard then
    have them, under names that begin with `val_`.

    Args:
        evaluate: Function without arguments that returns a dict of floats.
        every_epochs: Epochs between evaluations; the last epoch is evaluated always.
        epochs: Epochs of the whole run.

    Example:
        >>> logs = {}
        >>> often = PeriodicEvaluation(lambda: {"nmi": 0.4}, every_epochs=2, epochs=5)
        >>> often.on_epoch_end(1, logs)
        >>> logs
        {'val_nmi': 0.4}
    """

    def __init__(
        self,
        evaluate: Callable[[], dict[str, float]],
        *,
        every_epochs: int,
        epochs: int,
    ) -> None:
        super().__init__()
        self.evaluate = evaluate
        self.every_epochs = every_epochs
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        done = epoch + 1
        skipped = done % self.every_epochs and done != self.epochs
        if logs is None or skipped:
            return
        scores = self.evaluate()
        # What does not exist, such as the score of a class without pixels, is left out.
        logs.update({f"val_{k}": v for k, v in scores.items() if math.isfinite(v)})
