"""SlotCon as a Keras model: fit, precision, XLA, round trips, foreign encoders."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import LARS, SGD, SlotCon, backbone
from tests.support.small_case import SIZES, batch, dataset, small_encoder, small_model


def weights(model):
    return [np.asarray(v) for v in model.variables]


def test_fit_trains_the_student_and_moves_the_teacher_by_its_rate():
    model = small_model(teacher_momentum=0.9)
    student = [v.numpy() for v in model.student.parameters()]
    history = model.fit(dataset(1), verbose=0).history
    assert all(np.isfinite(v[0]) for v in history.values()), history
    moved = [
        np.abs(v.numpy() - old).max() > 0
        for v, old in zip(model.student.parameters(), student, strict=True)
    ]
    assert np.mean(moved) > 0.5
    # The teacher moves before the student: after one step both were equal, so it rests.
    for teacher, old in zip(model.teacher.parameters(), student, strict=True):
        np.testing.assert_array_equal(teacher.numpy(), old)
    assert int(model.step.numpy()) == 1
    assert np.abs(model.center.numpy()).max() > 0


def test_teacher_uses_batch_statistics_and_stays_frozen():
    model = small_model()
    model.trainable = False
    model.trainable = True
    model.fit(dataset(1), verbose=0)
    teacher = set(map(id, model.teacher.variables))
    assert not teacher & set(map(id, model.trainable_variables))
    moving = model.teacher.encoder.layers[1].moving_mean.numpy()
    assert np.abs(moving).max() > 0  # its own forward passes were recorded


@pytest.mark.parametrize("optimizer", [LARS(0.1), SGD(0.1)])
@pytest.mark.slow
def test_save_and_load_continue_alike(tmp_path, optimizer):
    model = small_model()
    model.compile(optimizer=optimizer)
    model.fit(dataset(2), verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    for a, b in zip(weights(model), weights(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    model.fit(dataset(1), verbose=0)
    loaded.fit(dataset(1), verbose=0)
    for a, b in zip(weights(model), weights(loaded), strict=True):
        np.testing.assert_array_equal(a, b)


def test_config_round_trip():
    model = small_model(grouping_weight=0.3)
    twin = SlotCon.from_config(model.get_config())
    assert twin.get_config() == model.get_config()
    assert [v.shape for v in twin.variables] == [v.shape for v in model.variables]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.slow
def test_bfloat16_stays_near_float32(jit):
    def losses(policy):
        keras.utils.set_random_seed(1)
        keras.config.set_dtype_policy(policy)
        try:
            model = small_model()
            model.compile(optimizer=LARS(0.1), jit_compile=jit)
            history = model.fit(dataset(3), verbose=0).history
            assert model.center.dtype == "float32"
            assert all(v.dtype == "float32" for v in model.teacher.parameters())
        finally:
            keras.config.set_dtype_policy("float32")
        return history["loss"][0]

    full, half = losses("float32"), losses("mixed_bfloat16")
    # bfloat16 keeps 8 bits: a relative 0.4% per operation, averaged over the map.
    assert abs(full - half) / full < 0.05


def test_an_epoch_traces_the_step_once(monkeypatch):
    model = small_model()
    traces = []
    whole = model.compute_losses

    def counted(*args, **options):
        traces.append(1)
        return whole(*args, **options)

    monkeypatch.setattr(model, "compute_losses", counted)
    # Batches of other activity: the number of queries differs from step to step.
    batches = [batch(seed=seed) for seed in range(4)]
    data = tf.data.Dataset.from_generator(
        lambda: batches,
        output_signature=tf.data.Dataset.from_tensors(batches[0]).element_spec,
    )
    model.fit(data.repeat(), epochs=2, steps_per_epoch=4, verbose=0, shuffle=False)
    assert len(traces) == 1


@pytest.mark.slow
def test_evaluate_updates_nothing():
    model = small_model()
    model.fit(dataset(1), verbose=0)
    before = weights(model)
    logs = model.evaluate(dataset(1), verbose=0, return_dict=True)
    assert np.isfinite(logs["loss"])
    trackers = {id(v) for m in model.metrics for v in m.variables}
    for variable, old in zip(model.variables, before, strict=True):
        if id(variable) not in trackers:
            np.testing.assert_array_equal(variable.numpy(), old)


def test_no_active_query_gives_zero_and_finite_gradients():
    """A student and teacher that never agree on an active slot."""
    model = small_model()
    flipped = -model.student.grouping.prototypes.numpy()
    model.teacher.grouping.prototypes.assign(np.roll(flipped, 3, axis=0))
    data = batch(size=32, count=1)  # one position, so one slot per view
    rows = []
    for seed in range(12):
        data = batch(size=32, count=1, seed=seed)
        with tf.GradientTape() as tape:
            loss, _, found = model.compute_losses(data)
        gradients = tape.gradient(loss, model.trainable_variables)
        assert all(np.isfinite(np.asarray(g)).all() for g in gradients if g is not None)
        rows.append(float(found["slot_contrastive_loss"]))
    assert np.isfinite(rows).all()
    assert min(rows) == 0.0, rows


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.applications.MobileNet(
            input_shape=(64, 64, 3), alpha=0.25, include_top=False, weights=None
        ),
        lambda: __import__("keras_cv").models.ResNetV2Backbone(
            stackwise_filters=[8, 16],
            stackwise_blocks=[2, 2],
            stackwise_strides=[1, 2],
            include_rescaling=False,
            input_shape=(64, 64, 3),
        ),
    ],
    ids=["keras.applications", "keras-cv"],
)
@pytest.mark.slow
def test_foreign_encoders_train(make):
    model = SlotCon(make(), total_steps=5, **SIZES)
    model.compile(optimizer=SGD(0.01))
    history = model.fit(dataset(1), verbose=0).history
    assert np.isfinite(history["loss"][0])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: "resnet50", TypeError, "not a keras.Model"),
        (
            lambda: keras.applications.MobileNetV2(
                input_shape=(32, 32, 3), include_top=False, weights=None, pooling="avg"
            ),
            ValueError,
            "include_top=False, pooling=None",
        ),
        (
            lambda: keras.Sequential([keras.layers.Conv2D(4, 3)]),
            ValueError,
            "shapes are not known",
        ),
        (
            lambda: keras.Sequential(
                [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3)]
            ),
            ValueError,
            "channels to 3",
        ),
    ],
    ids=["name", "pooled", "unbuilt", "grey"],
)
def test_wrong_encoders_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        SlotCon(make(), total_steps=5, **SIZES)


def test_wrong_settings_and_batches_are_refused():
    with pytest.raises(ValueError, match="`total_steps` must be positive"):
        SlotCon(small_encoder(), total_steps=0, **SIZES)
    with pytest.raises(ValueError, match="between 0 and 1"):
        small_model(center_momentum=1.5)
    with pytest.raises(ValueError, match="no overlap_a"):
        model = small_model()
        bad = batch()
        del bad["overlap_a"]
        model.train_step(bad)
    with pytest.raises(ValueError, match="'student' or 'teacher'"):
        small_model().feature_extractor("both")


def test_feature_extractor_is_a_free_copy():
    model = small_model(backbone("resnet18", width=8))
    copy = model.feature_extractor("teacher")
    assert set(copy.pyramid_outputs) == {"P2", "P3", "P4", "P5"}
    images = batch()["view_a"]
    expected = model(images)["map"]
    np.testing.assert_allclose(copy(images, training=False), expected, atol=1e-6)
    assert len(copy.trainable_variables) == len(model.encoder.trainable_variables)
    copy.get_layer("conv1").kernel.assign(copy.get_layer("conv1").kernel * 2)
    np.testing.assert_array_equal(model(images)["map"], expected)
