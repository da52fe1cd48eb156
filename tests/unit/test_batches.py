"""What a batch, a data set and a run's length must be, said before the first step."""

import pathlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.data import crop_pair_dataset, open_source
from slotcon_tf.images import normalize
from slotcon_tf.training.batches import check_normalised, check_values, checked
from tests.support.small_case import batch, dataset, small_model


@pytest.fixture(scope="module")
def model():
    """Of 10 steps; no test here lets it come to one."""
    return small_model()


def refused(model, act, words):
    """One line that says what is wanted; and nothing was learned."""
    with pytest.raises(ValueError, match=words) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text and "Received: " in text, text
    assert int(model.step.numpy()) == 0


def changed(**parts):
    return {**batch(), **parts}


def grey_levels(**options):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (4, 64, 64, 3)).astype(**options)


PIXELS = np.tile(np.float32([6, 0, 57, 51]), (4, 1))
WRONG = {
    "uint8 views": ({"view_b": grey_levels(dtype="uint8")}, "view_b.*uint8"),
    "int views": ({"view_a": grey_levels(dtype="int32")}, "view_a.*int32"),
    "0..1": ({"view_a": grey_levels(dtype="float32") / 255}, "floats in 0..1"),
    "0..255": ({"view_a": grey_levels(dtype="float32")}, "grey levels in 0..255"),
    "16 bits": ({"view_b": grey_levels(dtype="float32") * 257}, "raw levels"),
    "mean only": ({"view_b": grey_levels(dtype="float32") - 128}, "not divided"),
    "boxes in pixels": ({"overlap_a": PIXELS}, r"overlap_a.*\[6.0, 0.0, 57.0, 51.0\]"),
    "int boxes": ({"overlap_b": PIXELS.astype("int64")}, "overlap_b.*in pixels"),
    "widths and heights": (
        {"overlap_b": np.tile(np.float32([0.5, 0.5, 0.2, 0.2]), (4, 1))},
        "x_min < x_max",
    ),
    "box of three": ({"overlap_a": np.ones((4, 3), "float32")}, r"\(B, 4\)"),
    "flips 0, 255": ({"flipped_a": np.array([0, 255, 0, 255])}, "flipped_a.*255"),
    "flips in a column": ({"flipped_b": np.ones((4, 1), bool)}, r"flipped_b.*\(B,\)"),
    "unequal views": (
        {"view_b": batch(32)["view_b"]},
        r"same size.*\(4, 64, 64, 3\).*\(4, 32, 32, 3\)",
    ),
    "unequal counts": ({"flipped_a": np.zeros(3, bool)}, r"flipped_a \(3,\)"),
    "grey views": ({"view_a": batch()["view_a"][..., :1]}, r"\(B, size, size, 3\)"),
}
# What a step can tell by shapes and dtypes alone, in a loop of the user's own too.
STATIC = (
    "uint8 views",
    "int views",
    "int boxes",
    "box of three",
    "flips in a column",
    "unequal views",
    "unequal counts",
    "grey views",
)


@pytest.mark.parametrize("name", WRONG)
def test_fit_refuses(model, name):
    parts, words = WRONG[name]
    data = changed(**parts)

    def fit():
        model.fit(tf.data.Dataset.from_tensors(data), verbose=0, shuffle=False)

    def fit_generator():
        model.fit((b for b in [data]), steps_per_epoch=1, verbose=0, shuffle=False)

    for act in (
        fit,
        fit_generator,
        lambda: model.train_on_batch(data),
        lambda: model.test_on_batch(data),
    ):
        refused(model, act, words)


@pytest.mark.parametrize("name", STATIC)
def test_a_step_refuses(model, name):
    parts, words = WRONG[name]
    step = tf.function(model.train_step, autograph=False)
    refused(model, lambda: step(changed(**parts)), words)


def test_views_of_unknown_size_are_refused(model):
    data = tf.data.Dataset.from_tensors(batch())
    shape = [None, None, None, 3]

    def forget(b):
        return {**b, "view_a": tf.ensure_shape(tf.identity(b["view_a"]), shape)}

    step = tf.function(model.train_step, autograph=False)
    spec = {**data.element_spec, "view_a": tf.TensorSpec(shape, tf.float32)}
    refused(model, lambda: step.get_concrete_function(spec), "tf.ensure_shape")


def test_views_of_another_size_than_the_encoder_s_are_refused():
    encoder = keras.Sequential(
        [keras.Input((96, 96, 3)), keras.layers.Conv2D(8, 8, strides=8)]
    )
    model = small_model(encoder)
    refused(model, lambda: model.fit(dataset(1)), r"built for, \(96, 96\)")


def test_every_fit_looks_once_and_replicas_too(mirrored):
    with mirrored(2).scope():
        model = small_model()
    bad = tf.data.Dataset.from_tensors(changed(**WRONG["0..1"][0])).unbatch().batch(4)
    refused(model, lambda: model.fit(bad, verbose=0), "floats in 0..1")
    refused(model, lambda: model.evaluate(bad, verbose=0), "floats in 0..1")


def test_flips_as_numbers_are_flips():
    flips = np.array([0, 1, 1, 0])
    for kind in ("int64", "float32", "uint8"):
        data = changed(flipped_a=flips.astype(kind))
        check_values(data)
        found = checked(data)["flipped_a"]
        assert found.dtype == tf.bool
        np.testing.assert_array_equal(found, flips == 1)


def test_what_the_pipeline_makes_is_right():
    """Colours left to the step; and normalised, as the host would leave them."""
    options = {"batch_size": 8, "image_size": 32, "augment_on": "device"}
    for data in crop_pair_dataset(open_source("fake"), **options).take(2):
        check_values(checked(data))
        check_normalised("view_a", normalize(tf.cast(data["view_a"], tf.float32)))


def test_what_is_odd_but_right_passes():
    """Crops apart have inverted boxes; flat or infinite images are no grey levels."""
    inverted = np.float32([[3.5, 0, 0.9, 1], *[[0.2, 0, 0.8, 1]] * 3])
    nothing = np.full((4, 64, 64, 3), np.nan, "float32")
    check_values(changed(overlap_a=inverted, view_b=nothing))
    check_values(changed(view_a=np.zeros((4, 64, 64, 3), "float32")))
    check_values(changed(view_a=np.tanh(batch()["view_a"])))  # -1 .. 1


@pytest.mark.parametrize(("low", "high"), [(225, 256), (124, 256), (180, 230)])
def test_bright_images_pass(low, high):
    """Paper, snow, brightfield: nothing below the mean, in views or for slots."""
    rng = np.random.default_rng(0)
    grey = rng.integers(low, high, (4, 64, 64, 3)).astype("float32")
    check_normalised("view_a", normalize(grey))
    with pytest.raises(ValueError, match="grey levels in 0..255"):
        check_normalised("view_a", grey)
    if high == 256:
        with pytest.raises(ValueError, match="floats in 0..1"):
            check_normalised("view_a", grey / 255)


IMAGES = np.zeros((8, 64, 64, 3), "uint8")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (IMAGES, r"an array of shape \(8, 64, 64, 3\)"),
        (tf.constant(IMAGES), r"an array of shape \(8, 64, 64, 3\)"),
        (list(IMAGES), "a list"),
        (tf.data.Dataset.from_tensor_slices(IMAGES).batch(4), "an array of shape"),
        (
            tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(8))).batch(4),
            "an array of shape",
        ),
        ("photos", "a str"),
        (pathlib.Path("photos"), "a PosixPath"),
        ({"image": IMAGES}, "no view_a, view_b"),
    ],
    ids=["array", "tensor", "list", "dataset", "labelled", "text", "path", "dict"],
)
def test_images_are_no_batch(model, images, words):
    words += ".*crop_pair_dataset"
    for act in (model.fit, model.evaluate):
        refused(model, lambda act=act: act(images, verbose=0), words)
    validated = {"validation_data": images, "verbose": 0}
    refused(model, lambda: model.fit(dataset(1), **validated), words)


def test_nothing_is_no_batch_either(model):
    refused(model, lambda: model.fit(verbose=0), "Received: nothing.*crop_pair_dataset")


def test_predict_takes_images(model):
    with pytest.raises(ValueError, match="dict of view_a.*fit or evaluate"):
        model(batch())


@pytest.mark.parametrize(
    ("scale", "words"),
    [(255, "grey levels in 0..255"), (1, "floats in 0..1")],
)
def test_nor_images_that_are_not_normalised(model, scale, words):
    images = np.random.default_rng(0).uniform(0, scale, (2, 64, 64, 3))
    with pytest.raises(ValueError, match=words):
        model.predict(images.astype(np.float32), verbose=0)
    bytes_ = (255 * images / scale).astype(np.uint8)
    for act in (model, model.predict_on_batch):
        with pytest.raises(ValueError, match="uint8. Take model.slots"):
            act(bytes_)
    with pytest.raises(ValueError, match="0..255"):
        model.predict(bytes_, verbose=0)


def endless():
    return dataset(1).repeat()


def unknown():
    spec = dataset(1).element_spec
    return tf.data.Dataset.from_generator(lambda: [batch()], output_signature=spec)


def test_an_epoch_without_end_is_refused(model):
    refused(model, lambda: model.fit(endless(), verbose=0), "steps_per_epoch=N")


def test_nor_one_of_a_strategy(mirrored):
    strategy = mirrored(2)
    with strategy.scope():
        model = small_model()
    data = strategy.experimental_distribute_dataset(endless())
    refused(model, lambda: model.fit(data, verbose=0), "steps_per_epoch=N")


class Finite(keras.utils.PyDataset):
    num_batches = None  # Keras: no end

    def __getitem__(self, index):
        return (batch(),)


def test_so_is_a_py_dataset(model):
    refused(model, lambda: model.fit(Finite(), verbose=0), "steps_per_epoch=N")


@pytest.mark.parametrize("data", [unknown, lambda: dataset(3).filter(lambda b: True)])
def test_a_length_that_is_not_known_is_told(model, data):
    options = {"callbacks": [NotFurther()], "verbose": 0}
    with pytest.warns(UserWarning) as caught, pytest.raises(Started):
        model.fit(data(), **options)
    (told,) = [w for w in caught if "cannot tell" in str(w.message)]
    assert "total_steps=10" in str(told.message) and told.filename == __file__


def test_generators_of_dicts_evaluate():
    model = small_model()
    model.compile(run_eagerly=True)
    data = batch()
    expected = model.evaluate(dataset(1), verbose=0)
    assert model.evaluate((b for b in [data]), verbose=0) == expected
    options = {"validation_data": (b for b in [data]), "verbose": 0}
    found = model.fit((b for b in [data]), steps_per_epoch=1, **options).history
    assert "val_loss" in found


def test_a_validation_without_end_is_refused(model):
    words = "must have an end.*validation_steps=N"
    options = {"validation_data": endless(), "verbose": 0}
    refused(model, lambda: model.fit(dataset(1), **options), words)
    refused(model, lambda: model.evaluate(endless(), verbose=0), "steps=N")


class Started(Exception):
    """Raised where the first epoch begins."""


class NotFurther(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise Started


@pytest.mark.parametrize(
    ("done", "steps", "options", "words"),
    [
        (0, 5, {"epochs": 2}, None),
        (0, None, {"epochs": 2, "steps_per_epoch": 5}, None),
        (4, 3, {"epochs": 2}, None),
        (4, 3, {"epochs": 5, "initial_epoch": 3}, None),
        (0, 5, {"epochs": 3}, "will end at step 15 .*5 steps past total_steps=10"),
        (0, None, {"epochs": 2, "steps_per_epoch": 9}, "step 18 .*8 steps past"),
        (0, 5, {}, "will end at step 5 .*before total_steps=10"),
        (4, 5, {"epochs": 2}, "step 14 .*after 4.*4 steps past"),
        (4, 3, {"epochs": 5, "initial_epoch": 4}, "step 7 .*before total_steps=10"),
    ],
)
def test_a_length_that_does_not_fit_is_told(model, done, steps, options, words):
    data = endless() if steps is None else dataset(steps)
    model.step.assign(done)
    try:
        with warnings.catch_warnings(record=True) as caught, pytest.raises(Started):
            warnings.simplefilter("always")
            model.fit(data, callbacks=[NotFurther()], verbose=0, **options)
    finally:
        model.step.assign(0)
    told = [str(w.message) for w in caught if "total_steps" in str(w.message)]
    if words is None:
        assert not told
    else:
        (text,) = told
        assert re.search(words, text) and "\n" not in text


def test_length_of_arrays_and_sequences(model):
    """Keras counts these; the last, smaller batch too."""
    with pytest.warns(UserWarning, match="will end at step 2 "), pytest.raises(Started):
        model.fit(batch(count=6), batch_size=4, callbacks=[NotFurther()], verbose=0)


def test_labels_are_told_to_be_ignored(model):
    data = batch()
    options = {"callbacks": [NotFurther()], "verbose": 0}
    with pytest.warns(UserWarning, match="ignores y"), pytest.raises(Started):
        model.fit(data, np.zeros(4), **options)
    weighted = {"class_weight": {0: 1.0}, "sample_weight": np.ones(4)}
    with (
        pytest.warns(UserWarning, match="ignores sample_weight, class_weight"),
        pytest.raises(Started),
    ):
        model.fit(dataset(2), **weighted, **options)
