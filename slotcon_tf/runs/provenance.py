"""Where a model comes from, for the card of its export."""

from __future__ import annotations

import contextlib
import csv
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import keras
from absl import logging

from slotcon_tf.errors import first_line
from slotcon_tf.evaluation.results import SCORES, read_result
from slotcon_tf.interop.pretrained import MODEL_FILE
from slotcon_tf.runs.detection_config import DetectionConfig
from slotcon_tf.runs.finetune_config import FinetuneConfig
from slotcon_tf.runs.kept_data import read_data
from slotcon_tf.runs.loading import (
    is_checkpoint,
    results_folder,
    run_checkpoints,
    run_folder,
)
from slotcon_tf.runs.places import (
    DETECTOR_FILE,
    HISTORY,
    PREFIX,
    SEGMENTER_FILE,
    step_of,
)
from slotcon_tf.runs.pretrain_config import PretrainConfig
from slotcon_tf.runs.settings import Config
from slotcon_tf.runs.workdir import FLAGFILES

_CONFIGS = {
    config.flagfile: config
    for config in (PretrainConfig, FinetuneConfig, DetectionConfig)
}
# Files that a run makes of its model, in its folder.
_MADE = (MODEL_FILE, SEGMENTER_FILE, DETECTOR_FILE)


def provenance(
    source: str | os.PathLike[str],
    model: keras.Model | None = None,
    which: str | None = None,
) -> dict[str, Any]:
    """What is known of how a model was trained.

    Args:
        source: As of `slotcon_tf.runs.loading.load_trained`: a run, a checkpoint, a
            file.
        model: What was loaded from it.
        which: "teacher" or "student", if it is one of them; scores of the other are
            not its.

    Returns:
        Dict of `model`, `trained_on`, `recipe` and `scores`, as
        `slotcon_tf.serving.model_card.write_card` takes them; None for what is not
        known, as of a file without its run. `scores` are of the same step. Settings
        that are `private` are left out, and of paths all but their last name.

    Example:
        >>> provenance("models/slotcon.keras")["model"]
        {'title': 'slotcon.keras'}
    """
    path = pathlib.Path(source)
    run = run_folder(path)
    if run is None and path.name in _MADE and run_flags(path.parent)[0]:
        run = path.parent
    about: dict[str, Any] = {"title": (run or path).resolve().name}
    step = getattr(model, "step", None)
    if step is not None:
        step = about["training_steps"] = int(step.numpy())
    elif is_checkpoint(path):
        step = step_of(path)
    found = {"model": about, "trained_on": None, "recipe": None, "scores": None}
    if run is None:
        return found
    name, lines = run_flags(run)
    parts = (line[2:].partition("=") for line in lines)
    flags = {flag: value for flag, _, value in parts}
    data = _trained_on(path, flags)
    config = _CONFIGS.get(name)
    kept = published(config, lines) if config else []
    command = config and config.command.removeprefix("slotcon-").replace("-", "_")
    recipe = {"command": command, "flags": kept}
    if flags.get("init_from"):
        about["started_from"] = _started_from(pathlib.Path(flags["init_from"]))
    scores = _scores(results_folder(path) or run, step, which)
    if scores is None and which != "student":  # a history is of the teacher
        scores = _last_of_history(run, step, is_checkpoint(path))
    return {
        **found,
        "trained_on": data,
        "recipe": recipe if kept else None,
        "scores": scores,
    }


def run_flags(run: pathlib.Path) -> tuple[str, list[str]]:
    """The settings of a run: the name of their file, and its lines.

    Args:
        run: Its work directory.

    Returns:
        Tuple of "" and nothing where there are none.

    Example:
        >>> run_flags(pathlib.Path("runs/nowhere"))
        ('', [])
    """
    for name in FLAGFILES:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            lines = (run / name).read_text(encoding="utf-8").splitlines()
            return name, [line.strip() for line in lines if line.startswith("--")]
    return "", []


def published(config: type[Config], lines: Iterable[str]) -> list[str]:
    """The lines of a run's settings that anybody may read.

    Args:
        config: Class of the settings.
        lines: As in a file of flags; those that it does not know stay out.

    Example:
        >>> published(PretrainConfig, ["--arch=resnet18", "--data_dir=/home/me/photos"])
        ['--arch=resnet18']
    """
    known = {
        name: each
        for each in config.settings().values()
        for name in (each.flag, *each.aliases)
    }

    def is_public(line):
        name = line[2:].partition("=")[0]
        found = known.get(name) or known.get(name.removeprefix("no"))
        return found is not None and not found.private

    return [line for line in lines if is_public(line)]


def _started_from(path):
    """The last name of a path; of a checkpoint, its run's and the step."""
    if not path.name.removeprefix(PREFIX).isdigit():
        return path.name if path.name != "checkpoints" else path.parent.name
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return f"{run.name} (step {step_of(path)})" if run.name else path.name


def _trained_on(source, flags):
    found = {}
    if "dataset" in flags:
        found["dataset"] = flags["dataset"]
    if flags.get("data_dir"):
        found["folder"] = pathlib.Path(flags["data_dir"]).name
    checkpoint = next(iter(run_checkpoints(source)), source)
    try:
        data = read_data(checkpoint)
    except (OSError, ValueError) as error:
        logging.warning("%s: %s", checkpoint, first_line(error))
        data = None
    for part, summary in (data or {}).get("parts", {}).items():
        found[part] = summary["num_images"]
    if data:
        found["data_digest"] = data["digest"]
    return found or None


def _scores(folder, step, which):
    """Those that were measured of this network at this step, as far as is known."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        result = read_result(folder / SCORES)
        rows = {
            name: stages["trained"][0]
            for name, stages in result["rows"].items()
            if "trained" in stages
        }
        network = result.get("settings", {}).get("which")
        if (
            _differ(result.get("step"), step)
            or _differ(network, which)
            or (which == "student" and network is None)
        ):
            return None
        names = ("task", "dataset", "split", "step")
        about = {k: result[k] for k in names if result.get(k)}
        if network:
            about["which"] = network
        return {**about, **rows} if rows else None
    return None


def _differ(one, other):
    """Whether both are known and are not the same."""
    return one is not None and other is not None and one != other


def _last_of_history(run, step, of_checkpoint):
    """Scores in the last row of a run that is still training, or has no others.

    Of a checkpoint those of its step alone, where the rows have steps.
    """
    with contextlib.suppress(OSError, csv.Error, ValueError):
        with open(run / HISTORY, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if any(row.get("step") for row in rows) and step is not None:
            rows = [row for row in rows if int(row.get("step") or -1) == step]
        elif of_checkpoint:
            return None
        for row in rows[-1:]:
            found = {
                name: float(value)
                for name, value in row.items()
                if name and name.startswith("val_") and value
            }
            if found:
                told = {k: int(row[k]) for k in ("epoch", "step") if row.get(k)}
                return {**told, **found}
    return None
