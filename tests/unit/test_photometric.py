"""Colour operations against Pillow and torchvision on the same fixed parameters.

`tests/golden/augment_small.npz`: 8-bit results of Pillow 13.0 and torchvision 0.28.
"""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.data import photometric
from slotcon_tf.data.recipe import NUMBERS, distortions
from slotcon_tf.images.statistics import IMAGENET_MEAN, IMAGENET_STD, normalize

ARRAYS = np.load(pathlib.Path(__file__).parents[1] / "golden" / "augment_small.npz")
IMAGE = ARRAYS["image"].astype(np.float32)
FACTORS = [k for k in ARRAYS.files if k.split("/")[0] in ("brightness", "contrast")]
FACTORS += [k for k in ARRAYS.files if k.split("/")[0] in ("saturation", "hue", "blur")]
# Grey levels, mean. Pillow's own blur is three box blurs, so a true Gaussian differs.
TOLERANCE = {"hue": 0.01, "blur": 0.8}


def mean_error(got, name):
    return np.abs(np.asarray(got) - ARRAYS[name].astype(np.float32)).mean()


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("where", ["eager", "tf.data", "xla"])
def test_operation_equals_pillows(name, where):
    operation, factor = name.split("/")
    function = getattr(photometric, {"blur": "gaussian_blur"}.get(operation, operation))
    images, factor = tf.constant(IMAGE[None]), tf.constant([float(factor)])
    if where == "tf.data":
        pairs = tf.data.Dataset.from_tensors((images, factor))
        got = next(iter(pairs.map(function)))
    elif where == "xla":
        got = tf.function(function, jit_compile=True)(images, factor)
    else:
        got = function(images, factor)
    # XLA rounds a product and a sum together: where the exact result is a whole level,
    # one pixel in a hundred falls to the other side.
    slack = 0.02 if where == "xla" else 0.0
    assert mean_error(got[0], name) <= TOLERANCE.get(operation, slack)


def test_grayscale_and_solarize_are_exact():
    images = tf.constant(IMAGE[None])
    assert mean_error(photometric.grayscale(images)[0], "grayscale") == 0
    assert mean_error(photometric.solarize(images)[0], "solarize") == 0


def test_each_image_of_a_batch_has_its_own_order():
    """The recorded orders and factors at once, and one image that is left alone."""
    order = tf.constant(ARRAYS["jitter/orders"], tf.int32)
    factors = tf.constant(ARRAYS["jitter/factors"], tf.float32)
    images = tf.constant(np.repeat(IMAGE[None], 4, axis=0))
    got = photometric.color_jitter(images, factors, order, tf.fill([4], True))
    errors = np.abs(got - ARRAYS["jitter/out"].astype(np.float32)).mean(axis=(1, 2, 3))
    assert errors.max() < 0.01
    applied = tf.constant([False, True, False, True])
    some = photometric.color_jitter(images, factors, order, applied)
    np.testing.assert_array_equal(some[::2], images[::2])
    np.testing.assert_array_equal(some[1::2], got[1::2])


@pytest.mark.parametrize("view", "ab")
def test_compiled_and_plain_forms_agree(view):
    """What host and device run, on the recipe's own parameters."""
    rng = np.random.default_rng(3)
    parameters = distortions(tf.constant(rng.random((12, NUMBERS), dtype=np.float32)))
    images = tf.constant(rng.integers(0, 256, (12, 40, 48, 3), dtype=np.uint8))
    plain = photometric.distort(images, parameters[view])
    batch = {f"view_{v}": images for v in "ab"}
    batch |= {f"distortion_{v}": parameters[v] for v in "ab"}
    got = photometric.apply_distortions(batch)
    assert set(got) == {"view_a", "view_b"}
    error = np.abs(got[f"view_{view}"] - plain)
    # Rounding at the boundary of two levels, where XLA fuses operations.
    level = 1 / (255 * min(IMAGENET_STD))
    assert (error > 1e-5).mean() < 0.02 and error.max() < 3 * level
    assert photometric.apply_distortions({"view_a": images}) == {"view_a": images}


def test_the_recipes_shares_and_ranges():
    """20,000 draws: within 4 standard errors of the stated probabilities."""
    count = 20_000
    numbers = np.random.default_rng(0).random((count, NUMBERS), dtype=np.float32)
    drawn = distortions(tf.constant(numbers))
    shares = {
        "a": {"jitter": 0.8, "grayscale": 0.2, "solarize": 0.0, "blur_sigma": 1.0},
        "b": {"jitter": 0.8, "grayscale": 0.2, "solarize": 0.2, "blur_sigma": 0.1},
    }
    for view, stated in shares.items():
        for name, share in stated.items():
            got = np.mean(drawn[view][name].numpy() > 0)
            assert abs(got - share) <= 4 * (share * (1 - share) / count) ** 0.5, name
        factors = drawn[view]["factors"].numpy()
        low, high = factors.min(axis=0), factors.max(axis=0)
        np.testing.assert_allclose(low, [0.6, 0.6, 0.8, -0.1], atol=1e-3)
        np.testing.assert_allclose(high, [1.4, 1.4, 1.2, 0.1], atol=1e-3)
        orders, counts = np.unique(drawn[view]["order"], axis=0, return_counts=True)
        assert len(orders) == 24 and np.abs(counts / count - 1 / 24).max() < 0.006
    sigma = drawn["a"]["blur_sigma"].numpy()
    assert 0.1 <= sigma.min() < 0.11 and 1.99 < sigma.max() <= 2.0


def test_normalize_maps_imagenets_mean_to_zero():
    mean = np.float32(IMAGENET_MEAN) * 255
    np.testing.assert_allclose(normalize(mean[None, None]), 0, atol=1e-6)
