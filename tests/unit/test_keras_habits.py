"""What Keras users do: losses of layers, callbacks, export, backends, slots."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from slotcon_tf import LARS, SlotCon, backbone
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.images import normalize
from slotcon_tf.method.health import global_metrics, scalars_of
from tests.support.command import ENVIRONMENT, ROOT
from tests.support.small_case import SIZES, batch, dataset, in_float64, small_model

L2 = 0.01


class AddsItsMean(layers.Layer):
    """Adds the mean square of what goes through it to the loss."""

    def call(self, inputs):
        self.add_loss(ops.mean(ops.square(inputs)))
        return inputs


def adding(kernel=None, activity=None, custom=False):
    """A network that adds losses by a kernel's, an output's or a layer's doing."""
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(
        8,
        8,
        strides=8,
        kernel_regularizer=kernel,
        activity_regularizer=activity,
        name="conv",
    )(images)
    if custom:
        x = AddsItsMean(name="adds")(x)
    return keras.Model(images, layers.Conv2D(16, 4, strides=4)(x))


def expected(model, data, kernel=None, activity=None, custom=False):
    """By hand: the kernel's once, the outputs' as the mean of both views."""
    conv = model.encoder.get_layer("conv")
    total = L2 * np.square(conv.kernel.numpy()).sum() if kernel else 0.0
    for v in "ab":
        output = conv(data[f"view_{v}"]).numpy()
        if activity:
            total += L2 * np.square(output).sum() / len(output) / 2
        if custom:
            total += np.square(output).mean() / 2
    return total


ADDED = {
    "kernel": {"kernel": keras.regularizers.L2(L2)},
    "activity": {"activity": keras.regularizers.L2(L2)},
    "add_loss": {"custom": True},
    "all": {
        "kernel": keras.regularizers.L2(L2),
        "activity": keras.regularizers.L2(L2),
        "custom": True,
    },
}


@pytest.mark.parametrize("name", ADDED)
def test_what_layers_add_counts_once(name):
    data = batch()
    model = small_model(adding(**ADDED[name]))
    with tf.GradientTape(persistent=True) as tape:
        loss, _, found = model.compute_losses(data)
        weight = model.grouping_weight
        own = weight * found["grouping_loss"]
        own += (1 - weight) * found["slot_contrastive_loss"]
    added = float(found["added_loss"])
    np.testing.assert_allclose(added, expected(model, data, **ADDED[name]), rtol=1e-5)
    np.testing.assert_allclose(float(loss), float(own) + added, rtol=1e-5)
    np.testing.assert_array_equal(loss, found["loss"])
    kernel = model.encoder.get_layer("conv").kernel
    whole, part = (tape.gradient(x, kernel.value) for x in (loss, own))
    assert np.abs(whole - part).max() > 1e-5


def on_replicas(mirrored, data, **added):
    """A strategy of two, a model, and a function that diagnoses the data."""
    strategy = mirrored(2)
    with strategy.scope():
        model = small_model(adding(**added))

    def half(context):
        start = 2 * context.replica_id_in_sync_group
        return {k: tf.constant(v[start : start + 2]) for k, v in data.items()}

    def diagnose(part):
        _, _, diagnostics = model.compute_losses(part)
        return global_metrics(scalars_of(diagnostics))

    parts = strategy.experimental_distribute_values_from_function(half)
    return strategy, model, lambda: strategy.run(diagnose, args=(parts,))


@pytest.mark.slow
def test_replicas_add_as_much_as_one_device(mirrored, float64):
    data = in_float64(batch())
    one = small_model(adding(**ADDED["kernel"]))
    strategy, many, diagnose = on_replicas(mirrored, data, **ADDED["kernel"])
    for part in ("student", "teacher", "predictor"):
        getattr(many, part).set_weights(getattr(one, part).get_weights())
    _, _, found = one.compute_losses(data)
    logs = diagnose()
    for key in ("added_loss", "grouping_loss", "slot_contrastive_loss", "loss"):
        for value in strategy.experimental_local_results(logs[key]):
            np.testing.assert_allclose(value, found[key], rtol=1e-9, err_msg=key)


@pytest.mark.parametrize(
    ("name", "layer"), [("activity", "conv"), ("add_loss", "adds")]
)
def test_losses_of_outputs_are_refused_on_replicas(mirrored, name, layer):
    """Keras keeps them where replicas overwrite each other's."""
    *_, diagnose = on_replicas(mirrored, batch(), **ADDED[name])
    with pytest.raises(ValueError, match=f"Several replicas .*layers {layer} do"):
        diagnose()


def eagerly(model, optimizer=None):
    """Compiled not to be traced, which would take longer than all else here."""
    model.compile(optimizer=optimizer or LARS(0.3), run_eagerly=True)
    return model


def test_losses_of_recomputed_layers_are_refused():
    encoder = backbone("resnet10", width=8)
    encoder.get_layer("layer1_0_conv1").activity_regularizer = keras.regularizers.L2()
    model = SlotCon(encoder, total_steps=4, remat=True, **SIZES)
    with pytest.raises(ValueError, match="layer1_0_conv1 do. Set remat=False"):
        model.compute_losses(batch())


class WithOwn(SlotCon):
    """A subclass that diagnoses two things more, of which it averages one."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.trackers["averaged"] = keras.metrics.Mean(name="averaged")

    def compute_losses(self, batch, training=True):
        loss, center, found = super().compute_losses(batch, training)
        flips = batch["flipped_a"]
        own = {"averaged": ops.cast(self.step, "float32"), "flips": ops.sum(flips)}
        return loss, center, {**found, "always": 1, **own}


@pytest.mark.slow
def test_subclasses_diagnose_more():
    """What layers add is shown too, all of it also of a batch in parts."""
    encoder = adding(**ADDED["kernel"])
    model = WithOwn(encoder, total_steps=2, accumulate_steps=2, **SIZES)
    history = eagerly(model).fit(dataset(2), verbose=0).history
    assert history["averaged"] == [0.5] and history["always"] == [1]
    assert history["flips"] == [batch()["flipped_a"].sum() / 2]
    assert history["added_loss"][0] > 0
    assert "added_loss" not in [m.name for m in small_model().metrics]


def test_diagnostics_that_cannot_be_shown_are_refused():
    model = small_model()
    _, _, found = model.compute_losses(batch())

    with pytest.raises(ValueError, match=r"scalars. Received: mine of shape \(3,\)"):
        scalars_of({**found, "mine": tf.zeros(3)})
    with pytest.raises(ValueError, match="no grouping_loss"):
        scalars_of({k: v for k, v in found.items() if k != "grouping_loss"})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"loss": "mse"}, "loss"),
        ({"metrics": ["accuracy"]}, "metrics"),
        ({"loss": "mse", "loss_weights": [1.0]}, "loss, loss_weights"),
        ({"weighted_metrics": ["mae"]}, "weighted_metrics"),
    ],
)
def test_compile_says_what_it_ignores(given, named):
    model = small_model()
    with pytest.warns(UserWarning, match=f"compile ignores {named}") as caught:
        model.compile(optimizer=LARS(0.1), **given)
    assert len(caught) == 1
    assert model.metrics == list(model.trackers.values())


@pytest.mark.slow
def test_callbacks_of_keras_go_on_where_they_were(tmp_path):
    """Killed in the second epoch of two, and gone on with from either file."""

    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def new():
        keras.utils.set_random_seed(1)
        return eagerly(small_model())

    def fit(model, *callbacks, **options):
        options |= {"epochs": 2, "verbose": 0, "shuffle": False}
        return model.fit(dataset(1), callbacks=list(callbacks), **options)

    backup = functools.partial(keras.callbacks.BackupAndRestore, tmp_path / "backup")
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    with pytest.raises(KeyboardInterrupt):
        fit(new(), backup(), checkpoint, Killed())
    again = new()
    assert len(fit(again, backup()).history["loss"]) == 1
    saved = keras.models.load_model(tmp_path / "1.keras")
    assert int(saved.step.numpy()) == 1 and int(saved.optimizer.iterations) == 1
    fit(saved, initial_epoch=1)
    whole = new()
    fit(whole)
    for other in (again, saved):
        assert int(other.step.numpy()) == 2
        for first, second in (
            (whole.variables, other.variables),
            (whole.optimizer.variables, other.optimizer.variables),
        ):
            for a, b in zip(first, second, strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


def test_legacy_files_are_refused_before_any_work(tmp_path):
    model, path = small_model(), tmp_path / "m.h5"
    with pytest.raises(ValueError, match="a .keras file.*m.h5. Take .keras"):
        model.save(path)
    keep = keras.callbacks.ModelCheckpoint(path)
    with pytest.raises(ValueError, match="a .keras file.*m.h5. Take .keras"):
        model.fit(dataset(1), callbacks=[keep], verbose=0)
    assert int(model.step) == 0 and not path.exists()


@pytest.mark.parametrize("policy", ["float64", "mixed_float16"])
def test_policies_train(policy):
    keras.config.set_dtype_policy(policy)
    model = eagerly(small_model(), LARS(0.01))
    history = model.fit(dataset(1), verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert model.step.numpy() == 1 and np.abs(model.center.numpy()).max() > 0


def test_early_stopping_puts_back_what_was_best():
    model = eagerly(small_model())
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=1, restore_best_weights=True, mode="max"
    )
    options = {"epochs": 3, "validation_data": dataset(1), "verbose": 0}
    history = model.fit(dataset(1), callbacks=[stop], **options).history
    best = stop.best_epoch
    assert int(model.step.numpy()) == best + 1 <= len(history["loss"])
    found = model.evaluate(dataset(1), verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(found, history["val_loss"][best], rtol=1e-5)


@pytest.mark.parametrize(
    "after", ["nothing", "predict", pytest.param("fit", marks=pytest.mark.slow)]
)
def test_export(after, tmp_path):
    model = small_model()
    images = batch()["view_a"]
    if after == "predict":
        model.predict(images, verbose=0)
    elif after == "fit":
        eagerly(model).fit(dataset(1), verbose=0)
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    served = loaded.serve(images)
    for name, value in model(images).items():
        np.testing.assert_allclose(served[name], value, atol=1e-6, err_msg=name)


def test_summary_shows_shapes():
    lines = []
    small_model().summary(print_fn=lambda text, **_: lines.append(text))
    (text,) = lines
    assert "?" not in text
    # In columns of their own, broken where they end.
    words = " ".join(
        line.split("│")[2].strip() for line in text.splitlines() if line.count("│") > 2
    )
    for shape in ("(None, None, None, 16)", "(None, None, None, 8)", "(None, 12)"):
        assert shape in words, text


@pytest.mark.parametrize("way", ["environment", "file"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_are_refused(way, backend, tmp_path):
    """Before Keras is imported, which may not even find the other backend."""
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "KERAS_BACKEND"}
    if way == "environment":
        environment["KERAS_BACKEND"] = backend
    else:
        (tmp_path / "keras.json").write_text(f'{{"backend": "{backend}"}}')
        environment["KERAS_HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", "import slotcon_tf"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: slotcon_tf needs Keras on TensorFlow.")
    assert f"Received: the backend {backend!r}" in last
    assert "KERAS_BACKEND=tensorflow" in last


@pytest.mark.parametrize(
    "module", ["trainers.pretrain", "export.client", "benchmarks.step"]
)
def test_a_command_on_another_backend_ends_in_one_line(module):
    environment = {**ENVIRONMENT, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-m", module]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("slotcon_tf needs Keras on TensorFlow.")


def test_a_console_script_on_another_backend_ends_in_one_line(tmp_path):
    script = tmp_path / "slotcon-pretrain"
    script.write_text("from slotcon_tf.trainers.pretrain import main\n")
    environment = {**ENVIRONMENT, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("slotcon_tf needs Keras on TensorFlow.")


def test_slots_of_images():
    model = small_model()
    images = np.random.default_rng(0).integers(0, 256, (5, 96, 64, 3), np.uint8)
    found = model.slots(images, batch_size=2)
    shapes = {name: (value.dtype.name, value.shape) for name, value in found.items()}
    assert shapes == {
        "slots": ("float32", (5, 8, 12)),
        "assignments": ("int32", (5, 3, 2)),
        "probabilities": ("float32", (5, 3, 2, 8)),
        "active": ("bool", (5, 8)),
    }
    vectors, active, _ = Inference(model).slots(images)
    np.testing.assert_allclose(found["slots"], vectors, atol=1e-5)
    np.testing.assert_array_equal(found["active"], active)
    np.testing.assert_allclose(found["probabilities"].sum(-1), 1, rtol=1e-5)
    winners = found["probabilities"].argmax(-1)
    np.testing.assert_array_equal(found["assignments"], winners)
    for index, row in enumerate(found["active"]):
        assert set(np.flatnonzero(row)) == set(winners[index].ravel())
    same = model.slots(normalize(images.astype("float32")).numpy())
    for name, value in found.items():
        np.testing.assert_allclose(same[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (32, {}, r"built for, \(64, 64\)..Received: images of shape \(2, 32, 32, 3\)"),
        (64, {"batch_size": 0}, "batch_size must be .*Received: batch_size=0"),
        (64, {"batch_size": 1.5}, "batch_size must be .*Received: batch_size=1.5"),
    ],
)
def test_slots_of_a_fixed_size(size, options, words):
    images = keras.Input((64, 64, 3))
    encoder = keras.Model(images, layers.Conv2D(8, 8, strides=8)(images))
    with pytest.raises(ValueError, match=words) as caught:
        small_model(encoder).slots(np.zeros((2, size, size, 3), "uint8"), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((64, 64, 3), "uint8"), r"One image is images\[None\]"),
        (np.zeros((0, 64, 64, 3), "uint8"), "shape"),
        (np.zeros((2, 64, 64, 1), "uint8"), "must be RGB"),
        (np.zeros((2, 64, 64, 3), "int32"), "uint8 or normalised"),
        (np.random.default_rng(0).random((2, 64, 64, 3)), "floats in 0..1"),
    ],
)
def test_other_images_have_no_slots(images, words):
    with pytest.raises(ValueError, match=words):
        small_model().slots(images)
