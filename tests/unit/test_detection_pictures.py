"""Pictures of objects: boxes, masks and names where they belong, at any size."""

import types

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.detection import Found
from slotcon_tf.detection.pictures import (
    certain,
    detections_picture,
    draw_found,
    draw_true,
    save_detections,
)
from slotcon_tf.visualize import label_colors
from slotcon_tf.visualize.detections import (
    Objects,
    objects_overlay,
    polygon_masks,
    side_by_side,
)

NAMES = ("cat", "dog", "a name that is longer than many a box")
GREY = np.full((240, 320, 3), 128, np.uint8)
COLORS = label_colors(3)
SQUARE = np.array([[40.0, 60], [140, 60], [140, 160], [40, 160]])


def found(*scores, masks=True):
    """Squares from left to right, of one class after the other."""
    count = len(scores)
    left = np.arange(count) * 100.0 + 10
    boxes = np.stack([left, np.full(count, 60.0), left + 80, np.full(count, 160.0)], 1)
    full = np.ones((count, 28, 28), np.float32) if masks else None
    return Found(boxes, np.array(scores), np.arange(count) % 3, full)


def annotation(image=GREY, polygons=([SQUARE],)):
    boxes = np.tile([[40.0, 60, 140, 160]], (len(polygons), 1))
    return types.SimpleNamespace(
        height=image.shape[0],
        width=image.shape[1],
        boxes=boxes,
        classes=np.zeros(len(polygons), np.int32),
        polygons=list(polygons),
    )


def is_of(pixel, color):
    return np.abs(pixel.astype(int) - color).max() == 0


def test_a_box_has_its_class_colour_and_a_mask_is_tinted():
    two = Objects(np.array([[10, 60, 90, 160], [110, 60, 190, 160]]), np.array([0, 1]))
    picture = objects_overlay(GREY, two, NAMES)
    assert is_of(picture[120, 10], COLORS[0]) and is_of(picture[120, 110], COLORS[1])
    np.testing.assert_array_equal(picture[120, 50], GREY[0, 0])  # nothing within
    np.testing.assert_array_equal(picture[220], GREY[0])
    masks = np.zeros((2, 240, 320), bool)
    masks[0, 70:150, 20:80] = True
    picture = objects_overlay(GREY, two._replace(masks=masks), NAMES)
    tinted = picture[110, 50].astype(int)
    between = np.sort([COLORS[0].astype(int), GREY[0, 0].astype(int)], axis=0)
    assert (between[0] <= tinted).all() and (tinted <= between[1]).all()
    assert is_of(picture[110, 20], COLORS[0])  # its outline
    np.testing.assert_array_equal(picture[110, 150], GREY[0, 0])


def test_the_smaller_lies_on_top():
    large, small = [10, 20, 300, 230], [100, 100, 140, 140]
    masks = np.zeros((2, 240, 320), bool)
    masks[0, 20:230, 10:300] = masks[1, 100:140, 100:140] = True
    both = Objects(np.array([large, small]), np.array([0, 1]), masks, [0.6, 0.9])
    one = objects_overlay(GREY, both, NAMES)[125, 125]
    turned = Objects(*(np.asarray(x)[::-1] for x in both))
    np.testing.assert_array_equal(objects_overlay(GREY, turned, NAMES)[125, 125], one)
    assert np.abs(one - COLORS[1].astype(int)).sum() < 2 * 255


def test_names_do_not_cover_each_other_where_there_is_room():
    """Of two objects at one place one has its name above the box, one within it."""

    def of_names(*classes):
        boxes = np.tile([[120.0, 100, 200, 160]], (len(classes), 1))
        picture = objects_overlay(GREY, Objects(boxes, np.array(classes)), NAMES)
        above, within = picture[:96], picture[104:156, 124:196]
        return [
            [(x == COLORS[c]).all(-1).sum() for c in (0, 1)] for x in (above, within)
        ]

    (first, _), (nothing, _) = of_names(0)
    assert first > 50 and nothing == 0
    assert of_names(0, 1)[0] == [first, 0] and of_names(0, 1)[1][1] > 50


@pytest.mark.parametrize("size", [(1, 1), (9, 700), (700, 9), (30, 40), (3000, 4000)])
@pytest.mark.parametrize("masks", [True, False])
def test_images_of_any_size(size, masks):
    image = np.full((*size, 3), 90, np.uint8)
    whole = np.array([[0.0, 0, size[1], size[0]]])
    probabilities = np.ones((1, 28, 28), np.float32) if masks else None
    one = Found(whole, np.array([0.9]), np.array([2]), probabilities)
    picture = draw_found(image, one, NAMES)
    assert 480 <= max(picture.shape) <= 640 and picture.dtype == np.uint8
    assert (picture != 90).any()


def test_uncertain_ones_are_left_out_but_for_the_best():
    assert len(certain(found(0.9, 0.6, 0.4))) == 2
    assert certain(found(0.4, 0.3)).scores.tolist() == [0.4]
    assert len(certain(found())) == 0
    one = draw_found(GREY, found(0.9, 0.3), NAMES)
    np.testing.assert_array_equal(one, draw_found(GREY, found(0.9), NAMES))
    assert (one != draw_found(GREY, found(0.9, 0.3), NAMES, min_score=0.2)).any()


def test_true_objects_have_their_polygons_and_holes_in_none():
    picture = draw_true(GREY, annotation(), NAMES)
    scale = picture.shape[1] / GREY.shape[1]
    inside, outside = (
        picture[round(y * scale), round(x * scale)] for y, x in ((130, 90), (200, 250))
    )
    assert (inside != 128).any() and (outside == 128).all()
    boxes_only = draw_true(GREY, annotation(polygons=([],)), NAMES)
    assert (boxes_only[round(130 * scale), round(90 * scale)] == 128).all()
    nothing = draw_true(GREY, annotation(polygons=()), NAMES)
    assert (nothing == 128).all()
    masks = polygon_masks([[SQUARE, SQUARE + 150], []], 240, 320)
    assert masks[0, 100, 100] and masks[0, 239, 200] and not masks[1].any()


def test_truth_and_detections_side_by_side(tmp_path):
    tall = np.full((400, 100, 3), 50, np.uint8)
    shown = [
        (GREY, annotation(), found(0.9, 0.8)),
        (tall, annotation(tall, ()), found()),
    ]
    picture = detections_picture(shown, NAMES)
    assert picture.shape == (30 + 3 * 10 + 360 + 480, 2 * 480 + 10, 3)
    save_detections(tmp_path / "deep" / "detections.png", shown, NAMES)
    with Image.open(tmp_path / "deep" / "detections.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert side_by_side([[GREY]], ["one"]).shape == (290, 320, 3)
