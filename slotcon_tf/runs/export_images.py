"""The images that statistics of an export are taken from."""

from __future__ import annotations

import os
from collections.abc import Iterator

import keras
import numpy as np

from slotcon_tf.data import open_source
from slotcon_tf.data.source import ImageSource
from slotcon_tf.images import square
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.runs.loading import run_folder
from slotcon_tf.runs.pretrain_config import PretrainConfig
from slotcon_tf.runs.provenance import run_flags
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.serving.signatures import ServingOptions

_DEFAULTS = ServingOptions()
_MAX_CALIBRATION = 200


def whitening_images(
    model: keras.Model,
    trained: str | os.PathLike[str],
    folder: str | None,
    count: int,
    image_size: int,
) -> Iterator[np.ndarray] | None:
    """Squares as `embed` sees them, one after the other.

    Args:
        model: What is exported.
        trained: Where it was loaded from: without a folder, a pretraining's own images
            are taken.
        folder: Of images, or None.
        count: Of them at most, evenly spaced; 0: None is the answer.
        image_size: Edge, pixels; 0: that of an export's default.

    Returns:
        Iterator of uint8 (size, size, 3).

    Raises:
        SettingError: If there is neither a folder nor a pretraining.

    Example:
        >>> whitening_images(keras.Sequential(), "none.keras", None, 0, 224) is None
        True
    """
    if not count:
        return None
    source = _source(model, trained, folder, count)
    size = image_size or _DEFAULTS.image_size
    samples = source.sample(count)
    return (square(sample.image, size, "evaluation") for sample in samples)


def _source(model, trained, folder, count) -> ImageSource:
    pixel_range = statistics_of(model).pixel_range
    if folder:
        return open_source("folder", folder, pixel_range=pixel_range)
    run = run_folder(trained)
    name, lines = run_flags(run) if run else ("", [])
    if name != PretrainConfig.flagfile:
        raise SettingError(
            f"whiten={count} needs `calibration_images`, or the folder of a "
            f"pretraining, whose images are taken. Received: model={trained}."
        )
    config = PretrainConfig.from_lines(lines)
    return open_source(
        config.dataset,
        config.data_dir,
        allow_remote=config.allow_remote_paths,
        max_pixels=config.max_pixels,
        max_bad_share=config.max_bad_share,
        pixel_range=pixel_range,
    )


def calibration_images(
    model: keras.Model, folder: str | None, image_size: int
) -> np.ndarray | None:
    """Images that ranges of int8 and distances are taken from.

    Args:
        model: What is exported.
        folder: Of images; None: None is the answer.
        image_size: Edge, pixels; 0: that of an export's default.

    Returns:
        uint8 (M, size, size, 3), evenly spaced; M is 200 at most.

    Raises:
        ValueError: If none can be read.

    Example:
        >>> calibration_images(keras.Sequential(), None, 224) is None
        True
    """
    if not folder:
        return None
    pixel_range = statistics_of(model).pixel_range
    source = open_source("folder", folder, pixel_range=pixel_range)
    size = image_size or _DEFAULTS.image_size
    samples = source.sample(_MAX_CALIBRATION)
    images = [square(sample.image, size, "stretched") for sample in samples]
    if not images:
        raise ValueError(
            f"One image of `calibration_images` at least must be readable. Received: "
            f"{folder}, where all that were tried are bad. Check the folder."
        )
    return np.stack(images)
