"""What a step may be asked for: parts, skips, recomputed stages, float16, replicas."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import LARS, SGD, SlotCon, backbone
from slotcon_tf.method.objective import active_slots
from tests.support.golden_case import distribute
from tests.support.small_case import batch, in_float64, small_model


def step_of(model):
    model.optimizer.build(model.trainable_variables)
    return tf.function(model.train_step, autograph=False)


def values(variables):
    return [v.numpy() for v in variables]


def largest(first, second):
    """Largest difference between two lists of arrays."""
    pairs = zip(first, second, strict=True)
    return float(np.max([np.abs(a - b).max() for a, b in pairs]))  # NaN stays NaN


def alike(*options):
    """Models with the same weights, one for each dict of options."""
    first, *others = models = [small_model(**given) for given in options]
    for model in others:
        for part in ("student", "teacher", "predictor"):
            getattr(model, part).set_weights(getattr(first, part).get_weights())
    return models


def compile_with(model, optimizer):
    model.compile(optimizer=optimizer)
    return model


def repeat(data, times):
    return {k: np.concatenate([v] * times) for k, v in data.items()}


@pytest.mark.slow
def test_equal_parts_accumulate_to_one_of_them(float64):
    """Statistics and negatives are those of a part: so are the updates."""
    counts = (2, 4)
    plain, *accumulating = alike({}, *({"accumulate_steps": n} for n in counts))
    data = in_float64(batch())
    step = step_of(plain)
    for _ in range(2):
        step(data)
    for parts, model in zip(counts, accumulating, strict=True):
        step = step_of(model)
        for _ in range(2):
            logs = step(repeat(data, parts))
        found = largest(
            values(plain.trainable_variables), values(model.trainable_variables)
        )
        assert found < 1e-12, parts
        np.testing.assert_allclose(
            plain.center.numpy(), model.center.numpy(), err_msg=f"{parts} parts"
        )
        np.testing.assert_allclose(logs["active_slots"], plain.metrics[4].result())


def test_parts_must_divide():
    model = small_model(accumulate_steps=3)
    with pytest.raises(ValueError, match="divide by accumulate_steps.*Use 3 images"):
        step_of(model)(batch())


def state(model):
    """Everything that a skipped step must leave alone."""
    return values([*model.trainable_variables, *model.optimizer.buffers, model.center])


@pytest.mark.parametrize("optimizer", [LARS, SGD])
@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing(optimizer):
    model, plain = alike({"skip_nonfinite": True}, {})
    for either in (model, plain):
        compile_with(either, optimizer(0.1))
    step, plain_step = step_of(model), step_of(plain)
    step(batch(seed=1))
    plain_step(batch(seed=1))
    # Watching changes no number.
    assert largest(state(model), state(plain)) == 0
    before, logs = state(model), model.get_metrics_result()
    bad = batch(seed=2)
    bad["view_a"][1, 3, 3] = np.inf
    found = step(bad)
    assert largest(before, state(model)) == 0
    assert int(model.step.numpy()) == 2 and float(found["skipped_steps"]) == 1
    for name, value in logs.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    step(batch(seed=3))
    assert largest(before, state(model)) > 0
    assert all(np.isfinite(v).all() for v in values(model.variables))
    assert int(model.nonfinite.numpy()[-1]) == 1


def on_two_replicas(mirrored, **options):
    """A strategy, a small model under it, and its step of a global batch."""
    strategy = mirrored(2)
    with strategy.scope():
        model = small_model(**options)
        model.optimizer.build(model.trainable_variables)
    return strategy, model, distribute(strategy, model)


@pytest.mark.slow
def test_all_replicas_skip_alike(mirrored):
    """The NaN is in one replica's images only."""
    strategy, model, step = on_two_replicas(mirrored, skip_nonfinite=True)
    step(batch(seed=1))
    before = state(model)
    bad = batch(seed=2)
    bad["view_b"][3, 0, 0] = np.nan
    step(bad)
    assert largest(before, state(model)) == 0
    step(batch(seed=3))
    assert largest(before, state(model)) > 0
    for variable in model.trainable_variables:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second, err_msg=variable.path)


def test_an_optimizer_that_cannot_skip_is_refused():
    model = compile_with(small_model(skip_nonfinite=True), keras.optimizers.SGD())
    with pytest.raises(ValueError, match="slotcon_tf.LARS or slotcon_tf.SGD"):
        step_of(model)(batch())


def resnet_model(**options):
    keras.utils.set_random_seed(0)
    sizes = {"num_prototypes": 8, "hidden_dim": 16, "projection_dim": 12}
    encoder = backbone("resnet10", width=8)
    model = SlotCon(encoder, **{"total_steps": 10, **sizes, **options})
    return compile_with(model, LARS(0.1))


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.slow
def test_recomputed_stages_change_no_number(replicas, mirrored):
    found = []
    for remat in (False, True):
        strategy = mirrored(replicas)
        with strategy.scope():
            model = resnet_model(remat=remat)
            model.optimizer.build(model.trainable_variables)
        step = distribute(strategy, model)
        for seed in range(2):
            step(batch(seed=seed))
        found.append(values(model.variables))
    assert largest(*found) == 0


def test_what_cannot_be_recomputed_is_refused():
    with pytest.raises(ValueError, match="pyramid_outputs"):
        small_model(remat=True)


@pytest.fixture
def float16():
    keras.config.set_dtype_policy("mixed_float16")


@pytest.mark.slow
def test_float16_scales_its_loss_on_replicas(float16, mirrored):
    """Keras wraps LARS; the scale halves on overflow, and no weight breaks.

    In the end the second replica's images overflow; the first one's gradients are fine.
    """
    _, model, step = on_two_replicas(mirrored)
    inner = model.optimizer.inner_optimizer
    losses = []
    while int(inner.iterations.numpy()) < 3 and len(losses) < 20:
        losses.append(float(step(batch(seed=0))["loss"]))
    assert int(inner.iterations.numpy()) == 3
    assert np.isfinite(losses).all()
    scale = float(model.optimizer.dynamic_scale.numpy())
    assert 1 < scale < 2.0**15
    assert all(np.isfinite(v).all() for v in values(model.variables))
    bad = batch()
    bad["view_a"][2:] = np.inf
    before = values(inner.buffers)
    step(bad)
    assert int(inner.iterations.numpy()) == 3
    assert largest(before, values(inner.buffers)) == 0
    assert model.optimizer.dynamic_scale.numpy() == scale / 2


@pytest.mark.slow
def test_bfloat16_follows_the_loss_of_float32():
    """Forty steps on eight batches: the same fall, within bfloat16's rounding."""

    def losses(policy):
        keras.config.set_dtype_policy(policy)
        try:
            # A rate at which two runs of this size do not go apart by themselves.
            model = compile_with(resnet_model(total_steps=40), LARS(0.002))
            step = step_of(model)
            found = []
            for number in range(40):
                model.reset_metrics()
                found.append(float(step(batch(seed=number % 8))["loss"]))
        finally:
            keras.config.set_dtype_policy("float32")
        return np.reshape(found, (5, 8)).mean(axis=1)  # passes over the batches

    full, half = losses("float32"), losses("mixed_bfloat16")
    assert full[-1] < 0.97 * full[0]
    # 8 bits: 0.4% per operation, and two runs that drift apart as any two do.
    np.testing.assert_allclose(half, full, rtol=0.02)


def run_on(strategy, optimizer, data, steps=5, **options):
    scope = strategy.scope() if strategy else tf.distribute.get_strategy().scope()
    with scope:
        keras.utils.set_random_seed(3)
        model = compile_with(small_model(), optimizer(0.05))
        model.optimizer.build(model.trainable_variables)
    step = tf.function(model.train_step, autograph=False, **options)
    step = distribute(strategy, model) if strategy else step
    for number in range(steps):
        logs = step(data(number))
    return values(model.variables), {k: float(v) for k, v in logs.items()}


@functools.cache
def on_one_device(optimizer):
    """`run_on` without a strategy, float64: what other devices are compared with."""
    return run_on(None, optimizer, uneven)


def uneven(number):
    """Four flat images, whose views differ in sign, and four of noise; float64."""
    data = batch(count=8, seed=number)
    data["view_a"][:4] = data["view_a"][:1, :1, :1]
    data["view_b"][:4] = -3.0 * data["view_a"][:4]
    return in_float64(data)


def queries_per_image(model, data):
    found = []
    for v, other in ("ab", "ba"):
        student = model.student(data[f"view_{v}"], training=True)
        teacher = model.teacher(data[f"view_{other}"], training=True)
        active = [active_slots(out["assignment_logits"]) for out in (student, teacher)]
        found.append(np.logical_and(*active).sum(axis=1))
    return np.sum(found, axis=0)


@pytest.mark.parametrize("optimizer", [LARS, SGD])
@pytest.mark.slow
def test_replicas_equal_one_device(optimizer, mirrored, float64):
    """Five steps; at first some replicas have no query at all."""
    keras.utils.set_random_seed(3)
    queries = queries_per_image(small_model(), uneven(0))
    assert not queries[:4].any() and queries[4:].any()
    one, logs = on_one_device(optimizer)
    for replicas in (2, 4):
        many, other = run_on(mirrored(replicas), optimizer, uneven)
        assert largest(one, many) < 1e-8, replicas
        for name, value in logs.items():
            if name in ("agreement", "feature_std"):
                continue  # of a replica's own images
            np.testing.assert_allclose(other[name], value, rtol=1e-8, err_msg=name)


@pytest.mark.parametrize("optimizer", [LARS, SGD])
@pytest.mark.slow
def test_xla_equals_the_plain_step(optimizer, float64):
    plain, logs = on_one_device(optimizer)
    compiled, other = run_on(None, optimizer, uneven, jit_compile=True)
    for expected, found in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    for name, value in logs.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-8, err_msg=name)


@pytest.mark.slow
def test_a_step_is_static_under_xla():
    """What a TPU needs: no shape known at run time only, nothing left to the host."""
    model = small_model()
    model.optimizer.build(model.trainable_variables)
    step = tf.function(model.train_step, autograph=False, jit_compile=True)
    data = {k: tf.constant(v) for k, v in batch().items()}
    graph = step.get_concrete_function(data).graph
    graphs = [
        graph,
        *(f.graph for f in graph._functions.values() if hasattr(f, "graph")),
    ]
    dynamic = {"Where", "Unique", "BooleanMask", "PyFunc", "EagerPyFunc", "Print"}
    for part in graphs:
        for operation in part.get_operations():
            assert operation.type not in dynamic, operation.name
            # Integers may be shapes themselves, and the sixth output of fused batch
            # normalisation is a GPU's scratch space, with zeros for its gradient.
            for output in operation.outputs[:5]:
                scratch = operation.type == "ZerosLike" and output.shape.rank is None
                if scratch or not output.dtype.is_floating:
                    continue
                assert output.shape.is_fully_defined(), (operation.name, output.shape)
    # XLA compiles no operation of the host: that it runs is the rest of the proof.
    assert np.isfinite(float(step(data)["loss"]))


def test_norms_decay_on_no_replica(mirrored):
    """Without gradients decay alone moves weights: a replica's name must not matter."""
    strategy = mirrored(2)
    with strategy.scope():
        layers = [keras.layers.Dense(2), keras.layers.BatchNormalization()]
        model = keras.Sequential([keras.Input((3,)), *layers])
        optimizer = SGD(0.1, l2=0.5, decays_norms=False)
        model.compile(optimizer, loss=lambda y, p: 0.0 * p)
    kernel = model.layers[0].kernel.numpy()
    model.fit(np.ones((4, 3)), np.ones((4, 2)), batch_size=4, verbose=0)
    for variable in model.trainable_variables:
        found = strategy.experimental_local_results(variable.value)
        assert len(found) == 2
        np.testing.assert_array_equal(*found, err_msg=variable.path)
    np.testing.assert_array_equal(model.layers[1].gamma.numpy(), [1, 1])
    decayed = model.layers[0].kernel.numpy()
    np.testing.assert_allclose(decayed, kernel * 0.95, rtol=1e-6)  # of float32
