"""What images are normalised with, beside the weights in a file of others' format."""

from __future__ import annotations

import json
from typing import Any

import keras

from slotcon_tf.images.statistics import IMAGENET, ImageStatistics, statistics_of
from slotcon_tf.interop.pickles import CheckpointFileError, one_line
from slotcon_tf.interop.weights import Weights

# Of safetensors' metadata and of torch's `args`; other tools pass it over.
_KEY = "slotcon_tf_images"


def written_statistics(model: keras.Model) -> dict[str, Any]:
    """Settings to write: dict of one text, or none where ImageNet's are the model's.

    Example:
        >>> from slotcon_tf import backbone
        >>> encoder = backbone("resnet10", width=8)
        >>> encoder.statistics = ImageStatistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        >>> written_statistics(encoder)
        {'slotcon_tf_images': '{"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}'}
    """
    own = statistics_of(model).config()
    return {_KEY: json.dumps(own)} if own else {}


def read_statistics(weights: Weights) -> ImageStatistics:
    """The statistics that stand in a file.

    Args:
        weights: `Weights`.

    Returns:
        `ImageStatistics`, ImageNet's where the file has none.

    Raises:
        CheckpointFileError: If they are damaged.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.interop import save_encoder
        >>> from slotcon_tf.interop.weights import open_weights
        >>> encoder = backbone("resnet10", width=8)
        >>> encoder.statistics = ImageStatistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        >>> _ = save_encoder(encoder, "encoder.safetensors", "safetensors")
        >>> with open_weights("encoder.safetensors") as weights:
        ...     read_statistics(weights).std
        (0.25, 0.25, 0.25)
    """
    text = weights.settings.get(_KEY)
    if text is None:
        return IMAGENET
    try:
        return ImageStatistics(**json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointFileError(
            f"{_KEY} of {weights.path} must be the mean, std and pixel_range of images "
            f"in JSON. Received: {one_line(error)}. Save the file again."
        ) from error
