"""Colour operations against Pillow and torchvision on the same fixed parameters.

`tests/golden/augment_small.npz`: 8-bit results of Pillow 13.0 and torchvision 0.28.
"""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.data import photometric

ARRAYS = np.load(pathlib.Path(__file__).parent / "golden" / "augment_small.npz")
IMAGE = ARRAYS["image"].astype(np.float32)
FACTORS = [k for k in ARRAYS.files if k.split("/")[0] in ("brightness", "contrast")]
FACTORS += [k for k in ARRAYS.files if k.split("/")[0] in ("saturation", "hue", "blur")]
# Grey levels, mean. Pillow's own blur is three box blurs, so a true Gaussian differs.
TOLERANCE = {"hue": 0.01, "blur": 0.8}


def mean_error(got, name):
    return np.abs(np.asarray(got) - ARRAYS[name].astype(np.float32)).mean()


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "tf.data"])
def test_operation_equals_pillows(name, compiled):
    operation, factor = name.split("/")
    function = getattr(photometric, {"blur": "gaussian_blur"}.get(operation, operation))
    factor = tf.constant(float(factor))
    if compiled:
        images = tf.data.Dataset.from_tensors(IMAGE)
        got = next(iter(images.map(lambda image: function(image, factor))))
    else:
        got = function(tf.constant(IMAGE), factor)
    assert mean_error(got, name) <= TOLERANCE.get(operation, 0.0)


def test_grayscale_and_solarize_are_exact():
    assert mean_error(photometric.grayscale(tf.constant(IMAGE)), "grayscale") == 0
    assert mean_error(photometric.solarize(tf.constant(IMAGE)), "solarize") == 0


@pytest.mark.parametrize("index", range(4))
def test_jitter_applies_its_order(index):
    order = tf.constant(ARRAYS["jitter/orders"][index], tf.int32)
    factors = tf.constant(ARRAYS["jitter/factors"][index], tf.float32)
    got = photometric.color_jitter(tf.constant(IMAGE), factors, order)
    assert np.abs(got - ARRAYS["jitter/out"][index].astype(np.float32)).mean() < 0.01


def test_normalize_maps_imagenets_mean_to_zero():
    mean = np.float32(photometric.IMAGENET_MEAN) * 255
    np.testing.assert_allclose(photometric.normalize(mean[None, None]), 0, atol=1e-6)
