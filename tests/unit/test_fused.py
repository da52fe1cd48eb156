"""One-pass updates equal their definitions; devices are told apart."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import devices, processor
from slotcon_tf.training.updates import apply_momentum, norm, subtract_scaled


@pytest.mark.parametrize("make", [keras.Variable, tf.Variable])
@pytest.mark.parametrize("jit", [False, True])
def test_updates_equal_their_definitions(make, jit):
    rng = np.random.default_rng(0)
    w, m, d = rng.standard_normal((3, 4, 5)).astype(np.float32)
    variable, buffer = make(w), make(m)

    @tf.function(jit_compile=jit)
    def update(direction):
        apply_momentum(variable, buffer, direction, 0.1, 0.9)
        subtract_scaled(variable, 0.5, direction)
        return norm(direction)

    found = update(tf.constant(d))
    buffered = 0.9 * m + d
    np.testing.assert_allclose(buffer.numpy(), buffered, rtol=1e-6)
    truth = w - 0.1 * buffered - 0.5 * d
    np.testing.assert_allclose(variable.numpy(), truth, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found, np.linalg.norm(d), rtol=1e-6)


def test_xla_is_seen_while_tracing():
    seen = []

    def note():
        seen.append(devices.compiled_by_xla())
        return tf.constant(0)

    tf.function(note)()
    tf.function(note, jit_compile=True)()
    tf.function(lambda: tf.function(note)(), jit_compile=True)()
    assert seen == [False, True, True]


@pytest.mark.parametrize(
    ("features", "precision"),
    [
        ("fpu avx2 avx512f avx512_bf16", "mixed_bfloat16"),
        ("fpu amx_bf16 amx_tile", "mixed_bfloat16"),
        ("fpu avx2 avx512f", "float32"),
        ("", "float32"),
    ],
)
def test_precision_of_a_processor(features, precision, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\nmodel name : X\nflags\t\t: {features}\n")
    monkeypatch.setattr(processor, "CPU_INFO", file)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    assert devices.best_precision() == precision


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "mixed_bfloat16"), ((8, 0), "mixed_bfloat16"), ((7, 5), "float32")],
)
def test_precision_of_a_gpu(capability, precision, monkeypatch):
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind: ["x"] if kind == "GPU" else []
    )
    details = {"compute_capability": capability}
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: details
    )
    assert devices.best_precision() == precision


def test_numbers_of_float64_are_not_rounded_to_float32():
    """A momentum of 0.9 as float32 is off by 2e-8, which golden steps would show."""
    variable = tf.Variable([1.0], dtype=tf.float64)
    buffer = tf.Variable([1.0], dtype=tf.float64)
    direction = tf.zeros([1], tf.float64)
    apply_momentum(variable, buffer, direction, learning_rate=0.1, momentum=0.9)
    assert float(buffer[0]) == 0.9
    assert float(variable[0]) == 1.0 - 0.1 * 0.9
