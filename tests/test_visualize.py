"""Pictures: colours that keep their meaning, overlays, the figure of slots."""

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.visualize import (
    label_colors,
    matched_colors,
    overlay,
    save_slots,
    slots_figure,
)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
    masks = np.zeros((3, 24, 32), np.int64)
    masks[:, 12:] = 1
    return images, masks + 5, masks


def test_a_colour_depends_on_the_id_alone():
    np.testing.assert_array_equal(label_colors(10), label_colors(2048)[:10])
    assert label_colors(2048).shape == (2048, 3)


def test_the_first_colours_are_distinct():
    colors = label_colors(48).astype(int)
    apart = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert apart[~np.eye(48, dtype=bool)].min() >= 10  # of 765


def test_a_matched_group_takes_the_colour_of_its_class():
    colors = matched_colors(8, {5: 0, 6: 1}, 2)
    classes = label_colors(2)
    np.testing.assert_array_equal(colors[5], classes[0])
    np.testing.assert_array_equal(colors[6], classes[1])
    for other in (0, 1, 2, 3, 4, 7):
        assert not (colors[other] == classes).all(-1).any()


def test_overlay_keeps_void_and_marks_boundaries(batch):
    images, _, masks = batch
    labels = masks[0].copy()
    labels[:4] = 255
    out = overlay(images[0], labels, label_colors(2))
    np.testing.assert_array_equal(out[:4], images[0][:4])
    assert (out[12] == 255).all()  # the line between the halves
    assert (out[20] != images[0][20]).any()


def test_slots_png_has_three_columns_with_masks_and_two_without(batch, tmp_path):
    images, groups, masks = batch
    names, path = ("sky", "grass"), tmp_path / "deep" / "slots.png"
    figure = slots_figure(images, groups, masks, class_names=names, matching={5: 0})
    assert len(figure.axes) == 9
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(names)
    assert len(slots_figure(images, groups).axes) == 6
    save_slots(path, images, groups, masks, class_names=names)
    with Image.open(path) as picture:
        assert picture.width > 600
