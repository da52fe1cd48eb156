"""Where a model comes from, for the card of its export."""

from __future__ import annotations

import contextlib
import csv
import os
import pathlib
import re
from typing import Any

import keras
from absl import logging

from slotcon_tf.errors import first_line
from slotcon_tf.evaluation.results import SCORES, read_result
from slotcon_tf.runs.kept_data import read_data
from slotcon_tf.runs.loading import results_folder, run_checkpoints, run_folder
from slotcon_tf.runs.places import HISTORY
from slotcon_tf.runs.workdir import FLAGFILES

_COMMANDS = {
    "pretrain.flags": "pretrain",
    "finetune.flags": "finetune_segmentation",
    "finetune_detection.flags": "finetune_detection",
}
# Settings that name places of the machine that trained, and of nobody else.
_PLACES = re.compile("--(workdir|init_from|(eval_)?(class_file|data_dir))=")


def provenance(
    source: str | os.PathLike[str], model: keras.Model | None = None
) -> dict[str, Any]:
    """What is known of how a model was trained.

    Args:
        source: As of `slotcon_tf.runs.loading.load_trained`: a run, a checkpoint, a
            file.
        model: What was loaded from it.

    Returns:
        Dict of `model`, `trained_on`, `recipe` and `scores`, as
        `slotcon_tf.serving.model_card.write_card` takes them; None for what is not
        known, as of a file without its run. Paths are left out but for their last
        name.

    Example:
        >>> provenance("models/slotcon.keras")["model"]
        {'title': 'slotcon.keras'}
    """
    path = pathlib.Path(source)
    run = run_folder(path)
    about: dict[str, Any] = {"title": (run or path).resolve().name}
    step = getattr(model, "step", None)
    if step is not None:
        about["training_steps"] = int(step.numpy())
    found = {"model": about, "trained_on": None, "recipe": None, "scores": None}
    if run is None:
        return found
    name, lines = run_flags(run)
    parts = (line[2:].partition("=") for line in lines)
    flags = {flag: value for flag, _, value in parts}
    data = _trained_on(path, flags)
    kept = [line for line in lines if not _PLACES.match(line)]
    recipe = {"command": _COMMANDS.get(name), "flags": kept}
    started = pathlib.Path(flags.get("init_from") or "").name
    if started:
        about["started_from"] = started
    scores = _scores(results_folder(path) or run) or _last_of_history(run)
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


def _scores(folder):
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        result = read_result(folder / SCORES)
        rows = {
            name: stages["trained"][0]
            for name, stages in result["rows"].items()
            if "trained" in stages
        }
        about = {k: result[k] for k in ("task", "dataset", "split") if result.get(k)}
        return {**about, **rows} if rows else None
    return None


def _last_of_history(run):
    """The newest scores of a run that is still training, or has no others."""
    with contextlib.suppress(OSError, csv.Error, ValueError):
        with open(run / HISTORY, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in reversed(rows):
            found = {
                name: float(value)
                for name, value in row.items()
                if name and name.startswith("val_") and value
            }
            if found:
                return found
    return None
