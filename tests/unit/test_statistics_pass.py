"""PreciseBN of a run: on any devices, again and again, and nothing else changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.runs.statistics_pass import StatisticsPass
from slotcon_tf.training.callbacks import NonFiniteError
from slotcon_tf.training.normalization import BatchNormalization


class Small(keras.Model):
    """A layer of batch normalisation behind one of weights; counts its traces."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, kernel_initializer="ones")
        self.dense.build((None, 2))
        self.norm = BatchNormalization()
        self.norm.build((None, 3))
        self.step = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False
        )
        self.traces = 0

    def compute_losses(self, batch, training):
        self.traces += 1
        # As samplers do, it follows the step.
        rows = batch["rows"] + tf.cast(self.step, tf.float32)
        return self.norm(self.dense(rows), training=training)


def batches(step, context=None):
    """Four rows, or eight with every second step."""

    def made(number):
        count = 4 * (1 + number % 2)
        key = tf.stack([tf.constant(7, tf.int64), number])
        rows = tf.random.stateless_normal((count, 2), key)
        return {"rows": rows}

    return tf.data.Dataset.range(step, 1000).map(made)


def distributed(strategy):
    """Batches of four rows, cut for the replicas."""
    return lambda step: strategy.distribute_datasets_from_function(
        lambda context: (
            batches(step)
            .map(lambda batch: {"rows": batch["rows"][:4]})
            .rebatch(context.get_per_replica_batch_size(4), drop_remainder=True)
        )
    )


def moving(model):
    return [model.norm.moving_mean.numpy(), model.norm.moving_variance.numpy()]


def expected(step, count):
    """Mean and variance of all rows together."""
    rows = [
        one["rows"].numpy() + step + number
        for number, one in enumerate(batches(step).take(count))
    ]
    values = np.concatenate(rows).sum(axis=1)
    return values.mean(), values.var()


def test_it_pools_the_batches_that_come_next():
    model = Small()
    model.step.assign(5)
    measured = StatisticsPass(model, batches, 4, of_any_size=True)
    before = moving(model)
    assert measured.gather() and measured.gather()
    assert int(model.step) == 5 and model.traces == 1  # whatever the sizes
    np.testing.assert_array_equal(moving(model), before)
    with measured.applied():
        mean, variance = moving(model)
    np.testing.assert_allclose(mean, expected(5, 4)[0], rtol=1e-6)
    np.testing.assert_allclose(variance, expected(5, 4)[1], rtol=1e-5)
    np.testing.assert_array_equal(moving(model), before)
    measured.apply()
    np.testing.assert_array_equal(moving(model), [mean, variance])
    other = Small()
    other.step.assign(5)
    again = StatisticsPass(other, batches, 4)
    again.gather()
    again.apply()
    np.testing.assert_array_equal(moving(other), moving(model))


def test_stopped_or_without_batches_it_changes_nothing():
    model = Small()
    before, asked = moving(model), []

    def stop():
        asked.append(int(model.step))
        return len(asked) == 3

    measured = StatisticsPass(model, batches, 5)
    assert not measured.gather(stop)
    assert asked == [0, 0, 1] and int(model.step) == 0
    measured.apply()
    none = StatisticsPass(model, batches, 0)
    assert none.gather()
    none.apply()
    np.testing.assert_array_equal(moving(model), before)


def test_an_error_leaves_the_step():
    def broken(step):
        return batches(step).map(lambda batch: {"rows": batch["rows"][:, :1]})

    model = Small()
    model.step.assign(3)
    with pytest.raises(ValueError, match="shape"):
        StatisticsPass(model, broken, 2).gather()
    assert int(model.step) == 3


def test_a_mean_far_from_zero_costs_no_digits():
    """Of squares, float32 would keep nothing here."""
    model = Small()
    rng = np.random.default_rng(5)
    rows = (100 + 0.005 * rng.standard_normal((5, 64, 2))).astype("float32")
    data = tf.data.Dataset.from_tensor_slices({"rows": rows})
    measured = StatisticsPass(model, data.skip, 5)
    model.compute_losses = lambda batch, training: model.norm(
        model.dense(batch["rows"]), training=training
    )
    measured.gather()
    measured.apply()
    values = rows.sum(axis=-1).astype("float64")
    np.testing.assert_allclose(moving(model)[0], values.mean(), rtol=1e-6)
    np.testing.assert_allclose(moving(model)[1], values.var(), rtol=1e-2)


def test_statistics_that_are_not_finite_end_it():
    def broken(step):
        return batches(step).map(lambda batch: {"rows": batch["rows"] * np.nan})

    model = Small()
    model.step.assign(3)
    before = moving(model)
    measured = StatisticsPass(model, broken, 2)
    with pytest.raises(NonFiniteError, match="NaN or infinity in .*batch_norm.*saved"):
        measured.gather()
    measured.apply()
    assert int(model.step) == 3
    np.testing.assert_array_equal(moving(model), before)


def test_replicas_measure_as_one(mirrored):
    found = []
    for count in (1, 2):
        strategy = mirrored(count)
        with strategy.scope():
            model = Small()
        measured = StatisticsPass(model, distributed(strategy), 3, of_any_size=True)
        measured.gather()
        measured.apply()
        found.append(moving(model))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
