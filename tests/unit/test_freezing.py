"""Frozen layers: before or after SlotCon(...), through training, saving and loading."""

import keras
import numpy as np
import pytest

from slotcon_tf import LARS, SlotCon, backbone
from slotcon_tf.encoders.freezing import frozen_layers
from tests.support.small_case import SIZES, batch, dataset, small_encoder, small_model


def resnet():
    return backbone("resnet10", width=8)


def functional():
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 8, strides=8, name="stem_conv")(images)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    return keras.Model(images, keras.layers.Conv2D(16, 4, strides=4, name="top")(x))


class Composite(keras.layers.Layer):
    """Sublayers without names: Keras numbers them anew in every process."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Conv2D(8, 8, strides=8)
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        self.first.build(shape)
        self.norm.build(self.first.compute_output_shape(shape))
        self.built = True

    def call(self, inputs, training=None):
        return self.norm(self.first(inputs), training=training)

    def compute_output_shape(self, shape):
        return self.first.compute_output_shape(shape)


def composite():
    images = keras.Input((None, None, 3))
    x = Composite(name="stem")(images)
    return keras.Model(images, keras.layers.Conv2D(16, 4, strides=4, name="top")(x))


def freeze(encoder, what):
    """Freezes the layers of a name, of normalisation, or all of them."""
    if what == "all":
        encoder.trainable = False
    for layer in encoder._flatten_layers(include_self=False):
        kind = type(layer).__name__
        if what in layer.name or (what == "norm" and kind == "BatchNormalization"):
            layer.trainable = False


def frozen_values(part):
    """Variables of layers that are frozen, moving statistics among them."""
    layers = part._flatten_layers()
    return [v.numpy() for x in layers if not x.trainable for v in x.variables]


def same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def fit_once(model):
    """Two steps; not traced, which would take longer than all else here."""
    model.compile(optimizer=LARS(0.5), run_eagerly=True)
    model.fit(dataset(2), verbose=0, shuffle=False)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (resnet, "conv1"),
        (resnet, "norm"),
        (functional, "norm"),
        (functional, "all"),
        (composite, "norm"),
        (small_encoder, "conv"),
    ],
)
def test_student_and_teacher_match(make, what, when):
    """Which variables are moved, what is frozen, and what a forward pass gives."""
    encoder = make()
    if when == "before":
        freeze(encoder, what)
    model = SlotCon(encoder, total_steps=4, **SIZES)
    if when == "after":
        freeze(encoder, what)
        model._freeze_teacher()  # as every step begins
    frozen = frozen_layers(model.student)
    assert frozen and frozen == frozen_layers(model.teacher)
    shapes = [[v.shape for v in n.parameters()] for n in (model.student, model.teacher)]
    assert shapes[0] == shapes[1]
    assert not model.teacher.trainable_variables
    learning = {id(v) for v in model.trainable_variables}
    for layer in encoder._flatten_layers():
        if not layer.trainable:
            assert not learning & {id(v) for v in layer._trainable_variables}
    images = batch()["view_a"]
    out = [n(images, training=True)["map"] for n in (model.student, model.teacher)]
    np.testing.assert_array_equal(*out)


@pytest.mark.parametrize(
    ("make", "what"), [(resnet, "bn"), (functional, "stem"), (functional, "all")]
)
def test_frozen_layers_stay_through_training_and_files(make, what, tmp_path):
    encoder = make()
    freeze(encoder, what)
    model = SlotCon(encoder, total_steps=4, **SIZES)
    before = frozen_values(model.student)
    learned = [v.numpy() for v in model.trainable_variables]
    fit_once(model)
    assert len(before) > 0
    same(before, frozen_values(model.student))
    same(before, frozen_values(model.teacher))
    moved = [
        np.abs(a - b.numpy()).max() > 0
        for a, b in zip(learned, model.trainable_variables, strict=True)
    ]
    assert np.mean(moved) > 0.5
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    for part in ("student", "teacher", "predictor"):
        first, second = getattr(model, part), getattr(loaded, part)
        assert frozen_layers(first) == frozen_layers(second)
        same(
            [v.numpy() for v in first.variables], [v.numpy() for v in second.variables]
        )
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    assert loaded.optimizer.iterations.numpy() == 2
    configs = [m.get_config()["frozen_layers"] for m in (model, loaded)]
    assert configs[0] == configs[1]


def test_heads_too_and_a_copy_is_free(tmp_path):
    model = small_model()
    model.student.grouping.trainable = False
    model.predictor.norm_0.trainable = False
    model.encoder.trainable = False
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert not loaded.student.grouping.trainable
    assert not loaded.teacher.grouping.trainable
    assert not loaded.predictor.norm_0.trainable and loaded.predictor.norm_1.trainable
    copy = loaded.feature_extractor()
    assert copy.trainable and len(copy.trainable_variables) == 6


def test_layers_frozen_between_two_fits():
    """Also without another compile, with which Keras would go on as before."""
    model = small_model()
    model.make_train_function()
    first = model.train_function
    model.make_train_function()
    assert model.train_function is first
    freeze(model.encoder, "conv")
    model.make_train_function()
    assert model.train_function is not first


@pytest.mark.parametrize("way", ["fit", "train_on_batch"])
def test_thawed_layers_need_another_compile(way):
    model = small_model(functional())
    model.encoder.get_layer("stem_conv").trainable = False
    model.compile(LARS(0.1), run_eagerly=True)
    model.train_on_batch(batch())
    model.encoder.get_layer("stem_conv").trainable = True
    with pytest.raises(ValueError, match="thawed.*stem_conv.*compile again") as caught:
        model.fit(dataset(1), verbose=0) if way == "fit" else model.train_on_batch(
            batch()
        )
    assert "\n" not in str(caught.value) and int(model.step.numpy()) == 1
    model.compile(LARS(0.1), run_eagerly=True)
    model.train_on_batch(batch())


def test_something_must_learn():
    model = small_model()
    model.student.trainable = False
    model.predictor.trainable = False
    with pytest.raises(ValueError, match="Something must learn"):
        fit_once(model)


def test_a_saved_freeze_must_find_its_layers():
    model = small_model()
    model.encoder.layers[0].trainable = False
    config = model.get_config()
    ((place, _),) = config["frozen_layers"]["encoder"]
    config["frozen_layers"]["encoder"] = [[place, "Dense"]]
    with pytest.raises(ValueError, match="in place of the Dense at"):
        SlotCon.from_config(config)
