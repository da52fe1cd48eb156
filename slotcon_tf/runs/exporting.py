"""Writes a trained model for TF Serving, ONNX Runtime or LiteRT."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import keras

from slotcon_tf.detection import MaskRCNN
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.export_images import calibration_images, whitening_images
from slotcon_tf.runs.exporting_elsewhere import export_elsewhere
from slotcon_tf.runs.load_settings import ModelSettings, which_setting
from slotcon_tf.runs.loading import load_trained, serving_options
from slotcon_tf.runs.measured_detector import checked_edges
from slotcon_tf.runs.provenance import provenance
from slotcon_tf.runs.settings import SettingError, check_left_out, setting
from slotcon_tf.serving.archive import export_model
from slotcon_tf.serving.detector import DetectorOptions, export_detector
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.serving.whitening import FEWEST

EXPORT_DIR = "Folder of all versions of an export."
_DEFAULTS = ServingOptions()
_OF_SAVED_MODEL = (  # settings that do nothing elsewhere
    "quantize",
    "precision",
    "signatures",
    "max_objects",
    "max_pixels",
    "short_edge",
    "long_edge",
    "whiten",
    "max_instances",
    "min_instance_area",
    "verify",
)
_OF_SERVERS = ("batch_sizes", "batching", "storage_uri")  # nor for ONNX files alone
_OF_ENCODERS = (  # settings that say nothing of a detector
    "which",
    "quantize",
    "calibration_images",
    "image_size",
    "mask_size",
    "max_objects",
    "signatures",
    "batching",
    "max_instances",
    "min_instance_area",
    "whiten",
)
_OF_DETECTORS = ("short_edge", "long_edge")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(ModelSettings):
    """What is exported, and in which form; see `export`.

    Example:
        >>> ExportConfig(model="runs/photos", export_dir="served/slotcon").which
        'teacher'
    """

    export_dir: str = setting(None, EXPORT_DIR)
    format: str = setting(
        "saved_model",
        "onnx writes encoder, pooled and groups as ONNX files; triton a model "
        "repository of them and one of the SavedModel; kserve an InferenceService "
        "besides.",
        choices=("saved_model", "onnx", "triton", "kserve"),
    )
    which: str = which_setting()
    precision: str = setting(
        "float32", "Of the computation.", choices=("float32", "bfloat16")
    )
    quantize: str | None = setting(
        None, "Write a LiteRT file of the encoder as well.", choices=("int8",)
    )
    calibration_images: str | None = setting(
        None,
        "Folder of images like those to come: int8's ranges, and the distance of "
        "bfloat16 and int8 from float32, are taken from them.",
    )
    image_size: int | None = setting(
        None,
        "Edge that images are brought to, pixels; 0: their own, one image at a time. "
        "Default: the model's own, or 224.",
        low=0,
    )
    mask_size: int | None = setting(
        None, "Edge of masks, pixels. Default: as of images.", low=1
    )
    max_objects: int = setting(_DEFAULTS.max_objects, "Slots per image.", low=1)
    max_instances: int = setting(
        _DEFAULTS.max_instances, "Connected parts of groups per image.", low=1
    )
    min_instance_area: float = setting(
        _DEFAULTS.min_instance_area,
        "Smaller connected parts are none, as share of the image.",
        low=0,
        high=1,
    )
    whiten: int = setting(
        0,
        "Write the signature embed_whitened, by the statistics of so many of "
        "--calibration_images, or else of the run's own images; 0: none. Ten for each "
        "dimension of the features are good.",
        low=0,
    )
    license: str | None = setting(None, "Of the weights, for the model card.")
    verify: bool = setting(
        False,
        "Load what was written in a session, as TF Serving does, and compare all "
        "signatures with the model in memory; nothing is left where they differ.",
    )
    short_edge: int | None = setting(
        None,
        "Of a detector: pixels that the shortest edge of an image becomes. Default: as "
        "it was measured.",
        low=32,
    )
    long_edge: int | None = setting(
        None, "Of a detector: pixels that the longest edge becomes at most.", low=32
    )
    max_pixels: int = setting(
        _DEFAULTS.max_pixels, "Larger images are not decoded.", low=1
    )
    batch_sizes: tuple[int, ...] | None = setting(
        None,
        "Batch sizes to warm up; '': no warm-up. Default: 1, 8 and 32; of a detector, "
        "which looks at images one by one, 1.",
        low=1,
    )
    signatures: tuple[str, ...] | None = setting(
        None, "Of a SavedModel, those to write. Default: all."
    )
    batching: bool = setting(
        False,
        "Requests that come at once are computed together, in batches as large as "
        "`batch_sizes` says: for GPUs. Where inputs are of any size they cannot be.",
    )
    storage_uri: str | None = setting(
        None,
        "Of kserve: where the cluster finds the repository, such as gs://models/onnx. "
        "Default: pvc://models/slotcon/onnx.",
    )


def export(config: ExportConfig) -> pathlib.Path:
    """Writes a version, built aside and renamed into place; prints where.

    Args:
        config: What is exported, and in which form.

    Returns:
        Path of `<export_dir>/<next version>`, or of the ONNX file.

    Raises:
        SettingError: If settings do not go together.
        ValueError, OSError: If the model or the images cannot be read, or nothing can
            be written.

    Example:
        >>> config = ExportConfig(
        ...     model="runs/photos", export_dir="served/slotcon", quantize="int8"
        ... )
        >>> export(config)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: quantize=int8 needs `calibration_...
    """
    if config.quantize and not config.calibration_images:
        raise SettingError(
            f"quantize={config.quantize} needs `calibration_images`, a folder of "
            "images like those to come. Received: none."
        )
    if config.format != "saved_model":
        _check_elsewhere(config)
    else:
        check_left_out(config, ("storage_uri",), "with format=saved_model")
    if 0 < config.whiten < FEWEST:
        raise SettingError(
            f"`whiten` must be 0, or {FEWEST} images at least. Received: "
            f"whiten={config.whiten}."
        )
    whole = config.format == "saved_model"
    model, _ = load_trained(config.model, detectors=whole, prefix=config.prefix)
    if isinstance(model, MaskRCNN):
        return _export_detector(model, config)
    check_left_out(config, _OF_DETECTORS, "for what is no detector")
    if not whole:
        size = config.image_size or getattr(model, "serving_size", 0)
        images = calibration_images(model, config.calibration_images, size)
        return export_elsewhere(model, config, images, _about(model, config))
    served = serving_options(
        model,
        config.image_size,
        config.mask_size,
        config.batch_sizes,
        max_objects=config.max_objects,
        max_instances=config.max_instances,
        min_instance_area=config.min_instance_area,
        max_pixels=config.max_pixels,
        signatures=config.signatures or (),
    )
    size, folder = served["options"].image_size, config.calibration_images
    written = export_model(
        model,
        pathlib.Path(config.export_dir),
        which=config.which,
        precision=config.precision,
        quantize=config.quantize,
        images=calibration_images(model, folder, size),
        batching=config.batching,
        whiten=whitening_images(model, config.model, folder, config.whiten, size),
        about=_about(model, config),
        verified=config.verify,
        **served,
    )
    print(f"Written: {written}")
    report = written / "assets.extra" / "precision.json"
    if report.exists():
        print(report.read_text().strip())
    return written


def _export_detector(model: MaskRCNN, config: ExportConfig) -> pathlib.Path:
    check_left_out(config, _OF_ENCODERS, "for a detector")
    edges = checked_edges(model, config.short_edge, config.long_edge)
    batches = (1,) if config.batch_sizes is None else config.batch_sizes
    folder = export_detector(
        model,
        config.export_dir,
        precision=config.precision,
        options=DetectorOptions(*edges, max_pixels=config.max_pixels),
        warmup_batches=batches,
        about=_about(model, config),
        verified=config.verify,
    )
    print(f"Written: {folder}")
    return folder


def _check_elsewhere(config: ExportConfig) -> None:
    """ONNX files are in float32, and their clients decode."""
    check_left_out(config, _OF_SAVED_MODEL, f"with format={config.format}")
    if config.format == "onnx":
        check_left_out(config, (*_OF_SERVERS, "license"), "with format=onnx")
    if config.format == "triton":
        check_left_out(config, ("storage_uri",), "with format=triton")


def _about(model: keras.Model, config: ExportConfig) -> dict[str, Any]:
    which = config.which if isinstance(model, SlotCon) else None
    known = provenance(config.model, model, which)
    return {**known, "license": config.license}
