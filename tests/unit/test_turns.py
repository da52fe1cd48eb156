"""Views turned by quarters and upside down: pixels, overlaps, and the way back."""

import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.data import crop_pair_dataset
from slotcon_tf.data.crops import NUMBERS_PER_PAIR, crop_views, turned_views
from slotcon_tf.data.recipe import draw_numbers, draw_turns
from slotcon_tf.method.objective import align
from tests.support.picture_case import Numbered

COUNT = 200
# The first, second, 78th and last number of seed 5 at position 7.
RECORDED = [0.12039494514465332, 0.12778854370117188]
RECORDED += [0.9078305959701538, 0.4587510824203491]
STILL = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)  # neither upended nor turned
rng = np.random.default_rng(5)
ROWS = rng.random((COUNT, NUMBERS_PER_PAIR), dtype=np.float32)
TURNS = rng.random((COUNT, 2, 2), dtype=np.float32)


def coordinates(height=240, width=320):
    """An image that is painted with its own coordinates."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 / width, y * 255 / height, 0 * x], axis=-1)
    return image.astype(np.uint8)


def test_without_turns_nothing_changes():
    image = coordinates()
    for row in ROWS[:20]:
        views, overlaps, flipped = crop_views(image, row, 32, 0.08)
        got = turned_views(image, row, 32, 0.08, STILL)
        np.testing.assert_array_equal(got[2], flipped)
        assert not got[3].any() and not got[4].any()
        np.testing.assert_allclose(got[1], overlaps, atol=1e-6)
        np.testing.assert_array_equal(got[0], views)


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("upended", [False, True])
def test_pixels_are_numpys_flips_and_turns(quarters, upended):
    image = coordinates()
    turns = np.array([[0.2 if upended else 0.7, quarters / 4 + 0.1]] * 2, np.float32)
    for row in ROWS[:10]:
        plain, _, _ = crop_views(image, row, 32, 0.08)
        views, _, flipped, up, transposed = turned_views(image, row, 32, 0.08, turns)
        for view, before, *marks in zip(
            views, plain, flipped, up, transposed, strict=True
        ):
            truth = before[::-1] if upended else before
            np.testing.assert_array_equal(view, np.rot90(truth, quarters))
            assert marks[2] == quarters % 2


def test_align_undoes_every_turn():
    """Both views' coordinates, as maps, meet: the same scene point at the same cell."""
    image, size, checked = coordinates(), 64, 0
    kinds = set()
    for row, turns in zip(ROWS, TURNS, strict=True):
        views, overlaps, *marks = turned_views(image, row, size, 0.2, turns)
        if (overlaps[:, 2:] - overlaps[:, :2]).min() < 0.2:
            continue
        maps = tf.constant(views[..., :2], tf.float32)
        aligned = align(maps, tf.constant(overlaps), *map(tf.constant, marks)).numpy()
        inner = np.abs(aligned[0] - aligned[1])[2:-2, 2:-2]
        # A pixel of the view is up to 5 pixels of the image, 4 grey levels.
        assert inner.max() <= 8 and inner.mean() < 2, (marks, inner.max())
        # In the scene's orientation: x grows to the right, y down.
        assert (np.diff(aligned[0][2:-2, 2:-2, 0], axis=1) >= -1).all()
        assert (np.diff(aligned[0][2:-2, 2:-2, 1], axis=0) >= -1).all()
        kinds |= set(zip(*(mark.tolist() for mark in marks), strict=True))
        checked += 1
    assert checked >= 60 and len(kinds) == 8


def test_turning_back_is_the_identity():
    """A full box: align gives the map that the view had before it was turned."""
    maps = np.random.default_rng(0).random((8, 5, 5, 3)).astype(np.float32)
    marks = np.array([[f, u, t] for f in (0, 1) for u in (0, 1) for t in (0, 1)], bool)
    turned = maps.copy()
    for view, (flipped, upended, transposed) in zip(turned, marks, strict=True):
        seen = view.swapaxes(0, 1).copy() if transposed else view.copy()
        seen = seen[:, ::-1] if flipped else seen
        view[:] = seen[::-1] if upended else seen
    full = np.tile(np.float32([0, 0, 1, 1]), (8, 1))
    found = align(turned, full, *(tf.constant(mark) for mark in marks.T))
    np.testing.assert_allclose(found, maps, atol=1e-6)
    with pytest.raises(ValueError, match="must give square maps"):
        align(maps[:, :4], full, *(tf.constant(mark) for mark in marks.T))


def test_numbers_of_existing_runs_stay():
    """draw_numbers draws what it drew: recorded on the day before turns came."""
    first = draw_numbers(5, 7).numpy()[[0, 1, 77, -1]]
    np.testing.assert_array_equal(first, np.float32(RECORDED))
    turns = draw_turns(5, 7, True, True).numpy()
    assert not np.isin(turns, draw_numbers(5, 7)).any()
    assert (draw_turns(5, 7, False, True).numpy()[:, 0] == 1).all()
    assert (draw_turns(5, 7, True, False).numpy()[:, 1] == 0).all()


def test_the_pipeline_says_how_views_were_turned():
    options = {"batch_size": 10, "image_size": 32, "augment_on": "device"}
    plain = next(iter(crop_pair_dataset(Numbered(), **options)))
    assert not any("transposed" in name or "upended" in name for name in plain)
    spec = crop_pair_dataset(Numbered(), rotate90=True, **options).element_spec
    assert spec["transposed_a"].shape == spec["upended_b"].shape == (10,)
    turned, upended = (
        list(crop_pair_dataset(Numbered(), **options, **{name: True}, epochs=4))
        for name in ("rotate90", "vertical_flip")
    )
    share = np.mean([batch["transposed_a"] for batch in turned])
    assert 0.2 < share < 0.8
    assert not np.any([batch["transposed_b"] for batch in upended])
    assert 0.2 < np.mean([batch["upended_b"] for batch in upended]) < 0.8
