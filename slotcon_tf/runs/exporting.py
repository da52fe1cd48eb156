"""Writes a trained model for TF Serving, ONNX Runtime or LiteRT."""

from __future__ import annotations

import pathlib
from typing import Any

import keras

from slotcon_tf.detection import MaskRCNN
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.export_config import ExportConfig
from slotcon_tf.runs.export_images import calibration_images, whitening_images
from slotcon_tf.runs.exporting_elsewhere import export_elsewhere
from slotcon_tf.runs.loading import load_trained, serving_options
from slotcon_tf.runs.measured_detector import checked_edges
from slotcon_tf.runs.provenance import provenance
from slotcon_tf.runs.settings import SettingError, check_left_out
from slotcon_tf.serving.archive import export_model
from slotcon_tf.serving.detector import DetectorOptions, export_detector
from slotcon_tf.serving.whitening import FEWEST

_OF_TF_SERVING = (  # settings that do nothing elsewhere
    "quantize",
    "precision",
    "short_edge",
    "long_edge",
)
_OF_SAVED_MODELS = (  # nor for ONNX files alone
    "signatures",
    "max_objects",
    "max_pixels",
    "whiten",
    "max_instances",
    "min_instance_area",
    "license",
    "verify",
    "batch_sizes",
    "batching",
    "storage_uri",
)
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
        signatures=config.signatures or (),
        **config.limits(),
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
    check_left_out(config, _OF_TF_SERVING, f"with format={config.format}")
    if config.format == "onnx":
        check_left_out(config, _OF_SAVED_MODELS, "with format=onnx")
    if config.format == "triton":
        check_left_out(config, ("storage_uri",), "with format=triton")


def _about(model: keras.Model, config: ExportConfig) -> dict[str, Any]:
    which = config.which if isinstance(model, SlotCon) else None
    known = provenance(config.model, model, which)
    return {**known, "license": config.license}
