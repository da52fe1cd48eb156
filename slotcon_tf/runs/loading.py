"""Trained models: of a run, finished or not, or of anything pretrained."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from slotcon_tf.detection import MaskRCNN
from slotcon_tf.detection.conversion import holds_detector, load_detector
from slotcon_tf.errors import first_line
from slotcon_tf.interop import CheckpointFileError, load_pretrained
from slotcon_tf.interop.allowance import variables_within
from slotcon_tf.interop.pretrained import MODEL_FILE
from slotcon_tf.interop.reasons import refusal
from slotcon_tf.runs.checkpoints import STATE
from slotcon_tf.runs.model_config import MODEL_CONFIG, model_of
from slotcon_tf.runs.places import (
    DETECTOR_FILE,
    SEGMENTER_FILE,
    checkpoint_paths,
    step_of,
)
from slotcon_tf.runs.workdir import FLAGFILES
from slotcon_tf.segmentation import Segmenter
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.serving.warmup import BATCH_SIZES


@contextlib.contextmanager
def _named(source: str | os.PathLike) -> Iterator[None]:
    """Errors of reading say of what."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(source)
        raise


def load_trained(
    source: str | os.PathLike, *, detectors: bool = False, **options: Any
) -> tuple[keras.Model, Any]:
    """The model of a run or of one of its checkpoints, or a pretrained one.

    Of a run the newest whole one is read: what it has written at its end, unless that
    is damaged or a checkpoint is of a later step, and then the checkpoints, the newest
    first. What is passed over is warned of.

    Args:
        source: Work directory of a run, finished or not, or its folder `checkpoints`;
            the folder of one checkpoint, such as `checkpoints/step_000001000`; or what
            `load_pretrained` takes.
        detectors: Whether a detector, also one in a file of detectron2, is given
            whole; else its encoder is.
        **options: Of `load_pretrained`.

    Returns:
        As `load_pretrained`: a `SlotCon` or an encoder, which of a fine-tuning is the
        segmenter's or the detector's, or a `MaskRCNN`; and a report or None.

    Raises:
        FileNotFoundError, ValueError: As `load_pretrained`.

    Example:
        >>> load_trained("runs/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: No pretrained model: runs/nowhere...
    """
    with _named(source):
        model, report = _load(source, options, detectors)
    if detectors and isinstance(model, MaskRCNN):
        return model, report
    return measured_part(model, source), report


def _load(
    source: str | os.PathLike, options: dict[str, Any], detectors: bool
) -> tuple[keras.Model, Any]:
    path = pathlib.Path(source)
    if is_checkpoint(path):
        _refuse_prefix(source, options)
        return read_checkpoint(path), None
    checkpoints = run_checkpoints(path)
    if not checkpoints:
        file = _final_model(path)
        if file is None and _is_run(path):
            raise FileNotFoundError(
                f"A run must have a checkpoint to be read. Received: {source}, which "
                "has none yet. Wait for the first, or take another run."
            )
        wanted = detectors and file is None and not options.get("prefix")
        if wanted and holds_detector(path):
            return load_detector(path, strict=bool(options.get("strict", True)))
        model, report = load_pretrained(file or source, **options)
        if report and report.choice:
            logging.warning("%s: %s", source, report.choice)
        return model, report
    _refuse_prefix(source, options)
    model = _read_finished(_final_model(path), checkpoints[0])
    return model or _read_newest(checkpoints), None


def _refuse_prefix(source: str | os.PathLike, options: dict[str, Any]) -> None:
    if options.get("prefix"):
        raise ValueError(
            "`prefix` is for files of torch and safetensors. "
            f"Received: prefix={options['prefix']}, with {source}. Leave it out."
        )


def _final_model(path: pathlib.Path) -> pathlib.Path | None:
    """The file that a run has written at its end, or None."""
    files = (path / name for name in (MODEL_FILE, SEGMENTER_FILE, DETECTOR_FILE))
    return next(filter(pathlib.Path.is_file, files), None)


def _is_run(path: pathlib.Path) -> bool:
    files = any((path / name).is_file() for name in (*FLAGFILES, MODEL_CONFIG))
    return files or (path / "checkpoints").is_dir()


def measured_part(
    model: keras.Model, source: str | os.PathLike | None = None
) -> keras.Model:
    """What commands look at: a `SlotCon`, or an encoder.

    Args:
        model: Of a run.
        source: Where it is from: it is said that of a segmenter or a detector the
            encoder is taken.

    Example:
        >>> from slotcon_tf import backbone
        >>> measured_part(backbone("resnet10")).name
        'resnet10'
    """
    kinds = {Segmenter: "segmenter", MaskRCNN: "detector"}
    told = next((told for kind, told in kinds.items() if isinstance(model, kind)), None)
    if told is None:
        return model
    if source is not None:
        logging.warning("%s is a %s, whose encoder is taken.", source, told)
    return model.encoder


def _read_finished(
    path: pathlib.Path | None, checkpoint: pathlib.Path
) -> keras.Model | None:
    """The model that a run wrote at its end; None if it is not the newest whole one."""
    if path is None:
        return None
    try:
        model, _ = load_pretrained(path)
    except CheckpointFileError as error:
        reason = f"it cannot be read ({first_line(error, 300)})"
    else:
        step = int(model.step.numpy()) if hasattr(model, "step") else None
        if step is None or step >= step_of(checkpoint):
            return model
        reason = f"it is of step {step}"
    logging.warning("%s is passed over: %s; %s is read.", path, reason, checkpoint)
    return None


def _read_newest(checkpoints: Sequence[pathlib.Path]) -> keras.Model:
    """The first that can be read: one may be damaged, or dropped by now."""
    errors = []
    for checkpoint, before in zip(checkpoints, [*checkpoints[1:], None], strict=True):
        try:
            return read_checkpoint(checkpoint)
        except CheckpointFileError as error:
            errors.append(error)
            if before is not None:
                told = first_line(error, 300)
                logging.warning("%s; %s is read.", told, before)
    raise errors[0]


def serving_options(
    model: keras.Model,
    image_size: int | None = None,
    mask_size: int | None = None,
    batch_sizes: tuple[int, ...] | None = None,
    **limits: Any,
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


def run_checkpoints(path: str | os.PathLike) -> list[pathlib.Path]:
    """Checkpoints of a run's work directory or folder of them, the newest first.

    Example:
        >>> run_checkpoints("runs/nowhere")
        []
    """
    within = pathlib.Path(path) / "checkpoints"
    return checkpoint_paths(within if within.is_dir() else path)


def run_folder(source: str | os.PathLike) -> pathlib.Path | None:
    """pathlib.Path of the run that a model is of, None where it is a file.

    A checkpoint that was copied elsewhere alone is a run of its own.

    Example:
        >>> run_folder("model.keras") is None
        True
    """
    path = pathlib.Path(source)
    if is_checkpoint(path):
        path = path.resolve()
        above = (path.parents[1], path.parent)
        return next(filter(_is_run, above), path)
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


def _config_of(checkpoint: pathlib.Path) -> pathlib.Path:
    """model.json of a checkpoint: its own; of earlier versions, that of its run."""
    path = checkpoint.resolve()
    places = [f / MODEL_CONFIG for f in (path, path.parents[1], path.parent)]
    found = next(filter(pathlib.Path.is_file, places), None)
    if found is None:
        raise CheckpointFileError(
            f"A checkpoint needs the {MODEL_CONFIG} of its model. Received: "
            f"{checkpoint}, and none there or two folders up. Copy it from the run "
            f"into the checkpoint's folder; of a fine-tuning take its .keras file."
        )
    return found


def read_checkpoint(
    folder: pathlib.Path, model: keras.Model | None = None
) -> keras.Model:
    """The model of one checkpoint, all of whose variables are the checkpoint's.

    Args:
        folder: Of the checkpoint.
        model: Of another checkpoint of the run, to be overwritten; default: a new one.

    Returns:
        A `SlotCon`, a `Segmenter` or a `MaskRCNN`.

    Raises:
        CheckpointFileError: If the checkpoint is damaged, or not there any more.

    Example:
        >>> read_checkpoint(pathlib.Path("runs/step_000000001"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.interop.pickles.CheckpointFileError: A checkpoint needs ...
    """
    config = _config_of(folder)
    try:
        if model is None:
            with variables_within(folder, *_held(folder)):
                model = model_of(config)
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


def _held(folder: pathlib.Path) -> tuple[int, int]:
    """Bytes of a checkpoint, and the number of its arrays."""
    shapes = tf.train.load_checkpoint(str(folder / STATE)).get_variable_to_shape_map()
    return sum(path.stat().st_size for path in folder.iterdir()), len(shapes)
