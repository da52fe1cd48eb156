"""The detector: shapes, what does not count, random samples, files, other devices."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import backbone
from slotcon_tf.detection import MaskRCNN
from slotcon_tf.detection.sampling import gathered, random_choice
from slotcon_tf.training.optimizers import SGD
from slotcon_tf.training.precise import PreciseStatistics
from tests.support.detection_case import evenly
from tests.support.detector_case import SIZES


def small_model(**settings):
    keras.utils.set_random_seed(0)
    settings = {"class_names": ("cat", "dog"), **SIZES, **settings}
    return MaskRCNN(backbone("resnet10", width=8), **settings)


def small_batch(objects=3, size=64):
    """Two images with one and two objects, in a batch that holds more."""
    rng = np.random.default_rng(0)
    batch = {
        "images": rng.normal(size=(2, size, size, 3)).astype(np.float32),
        "sizes": np.array([[size, size], [size - 10, size]], np.int32),
        "boxes": np.zeros((2, objects, 4), np.float32),
        "classes": np.zeros((2, objects), np.int32),
        "valid": np.zeros((2, objects), bool),
    }
    corners = np.zeros((2, objects, 4, 2), np.float32)
    for place, box in {
        (0, 0): (4, 4, 40, 44),
        (1, 0): (8, 2, 30, 20),
        (1, 1): (20, 20, 60, 50),
    }.items():
        x1, y1, x2, y2 = batch["boxes"][place] = box
        batch["valid"][place], batch["classes"][place] = True, place[1]
        corners[place] = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    batch |= {"starts": corners, "ends": np.roll(corners, -1, axis=2)}
    batch["parts"] = np.zeros((2, objects, 4), np.int32)
    return {name: tf.convert_to_tensor(value) for name, value in batch.items()}


def losses(model, batch):
    """Not traced: one call of a model is cheaper than its tracing."""
    _, found = model.compute_losses(batch, choices=evenly)
    return np.array([float(x) for x in found.values()])


def compiled(model, **options):
    model.compile(optimizer=SGD(0.02, l2=1e-4), **options)
    model.optimizer.build(model.trainable_variables)
    return model


def values(model):
    return [variable.numpy() for variable in model.variables]


@pytest.fixture(scope="module")
def shared():
    """A model whose weights stay; of its batch statistics no loss depends."""
    return small_model()


@pytest.fixture(scope="module")
def wanted(shared):
    return losses(shared, small_batch())


def test_padding_of_objects_changes_nothing(shared, wanted):
    found = losses(shared, small_batch(objects=7))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_fixed_shapes_hold_as_many_triangles_as_edges_allow(shared):
    """The box's two halves, of three edges each, and nothing behind them."""
    batch = small_batch()
    corners = tf.gather(batch["starts"], [0, 1, 2, 0, 2, 3], axis=2)
    batch["starts"] = corners
    batch["ends"] = tf.gather(corners, [1, 2, 0, 4, 5, 3], axis=2)
    batch["parts"] = tf.broadcast_to([0, 0, 0, 1, 1, 1], corners.shape[:3])
    found = losses(small_model(fixed_shapes=True), batch)
    np.testing.assert_allclose(found, losses(shared, batch), rtol=1e-6)


@pytest.mark.slow
def test_fixed_shapes_and_xla_take_the_same_step():
    """A step whose samples are drawn at random; weights and statistics too."""
    batch, plain = small_batch(), compiled(small_model())
    want = {name: float(x) for name, x in plain.train_step(batch).items()}
    model = compiled(small_model(fixed_shapes=True), jit_compile=True)
    data = tf.data.Dataset.from_tensors(batch)
    found = model.fit(data, verbose=0, shuffle=False).history
    for name, value in want.items():
        np.testing.assert_allclose(found[name][0], value, rtol=1e-5, err_msg=name)
    for old, new in zip(values(plain), values(model), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-5)


def test_images_without_objects_are_background(shared):
    batch, model = small_batch(), shared
    batch["valid"] = tf.zeros_like(batch["valid"])
    before = [w.numpy() for w in model.mask_head.non_trainable_variables]
    found = dict(zip(model.loss_names, losses(model, batch), strict=True))
    assert found["rpn_box_loss"] == found["box_loss"] == found["mask_loss"] == 0
    assert found["rpn_class_loss"] > 0 and found["class_loss"] > 0
    # No region: the mask head's statistics stay.
    for old, new in zip(before, model.mask_head.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_it_learns_a_batch_in_one_trace():
    model, batch = compiled(small_model(), run_eagerly=False), small_batch()
    traces, step = [], model.train_step
    model.train_step = lambda data: traces.append(1) or step(data)
    data = tf.data.Dataset.from_tensors(batch).repeat()
    options = {"verbose": 0, "shuffle": False}
    first = model.fit(data, steps_per_epoch=1, **options).history
    last = model.fit(data, steps_per_epoch=30, **options).history
    assert last["loss"][0] < first["loss"][0] and int(model.step) == 31
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("masks", "policy"),
    [(True, "float32"), (False, "float32"), (True, "mixed_bfloat16")],
)
def test_files_hold_all_of_it(tmp_path, masks, policy):
    keras.config.set_dtype_policy(policy)
    model, images = small_model(masks=masks), small_batch()["images"]
    model.save(tmp_path / "detector.keras")
    keras.config.set_dtype_policy("float32")
    again = keras.models.load_model(tmp_path / "detector.keras")
    assert again.get_config() == model.get_config()
    assert again.dtype_policy.name == policy
    found, probabilities = model.detect(images)
    other, same = again.detect(images)
    for one, two in zip(found, other, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (probabilities is None) == (not masks) == (same is None)
    assert found.boxes.dtype == found.scores.dtype == tf.float32


@pytest.mark.slow
def test_bfloat16_follows_float32(wanted):
    """Maps and heads round to 8 bits; boxes, matching and losses do not."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, batch = compiled(small_model()), small_batch()
    np.testing.assert_allclose(losses(model, batch), wanted, rtol=0.03)
    boxes, scores, _ = model._proposed(
        *model._guesses(model.feature_maps(batch["images"], False)),
        batch["sizes"],
        model.proposals,
    )
    assert boxes.dtype == scores.dtype == tf.float32
    for _ in range(3):
        logs = model.train_step(batch)
    assert np.isfinite([float(x) for x in logs.values()]).all()
    assert all(np.isfinite(value).all() for value in values(model))


def four_images(dtype):
    """The first two have no object, and so no row of the mask head."""
    batch = {name: tf.concat([x, x], 0) for name, x in small_batch().items()}
    images = np.random.default_rng(1).normal(size=(4, 64, 64, 3))
    valid = batch["valid"].numpy()
    valid[:2] = False
    batch |= {"images": tf.constant(images), "valid": tf.constant(valid)}
    return {
        name: tf.cast(x, dtype) if x.dtype.is_floating else x
        for name, x in batch.items()
    }


def steps_on(strategy, dtype):
    """Logs of a step, the weights, and statistics measured anew after it."""
    with strategy.scope():
        model = compiled(small_model())
        precise = PreciseStatistics(model)
    batch, replicas = four_images(dtype), strategy.num_replicas_in_sync

    def part(context):
        size, place = 4 // replicas, context.replica_id_in_sync_group
        return {x: v[place * size : (place + 1) * size] for x, v in batch.items()}

    def measured(batch):
        with precise.gathering():  # here: replicas run in threads of their own
            return model.compute_losses(batch)[0]

    parts = strategy.experimental_distribute_values_from_function(part)
    logs = strategy.run(model.train_step, args=(parts,))
    logs = {x: strategy.experimental_local_results(v)[0] for x, v in logs.items()}
    trained = values(model)
    strategy.run(measured, args=(parts,))
    precise.apply()
    return {name: float(x) for name, x in logs.items()}, trained, values(model)


@functools.cache
def step_of_one_device(dtype):
    return steps_on(tf.distribute.get_strategy(), dtype)


@pytest.mark.parametrize(
    ("count", "dtype", "close"),
    [(2, "float64", 1e-9), (4, "float64", 1e-9), (2, "float32", 2e-4)],
)
@pytest.mark.slow
def test_replicas_take_the_step_of_one_device(count, dtype, close, mirrored, untraced):
    """Random samples, of the image's place in the global batch; unequal regions."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    logs, *states = step_of_one_device(dtype)
    other, *found = steps_on(mirrored(count), dtype)
    for name, value in logs.items():
        np.testing.assert_allclose(other[name], value, rtol=close, err_msg=name)
    for want, got in zip(sum(states, []), sum(found, []), strict=True):
        np.testing.assert_allclose(got, want, rtol=close, atol=close)


def test_detections_lie_in_the_image_and_repeat(shared):
    images, sizes = small_batch()["images"], [[64, 64], [30, 50]]
    found, masks = shared.detect(images, sizes)
    again, same = shared.detect(images, sizes)
    for one, two in zip((*found, masks), (*again, same), strict=True):
        np.testing.assert_array_equal(one, two)
    assert found.boxes.shape == (2, 5, 4) and masks.shape == (2, 5, 28, 28)
    assert (found.boxes[1].numpy() <= [50, 30, 50, 30]).all()
    there = found.there.numpy()
    assert not found.scores.numpy()[~there].any()


def test_random_choices_are_fair_and_repeat():
    candidates = tf.constant([True, False, True, True, True])
    times = np.zeros(5)
    for number in range(200):
        choose = random_choice(tf.constant([3, number]))
        taken = choose(candidates, tf.constant(2), 2).numpy()
        assert taken.sum() == 2 and not (taken & ~candidates.numpy()).any()
        np.testing.assert_array_equal(taken, choose(candidates, tf.constant(2), 2))
        times += taken
    assert times[1] == 0 and (np.abs(times[[0, 2, 3, 4]] - 100) < 40).all()


def test_fewer_than_wanted_are_padded():
    foreground = tf.constant([False, True, False])
    background = tf.constant([True, False, False])
    places, there = gathered(foreground, background, 4)
    assert places.numpy().tolist() == [1, 0, 0, 0]
    assert there.numpy().tolist() == [True, True, False, False]


def test_an_encoder_needs_a_pyramid():
    images = keras.Input((None, None, 3))
    encoder = keras.Model(images, keras.layers.Conv2D(4, 3, 2)(images))
    with pytest.raises(ValueError, match="must have `pyramid_outputs` P2 to P5"):
        MaskRCNN(encoder, class_names=("cat",))
