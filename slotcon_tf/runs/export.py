"""Writes a trained model for TF Serving, ONNX Runtime or LiteRT."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from slotcon_tf.data import open_source
from slotcon_tf.images.decoding import use_pixel_range
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.runs.load_settings import ModelSettings
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.settings import SettingError, setting
from slotcon_tf.serving.archive import export_model
from slotcon_tf.serving.decoding import fit
from slotcon_tf.serving.onnx_file import export_onnx
from slotcon_tf.serving.signatures import ServingOptions

_DEFAULTS = ServingOptions()
BATCH_SIZES = ("1", "8", "32")  # as in export/serving/batching.config
_MAX_CALIBRATION = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(ModelSettings):
    """What is exported, and in which form; see `export`.

    Example:
        >>> ExportConfig(model="runs/photos", export_dir="served/slotcon").which
        'teacher'
    """

    export_dir: str = setting(None, "Folder of all versions.")
    format: str = setting(
        "saved_model",
        "onnx writes the encoder alone, as encoder.onnx.",
        choices=("saved_model", "onnx"),
    )
    which: str = setting("teacher", "Whose encoder.", choices=("teacher", "student"))
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
    image_size: int = setting(
        _DEFAULTS.image_size,
        "Edge that images are brought to, pixels; 0: their own, one image at a time.",
        low=0,
    )
    mask_size: int = setting(_DEFAULTS.mask_size, "Edge of masks, pixels.", low=1)
    max_objects: int = setting(_DEFAULTS.max_objects, "Slots per image.", low=1)
    max_pixels: int = setting(
        _DEFAULTS.max_pixels, "Larger images are not decoded.", low=1
    )
    batch_sizes: tuple[str, ...] = setting(
        BATCH_SIZES, "Batch sizes to warm up; none: no warm-up."
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
        ...     model="runs/photos", export_dir="served/slotcon", batch_sizes=("all",)
        ... )
        >>> export(config)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: `batch_sizes` must be whole ...
    """
    batches = _batches(config.batch_sizes)
    if config.quantize and not config.calibration_images:
        raise SettingError(
            f"quantize={config.quantize} needs `calibration_images`, a folder of "
            "images like those to come. Received: none."
        )
    model, _ = load_trained(config.model, prefix=config.prefix)
    use_pixel_range(statistics_of(model).pixel_range)
    images = _calibration_images(config)
    if config.format == "onnx":
        path = pathlib.Path(config.export_dir) / "encoder.onnx"
        path = export_onnx(model, path, which=config.which)
        print(f"Written: {path}")
        return path
    folder = export_model(
        model,
        pathlib.Path(config.export_dir),
        which=config.which,
        precision=config.precision,
        quantize=config.quantize,
        options=ServingOptions(
            image_size=config.image_size,
            mask_size=config.mask_size,
            max_objects=config.max_objects,
            max_pixels=config.max_pixels,
        ),
        warmup_batches=batches,
        images=images,
    )
    print(f"Written: {folder}")
    report = folder / "assets.extra" / "precision.json"
    if report.exists():
        print(report.read_text().strip())
    return folder


def _batches(sizes: tuple[str, ...]) -> list[int]:
    words = [size for size in sizes if size]
    if not all(size.isdecimal() and int(size) for size in words):
        raise SettingError(
            "`batch_sizes` must be whole numbers from 1. Received: "
            f"batch_sizes={','.join(words)}."
        )
    return [int(size) for size in words]


def _calibration_images(config: ExportConfig) -> np.ndarray | None:
    """uint8 (M, size, size, 3) of the folder's first images, or None."""
    if not config.calibration_images:
        return None
    source = open_source("folder", config.calibration_images)
    size = config.image_size or _DEFAULTS.image_size
    count = min(source.num_images, _MAX_CALIBRATION)
    images = [fit(source.load(index), size, crop=False) for index in range(count)]
    return tf.cast(tf.stack(images), tf.uint8).numpy()
