"""Measures every checkpoint of a run: one table and one curve per task."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

import keras
from absl import logging
from tqdm import tqdm

from slotcon_tf.errors import first_line
from slotcon_tf.evaluation.results import read_result, write_result
from slotcon_tf.evaluation.series import series_csv, series_line, show_series
from slotcon_tf.files import write_text, write_whole
from slotcon_tf.interop import CheckpointFileError
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.progress import bar
from slotcon_tf.runs.checkpoints import STATE, step_of
from slotcon_tf.runs.evaluate_config import EvaluateConfig
from slotcon_tf.runs.evaluation_tasks import result_name
from slotcon_tf.runs.loading import (
    is_checkpoint,
    read_checkpoint,
    run_checkpoints,
    run_folder,
)
from slotcon_tf.runs.measures import Measure, measures_of
from slotcon_tf.runs.pretrain_config import PretrainConfig
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.visualize.series import series_figure


def evaluate_all(config: EvaluateConfig) -> list[dict[str, Any]]:
    """See `slotcon_tf.runs.evaluate`, with `all`.

    Raises:
        SettingError: If `model` is no work directory with checkpoints.

    Example:
        >>> evaluate_all(EvaluateConfig(model="photos.keras"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: `all` needs the work directory ...
    """
    paths = [] if is_checkpoint(config.model) else run_checkpoints(config.model)[::-1]
    if not paths:
        raise SettingError(
            "`all` needs the work directory of a run that has checkpoints. Received: "
            f"model={config.model}. Leave it out for one model or checkpoint."
        )
    model = _first_whole(paths)
    measures = measures_of(config, model)
    folder = pathlib.Path(config.output or _folder_of(paths[0]))
    folder.mkdir(parents=True, exist_ok=True)  # fails now, or never
    all_series = [_Series(folder, config, measure) for measure in measures]
    with bar(total=len(paths), desc="checkpoints", unit="checkpoint") as progress:
        for path in paths:
            due = [series for series in all_series if not series.has(path)]
            if due and _read(path, model):
                for series in due:
                    series.measure(path, model)
            progress.update()
    for series in all_series:
        series.show()
    found = [result for series in all_series for result in series.results()]
    if not found:
        raise ValueError(
            f"One checkpoint at least must be there to be measured. Received: "
            f"{config.model}, where all are gone by now. Give the command again."
        )
    return found


def _first_whole(paths: list[pathlib.Path]) -> keras.Model:
    """The model of the run, with the weights of any checkpoint."""
    for path in paths[:-1]:
        try:
            return read_checkpoint(path)
        except CheckpointFileError:
            continue  # which is told when its turn comes
    return read_checkpoint(paths[-1])


def _folder_of(checkpoint: pathlib.Path) -> pathlib.Path:
    return (run_folder(checkpoint) or checkpoint) / "evaluation"


def _read(path: pathlib.Path, model: keras.Model) -> bool:
    """Whether the model has the checkpoint's weights now."""
    try:
        read_checkpoint(path, model)
    except CheckpointFileError as error:
        if path.exists():
            logging.warning("Passed over: %s", error)
        else:
            logging.info("Passed over: %s, which its run has dropped", path)
        return False
    return True


class _Series:
    """The results of one task, a file per checkpoint, and what is made of them.

    Args:
        folder: Of the table and the curve.
        config: Of all tasks.
        measure: Of this one; its `name`, `dataset` and `settings` are known before.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        config: EvaluateConfig,
        measure: Measure,
    ) -> None:
        self._folder, self._measure = folder, measure
        name = result_name(config, measure.name)
        self._stem = f"{name}_checkpoints"
        self._parts = folder / "checkpoints" / name
        self._settings = json.loads(json.dumps(measure.settings))  # as it will be read

    def has(self, checkpoint: pathlib.Path) -> bool:
        """Whether these very weights were measured with these settings before."""
        found = self._stored(self._parts / f"{checkpoint.name}.json")
        return found is not None and found.get("weights") == _digest(checkpoint)

    def measure(self, checkpoint: pathlib.Path, model: keras.Model) -> None:
        """Measures a checkpoint whose weights the model has; writes all files."""
        found = self._measure(step_of(checkpoint))
        found["checkpoint"] = checkpoint.name
        found["epoch"] = _epoch(checkpoint, model)
        found["weights"] = _digest(checkpoint)
        write_result(self._parts / f"{checkpoint.name}.json", found)
        self._write()
        tqdm.write(series_line(found))

    def results(self) -> list[dict[str, Any]]:
        """All that were measured with these settings, in the order of steps.

        Those of checkpoints that the run has dropped since are among them.
        """
        paths = sorted(self._parts.glob("step_*.json"))
        found = [stored for path in paths if (stored := self._stored(path))]
        return sorted(found, key=lambda one: one["step"])

    def show(self) -> None:
        """Prints the table, and where the files are."""
        if results := self.results():
            self._write()
            show_series(results)
            for ending in ("csv", "png"):
                print(f"Written: {self._folder / self._stem}.{ending}")

    def _write(self) -> None:
        results = self.results()
        path = self._folder / f"{self._stem}.csv"
        write_text(path, series_csv(results))
        figure = series_figure(results)
        write_whole(
            path.with_suffix(".png"),
            lambda file: figure.savefig(file, format="png", dpi=110),
        )

    def _stored(self, path: pathlib.Path) -> dict[str, Any] | None:
        """A result that these settings would give again, or None."""
        try:
            found = read_result(path)
        except (OSError, ValueError, TypeError, AttributeError):
            return None  # not there, or damaged: it is measured anew
        same = found.get("settings") == self._settings
        same = same and found.get("dataset") == self._measure.dataset
        return found if same and isinstance(found.get("step"), int) else None


def _digest(checkpoint: pathlib.Path) -> str:
    """What tells a checkpoint's weights from others: its index has their checksums."""
    try:
        content = (checkpoint / f"{STATE}.index").read_bytes()
    except OSError as error:
        return first_line(error)  # no digest of any: reading it will tell
    return hashlib.sha256(content).hexdigest()[:16]


def _epoch(checkpoint: pathlib.Path, model: keras.Model) -> float | None:
    """Epochs of a pretraining that a checkpoint has behind it."""
    if not isinstance(model, SlotCon):
        return None
    try:
        lines = (checkpoint / PretrainConfig.flagfile).read_text().splitlines()
        steps = model.total_steps // PretrainConfig.from_lines(lines).epochs
    except (OSError, ValueError):
        return None
    return step_of(checkpoint) / steps if steps else None
