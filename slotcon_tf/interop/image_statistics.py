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
    """Settings to write: dict of one text, or none where ImageNet's are the model's."""
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
