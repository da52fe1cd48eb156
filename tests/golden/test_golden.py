"""Parity with the original's code, step by step (see golden_case.py)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.interop.names import model_entries
from slotcon_tf.method.objective import active_slots, align, pool_slots
from slotcon_tf.method.teacher import teacher_update_rate
from slotcon_tf.training.schedules import WarmupCosine
from tests.support.golden_case import (
    GOLDEN,
    STEPS,
    GoldenCase,
    distribute,
    draw,
    sample_indices,
)

# float64 against float64: what is left is the order of summation, amplified by
# four steps of normalisation over small batches.
FLOAT64_TOLERANCE = 1e-6
# The recorder's own float32-against-float64 differences (its README).
FLOAT32_NOISE = {
    "loss": 2e-5,
    "grouping": 1e-4,
    "contrastive": 2e-4,
    "norm": 2e-4,
    "sample": 2.4e-3,
    # Not in the README: mu_norm against mu_norm_f64 of case tinyA, the largest.
    "buffer norm": 2.5e-2,
    "buffer sample": 7e-2,
}


def train(case, model, step_function):
    """Four steps; yields the reported losses and the largest state errors."""
    for step in range(STEPS):
        model.reset_metrics()
        logs = step_function(case.batch(step))
        yield step, {k: float(v) for k, v in logs.items()}


def check(case, model, step_function, suffix, tolerance):
    """Asserts parity after each step; returns the largest errors."""
    worst = dict.fromkeys(tolerance, 0.0)

    def note(kind, error, what):
        worst[kind] = max(worst[kind], float(error))
        assert error <= tolerance[kind], (what, error)

    initial = case.state_errors(model, 0, suffix)
    assert initial["norm"][0] < 1e-5, initial
    for step, logs in train(case, model, step_function):
        truth = {
            "loss": case.arrays[f"loss{suffix}"][step],
            "grouping_loss": case.arrays[f"distill{suffix}"][step].sum(),
            "slot_contrastive_loss": case.arrays[f"ctr{suffix}"][step].sum(),
        }
        kinds = ("loss", "grouping", "contrastive")
        for kind, (name, value) in zip(kinds, truth.items(), strict=True):
            note(kind, abs(logs[name] - value) / abs(value), f"step {step} {name}")
        for kind, (error, key) in case.state_errors(model, step + 1, suffix).items():
            note(kind, error, f"step {step} {kind} of {key}")
    for kind, (error, key) in buffer_errors(case, model, suffix).items():
        note(f"buffer {kind}", error, f"LARS buffer {kind} of {key}")
    return worst


def buffer_errors(case, model, suffix):
    keys = list(map(str, case.arrays["param_keys"]))
    entries = model_entries(model)
    worst = {"norm": (0.0, ""), "sample": (0.0, "")}
    for row, key in enumerate(keys):
        index = model.optimizer._get_variable_index(entries[key].variable)
        value = entries[key].layout.to_torch(model.optimizer.buffers[index])
        value = value.astype(np.float64)
        norm = case.arrays[f"mu_norm{suffix}"][row]
        # Biases before a batch norm have no gradient in truth, only noise.
        error = abs(np.linalg.norm(value) - norm) / max(norm, 1e-2)
        worst["norm"] = max(worst["norm"], (error, key))
        flat = value.reshape(-1)
        got = flat[sample_indices(key, flat.size).astype(int)]
        error = np.abs(got - case.arrays[f"mu_samples{suffix}"][row]).max()
        worst["sample"] = max(worst["sample"], (error, key))
    return worst


@pytest.mark.parametrize("name", ["tinyA", pytest.param("A", marks=pytest.mark.slow)])
def test_float64_matches_the_original(name, float64, record_property):
    case = GoldenCase(name)
    model = case.model()
    tolerance = dict.fromkeys(FLOAT32_NOISE, FLOAT64_TOLERANCE)
    worst = check(
        case, model, tf.function(model.train_step, autograph=False), "_f64", tolerance
    )
    record_property("largest_errors", worst)


@pytest.mark.parametrize(
    "jit",
    [
        pytest.param(False, id="plain"),
        pytest.param(True, id="xla"),
    ],
)
@pytest.mark.slow
def test_float32_stays_within_noise(jit, record_property):
    case = GoldenCase("tinyA")
    model = case.model()
    step = tf.function(model.train_step, autograph=False, jit_compile=jit)
    worst = check(case, model, step, "_f64", FLOAT32_NOISE)
    record_property("largest_errors", worst)


@pytest.mark.slow
def test_four_replicas_match_the_original(float64, mirrored, record_property):
    """The original on one process, step by step; two replicas are below, in `fit`."""
    case = GoldenCase("tinyA")
    strategy = mirrored(4)
    with strategy.scope():
        model = case.model()
    distributed = distribute(strategy, model)
    tolerance = dict.fromkeys(FLOAT32_NOISE, FLOAT64_TOLERANCE)
    worst = check(case, model, distributed, "_f64", tolerance)
    record_property("largest_errors", worst)


@pytest.mark.slow
def test_case_a_in_fit_with_two_replicas(mirrored, float64, record_property):
    """Keras's own loop reaches the recorded weights, whole widths, float64."""
    case = GoldenCase("A")
    with mirrored(2).scope():
        model = case.model()
    batches = [case.batch(step) for step in range(STEPS)]
    stacked = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    dataset = tf.data.Dataset.from_tensor_slices(stacked).batch(8)
    model.fit(dataset, epochs=1, shuffle=False, verbose=0)
    errors = case.state_errors(model, STEPS, "_f64")
    record_property("largest_errors", {k: float(e) for k, (e, _) in errors.items()})
    for error, key in errors.values():
        assert error <= FLOAT64_TOLERANCE, (key, error)


def test_first_step_intermediates(float64):
    """Slots, logits and aligned logits of both networks before the first update."""
    case = GoldenCase("tinyA")
    model = case.model()
    batch = case.batch(0)
    # Teacher parameters move first.
    rate = teacher_update_rate(model.step, 7, 0.99)
    for t, s in zip(
        model.teacher.parameters(), model.student.parameters(), strict=True
    ):
        t.assign(t + (s - t) * float(rate))
    for v, index in (("a", 1), ("b", 2)):
        for network, side, projected in (
            (model.student, "q", "x"),
            (model.teacher, "k", "y"),
        ):
            out = network(batch[f"view_{v}"], training=True)
            logits = out["assignment_logits"]
            slots = pool_slots(out["projected"], logits, 0.07)
            aligned = align(logits, batch[f"overlap_{v}"], batch[f"flipped_{v}"])
            for got, name in (
                (np.moveaxis(out["projected"], -1, 1), f"{projected}{index}"),
                (slots, f"{side}{index}"),
                (np.moveaxis(logits, -1, 1), f"score_{side}{index}"),
                (np.moveaxis(aligned, -1, 1), f"{side}{index}_aligned"),
            ):
                truth = case.arrays[f"step0_{name}_f64"]
                np.testing.assert_allclose(got, truth, rtol=1e-6, atol=1e-7)
            masks = {"q1": ("mask_q", 0), "q2": ("mask_q", 1)}
            masks.update({"k2": ("mask_k", 0), "k1": ("mask_k", 1)})
            mask, direction = masks[f"{side}{index}"]
            truth = case.arrays[mask][0, direction]
            np.testing.assert_array_equal(active_slots(logits), truth)


@pytest.mark.parametrize("size", ["7x7", "2x2", "3x3", "4x6", "14x14"])
def test_alignment_matches_roi_align(size, float64):
    """Output and gradient of 153 boxes, empty, inverted and outside ones included."""
    arrays = np.load(GOLDEN / "case_roi.npz")
    height, width = map(int, size.split("x"))
    shape = (153, 3, height, width)
    x = draw(606, f"roi_x_{size}", shape).transpose(0, 2, 3, 1).astype(np.float64)
    g = draw(606, f"roi_g_{size}", shape).transpose(0, 2, 3, 1).astype(np.float64)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = align(x, arrays["coords"], arrays["flags"])
    gradient = tape.gradient(out, x, tf.constant(g))
    for got, name in ((out, "out"), (gradient, "grad")):
        # The largest grid was recorded in float32 only.
        suffix, tolerance = ("", 1e-5) if size == "14x14" else ("_f64", 1e-9)
        truth = arrays[f"{size}/{name}{suffix}"].transpose(0, 2, 3, 1)
        errors = np.abs(np.asarray(got) - truth).max(axis=(1, 2, 3))
        bad = [
            (arrays["label"][i], arrays["coords"][i], errors[i])
            for i in np.flatnonzero(errors > tolerance)
        ]
        assert not bad, bad[:5]


@pytest.mark.parametrize("name", ["coco800", "small", "nowarmup", "A"])
def test_schedules_match(name):
    arrays = np.load(GOLDEN / "schedule.npz")
    images, world, batch, epochs, warmup, multiplier, base_lr, momentum = arrays[
        f"{name}/args"
    ]
    steps = int(arrays[f"{name}/n_iter"])
    assert steps == images // batch
    schedule = WarmupCosine(
        peak=base_lr * batch / 256,
        warmup_steps=int(warmup * steps),
        total_steps=int(epochs * steps),
        start_factor=1 / multiplier,
    )
    step = arrays[f"{name}/step"]
    rates = np.asarray([float(schedule(s)) for s in step])
    # float32, and torch's own recursion drifts by a few 1e-7 of the peak.
    peak = base_lr * batch / 256
    np.testing.assert_allclose(rates, arrays[f"{name}/lr"], rtol=2e-6, atol=1e-6 * peak)
    total = int(images / batch * epochs)
    assert total == int(arrays[f"{name}/K"])
    ours = [float(teacher_update_rate(s, total, momentum)) for s in step]
    truth = arrays[f"{name}/one_minus_momentum"]
    np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-8)


def test_gradients_match(float64):
    """Every parameter's gradient in the first step: norm and samples."""
    case = GoldenCase("tinyA")
    model = case.model()
    rate = teacher_update_rate(model.step, 7, 0.99)
    for t, s in zip(
        model.teacher.parameters(), model.student.parameters(), strict=True
    ):
        t.assign(t + (s - t) * float(rate))
    entries = model_entries(model)
    keys = list(map(str, case.arrays["param_keys"]))
    learnt = {id(entries[k].variable) for k in keys}
    assert learnt == set(map(id, model.trainable_variables))
    with tf.GradientTape() as tape:
        loss, _, _ = model.compute_losses(case.batch(0))
    gradients = tape.gradient(loss, [entries[k].variable.value for k in keys])
    for row, (key, gradient) in enumerate(zip(keys, gradients, strict=True)):
        value = entries[key].layout.to_torch(tf.convert_to_tensor(gradient))
        flat = value.reshape(-1)
        got = flat[sample_indices(key, flat.size).astype(int)]
        truth = case.arrays["grad_samples_f64"][0, row]
        np.testing.assert_allclose(got, truth, rtol=1e-6, atol=1e-8, err_msg=key)
    assert keras.config.floatx() == "float64"
