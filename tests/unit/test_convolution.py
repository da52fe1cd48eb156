"""Convolutions with gradients of their own equal Keras's, and stay plain outside."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import backbone
from slotcon_tf.encoders import convolution
from slotcon_tf.encoders.convolution import Conv2D
from slotcon_tf.processor import ONEDNN
from slotcon_tf.serving.folding import fold_batch_norm
from tests.support.command import run

# (height, width, channels, filters, kernel, stride, dilation, groups): every shape of
# the family, small: plain, strided, dilated, on maps smaller than the kernel's reach;
# with many filters (products of matrices) and with few (other convolutions).
SHAPES = [
    (5, 6, 3, 40, 1, 1, 1, 1),
    (5, 6, 3, 4, 1, 2, 1, 1),
    (4, 4, 2, 96, 3, 1, 1, 1),
    (9, 8, 2, 4, 3, 1, 1, 1),
    (9, 9, 2, 96, 3, 2, 1, 1),
    (10, 9, 2, 4, 3, 2, 1, 1),
    (13, 12, 3, 4, 7, 2, 1, 1),
    (4, 4, 2, 96, 3, 1, 2, 1),
    (9, 8, 2, 4, 3, 1, 2, 1),
    (2, 2, 2, 32, 3, 1, 4, 1),
    (6, 6, 8, 16, 3, 1, 1, 4),
    (9, 9, 8, 16, 3, 2, 1, 4),
    (7, 7, 8, 16, 3, 1, 2, 4),
]


@pytest.fixture
def without_onednn(monkeypatch):
    """Layers choose as in a process whose TensorFlow has none; kernels do not know."""
    monkeypatch.setattr(convolution, "onednn_is_on", lambda: False)


def layer(kind, filters, kernel, stride, dilation, groups, **options):
    padding = "same" if stride == 1 else "valid"
    return kind(
        filters,
        kernel,
        strides=stride,
        dilation_rate=dilation,
        groups=groups,
        padding=padding,
        **options,
    )


def gradients(one, x, dy):
    """Outputs, and gradients of the inputs and of the weights."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = one(x)
    return y, *tape.gradient(y, [x, *(w.value for w in one.trainable_weights)], dy)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients_are_keras_own(shape, float64, without_onednn):
    """float64: rounding apart, nothing may differ. Eagerly, and in a graph whose image
    sizes are known, or not."""
    height, width, channels, filters, *settings = shape
    x = tf.constant(np.random.default_rng(0).normal(size=(2, height, width, channels)))
    options = {"use_bias": True, "activation": "tanh"}
    own = layer(Conv2D, filters, *settings, **options)
    keras_own = layer(keras.layers.Conv2D, filters, *settings, **options)
    dy = tf.constant(np.random.default_rng(1).normal(size=own(x).shape))
    keras_own.build(x.shape)
    keras_own.set_weights(own.get_weights())
    expected = gradients(keras_own, x, dy)
    free = tf.TensorSpec([None, None, None, channels], tf.float64)
    ways = {
        "eager": lambda function: function,
        "graph": tf.function,
        "free sizes": tf.function(input_signature=[free]),
    }
    for name, way in ways.items():
        found = way(lambda x: gradients(own, x, dy))(x)
        for got, truth in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, truth, atol=1e-12, err_msg=name)


def operations(function):
    """Types of the operations of a traced function, those of functions in it too."""
    definition = function.graph.as_graph_def()
    nodes = [*definition.node]
    for inner in definition.library.function:
        nodes += inner.node_def
    return [node.op for node in nodes]


def traced(one, x):
    function = tf.function(lambda x, dy: gradients(one, x, dy))
    return function.get_concrete_function(x, one(x))


def test_no_slow_gradient_is_left(without_onednn):
    """Small and dilated maps never meet TensorFlow's gradient of the inputs."""
    for height, _, channels, filters, *settings in SHAPES:
        if settings[-1] > 1 or (settings[2] == 1 and filters < 32):
            continue
        x = tf.zeros((2, height, height, channels))
        found = operations(traced(layer(Conv2D, filters, *settings), x))
        assert "Conv2DBackpropInput" not in found, settings


def test_groups_are_computed_one_by_one_on_a_cpu():
    """With oneDNN too, since XLA's gradients are slow; whole where none is asked."""
    x = tf.zeros((2, 6, 6, 8))
    one = layer(Conv2D, 16, 3, 1, 1, 4)
    assert operations(traced(one, x)).count("Conv2D") == 4
    assert operations(tf.function(one).get_concrete_function(x)).count("Conv2D") == 1


def test_plain_where_onednn_computes_and_under_xla(monkeypatch):
    x, one = tf.zeros((2, 4, 4, 8)), layer(Conv2D, 96, 3, 1, 1, 1)
    monkeypatch.setattr(convolution, "onednn_is_on", lambda: True)
    assert "Conv2DBackpropInput" in operations(traced(one, x))
    monkeypatch.setattr(convolution, "onednn_is_on", lambda: False)
    compiled = []

    @tf.function(jit_compile=True)
    def step(x):
        compiled.append(one._differentiates_itself())
        return one(x)

    step(x)
    assert compiled == [False]


def test_exports_hold_plain_convolutions(tmp_path, without_onednn):
    """What a user exports by Keras, as by this project, has no trace of training."""
    encoder = backbone("resnet10", width=8, input_shape=(32, 32, 3))
    encoder.export(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    found = operations(loaded.signatures["serving_default"])
    assert "Conv2D" in found
    assert not [op for op in found if "Backprop" in op or op == "MatMul"]
    # The project's own exports, ONNX among them, fold normalisation first.
    kinds = {type(one) for one in fold_batch_norm(encoder).layers}
    assert keras.layers.Conv2D in kinds and Conv2D not in kinds
    images = tf.constant(
        np.random.default_rng(0).normal(size=(1, 32, 32, 3)), "float32"
    )
    np.testing.assert_allclose(
        loaded.serve(images), encoder(images, training=False), atol=1e-5
    )


@pytest.mark.slow
def test_onednn_off_in_a_process_of_its_own():
    """The real switch: a dilated step of small maps is what it is with oneDNN."""
    code = (
        "import slotcon_tf, json, sys, tensorflow as tf\n"
        "from slotcon_tf.encoders.convolution import Conv2D\n"
        "from slotcon_tf.processor import onednn_is_on\n"
        "one = Conv2D(64, 3, dilation_rate=2, padding='same', kernel_initializer="
        "tf.constant_initializer(0.01))\n"
        "x = tf.reshape(tf.range(2 * 16 * 64, dtype='float32'), (2, 4, 4, 64)) / 1e3\n"
        "with tf.GradientTape() as tape:\n"
        "    tape.watch(x)\n"
        "    y = tf.reduce_sum(tf.square(one(x)))\n"
        "dx = tape.gradient(y, x)\n"
        "print(json.dumps([onednn_is_on(), one._differentiates_itself(), float(y),"
        " float(tf.reduce_sum(dx)), float(tf.reduce_max(dx))]))\n"
    )
    found = {}
    for setting in "01":
        words = ("env", f"{ONEDNN}={setting}", sys.executable, "-c", code)
        found[setting] = json.loads(run(*words).stdout)
    assert found["0"][:2] == [False, True]
    if not found["1"][0]:
        pytest.skip("this TensorFlow has no oneDNN")
    assert found["1"][:2] == [True, False]
    np.testing.assert_allclose(found["0"][2:], found["1"][2:], rtol=1e-5)
