"""Trained models: of a run, finished or not, or of anything pretrained."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from slotcon_tf.errors import first_line
from slotcon_tf.files import write_text
from slotcon_tf.interop import CheckpointFileError, load_pretrained
from slotcon_tf.interop.allowance import variables_within
from slotcon_tf.interop.pretrained import MODEL_FILE
from slotcon_tf.interop.reasons import refusal
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.checkpoints import STATE, checkpoint_paths, step_of
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.serving.warmup import BATCH_SIZES

_CONFIG = "model.json"
_NUMBERED = re.compile(r"_\d+(?=[\"/])")  # "conv2d_7", the seventh of a process


def write_model_config(workdir: pathlib.Path, model: SlotCon) -> None:
    """Writes what `load_trained` needs to build the model of a run again.

    A file that differs in names alone is left: those of layers count the models that a
    process has made.

    Example:
        >>> import tempfile, types
        >>> model = types.SimpleNamespace(get_config=lambda: {"num_prototypes": 8})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_model_config(pathlib.Path(folder), model)
        ...     print(*(path.name for path in pathlib.Path(folder).iterdir()))
        model.json
    """
    path, text = workdir / _CONFIG, json.dumps(model.get_config(), indent=2)
    with contextlib.suppress(OSError, ValueError):
        if _NUMBERED.sub("", path.read_text()) == _NUMBERED.sub("", text + "\n"):
            return
    write_text(path, text + "\n")


def load_trained(source: str | os.PathLike, **options: Any) -> tuple[keras.Model, Any]:
    """The model of a run or of one of its checkpoints, or a pretrained one.

    Of a run the newest whole one is read: `slotcon.keras`, unless it is damaged or a
    checkpoint is of a later step, and then the checkpoints, the newest first. What is
    passed over is warned of.

    Args:
        source: Work directory of a run, finished or not, or its folder `checkpoints`;
            the folder of one checkpoint, such as `checkpoints/step_000001000`; or what
            `load_pretrained` takes.
        **options: Of `load_pretrained`.

    Returns:
        As `load_pretrained`: a `SlotCon` or an encoder, and a report or None.

    Raises:
        FileNotFoundError, ValueError: As `load_pretrained`.

    Example:
        >>> load_trained("runs/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: No pretrained model: runs/nowhere...
    """
    path = pathlib.Path(source)
    config, checkpoints = path / _CONFIG, []
    if is_checkpoint(path):
        config, checkpoints = _config_above(path), [path]
    elif path.is_dir():
        folder = path / "checkpoints"
        if not folder.is_dir():
            folder, config = path, path.parent / _CONFIG
        checkpoints = checkpoint_paths(folder) if config.exists() else []
    if not checkpoints:
        model, report = load_pretrained(source, **options)
        if report and report.choice:
            logging.warning("%s: %s", source, report.choice)
        return model, report
    if options.get("prefix"):
        raise ValueError(
            "`prefix` is for files of torch and safetensors. "
            f"Received: prefix={options['prefix']}, with {source}. Leave it out."
        )
    finished = _read_finished(path / MODEL_FILE, checkpoints[0])
    return finished or _read_newest(config, checkpoints), None


def serving_options(
    model: keras.Model,
    image_size: int | None = None,
    mask_size: int | None = None,
    batch_sizes: tuple[int, ...] | None = None,
    **limits: int,
) -> dict[str, Any]:
    """How a model is served unless somebody says otherwise.

    Args:
        model: Its `serving_size`, if it has one, stands for both sizes.
        image_size, mask_size: Edges in pixels that replace it.
        batch_sizes: Of the warm-up requests; default: those that servers take.
        **limits: Of `slotcon_tf.serving.signatures.ServingOptions`.

    Returns:
        Arguments of `slotcon_tf.serving.archive.export_model`: `options` and
        `warmup_batches`.

    Example:
        >>> serving_options(keras.Sequential(), mask_size=64)["options"].mask_size
        64
    """
    size = getattr(model, "serving_size", None)
    given = {"image_size": image_size, "mask_size": mask_size}
    given = {k: size if v is None else v for k, v in given.items()}
    given = {name: value for name, value in given.items() if value is not None}
    batches = BATCH_SIZES if batch_sizes is None else batch_sizes
    return {
        "options": ServingOptions(**given, **limits),
        "warmup_batches": tuple(batches),
    }


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a path is the folder of one checkpoint, under whatever name.

    Example:
        >>> is_checkpoint("runs/nowhere")
        False
    """
    return (pathlib.Path(path) / f"{STATE}.index").is_file()


def run_folder(source: str | os.PathLike) -> pathlib.Path | None:
    """pathlib.Path of the run that a model is of, None where it is a file.

    Example:
        >>> run_folder("model.keras") is None
        True
    """
    path = pathlib.Path(source)
    if is_checkpoint(path):
        return _config_above(path).parent
    return path if path.is_dir() else None


def results_folder(source: str | os.PathLike) -> pathlib.Path | None:
    """Where results about a model belong: in the folder of its run, or None.

    Those about one checkpoint have a folder of its name there: the checkpoint's own
    may go when newer ones are saved.

    Example:
        >>> results_folder("model.keras") is None
        True
    """
    run, path = run_folder(source), pathlib.Path(source).resolve()
    kept_elsewhere = is_checkpoint(path) and run != path
    return run / path.name if kept_elsewhere else run


def _config_above(checkpoint):
    """model.json of a checkpoint's folder: two folders up, or beside a copy of it."""
    path = checkpoint.resolve()
    places = [folder / _CONFIG for folder in (path.parents[1], path.parent, path)]
    found = [place for place in places if place.is_file()]
    if not found:
        raise FileNotFoundError(
            f"A checkpoint needs its run's {_CONFIG}, which stands two folders up. "
            f"Received: {checkpoint}, and none there. Copy it from the run into the "
            "checkpoint's folder."
        )
    return found[0]


def _read_finished(path, checkpoint):
    """The model of a finished run; None if it is not the newest whole one."""
    if not path.exists():
        return None
    try:
        model, _ = load_pretrained(path)
    except CheckpointFileError as error:
        reason = f"it cannot be read ({first_line(error, 300)})"
    else:
        step, newest = int(model.step.numpy()), step_of(checkpoint)
        if step >= newest:
            return model
        reason = f"it is of step {step}"
    logging.warning("%s is passed over: %s; %s is read.", path, reason, checkpoint)
    return None


def _read_newest(config, checkpoints):
    """The model of the newest checkpoint that is whole."""
    errors = []
    for checkpoint in checkpoints:
        try:
            model = _read_checkpoint(config, checkpoint)
        except CheckpointFileError as error:
            errors.append(error)
            continue
        for error in errors:
            logging.warning("%s %s is read.", first_line(error, 300), checkpoint)
        return model
    raise errors[0]


def _read_checkpoint(config, folder):
    """A SlotCon model, all of whose variables are the checkpoint's."""
    try:
        settings = json.loads(config.read_text())
        with variables_within(folder, *_held(folder)):
            model = SlotCon.from_config(settings)
        checkpoint = tf.train.Checkpoint(model=model)
        found = checkpoint.read(str(folder / STATE))
        # The optimizer of the run is not built here; all of the model is.
        found.expect_partial().assert_existing_objects_matched()
    except CheckpointFileError:
        raise
    # Whatever a damaged description or state is to JSON, Keras and TensorFlow.
    except Exception as error:
        must = (
            f"{folder} must be a whole checkpoint, and {config} the description of its "
            "model."
        )
        advice = ". Take another checkpoint of the run."
        raise refusal(config, error, must, advice) from error
    return model


def _held(folder):
    """Bytes of a checkpoint, and the number of its arrays."""
    shapes = tf.train.load_checkpoint(str(folder / STATE)).get_variable_to_shape_map()
    return sum(path.stat().st_size for path in folder.iterdir()), len(shapes)
