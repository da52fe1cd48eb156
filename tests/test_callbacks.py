"""NaN guard, throughput, and the strategy flag."""

import types

import keras
import pytest

from slotcon_tf.callbacks import NanGuard, NonFiniteError, Throughput
from tests.test_slotcon import dataset, small_model
from trainers.strategy import build_strategy


def test_nan_stops_the_run_and_is_named():
    """A weight that turns NaN after the second step; the third one stops."""

    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                prototypes = self.model.student.grouping.prototypes
                prototypes.assign(prototypes * float("nan"))

    guard = NanGuard(lambda: "checkpoints/ckpt-7")
    with pytest.raises(NonFiniteError, match=r"loss = nan.* in step 3.*ckpt-7"):
        small_model().fit(dataset(6), callbacks=[guard, Poison()], verbose=0)


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
