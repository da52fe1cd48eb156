"""The closed gradient of batch normalisation over the global batch."""

import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.training.normalization import (
    BatchNormalization,
    careful_sums,
    masked_moments,
    normalize_batch,
    sum_of_rows,
)

EPSILON = 1e-5


def composed(x, gamma, beta, mask):
    """The same by autodiff, through the moments."""
    mean, variance, _ = masked_moments(x, mask)
    return (x - mean) * tf.math.rsqrt(variance + EPSILON) * gamma + beta


@pytest.mark.parametrize("rows", ["all", "some", "none"])
def test_gradient_is_that_of_the_moments(rows):
    """Rows that do not count are normalised too, and may have gradients."""
    rng = np.random.default_rng(0)
    x, dy = (tf.constant(rng.normal(size=(5, 3, 4)) + 2.0) for _ in range(2))
    gamma, beta = (tf.constant(rng.normal(size=4)) for _ in range(2))
    counted = {"all": None, "some": rng.random((5, 3)) < 0.5, "none": np.zeros((5, 3))}
    mask = counted[rows] if rows == "all" else tf.constant(counted[rows].astype(bool))
    found = []
    for function in (
        lambda *a: normalize_batch(*a, EPSILON, mask)[0],
        lambda *a: composed(*a, mask),
    ):
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            y = function(x, gamma, beta)
        found.append((y, *tape.gradient(y, [x, gamma, beta], dy)))
    for got, truth in zip(*found, strict=True):
        np.testing.assert_allclose(got, truth, rtol=1e-9, atol=1e-9)


def test_two_replicas_share_one_gradient(mirrored):
    """Each replica's gradient of its rows is that of the whole batch's rows."""
    rng = np.random.default_rng(1)
    x, dy = (rng.normal(size=(6, 4)) for _ in range(2))
    gamma, beta = tf.constant(rng.normal(size=4)), tf.constant(rng.normal(size=4))

    def gradients(x, dy):
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            y = normalize_batch(x, gamma, beta, EPSILON)[0]
        return tape.gradient(y, [x, gamma, beta], dy)

    whole = gradients(tf.constant(x), tf.constant(dy))
    strategy = mirrored(2)

    def part(values):
        return strategy.experimental_distribute_values_from_function(
            lambda c: tf.constant(np.split(values, 2)[c.replica_id_in_sync_group])
        )

    found = tf.function(lambda *a: strategy.run(gradients, args=a))(part(x), part(dy))
    dx, dgamma, dbeta = (strategy.experimental_local_results(v) for v in found)
    np.testing.assert_allclose(np.concatenate(dx), whole[0], atol=1e-12)
    # Shares, which the optimizer sums.
    np.testing.assert_allclose(sum(map(np.asarray, dgamma)), whole[1], atol=1e-12)
    np.testing.assert_allclose(sum(map(np.asarray, dbeta)), whole[2], atol=1e-12)


def test_a_layer_stays_small_on_replicas(mirrored):
    """Start-up on many devices is as long as the graph: every layer, view, network and
    replica has these operations of its own (430 with autodiff's gradient)."""
    strategy = mirrored(2)
    with strategy.scope():
        layer = BatchNormalization()
        layer.build((None, 4, 4, 8))

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, x)

    function = tf.function(lambda x: strategy.run(gradient, args=(x,)))
    graph = function.get_concrete_function(tf.zeros((2, 4, 4, 8))).graph
    assert len(graph.get_operations()) / 2 < 200


def test_careful_sums_keep_float32():
    """Of many rows, whose mean is larger than their spread; gradients too."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(2, 160, 256, 4)) + 2.0).astype(np.float32)
    dy = rng.normal(size=rows.shape).astype(np.float32)
    found = []
    for dtype in ("float64", "float32"):
        layer = BatchNormalization(dtype=dtype)
        x = tf.constant(rows, dtype)
        with tf.GradientTape() as tape, careful_sums():
            tape.watch(x)
            y = layer(x, training=True)
        variables = [x, layer.gamma.value, layer.beta.value]
        gradients = tape.gradient(y, variables, tf.constant(dy, dtype))
        found.append((y, layer.moving_mean, layer.moving_variance, *gradients))
    for truth, got, close in zip(
        *found, (4e-6, 1e-6, 1e-6, 4e-6, 2e-2, 2e-2), strict=True
    ):
        np.testing.assert_allclose(got, truth, rtol=0, atol=close)


def test_sums_of_rows_of_any_shape():
    x = np.random.default_rng(0).normal(size=(3, 5, 7, 2))
    want = x.sum((0, 1, 2))
    unknown = tf.function(
        sum_of_rows, input_signature=[tf.TensorSpec([None] * 3 + [2])]
    )
    for shape in ((105, 2), (15, 7, 2), (3, 5, 7, 2), (3, 5, 7, 1, 2)):
        found = sum_of_rows(tf.constant(x.reshape(shape)))
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(unknown(x.astype("float32")), want, atol=1e-5)
