"""The functions that a served encoder answers, one per signature."""

import tensorflow as tf

from slotcon_tf.data.photometric import normalize


def features_signature(encoder):
    """`image` uint8 (N, H, W, 3), any size -> `pooled` (N, C) and `map` (N, h, w, C).

    Args:
        encoder: Keras model, normalised images to a map.

    Returns:
        Tuple of the function and its input signature.
    """

    def features(image):
        maps = encoder(normalize(tf.cast(image, tf.float32)), training=False)
        maps = tf.cast(maps, tf.float32)
        return {"pooled": tf.reduce_mean(maps, axis=[1, 2]), "map": maps}

    image = tf.TensorSpec([None, None, None, 3], tf.uint8, name="image")
    return features, [image]
