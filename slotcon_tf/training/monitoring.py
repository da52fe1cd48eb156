"""Callbacks of `fit` that keep records: the CSV of epochs, evaluation on the way."""

from __future__ import annotations

import csv
import io
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from slotcon_tf.files import write_text


class CsvHistory(keras.callbacks.Callback):
    """A row per epoch in a CSV file; goes on below the rows that are there.

    Keras's CSVLogger fixes its columns by the first epoch, and invents validation
    columns where there is no validation. Here a column that comes later is added, and
    what an epoch has no value for stays empty.

    A run notes an epoch's row (`note`), writes its checkpoint, which holds `text`,
    evaluates, and writes the file. Killed at any moment it goes on with one row of
    every epoch that is done: the file's, and the checkpoint's for those that the file
    has not; an evaluation that was cut off stays empty. A row that could not be written
    is written with the next one.

    Args:
        path: Of the file.
        epochs_done: Rows of later epochs are dropped: they come again. None: all stay.
        kept: Another such file, of a checkpoint, whose rows fill gaps.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "history.csv"
        >>> CsvHistory(path).on_epoch_end(0, {"loss": 0.5})
        >>> path.read_text().split()
        ['epoch,loss', '0,0.5']
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        epochs_done: int | None = None,
        kept: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.path = pathlib.Path(path)
        self.rows: dict[int, dict[str, str]] = {}
        self._columns = {"epoch": None}
        for file in (self.path, kept):
            columns, rows = _read_rows(file) if file else ([], [])
            self._columns |= dict.fromkeys(columns)
            for row in rows:
                epoch = int(row["epoch"])
                if epochs_done is None or epoch < epochs_done:
                    self.rows.setdefault(epoch, row)

    def note(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the row of an epoch, or values to it."""
        row = {k: f"{float(v):.9g}" for k, v in (logs or {}).items()}
        self.rows[epoch] = {**self.rows.get(epoch, {}), "epoch": str(epoch), **row}
        self._columns |= dict.fromkeys(sorted(row))

    def text(self) -> str:
        """All rows, as the file has them."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(self._columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[epoch] for epoch in sorted(self.rows))
        return text.getvalue()

    def write(self) -> None:
        """Writes the file, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        if self.rows or self.path.exists():
            write_text(self.path, self.text())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.note(epoch, logs)
        self.write()


def _read_rows(
    path: str | os.PathLike[str],
) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows of a file; none of one that cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            columns, *rows = list(csv.reader(file)) or [[]]
    except (OSError, ValueError, csv.Error):
        return [], []
    if columns[:1] != ["epoch"]:
        return [], []
    whole = [row for row in rows if len(row) == len(columns) and row[0].isdigit()]
    return columns, [dict(zip(columns, row, strict=True)) for row in whole]


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
        logs.update(val_logs(self.evaluate()))


def val_logs(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores as an epoch's logs have them.

    What does not exist, such as the score of a class without pixels, is left out.

    Example:
        >>> val_logs({"nmi": 0.4, "miou": float("nan")})
        {'val_nmi': 0.4}
    """
    return {f"val_{k}": v for k, v in scores.items() if math.isfinite(v)}
