"""Measures every checkpoint of a run: one table and one curve per task."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import keras
from absl import logging
from tqdm import tqdm

from slotcon_tf.errors import first_line
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.evaluation.results import read_result, result_of, write_result
from slotcon_tf.evaluation.series import series_csv, series_line, show_series
from slotcon_tf.evaluation.tasks import Sums
from slotcon_tf.files import write_text, write_whole
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.interop import CheckpointFileError
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.progress import bar
from slotcon_tf.runs.checkpoints import STATE, step_of
from slotcon_tf.runs.evaluate_config import EvaluateConfig
from slotcon_tf.runs.evaluation_tasks import LabelledTasks, result_name, untrained
from slotcon_tf.runs.loading import (
    is_checkpoint,
    measured_part,
    read_checkpoint,
    run_checkpoints,
    run_folder,
)
from slotcon_tf.runs.pretrain_config import PretrainConfig
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.visualize.series import series_figure

# Settings on which no number depends, or which say where numbers go.
_NOT_COMPARED = ("model", "prefix", "task", "output", "all", "batch_size")


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
    part = measured_part(model)
    inference = Inference(part, config.which, config.scale)
    labelled = LabelledTasks(config, statistics_of(part).pixel_range)
    folder = pathlib.Path(config.output or _folder_of(paths[0]))
    folder.mkdir(parents=True, exist_ok=True)  # fails now, or never
    all_series = [_Series(folder, name, labelled, inference) for name in config.task]
    baseline = _Baseline(part, config)
    with bar(total=len(paths), desc="checkpoints", unit="checkpoint") as progress:
        for path in paths:
            due = [series for series in all_series if not series.has(path)]
            if due and _read(path, model):
                for series in due:
                    series.measure(path, model, inference, baseline)
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


class _Baseline:
    """What the untrained network comes to: measured once for a task, if ever."""

    def __init__(self, model: keras.Model, config: EvaluateConfig) -> None:
        self._model, self._config = model, config
        self._inference: Inference | None = None
        self._counts: dict[str, Sums] = {}

    def counts(self, name: str, task: Any) -> dict[str, Sums]:
        """Dict of "untrained" to its sums by image; empty without a baseline."""
        config = self._config
        if not config.baseline:
            return {}
        if self._inference is None:
            blank = untrained(self._model, config.seed)
            self._inference = Inference(blank, config.which, config.scale)
        if name not in self._counts:
            self._counts[name] = task.measure(self._inference)
        return {"untrained": self._counts[name]}


class _Series:
    """The results of one task, a file per checkpoint, and what is made of them.

    Args:
        folder: Of the table and the curve.
        name: Of the task.
        labelled: The labelled images.
        inference: Of the run's model, with any weights.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        name: str,
        labelled: LabelledTasks,
        inference: Inference,
    ) -> None:
        self.name = name
        self.config = labelled.config
        self._folder = folder
        self._data, self._task = labelled.task(name, inference)
        self._stem = f"{result_name(self.config, name)}_checkpoints"
        self._parts = folder / "checkpoints" / result_name(self.config, name)
        known = dataclasses.asdict(self.config)
        known = {k: v for k, v in known.items() if k not in _NOT_COMPARED}
        self._settings = json.loads(json.dumps(known))  # as it will be read

    def has(self, checkpoint: pathlib.Path) -> bool:
        """Whether these very weights were measured with these settings before."""
        found = self._stored(self._parts / f"{checkpoint.name}.json")
        return found is not None and found.get("weights") == _digest(checkpoint)

    def measure(
        self,
        checkpoint: pathlib.Path,
        model: keras.Model,
        inference: Inference,
        baseline: _Baseline,
    ) -> None:
        """Measures a checkpoint whose weights the model has; writes all files."""
        counts = baseline.counts(self.name, self._task)
        counts |= {"trained": self._task.measure(inference)}
        found = result_of(
            self.name,
            self._task,
            counts,
            dataset=repr(self._data),
            split=self.config.split,
            settings=self._settings,
            step=step_of(checkpoint),
            resamples=self.config.resamples,
            seed=self.config.seed,
        )
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
        same = same and found.get("dataset") == repr(self._data)
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
