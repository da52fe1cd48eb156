"""Folded, low-precision and quantised encoders answer as the encoder does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import backbone
from slotcon_tf.images import normalize
from slotcon_tf.serving.archive import export_model
from slotcon_tf.serving.folding import can_fold, fold_batch_norm
from slotcon_tf.serving.quantization import quantize_int8
from slotcon_tf.training.normalization import BatchNormalization
from tests.support.small_case import used


def resnet(arch="resnet18", **options):
    return used(backbone(arch, width=8, **options))


def normalizations(model):
    kinds = (BatchNormalization, keras.layers.BatchNormalization)
    return sum(isinstance(layer, kinds) for layer in model.layers)


def relative_error(found, truth):
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (resnet, 0),
        (lambda: resnet("resnet50_d", output_stride=16), 0),
        # Those behind the depthwise convolutions stay.
        (
            lambda: used(
                keras.applications.MobileNetV2(
                    (64, 64, 3), alpha=0.35, include_top=False, weights=None
                )
            ),
            17,
        ),
    ],
    ids=["resnet18", "resnet50_d", "mobilenet"],
)
def test_folding_changes_nothing_but_rounding(make, left):
    encoder = make()
    folded = fold_batch_norm(encoder)
    assert normalizations(folded) == left
    images = np.random.default_rng(1).standard_normal((2, 64, 64, 3), np.float32)
    truth = np.asarray(encoder(images, training=False))
    # float32's rounding through some fifty layers.
    assert relative_error(np.asarray(folded(images)), truth) < 1e-5


def test_what_feeds_two_layers_is_not_folded():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    y = BatchNormalization()(x)
    encoder = used(keras.Model(inputs, keras.layers.Add()([x, y])))
    folded = fold_batch_norm(encoder)
    assert normalizations(folded) == 1
    images = np.random.default_rng(1).standard_normal((2, 8, 8, 3), np.float32)
    np.testing.assert_allclose(folded(images), encoder(images), atol=1e-6)


def test_what_is_not_functional_is_exported_as_it_is(tmp_path):
    class Opaque(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = resnet()

        def call(self, images):
            return self.inner(images)

    encoder = Opaque()
    encoder(np.zeros((1, 32, 32, 3), np.float32))
    assert not can_fold(encoder)
    path = export_model(encoder, tmp_path)
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert served(tf.zeros([2, 32, 32, 3], tf.uint8))["map"].shape == (2, 1, 1, 64)
    with pytest.raises(ValueError, match="not a functional"):
        export_model(encoder, tmp_path, precision="bfloat16")


@pytest.mark.slow
def test_bfloat16_export_stays_near(tmp_path):
    encoder = resnet()
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    truth = encoder(normalize(tf.cast(images, tf.float32)), training=False)
    path = export_model(encoder, tmp_path, precision="bfloat16")
    assert path.name == "1" and export_model(encoder, tmp_path).name == "2"
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = served(tf.constant(images))["map"]
    assert found.dtype == tf.float32
    # bfloat16 has 8 bits: 0.4% per rounding, some twenty of them add up at random.
    assert 1e-4 < relative_error(found.numpy(), truth.numpy()) < 0.03


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_int8_answers_as_the_encoder():
    encoder = resnet()
    # None is bright: the scale of the input must not follow them.
    images = np.random.default_rng(0).integers(20, 150, (40, 32, 32, 3), dtype=np.uint8)
    content = quantize_int8(fold_batch_norm(encoder), images[:32])
    interpreter = tf.lite.Interpreter(model_content=content)
    (source,) = interpreter.get_input_details()
    assert source["quantization"] == (1.0, 0)
    interpreter.resize_tensor_input(source["index"], [8, 32, 32, 3])
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], images[32:])
    interpreter.invoke()
    found = [
        interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()
    ]
    pooled = next(x for x in found if x.ndim == 2)
    maps = encoder(normalize(tf.cast(images[32:], tf.float32)), training=False)
    # Eight bits per tensor: 1/256 of the range, some twenty times.
    assert relative_error(pooled, np.mean(maps, axis=(1, 2))) < 0.1
    with pytest.raises(ValueError, match="uint8"):
        quantize_int8(encoder, images.astype(np.float32))
