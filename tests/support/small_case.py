"""The smallest model that has everything, and batches for it."""

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf import LARS, ResNet, SlotCon, WarmupCosine
from slotcon_tf.training.normalization import BatchNormalization

SIZES = {"num_prototypes": 8, "hidden_dim": 16, "projection_dim": 12}


def small_encoder():
    """Two convolutions, stride 32: a step is traced in a second, not in ten."""
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(8, 8, strides=8),
            BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(16, 4, strides=4),
        ]
    )


def small_model(encoder=None, **options):
    encoder = encoder or small_encoder()
    model = SlotCon(encoder, total_steps=10, **{**SIZES, **options})
    model.compile(optimizer=LARS(WarmupCosine(peak=0.1, warmup_steps=1, total_steps=9)))
    return model


def batch(size=64, count=4, seed=0):
    rng = np.random.default_rng(seed)
    box = np.tile(np.float32([0.1, 0.0, 0.9, 0.8]), (count, 1))
    views = rng.normal(size=(2, count, size, size, 3)).astype(np.float32)
    return {
        "view_a": views[0],
        "view_b": views[1],
        "overlap_a": box,
        "overlap_b": box,
        "flipped_a": rng.random(count) < 0.5,
        "flipped_b": rng.random(count) < 0.5,
    }


def dataset(steps=2):
    return tf.data.Dataset.from_tensors(batch()).repeat(steps)


def in_float64(data):
    return {
        k: v.astype("float64") if v.dtype == "float32" else v for k, v in data.items()
    }


def resnet(**settings):
    return ResNet(block="basic", stage_depths=(1, 1, 1, 1), width=4, **settings)


def used(encoder, seed=0):
    """The encoder with statistics and scales as if it had been trained."""
    rng = np.random.default_rng(seed)
    for layer in encoder.layers:
        if hasattr(layer, "moving_mean"):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(0.1 * rng.standard_normal(shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2.0, shape))
            layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
            layer.beta.assign(0.1 * rng.standard_normal(shape))
    return encoder
