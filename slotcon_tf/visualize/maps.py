"""What a network makes of one image of any size: features, groups, slots."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from keras import ops

from slotcon_tf.backbones import as_encoder
from slotcon_tf.data.photometric import normalize
from slotcon_tf.evaluation.inference import winners
from slotcon_tf.grouping import l2_normalize, pool_slots
from slotcon_tf.slotcon import SlotCon


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
    if not scale > 0:
        raise ValueError(
            f"scale must be positive. Received: scale={scale}. Take 1 for an image's "
            "own size."
        )
    whole = isinstance(model, SlotCon)
    network = model.network(which) if whole else as_encoder(model)

    @tf.function(
        input_signature=[
            tf.TensorSpec((1, None, None, 3), tf.uint8),
            tf.TensorSpec((2,), tf.int32),
        ]
    )
    def maps(image, size):
        image = tf.image.resize(tf.cast(image, tf.float32), size, "bicubic")
        outputs = network(normalize(image), training=False)
        if not whole:
            return {"features": tf.cast(outputs, tf.float32)}
        logits = outputs["assignment_logits"]
        # Pooled as in training, where both networks take the teacher's temperature.
        slots = pool_slots(outputs["projected"], logits, model.teacher_temperature)
        prototypes = l2_normalize(network.grouping.prototypes)  # (K, D)
        similarity = ops.sum(l2_normalize(slots[0]) * prototypes, axis=-1)  # (K,)
        return {
            "features": tf.cast(outputs["map"], tf.float32),
            "logits": tf.cast(logits, tf.float32),
            "similarity": tf.cast(similarity, tf.float32),
        }

    def read(image):
        size = [max(1, round(edge * scale)) for edge in image.shape[:2]]
        found = {k: v.numpy() for k, v in maps(image[None], size).items()}
        return ImageMaps(**{k: v if v.ndim == 1 else v[0] for k, v in found.items()})

    return read


def groups_at(logits, size):
    """The winning prototype at every pixel of a picture.

    Args:
        logits: float32 (H, W, K); upsampled bilinearly before the argmax.
        size: (height, width) in pixels.

    Returns:
        int32 (height, width) of prototype ids.
    """
    return winners(logits[None], size)[0].numpy()
