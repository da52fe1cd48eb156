"""What a network makes of one image of any size: features, groups, slots."""

from typing import NamedTuple

import numpy as np

from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.method.upsampled import upsampled_argmax


class ImageMaps(NamedTuple):
    """Maps of one image; the last two are None of an encoder alone.

    Attributes:
        features: float32 (H, W, C), the encoder's map.
        logits: float32 (H, W, K), assignment logits.
        similarity: float32 (K,), cosine of each prototype and the slot that it pools.
    """

    features: np.ndarray
    logits: np.ndarray | None = None
    similarity: np.ndarray | None = None

    @property
    def winners(self):
        """The winning prototype at every position, int64 (H, W)."""
        return self.logits.argmax(-1)


def map_reader(model, which="teacher", scale=1.0):
    """A function of one image, uint8 (height, width, 3), that gives its `ImageMaps`.

    Args:
        model: A `SlotCon`, or an encoder: a Keras model of images to one map.
        which: "teacher" or "student" of a `SlotCon`.
        scale: Factor by which an image is resized first; the larger, the finer the map.

    Raises:
        ValueError: If it is another model or network, or the scale is not positive.
    """
    inference = Inference(model, which, scale)

    def read(image):
        found = {name: x[0] for name, x in inference.outputs(image[None]).items()}
        logits, similarity = found.get("assignment_logits"), found.get("similarity")
        return ImageMaps(found["map"], logits, similarity)

    return read


def groups_at(logits, size):
    """The winning prototype at every pixel of a picture.

    Args:
        logits: float32 (H, W, K); upsampled bilinearly before the argmax.
        size: (height, width) in pixels.

    Returns:
        int32 (height, width) of prototype ids.
    """
    return upsampled_argmax(logits[None], size)[0].numpy()
