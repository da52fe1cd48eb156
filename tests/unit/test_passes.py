"""Passes of crop_pair_dataset: an epoch each, other views, repeatable by the seed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.data import crop_pair_dataset
from tests.support.picture_case import Numbered


def stream(**options):
    # The device changes the colours: nothing is compiled for it here.
    fixed = {"batch_size": 4, "image_size": 16, "seed": 3, "augment_on": "device"}
    return crop_pair_dataset(Numbered(), **{**fixed, **options})


def views(dataset):
    """What a pass shows: its boxes of overlap, one row per image."""
    boxes = [batch["overlap_a"] for batch in dataset.as_numpy_iterator()]
    return np.concatenate([np.zeros((0, 4), np.float32), *boxes])


def test_a_pass_is_an_epoch_of_known_length():
    dataset = stream()
    assert int(dataset.cardinality()) == 10 // 4 == len(dataset)
    assert len(list(dataset)) == len(list(dataset)) == 2
    assert int(stream(epochs=3).cardinality()) == 6
    assert stream(epochs=None).cardinality() == tf.data.INFINITE_CARDINALITY
    assert int(stream(epochs=2, start_step=3).cardinality()) == 1
    assert int(stream(epochs=2, start_step=9).cardinality()) == 0
    assert int(stream(start_step=9).cardinality()) == 2


@pytest.mark.parametrize("options", [{}, {"epochs": 2}, {"start_step": 5}])
def test_passes_join_to_the_endless_stream(options):
    """So they differ, and another program of the same seed sees the same ones."""
    dataset = stream(**options)
    found = np.concatenate([views(dataset) for _ in range(3)])
    start = options.get("start_step", 0)
    endless = stream(epochs=None, start_step=start).take(3 * len(dataset))
    np.testing.assert_array_equal(found, views(endless))
    per_pass = 4 * len(dataset)
    assert np.abs(found[:per_pass] - found[per_pass : 2 * per_pass]).max() > 0.01
    other = views(stream(**{**options, "seed": 4}))
    assert not np.array_equal(found[:per_pass], other)


def test_what_an_explicit_run_leaves_goes_on_too():
    """epochs=N with start_step: what is left of the run; then what comes behind it."""
    dataset = stream(epochs=2, start_step=1)
    found = np.concatenate([views(dataset), views(dataset)])
    np.testing.assert_array_equal(
        found, views(stream(epochs=None, start_step=1).take(6))
    )


def test_iterators_side_by_side_are_two_passes():
    dataset = stream()
    first, second = iter(dataset), iter(dataset)
    order = [next(first), next(second), next(second), next(first)]
    boxes = [batch["overlap_a"].numpy() for batch in order]
    truth = [b["overlap_a"].numpy() for b in stream(epochs=None).take(4)]
    for got, position in zip(boxes, (0, 2, 3, 1), strict=True):
        np.testing.assert_array_equal(got, truth[position])


@pytest.mark.parametrize("way", ["steps", "two fits", "repeat"])
def test_fit_sees_other_views_every_epoch(way):
    """With and without steps_per_epoch, in a second fit, and by Dataset.repeat."""
    seen = []

    class Model(keras.Model):
        def train_step(self, batch):
            tf.py_function(lambda x: seen.append(x.numpy()), [batch["overlap_a"]], [])
            return {"seen": tf.zeros(())}

    model = Model()
    model.compile()
    dataset = stream()
    if way == "steps":
        model.fit(dataset, epochs=3, steps_per_epoch=2, verbose=0)
    elif way == "two fits":
        model.fit(dataset, epochs=1, verbose=0)
        model.fit(dataset, epochs=2, verbose=0)
    else:
        model.fit(dataset.repeat(3), verbose=0)
    truth = views(stream(epochs=None).take(6))
    np.testing.assert_array_equal(np.concatenate(seen), truth)


def test_fit_under_a_strategy_counts_the_same_passes():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    dataset = strategy.experimental_distribute_dataset(stream())
    found = [batch["overlap_a"].numpy() for _ in range(3) for batch in dataset]
    truth = views(stream(epochs=None).take(6))
    np.testing.assert_array_equal(np.concatenate(found), truth)


@pytest.mark.parametrize("epochs", ["all", 1.5, True])
def test_other_lengths_are_refused(epochs):
    with pytest.raises(ValueError, match="epochs must be 'each', a whole number"):
        stream(epochs=epochs)
