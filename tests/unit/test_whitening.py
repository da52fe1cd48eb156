"""Whitened features tell images apart, and stay what they were for new images."""

import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.serving.whitening import FEWEST, Whitening


def drawn(count, channels=48, seed=0):
    """Features as of a network: positive, and along few directions about a mean."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).standard_normal((channels, channels))
    spread = 0.02 * rng.standard_normal((count, channels)) / np.arange(1, channels + 1)
    return np.maximum(1.0 + spread @ directions, 0.0).astype(np.float32)


def cosines(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows @ rows.T)[np.triu_indices(len(rows), 1)]


def test_cosines_spread():
    whitening = Whitening.of(drawn(600))
    new = drawn(100, seed=1)
    found = whitening(tf.constant(new)).numpy()
    assert found.dtype == np.float32 and found.shape == new.shape
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    before, after = cosines(new), cosines(found)
    assert before.min() > 0.99
    # As of random directions: mean 0, deviation 1 / sqrt(48) = 0.14.
    assert abs(after.mean()) < 0.02 and 0.12 < after.std() < 0.17
    # And what is next to each other stays so.
    near = whitening(tf.constant(new + 1e-5)).numpy()
    assert (found * near).sum(axis=1).min() > 0.99


def test_of_many_features_the_covariance_is_one():
    features = drawn(4000, channels=6)
    whitening = Whitening.of(features)
    plain = (features - whitening.mean.numpy()) @ whitening.matrix.numpy()
    np.testing.assert_allclose(np.cov(plain.T), np.eye(6), atol=0.1)
    np.testing.assert_array_equal(whitening.matrix, whitening.matrix.numpy().T)


def test_fewer_images_than_dimensions_are_shrunk_and_said(caplog):
    found = Whitening.of(drawn(40))
    assert found.facts["images"] == 40 and 0 < found.facts["shrinkage"] <= 1
    values = found(tf.constant(drawn(20, seed=3))).numpy()
    assert np.isfinite(values).all() and cosines(values).max() < 0.99


def test_what_cannot_be_whitened_is_refused():
    with pytest.raises(ValueError, match=rf"{FEWEST} images at least.*Received: 31"):
        Whitening.of(drawn(FEWEST - 1))
    with pytest.raises(ValueError, match="images whose features differ"):
        Whitening.of(np.ones((50, 4)))
    # What is left of equal ones, or below the rounding of float32, is no difference.
    dice = np.random.default_rng(0)
    for features in (
        np.full((50, 64), 0.1),
        1 + 1e-8 * dice.standard_normal((50, 64)),
    ):
        with pytest.raises(ValueError, match="images whose features differ"):
            Whitening.of(features)
    broken = drawn(50)
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite ones of 1 of 50 images"):
        Whitening.of(broken)


def test_a_channel_that_is_always_zero_stays_out():
    features = drawn(300, channels=8)
    features[:, 3] = 0
    found = Whitening.of(features)(tf.constant(features)).numpy()
    assert np.isfinite(found).all() and np.abs(found).max() <= 1 + 1e-5
