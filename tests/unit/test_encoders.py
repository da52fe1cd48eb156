"""What an encoder must be, and what a refusal says."""

import json
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from slotcon_tf import SlotCon
from slotcon_tf.encoders.contract import as_encoder, loading
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.interop import keras_cv_backbone
from tests.support.small_case import SIZES, small_encoder

IMAGES = (64, 64, 3)


def top(x):
    return layers.Conv2D(8, 8, strides=8, name="first_conv")(x)


def model_of(function, shape=IMAGES):
    images = keras.Input(shape, name="images")
    return keras.Model(images, function(images), name="theirs")


def application(name, **options):
    build = getattr(keras.applications, name)
    return build(weights=None, include_top=False, input_shape=IMAGES, **options)


def nested(preprocess):
    """A model whose first layer is a model that begins with the scaling."""
    inner = model_of(lambda x: top(preprocess(x)))
    return model_of(lambda x: layers.ReLU()(inner(x)))


def cv():
    return __import__("keras_cv").models.ResNetV2Backbone(
        stackwise_filters=[8, 16],
        stackwise_blocks=[2, 2],
        stackwise_strides=[1, 2],
        include_rescaling=True,
        input_shape=IMAGES,
    )


SCALING = {
    "EfficientNetB0": lambda: application("EfficientNetB0"),
    "EfficientNetV2B0": lambda: application("EfficientNetV2B0"),
    "MobileNetV3Small": lambda: application("MobileNetV3Small"),
    "ConvNeXtTiny": lambda: application("ConvNeXtTiny"),
    "keras-cv": cv,
    "Rescaling": lambda: model_of(lambda x: top(layers.Rescaling(1 / 255)(x))),
    "Sequential": lambda: keras.Sequential(
        [keras.Input(IMAGES), layers.Normalization(mean=120, variance=9), top_layer()]
    ),
    "after padding": lambda: model_of(
        lambda x: top(layers.Rescaling(2.0)(layers.ZeroPadding2D(1)(x)))
    ),
    "nested": lambda: nested(layers.Rescaling(1 / 255)),
    "nested Sequential": lambda: model_of(
        lambda x: top(keras.Sequential([layers.Rescaling(1 / 255)])(x))
    ),
    "arithmetic": lambda: model_of(lambda x: top(x / 127.5 - 1.0)),
    "our own for keras-cv": lambda: keras_cv_backbone(
        __import__("slotcon_tf").backbone("resnet10", width=8)
    ),
}


def top_layer():
    return layers.Conv2D(8, 8, strides=8)


@pytest.mark.parametrize("name", SCALING)
def test_encoders_that_scale_their_images_are_refused(name):
    with pytest.raises(ValueError, match="include_preprocessing=False") as caught:
        as_encoder(SCALING[name]())
    text = str(caught.value)
    assert "must take normalised images" in text and "\n" not in text
    # EfficientNetB0 has no such argument: first comes what can be done.
    cut, words = text.find("Take keras.Model("), text.find("include_preprocessing")
    assert (0 < cut < words) or "EfficientNetB0" not in name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MobileNetV3Small", {"include_preprocessing": False}),
        ("MobileNetV2", {}),
    ],
)
def test_the_argument_turns_it_off(name, options):
    model = application(name, **options)
    assert as_encoder(model) is model


def test_what_the_refusal_offers_works():
    """Where a model has no argument for it: the cut that the error writes down."""
    encoder = application("MobileNetV3Small")
    with pytest.raises(ValueError) as caught:
        as_encoder(encoder)
    code = str(caught.value).partition("Take keras.Model")[2].partition(". Where")[0]
    cut = eval(f"keras.Model{code}", {"keras": keras, "encoder": encoder})
    model = SlotCon(cut, total_steps=4, **SIZES)
    x = np.random.default_rng(0).normal(size=(1, *IMAGES)).astype("float32")
    grey = 127.5 * (x + 1)
    np.testing.assert_allclose(model(x)["map"], encoder(grey), atol=1e-5)


def test_scaling_inside_of_a_network_is_its_own_affair():
    encoder = model_of(lambda x: layers.Rescaling(0.5)(top(x)))
    assert as_encoder(encoder) is encoder


def tokens():
    return model_of(lambda x: layers.Reshape((64, 8))(top(x)))


def channels_first():
    """Channels-last outside, channels-first inside: its last axis is the width."""

    def inside(x):
        x = layers.Permute((3, 1, 2))(x)
        return layers.MaxPooling2D(8, data_format="channels_first")(x)

    return model_of(inside)


def bytes_in():
    images = keras.Input((64, 64, 3), dtype="uint8")
    return keras.Model(images, top(images))


def quantized():
    model = model_of(lambda x: layers.Dense(8)(top(x)))
    model.quantize("int8")
    return model


def test_resizing_keeps_views_aligned():
    made = model_of(lambda x: top(layers.Resizing(64, 64)(x)))
    assert SlotCon(made, total_steps=4, **SIZES).encoder is made
    made = model_of(lambda x: top(layers.Resizing(64, 64, pad_to_aspect_ratio=True)(x)))
    with pytest.raises(ValueError, match="a Resizing. Leave it out"):
        SlotCon(made, total_steps=4, **SIZES)


WRONG = {
    "Lambda": (
        lambda: model_of(lambda x: top(layers.Lambda(lambda y: 2 * y)(x))),
        "Lambda layer .* keras.layers.Layer",
    ),
    "channels_first": (channels_first, "max_pooling2d.*data_format='channels_last'"),
    "channels_first input": (
        lambda: model_of(lambda x: layers.ReLU()(x), (3, 64, 64)),
        "channels_last",
    ),
    "dict": (
        lambda: model_of(lambda x: {"P4": layers.ReLU()(x), "P5": top(x)}),
        r"keras.Model\(encoder.input, encoder.output\['P5'\]\)",
    ),
    "list": (
        lambda: model_of(lambda x: [layers.ReLU()(x), top(x)]),
        r"keras.Model\(encoder.input, encoder.output\[-1\]\)",
    ),
    "flips": (
        lambda: model_of(lambda x: top(layers.RandomFlip()(x))),
        "leave pixels where they are.*random_flip.*a RandomFlip. Leave it out",
    ),
    "colours": (
        lambda: model_of(
            lambda x: top(keras.Sequential([layers.RandomBrightness(0.1)])(x))
        ),
        "leave pixels where they are.*a RandomBrightness",
    ),
    "crops": (
        lambda: model_of(lambda x: top(layers.CenterCrop(32, 32)(x))),
        "leave pixels where they are.*a CenterCrop",
    ),
    "bytes": (bytes_in, "inputs of uint8. Build it with keras.Input"),
    "quantized": (quantized, "weights that learn.*quantized to int8"),
    "tokens": (tokens, "These are tokens: .*keras.layers.Reshape"),
    "pooled": (
        lambda: model_of(lambda x: layers.GlobalAveragePooling2D()(top(x))),
        "include_top=False, pooling=None",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_encoders_are_refused(name):
    make, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as caught:
        SlotCon(make(), total_steps=4, **SIZES)
    text = str(caught.value)
    assert "encoder must" in text and "Received: " in text and "\n" not in text


LOADED = {
    "scaling": lambda: model_of(lambda x: top(layers.Rescaling(0.5)(x))),
    "channels_first": channels_first,
}


@pytest.mark.parametrize("name", LOADED)
def test_what_is_refused_anew_is_loaded_with_a_warning(name, tmp_path):
    """Files and runs of days with fewer checks."""
    with warnings.catch_warnings(), loading():
        warnings.simplefilter("ignore")
        model = SlotCon(LOADED[name](), total_steps=4, **SIZES)
    model.save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match="Loaded as it was saved: encoder must"):
        again = keras.models.load_model(tmp_path / "m.keras")
    x = np.ones((1, *IMAGES), "float32")
    if name == "scaling":
        np.testing.assert_allclose(again(x)["map"], model(x)["map"], atol=1e-6)
    with pytest.raises(ValueError, match="encoder must"):
        SlotCon(again.encoder, total_steps=4, **SIZES)
    with pytest.warns(UserWarning, match="Loaded as it was saved: encoder must"):
        Inference(again.encoder)


class Scale(layers.Layer):
    """A layer of a user's script that is not registered."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def swish_of_mine(x):
    return x * ops.sigmoid(x)


class Halves(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return ops.full(shape, 0.5, dtype)


class MyNet(keras.Model):
    """A functional model of a class of one's own."""

    def __init__(self, width=8, **kwargs):
        images = keras.Input((None, None, 3))
        x = layers.Conv2D(width, 8, strides=8, activation=swish_of_mine)(images)
        super().__init__(images, Scale(2.0)(x), **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def mine():
    conv = layers.Conv2D(
        8, 8, strides=8, activation=swish_of_mine, kernel_initializer=Halves()
    )
    return model_of(lambda x: Scale(3.0)(conv(x)))


@pytest.mark.parametrize("make", [mine, MyNet])
def test_layers_of_a_script_survive_the_making_of_the_teacher(make, tmp_path):
    model = SlotCon(make(), total_steps=4, **SIZES)
    images = np.random.default_rng(0).normal(size=(2, *IMAGES)).astype("float32")
    expected = model.student(images)["map"]
    np.testing.assert_array_equal(model.teacher(images)["map"], expected)
    np.testing.assert_array_equal(model.feature_extractor()(images), expected)
    path = tmp_path / "model.keras"
    model.save(path)
    known = [Scale, swish_of_mine, Halves, MyNet]
    loaded = keras.models.load_model(
        path, custom_objects={each.__name__: each for each in known}
    )
    np.testing.assert_allclose(loaded(images)["map"], expected, atol=1e-6)


class NoConfig(keras.Model):
    def __init__(self, inputs_of, **kwargs):
        images = keras.Input(IMAGES)
        super().__init__(images, inputs_of(images), **kwargs)


class Shared(keras.Model):
    """Its configuration holds the layer itself: a copy would share the weights."""

    def __init__(self, layer):
        images = keras.Input(IMAGES)
        super().__init__(images, layer(images))
        self.layer = layer

    def get_config(self):
        return {"layer": self.layer}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@pytest.mark.parametrize(
    "make", [lambda: NoConfig(top), lambda: Shared(top_layer())], ids=["none", "shared"]
)
def test_what_cannot_be_copied_is_refused(make):
    with pytest.raises(ValueError, match="copy from its configuration") as caught:
        SlotCon(make(), total_steps=4, **SIZES)
    assert "\n" not in str(caught.value) and "get_config" in str(caught.value)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float32"])
def test_dtype_reaches_all_parts(policy):
    model = SlotCon(small_encoder(), total_steps=4, dtype=policy, **SIZES)
    compute = keras.DTypePolicy(policy).compute_dtype
    grouping = model.student.grouping
    for network in (model.student, model.teacher):
        for layer in network._flatten_layers():
            # A model that only holds layers computes nothing.
            holds = isinstance(layer, keras.Model | layers.InputLayer)
            if layer.name != grouping.name and not holds:
                assert layer.compute_dtype == compute, layer.path
    assert model.predictor.dense_0.compute_dtype == compute
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert grouping.compute_dtype == model.center.dtype == "float32"
    again = SlotCon.from_config(model.get_config())
    assert again.encoder.layers[-1].compute_dtype == compute


def test_loading_keeps_the_precision(tmp_path):
    """Of a float32 encoder in a model in the global policy, which was not asked for."""
    encoder = small_encoder()
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = SlotCon(encoder, total_steps=4, **SIZES)
    model.save(tmp_path / "m.keras")
    config = json.loads(json.dumps(model.get_config()))  # of a run's model.json
    for again in (
        keras.models.load_model(tmp_path / "m.keras"),
        SlotCon.from_config(config),
    ):
        for one in (model, again):
            assert one.encoder.layers[-1].compute_dtype == "float32"
            assert one.teacher.encoder.layers[-1].compute_dtype == "float32"
        assert again.predictor.dense_0.compute_dtype == "bfloat16"
    other = SlotCon.from_config({**config, "dtype": "mixed_bfloat16"})  # from_preset
    assert other.encoder.layers[-1].compute_dtype == "bfloat16"


def test_an_asked_policy_is_loaded_with_any_encoder():
    """Its configuration need not hold it; and the teacher has it too."""
    model = SlotCon(MyNet(), total_steps=4, dtype="mixed_bfloat16", **SIZES)
    with keras.saving.custom_object_scope({"MyNet": MyNet}):
        again = SlotCon.from_config(json.loads(json.dumps(model.get_config())))
    for one in (model, again):
        for network in (one.student, one.teacher):
            assert network.encoder.layers[1].compute_dtype == "bfloat16"


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
@pytest.mark.parametrize("way", ["global", "argument", "encoder"])
def test_half_weights_are_refused(policy, way):
    """A moving average's small steps would be lost in them."""
    options = {"dtype": policy} if way == "argument" else {}
    with pytest.raises(ValueError, match=f"Weights must.*Take mixed_{policy}"):
        if way != "argument":
            keras.config.set_dtype_policy(policy)
        encoder = small_encoder()
        if way == "encoder":
            keras.config.set_dtype_policy("float32")
        SlotCon(encoder, total_steps=4, **options, **SIZES)


def test_policies_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Weights must learn.*int8_from_float32"):
        SlotCon(small_encoder(), total_steps=4, dtype="int8_from_float32", **SIZES)
    with pytest.raises(ValueError, match="dtype='float64' for .*Build the encoder"):
        SlotCon(small_encoder(), total_steps=4, dtype="float64", **SIZES)
    keras.config.set_dtype_policy("mixed_float16")
    encoder = small_encoder()
    keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match=r"SlotCon\(dtype='mixed_float16'\)"):
        SlotCon(encoder, total_steps=4, **SIZES)


def test_an_encoder_from_outside_of_a_strategy_is_refused(mirrored):
    encoder = small_encoder()
    with mirrored(2).scope(), pytest.raises(ValueError, match="strategy.scope"):
        SlotCon(encoder, total_steps=4, **SIZES)
