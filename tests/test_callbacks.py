"""NaN guard, throughput, and the strategy flag."""

import types

import pytest
import tensorflow as tf

from slotcon_tf.callbacks import NanGuard, NonFiniteError, Throughput
from tests.test_slotcon import batch, dataset, small_model
from trainers.strategy import build_strategy


def test_nan_stops_the_run_and_is_named():
    bad = batch()
    bad["view_a"][0, 0, 0, 0] = float("nan")
    steps = dataset(2).concatenate(tf.data.Dataset.from_tensors(bad)).repeat(2)
    guard = NanGuard(lambda: "checkpoints/ckpt-7")
    with pytest.raises(NonFiniteError, match=r"loss = nan.* in step 3.*ckpt-7"):
        small_model().fit(steps, callbacks=[guard], verbose=0)


def test_throughput_leaves_out_the_traced_step():
    callback, logs = Throughput(batch_size=4), {}
    callback.set_model(types.SimpleNamespace(optimizer=None))
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0)
    callback.on_epoch_end(0, logs)
    assert "images_per_second" not in logs  # one step, which traced
    callback.on_epoch_begin(1)
    callback.on_train_batch_end(0)
    callback.on_epoch_end(1, logs)
    assert logs["images_per_second"] > 0


def test_strategies():
    assert build_strategy("one_device").num_replicas_in_sync == 1
    assert build_strategy("auto").num_replicas_in_sync == 1
    assert build_strategy("mirrored").num_replicas_in_sync == 4
    with pytest.raises(ValueError, match="must be one of"):
        build_strategy("mirored")
