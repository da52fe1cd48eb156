"""The detector: shapes, what does not count, random samples, files, other devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import backbone
from slotcon_tf.detection import MaskRCNN
from slotcon_tf.detection.sampling import even_choice, gathered, random_choice
from slotcon_tf.training.optimizers import SGD

SIZES = {
    "class_names": ("cat", "dog"),
    "channels": 8,
    "units": 16,
    "proposals": (50, 30),
    "test_proposals": (50, 30),
    "anchors_per_image": 16,
    "regions_per_image": 16,
    "max_detections": 5,
}


def small_model(**settings):
    keras.utils.set_random_seed(0)
    return MaskRCNN(backbone("resnet10", width=8), **{**SIZES, **settings})


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


def evenly(image):
    del image
    return ((even_choice, even_choice),) * 2


def losses(model, batch, jit=False, **options):
    run = tf.function(model.compute_losses, autograph=False, jit_compile=jit)
    _, found = run(batch, choices=evenly, **options)
    return np.array([float(x) for x in found.values()])


def test_padding_of_objects_changes_nothing():
    want = losses(small_model(), small_batch(objects=3))
    np.testing.assert_allclose(losses(small_model(), small_batch(objects=7)), want)


def test_fixed_shapes_and_xla_give_the_same_losses():
    want = losses(small_model(), small_batch())
    for jit in (False, True):
        found = losses(small_model(fixed_shapes=True), small_batch(), jit)
        np.testing.assert_allclose(found, want, rtol=2e-4)


def test_images_without_objects_are_background():
    batch = small_batch()
    batch["valid"] = tf.zeros_like(batch["valid"])
    model = small_model()
    before = [w.numpy() for w in model.mask_head.non_trainable_variables]
    found = dict(zip(model.loss_names, losses(model, batch), strict=True))
    assert found["rpn_box_loss"] == found["box_loss"] == found["mask_loss"] == 0
    assert found["rpn_class_loss"] > 0 and found["class_loss"] > 0
    # No region: the mask head's statistics stay.
    for old, new in zip(before, model.mask_head.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_it_learns_a_batch_and_finds_its_objects():
    model, batch = small_model(), small_batch()
    model.compile(optimizer=SGD(0.02, l2=0.0), run_eagerly=False)
    data = tf.data.Dataset.from_tensors(batch).repeat()
    first = model.fit(data, steps_per_epoch=1, verbose=0, shuffle=False).history
    last = model.fit(data, steps_per_epoch=30, verbose=0, shuffle=False).history
    assert last["loss"][0] < first["loss"][0] and int(model.step) == 31


@pytest.mark.parametrize("masks", [True, False])
def test_files_hold_all_of_it(tmp_path, masks):
    model, images = small_model(masks=masks), small_batch()["images"]
    model.save(tmp_path / "detector.keras")
    again = keras.models.load_model(tmp_path / "detector.keras")
    assert again.get_config() == model.get_config()
    found, probabilities = model.detect(images)
    other, same = again.detect(images)
    for one, two in zip(found, other, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (probabilities is None) == (not masks) == (same is None)


def test_detections_lie_in_the_image():
    found, masks = small_model().detect(tf.zeros((2, 64, 64, 3)), [[64, 64], [30, 50]])
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
