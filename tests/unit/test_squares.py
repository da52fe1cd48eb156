"""Squares of evaluation: Pillow's, the served graph's, torchvision's as recorded."""

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.images import square, square_in_graph
from tests.support.command import ROOT

RECORDED = ROOT / "tests" / "golden" / "eval_preprocessing.npz"


def photo(height, width):
    small = np.random.default_rng(height).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC))


def test_evaluation_is_torchvisions():
    """Resize(256) and CenterCrop(224), recorded; within a grey level."""
    recorded = np.load(RECORDED)
    truth = recorded["evaluated"].astype(int)
    assert np.abs(square(recorded["big"], 224).astype(int) - truth).max() <= 1


@pytest.mark.parametrize("how", ["evaluation", "central", "stretched"])
@pytest.mark.parametrize("shape", [(120, 161), (161, 120), (97, 97), (1, 30), (300, 2)])
def test_the_graph_gives_the_same(shape, how):
    image = photo(*shape)
    here, there = square(image, 56, how), square_in_graph(image, 56, how)
    assert here.shape == (56, 56, 3) and here.dtype == np.uint8
    assert np.abs(there - here.astype(np.float32)).max() <= 1


@pytest.mark.parametrize("how", ["evaluation", "central"])
@pytest.mark.parametrize("shape", [(120, 161), (161, 120), (97, 98)])
def test_a_square_is_the_centre_of_the_resized_image(shape, how):
    image, shorter = photo(*shape), {"evaluation": 64, "central": 56}[how]
    size = tuple(shorter * edge // min(shape) for edge in shape)
    whole = np.asarray(Image.fromarray(image).resize(size[::-1], Image.BILINEAR))
    top, left = (round((edge - 56) / 2) for edge in size)
    truth = whole[top : top + 56, left : left + 56].astype(int)
    assert np.abs(square(image, 56, how).astype(int) - truth).max() <= 1


def test_ids_stay_ids():
    ids = np.random.default_rng(0).integers(0, 200, (90, 70)).astype(np.uint8)
    found = square(ids, 24, "central", nearest=True)
    assert found.shape == (24, 24) and set(found.ravel()) <= set(ids.ravel())
    with pytest.raises(ValueError, match="'evaluation', 'central' or 'stretched'"):
        square(ids, 24, "middle")
