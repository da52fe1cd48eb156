"""Detector: images of any size, boxes in their own pixels, the model's own settings."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import backbone
from slotcon_tf.detection import Detector, MaskRCNN
from slotcon_tf.detection.detections import Detections
from tests.support.detector_case import SIZES

OWN = {"class_names": ("cat", "dog"), "short_edge": 64, "long_edge": 100, **SIZES}


def small_model(**settings):
    keras.utils.set_random_seed(0)
    encoder = backbone("resnet10", width=8, mean=[0.5] * 3, std=[0.25] * 3)
    return MaskRCNN(encoder, **{**OWN, **settings})


@pytest.fixture(scope="module")
def detector():
    found = Detector(small_model())
    found(photo(64, 64))  # traces
    return found


def photo(*size, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (700, 9), (1, 1), (300, 400)])
def test_boxes_lie_in_images_of_any_size(detector, size):
    found = detector(photo(*size))
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.classes.dtype == np.int32
    assert found.masks.shape == (len(found), 28, 28) and len(found) <= 5
    x1, y1, x2, y2 = found.boxes.T
    assert (x1 >= 0).all() and (x1 < x2).all() and (x2 <= size[1]).all()
    assert (y1 >= 0).all() and (y1 < y2).all() and (y2 <= size[0]).all()
    assert (np.diff(found.scores) <= 0).all()


def test_all_sizes_are_one_graph(detector):
    for size in ((64, 64), (48, 80), (100, 64)):
        detector(photo(*size))
    assert detector._call.experimental_get_tracing_count() == 1


def test_edges_are_the_models_unless_others_are_given():
    model = small_model()
    edges = [
        (x.short_edge, x.long_edge) for x in (Detector(model), Detector(model, 32))
    ]
    assert edges == [(64, 100), (32, 100)]
    for given in ((128, None), (None, 50), (128, 100)):
        with pytest.raises(ValueError, match="must be no shorter than `short_edge`"):
            Detector(model, *given)


@pytest.fixture
def eager():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class Still(MaskRCNN):
    """Finds what it is told, and notes what it is given."""

    def detect(self, images, sizes=None):
        self.given = (images.numpy(), sizes.numpy())
        found = Detections(
            tf.constant([[[0, 0, 50, 25], [-9, 0, 0, 25], [10, 5, 200, 25], [0] * 4]]),
            tf.constant([[0.9, 0.8, 0.7, 0.0]]),
            tf.constant([[1, 0, 1, 0]]),
            tf.constant([[0, 1, 2, 0]]),
            tf.constant([[True, True, True, False]]),
        )
        return found._replace(boxes=tf.cast(found.boxes, tf.float32)), None


def test_boxes_are_scaled_clipped_and_dropped_without_an_area(eager):
    model = Still(backbone("resnet10", width=8), **{**OWN, "masks": False})
    detector = Detector(model)
    found = detector(photo(128, 256))  # 50 x 100 by the longer edge
    images, sizes = model.given
    assert sizes.tolist() == [[50, 100]] and images.shape == (1, 64, 128, 3)
    assert (images[:, 50:] == 0).all() and (images[:, :, 100:] == 0).all()
    want = [[0, 0, 128, 64], [25.6, 12.8, 256, 64]]
    np.testing.assert_allclose(found.boxes, want, rtol=1e-6)
    assert found.classes.tolist() == [1, 1] and found.masks is None
    np.testing.assert_allclose(found.scores, [0.9, 0.7])


def test_pixels_are_normalised_as_the_model_keeps_it(eager):
    model = Still(backbone("resnet10", width=8, mean=[0.5] * 3, std=[0.25] * 3), **OWN)
    Detector(model)(np.full((64, 64, 3), 255, np.uint8))
    np.testing.assert_allclose(model.given[0], 2.0)


def test_present_weights_are_used(detector):
    image, bias = photo(64, 64), detector.model.box_head.logits.bias
    before, kept = detector(image).scores, bias.numpy()
    bias.assign(kept + [5.0, 0, 0])
    after = detector(image)
    bias.assign(kept)
    assert (after.classes == 0).all() and after.scores[0] > before[0]


@pytest.mark.slow
def test_half_precision_and_boxes_alone():
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_model(masks=False)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    found = Detector(model)(photo(48, 80))
    assert found.masks is None and found.boxes.dtype == np.float32
    assert not Detector(model).has_masks
