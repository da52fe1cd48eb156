"""Properties of the layers, the losses and the optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from slotcon_tf.devices import at_least_float32
from slotcon_tf.method.networks import MLPHead, SemanticGrouping
from slotcon_tf.method.objective import (
    active_slots,
    align,
    grouping_loss,
    l2_normalize,
    pack_active,
    pack_rows,
    pool_slots,
    slot_contrastive_loss,
)
from slotcon_tf.method.teacher import teacher_update_rate, update_teacher
from slotcon_tf.training.normalization import BatchNormalization, masked_moments
from slotcon_tf.training.optimizers import LARS, SGD
from slotcon_tf.training.schedules import WarmupCosine

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# Grouping ---------------------------------------------------------------------------


def test_pooling_weights_sum_to_one():
    """A constant map gives that constant in every slot, empty slots included."""
    features = np.full((2, 3, 4, 5), 7.0, np.float32)
    slots = pool_slots(features, normal(2, 3, 4, 6), 0.07)
    np.testing.assert_allclose(slots, 7.0, rtol=1e-5)


def test_permuting_prototypes_permutes_slots():
    features, logits, order = normal(2, 3, 3, 5), normal(2, 3, 3, 6), RNG.permutation(6)
    slots = pool_slots(features, logits, 0.07)
    permuted = pool_slots(features, logits[..., order], 0.07)
    np.testing.assert_allclose(permuted, ops.take(slots, order, axis=1), rtol=1e-5)


def test_packing_keeps_every_active_slot():
    for _ in range(20):
        logits = normal(3, 2, 3, 40)
        active = np.asarray(active_slots(logits))
        indices, valid = map(np.asarray, pack_active(active, 6))
        for image in range(3):
            kept = indices[image][valid[image]]
            np.testing.assert_array_equal(kept, np.flatnonzero(active[image]))


@pytest.mark.parametrize("count", [0, 1, 4, 5, 13])
def test_rows_are_packed_to_a_multiple(count):
    valid = np.zeros(13, bool)
    valid[np.random.default_rng(count).permutation(13)[:count]] = True
    rows = np.asarray(pack_rows(ops.convert_to_tensor(valid), 4))
    assert len(rows) == min(13, max(4, -(-count // 4) * 4))
    assert len(set(rows.tolist())) == len(rows)
    np.testing.assert_array_equal(rows[:count], np.flatnonzero(valid))


def test_pooling_packed_rows_equals_packing_pooled_rows():
    features, logits = normal(2, 3, 3, 5), normal(2, 3, 3, 20)
    indices, _ = pack_active(active_slots(logits), 9)
    packed = pool_slots(features, logits, 0.07, indices)
    full = np.asarray(pool_slots(features, logits, 0.07))
    expected = np.take_along_axis(full, np.asarray(indices)[..., None], axis=1)
    np.testing.assert_allclose(packed, expected, rtol=1e-5)


def test_logits_are_cosines():
    layer = SemanticGrouping(num_prototypes=4)
    x = normal(1, 2, 2, 3)
    x[0, 0, 0] = 0  # a zero vector stays finite
    logits = np.asarray(layer(x))
    p = layer.prototypes.numpy()
    cosine = (x[0, 1, 1] @ p[2]) / np.linalg.norm(x[0, 1, 1]) / np.linalg.norm(p[2])
    np.testing.assert_allclose(logits[0, 1, 1, 2], cosine, rtol=1e-5)
    np.testing.assert_array_equal(logits[0, 0, 0], 0)


# Alignment --------------------------------------------------------------------------


def test_full_box_is_the_identity_and_flips_cancel():
    maps, full = normal(2, 4, 5, 3), np.float32([[0, 0, 1, 1]] * 2)
    flip, keep = np.array([True, True]), np.array([False, False])
    np.testing.assert_allclose(align(maps, full, keep), maps, atol=1e-6)
    twice = align(align(maps, full, flip), full, flip)
    np.testing.assert_allclose(twice, maps, atol=1e-6)


def test_views_of_one_scene_align():
    """A ramp seen through two crops, one flipped, comes out the same."""

    def seen(left, right, flipped):
        x = left + (np.arange(7) + 0.5) / 7 * (right - left)
        x = x[::-1] if flipped else x
        return np.tile(x[None, None, :, None], (1, 7, 1, 1)).astype(np.float32)

    # Crops [0, 0.6] and [0.2, 1] meet in [0.2, 0.6]; the second is flipped.
    first = align(
        seen(0, 0.6, False), np.float32([[1 / 3, 0, 1, 1]]), np.array([False])
    )
    second = align(seen(0.2, 1, True), np.float32([[0.5, 0, 1, 1]]), np.array([True]))
    # The outermost samples of a box at the map's edge are clamped to cell centres.
    inner = np.s_[:, :, 1:-1]
    np.testing.assert_allclose(first[inner], second[inner], atol=1e-5)


# Losses -----------------------------------------------------------------------------


def dense_contrastive_loss(queries, query_active, keys, key_active, temperature=0.2):
    """The definition, without packing: every query and key of every image."""

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    images, prototypes, _ = queries.shape
    candidates = [(i, k) for i, k in np.ndindex(images, prototypes) if key_active[i, k]]
    matrix = np.stack([unit(keys[i, k]) for i, k in candidates])
    losses = []
    for row, (i, k) in enumerate(candidates):
        if query_active[i, k]:
            logits = matrix @ unit(queries[i, k]) / temperature
            losses.append(np.log(np.exp(logits).sum()) - logits[row])
    return 2 * temperature * np.mean(losses)


def test_packed_contrastive_loss_equals_its_definition():
    student, teacher = normal(3, 2, 2, 10), normal(3, 2, 2, 10)
    queries, keys = normal(3, 10, 6), normal(3, 10, 6)
    query_active = np.asarray(active_slots(student))
    key_active = np.asarray(active_slots(teacher))
    expected = dense_contrastive_loss(
        queries, query_active & key_active, keys, key_active
    )
    indices, key_valid = map(np.asarray, pack_active(key_active, 4))
    packed_q = np.take_along_axis(queries, indices[..., None], 1).reshape(-1, 6)
    packed_k = np.take_along_axis(keys, indices[..., None], 1).reshape(-1, 6)
    valid = key_valid & np.take_along_axis(query_active, indices, 1)
    loss = slot_contrastive_loss(
        packed_q,
        valid.reshape(-1),
        packed_k,
        key_valid.reshape(-1),
        labels=np.arange(12, dtype=np.int32),
        num_queries=valid.sum(),
        temperature=0.2,
    )
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


def test_grouping_loss_is_least_for_the_teacher_itself():
    teacher = normal(2, 3, 3, 5)
    options = {"student_temperature": 0.07, "teacher_temperature": 0.07}
    center = np.zeros(5, np.float32)
    best, found = grouping_loss(teacher, teacher, center, **options)
    other, _ = grouping_loss(normal(2, 3, 3, 5), teacher, center, **options)
    assert float(best) < float(other)
    assert float(found["agreement"]) == 1.0


def test_losses_ignore_the_numbering_of_prototypes():
    student, teacher, order = normal(2, 3, 3, 5), normal(2, 3, 3, 5), RNG.permutation(5)
    center = normal(5)
    options = {"student_temperature": 0.1, "teacher_temperature": 0.07}
    loss, _ = grouping_loss(student, teacher, center, **options)
    renumbered = (x[..., order] for x in (student, teacher, center))
    same, _ = grouping_loss(*renumbered, **options)
    np.testing.assert_allclose(float(loss), float(same), rtol=1e-5)


# Normalisation and heads ------------------------------------------------------------


def test_fused_and_general_paths_agree():
    x, layer = normal(4, 5, 6, 3) * 3 + 2, BatchNormalization()
    layer.build(x.shape)
    fused = layer(x, training=True)
    moving = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    layer.moving_mean.assign(np.zeros(3))
    layer.moving_variance.assign(np.ones(3))
    general = layer(x, training=True, mask=np.ones((4, 5, 6), bool))
    np.testing.assert_allclose(fused, general, atol=1e-5)
    np.testing.assert_allclose(moving[0], layer.moving_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(moving[1], layer.moving_variance.numpy(), rtol=1e-5)
    flat = x.reshape(-1, 3)
    np.testing.assert_allclose(moving[0], 0.1 * flat.mean(0), rtol=1e-5)
    expected = 0.9 + 0.1 * flat.var(0, ddof=1)  # unbiased
    np.testing.assert_allclose(moving[1], expected, rtol=1e-5)


def test_masked_rows_influence_nothing():
    head = MLPHead(hidden_dim=8, output_dim=4)
    head.build((None, 5))
    x, mask = normal(10, 5), np.arange(10) < 6
    garbage = np.where(mask[:, None], x, 1e3).astype(np.float32)
    clean = head(x, training=True, mask=mask)
    first = head.norm_0.moving_mean.numpy()
    dirty = head(garbage, training=True, mask=mask)
    np.testing.assert_allclose(clean[:6], dirty[:6], atol=1e-5)
    # Twice the same statistics: the moving mean covers 1 - 0.9 ** 2 of them.
    np.testing.assert_allclose(
        head.norm_0.moving_mean.numpy(), 1.9 * first, rtol=1e-4, atol=1e-7
    )
    alone = head(x[:6], training=True)
    np.testing.assert_allclose(clean[:6], alone, atol=1e-5)


def test_no_valid_row_leaves_moving_statistics():
    layer = BatchNormalization()
    out = layer(normal(4, 3), training=True, mask=np.zeros(4, bool))
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(layer.moving_mean.numpy(), 0)
    np.testing.assert_array_equal(layer.moving_variance.numpy(), 1)


def test_moments_over_replicas_equal_those_of_one(mirrored):
    strategy = mirrored(4)
    x = normal(8, 3) + 100.0
    mask = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)  # the last replica has no row

    def part(context):
        i = context.replica_id_in_sync_group
        return x[2 * i : 2 * i + 2], mask[2 * i : 2 * i + 2]

    values = strategy.experimental_distribute_values_from_function(
        lambda c: tf.constant(part(c)[0])
    )
    masks = strategy.experimental_distribute_values_from_function(
        lambda c: tf.constant(part(c)[1])
    )
    mean, variance, count = strategy.run(masked_moments, args=(values, masks))
    mean, variance = mean.values[0], variance.values[0]
    np.testing.assert_allclose(mean, x[mask].mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance, x[mask].var(0), rtol=1e-4)
    assert float(count.values[0]) == mask.sum()


def test_sensitive_maths_is_never_below_float32():
    assert at_least_float32(tf.ones(2, tf.bfloat16)).dtype == tf.float32
    assert at_least_float32(tf.ones(2, tf.float64)).dtype == tf.float64
    assert l2_normalize(tf.ones((2, 3), tf.bfloat16)).dtype == tf.float32


# Optimizers, schedules, teacher -----------------------------------------------------


def test_sgd_is_torchs():
    """Two steps by hand: decay joins the gradient, then the buffer, then the step."""
    w, g, lr, l2 = normal(3, 2), normal(3, 2), 0.1, 0.01
    variable, optimizer = keras.Variable(w), SGD(lr, momentum=0.9, l2=l2)
    buffer = np.zeros_like(w)
    for _ in range(2):
        optimizer.apply([ops.convert_to_tensor(g)], [variable])
        buffer = 0.9 * buffer + (g + l2 * w)
        w = w - lr * buffer
    np.testing.assert_allclose(variable.numpy(), w, rtol=1e-5)


def test_lars_leaves_vectors_alone_and_survives_zeros():
    vector, zero = (
        keras.Variable(normal(4)),
        keras.Variable(np.zeros((2, 2), "float32")),
    )
    start, gradient = vector.numpy(), normal(4)
    optimizer = LARS(0.5, l2=0.1)
    optimizer.apply([ops.convert_to_tensor(gradient), ops.ones((2, 2))], [vector, zero])
    np.testing.assert_allclose(vector.numpy(), start - 0.5 * gradient, rtol=1e-5)
    np.testing.assert_allclose(zero.numpy(), -0.5)  # the factor is 1


@pytest.mark.parametrize("optimizer", [LARS(0.1, l2=0.3), SGD(0.2, momentum=0.5)])
def test_optimizers_round_trip(optimizer):
    config = keras.optimizers.serialize(optimizer)
    assert keras.optimizers.deserialize(config).get_config() == optimizer.get_config()


def test_schedule_bounds_and_errors():
    schedule = WarmupCosine(peak=2.0, warmup_steps=10, total_steps=100)
    assert float(schedule(0)) == pytest.approx(0.02)
    assert float(schedule(10)) == pytest.approx(2.0)
    assert float(schedule(100)) == pytest.approx(1e-6, rel=1e-2)
    with pytest.raises(ValueError, match="Train longer"):
        WarmupCosine(peak=1.0, warmup_steps=11, total_steps=10)


def test_teacher_moves_by_the_rate():
    teacher, student = keras.Variable([1.0]), keras.Variable([3.0])
    update_teacher([teacher], [student], 0.25)
    assert float(teacher.numpy()[0]) == 1.5
    assert float(teacher_update_rate(10, 10, 0.99)) == pytest.approx(0.0, abs=1e-9)
