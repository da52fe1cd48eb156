"""Guards, saves and stops, throughput, and the strategy flag."""

import math
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.runs.strategy import build_strategy
from slotcon_tf.training.callbacks import (
    CALLBACK,
    SIGNAL,
    Checkpointing,
    CollapseWarning,
    ContinueMetrics,
    Interrupted,
    NanGuard,
    NonFiniteError,
    StoppedByCallback,
    Throughput,
)
from slotcon_tf.training.monitoring import CsvHistory, PeriodicEvaluation
from tests.support.small_case import batch, dataset, small_model


def test_nan_stops_the_run_and_is_named():
    """A weight that turns NaN after the second step; the third one stops."""

    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                prototypes = self.model.student.grouping.prototypes
                prototypes.assign(prototypes * float("nan"))

    guard = NanGuard(lambda: "checkpoints/ckpt-7")
    with pytest.raises(NonFiniteError, match=r"loss.* of step 3.*ckpt-7"):
        small_model().fit(dataset(6), callbacks=[guard, Poison()], verbose=0)


def poisoned(steps, bad):
    """Batches of which some hold a NaN."""
    batches = [batch(seed=step) for step in range(steps)]
    for step in bad:
        batches[step]["view_a"][0, 0, 0] = np.nan
    stacked = {k: np.stack([b[k] for b in batches]) for k in batches[0]}
    return tf.data.Dataset.from_tensor_slices(stacked)


def test_skipped_steps_are_counted_named_and_limited(caplog):
    model = small_model(skip_nonfinite=True)
    guard = NanGuard(max_skipped=2)
    model.fit(poisoned(5, (1, 3)), callbacks=[guard], verbose=0, shuffle=False)
    assert caplog.text.count("The step was skipped") == 2
    assert "of step 2. The step was skipped, 1 of at most 2" in caplog.text
    assert int(model.nonfinite.numpy()[-1]) == 2 and int(model.step.numpy()) == 5
    with pytest.raises(NonFiniteError, match="of step 6, the 3th of 2 allowed"):
        model.fit(poisoned(2, (0,)), callbacks=[guard], verbose=0, shuffle=False)


@pytest.fixture(scope="module")
def traced():
    """A model whose step several tests share, and its first weights."""
    model = small_model()
    return model, model.get_weights()


@pytest.fixture
def model(traced):
    """With those weights, before its first step; its optimizer is not new."""
    model, weights = traced
    model.set_weights(weights)
    model.step.assign(0)
    return model


def checkpointing(saves, model, **options):
    def save():
        saves.append(int(model.step.numpy()))
        return "there"

    return Checkpointing(save, epochs=2, **options)


def test_saves_by_steps_minutes_and_epochs(model):
    for options, expected in (
        ({"every_epochs": 1}, [3, 6]),
        ({"every_epochs": 5}, [6]),
        ({"every_epochs": 5, "every_steps": 2}, [2, 4, 6]),
        ({"every_epochs": 5, "every_minutes": 1e-9}, [1, 2, 3, 4, 5, 6]),
    ):
        saves = []
        model.step.assign(0)
        callback = checkpointing(saves, model, **options)
        steps = {"epochs": 2, "steps_per_epoch": 3, "verbose": 0, "shuffle": False}
        model.fit(dataset(6), callbacks=[callback], **steps)
        assert saves == expected, options


def test_a_stop_saves_first(model):
    saves = []
    callback = checkpointing(saves, model, stop_requested=lambda: SIGNAL)
    with pytest.raises(Interrupted, match="after step 1, which is saved in there"):
        model.fit(dataset(3), callbacks=[callback], verbose=0, shuffle=False)
    assert saves == [1]
    # On an epoch's last step the other callbacks see its end first.
    model.step.assign(0)
    callback = checkpointing(saves, model, stop_requested=lambda: SIGNAL)
    with pytest.raises(Interrupted, match="after step 1"):
        model.fit(dataset(1), callbacks=[callback], verbose=0, shuffle=False)
    assert saves == [1, 1]


def test_a_callback_that_stops_is_no_signal_and_is_asked_for_last(model):
    """One that stops at an epoch's end comes after the save of that epoch."""
    saves = []

    def stopped_by():
        return CALLBACK if model.stop_training else ""

    callback = checkpointing(saves, model, every_epochs=5, stop_requested=stopped_by)
    callback.set_model(model)
    model.step.assign(3)
    model.stop_training = False
    callback.on_epoch_end(0)
    callback.after_others(0)
    model.stop_training = True
    callback.on_epoch_end(1)  # the last epoch: the end
    callback.after_others(1)
    assert saves == [3]
    with pytest.raises(StoppedByCallback, match="after step 3, which is saved in ther"):
        callback.after_others(0)
    assert saves == [3, 3]
    model.stop_training = False


def test_weights_that_are_not_finite_are_not_saved(model):
    saves = []
    callback = checkpointing(saves, model, every_steps=1)
    callback.set_model(model)
    model.student.grouping.prototypes.assign(
        np.full(model.student.grouping.prototypes.shape, np.nan)
    )
    with pytest.raises(NonFiniteError, match="prototypes"):
        callback.on_epoch_end(0)
    assert not saves


@pytest.mark.slow
def test_an_epoch_that_goes_on_keeps_its_means():
    whole, parts = small_model(), small_model()
    parts.set_weights(whole.get_weights())
    options = {"verbose": 0, "shuffle": False}
    batches = poisoned(4, ())
    expected = whole.fit(batches, **options).history
    parts.fit(batches.take(3), **options)
    found = parts.fit(
        batches.skip(3), callbacks=[ContinueMetrics(parts)], **options
    ).history
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_collapse_warns_once_until_it_is_over(tmp_path, caplog):
    callback = CollapseWarning(str(tmp_path), every_steps=1)
    callback.set_model(small_model())
    healthy = {"prototypes_used": 7.0, "feature_std": 0.8}
    for logs, warnings in (
        (healthy, 0),
        (healthy | {"prototypes_used": 1.0}, 1),
        (healthy | {"prototypes_used": 1.0}, 1),
        (healthy | {"feature_std": 0.01}, 2),
        (healthy | {"prototypes_used": 2.0}, 3),
    ):
        callback.on_train_batch_end(0, logs)
        assert caplog.text.count("Collapse:") == warnings
    assert list(tmp_path.glob("events*"))


def test_throughput_leaves_out_the_traced_step():
    callback, logs = Throughput(batch_size=4), {}
    callback.set_model(types.SimpleNamespace(optimizer=None))
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0)
    callback.on_epoch_end(0, logs)
    assert np.isnan(logs["images_per_second"])  # one step, which traced
    callback.on_epoch_begin(1)
    callback.on_train_batch_end(0)
    callback.on_epoch_end(1, logs)
    assert logs["images_per_second"] > 0


def test_strategies():
    assert build_strategy("one_device").num_replicas_in_sync == 1
    assert build_strategy("auto").num_replicas_in_sync == 1
    assert build_strategy("mirrored").num_replicas_in_sync == 4
    for name, words in (
        ("mirored", "must be one of"),
        ("multi_worker", "needs TF_CONFIG with two workers"),
        ("tpu", "needs the TPU's name"),
    ):
        with pytest.raises(ValueError, match=words):
            build_strategy(name)


def test_csv_history_takes_new_columns_and_goes_on(tmp_path):
    path = tmp_path / "history.csv"
    history = CsvHistory(path)
    history.on_epoch_end(0, {"loss": 1.5, "rate": 2})
    history.on_epoch_end(1, {"loss": 1.25, "rate": 3, "val_nmi": 0.5})
    CsvHistory(path).on_epoch_end(2, {"loss": 1.0, "rate": 3})
    assert path.read_text().splitlines() == [
        "epoch,loss,rate,val_nmi",
        "0,1.5,2,",
        "1,1.25,3,0.5",
        "2,1,3,",
    ]


def test_evaluation_comes_every_few_epochs_and_at_the_end():
    callback = PeriodicEvaluation(
        lambda: {"nmi": 0.5, "miou": math.nan}, every_epochs=2, epochs=5
    )
    seen = []
    for epoch in range(5):
        logs = {"loss": 1.0}
        callback.on_epoch_end(epoch, logs)
        seen.append(logs)
    scored = {"loss": 1.0, "val_nmi": 0.5}  # NaN would poison a chart
    assert seen == [{"loss": 1.0}, scored, {"loss": 1.0}, scored, scored]
