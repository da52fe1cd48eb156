"""Crops: the original's statistics and coordinates, one scene in both views."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.data.crops import overlap_boxes, random_crop_pair
from slotcon_tf.data.pipeline import cut

ARRAYS = np.load(pathlib.Path(__file__).parent / "golden" / "augment_small.npz")
COUNT = 2000


def crop_pairs(height, width, count=COUNT):
    @tf.function
    def draw():
        seeds = tf.stack([tf.range(count), tf.fill([count], 7)], axis=1)
        return tf.map_fn(
            lambda s: random_crop_pair(tf.constant([height, width]), s, 0.08),
            seeds,
            fn_output_signature=tf.TensorSpec([2, 4], tf.int32),
        )

    return draw().numpy().astype(float)


def shared_area(boxes):
    near = np.maximum(boxes[:, 0, :2], boxes[:, 1, :2])
    far = np.minimum(
        boxes[:, 0, :2] + boxes[:, 0, 2:], boxes[:, 1, :2] + boxes[:, 1, 2:]
    )
    return np.maximum(far - near, 0).prod(axis=1)


@pytest.mark.parametrize("shape", ["256x192", "1000x200"])
def test_statistics_are_the_originals(shape):
    """Means over 2,000 draws: 4 standard errors of the difference of two such means."""
    width, height = map(int, shape.split("x"))
    ours, truth = crop_pairs(height, width), ARRAYS[f"geom_{shape}/boxes"].astype(float)

    def figures(boxes):
        area = boxes[..., 2] * boxes[..., 3] / (width * height)
        shared = shared_area(boxes) / boxes[:, 1, 2:].prod(axis=1)
        aspect = np.log(boxes[..., 3] / boxes[..., 2])
        return np.column_stack([area, aspect, shared, shared == 0])

    a, b = figures(ours), figures(truth)
    error = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b))
    assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) <= 4 * error + 1e-9).all()
    assert ours.min() >= 0
    assert (ours[..., 0] + ours[..., 2]).max() <= height
    assert (ours[..., 1] + ours[..., 3]).max() <= width


def test_coordinates_are_the_originals():
    """Bit for bit, from the recorded boxes and flips, inverted boxes included."""
    for boxes, flags, coords in zip(
        ARRAYS["geom_256x192/boxes"],
        ARRAYS["geom_256x192/flags"],
        ARRAYS["geom_256x192/coords"],
        strict=False,
    ):
        got = overlap_boxes(tf.constant(boxes.astype(np.int32)), tf.constant(flags))
        np.testing.assert_array_equal(got, coords)


def test_cut_equals_pillows_crop_resize_and_flip():
    image = ARRAYS["coord_image_256x192"]
    for index in range(12):
        for view in range(2):
            got = cut(
                image,
                ARRAYS["crop64/boxes"][index, view].astype(np.int32),
                ARRAYS["crop64/flags"][index, view],
                64,
            )
            truth = ARRAYS["crop64/pixels"][index, view].astype(np.float32)
            # Pillow resizes in fixed point: half a grey level of rounding.
            assert np.abs(got - truth).mean() < 0.5


def test_overlaps_bring_the_same_scene_point_to_the_same_place():
    """An image painted with its own coordinates, read at one place of both overlaps."""
    height, width, size = 240, 320, 128
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 / width, y * 255 / height, 0 * x], axis=-1)
    image = image.astype(np.uint8)
    checked = 0
    for seed in range(40):
        boxes = random_crop_pair(tf.constant([height, width]), [seed, 1], 0.2)
        flipped = tf.constant([bool(seed % 2), bool(seed // 2 % 2)])
        overlaps = overlap_boxes(boxes, flipped).numpy()
        if (overlaps[:, 2:] - overlaps[:, :2]).min() < 0.2:
            continue
        seen = []
        for view in range(2):
            picture = cut(image, boxes[view], flipped[view], size).numpy()
            u = 0.25 if not flipped[view] else 0.75  # a flip mirrors the overlap too
            x0, y0, x1, y1 = overlaps[view]
            column = int((x0 + u * (x1 - x0)) * size)
            row = int((y0 + 0.25 * (y1 - y0)) * size)
            seen.append(picture[min(row, size - 1), min(column, size - 1), :2])
        # A pixel of the view is up to 2.5 pixels of the image, 2 grey levels.
        assert np.abs(seen[0] - seen[1]).max() <= 4, (seed, seen)
        checked += 1
    assert checked >= 15
