"""Crops: the original's statistics, coordinates and pixels; one scene in both views."""

import pathlib

import numpy as np
import pytest

from slotcon_tf.data.crops import (
    NUMBERS_PER_PAIR,
    crop_views,
    overlap_boxes,
    random_crop_pair,
)
from slotcon_tf.data.resize import resize_crop

ARRAYS = np.load(pathlib.Path(__file__).parents[1] / "golden" / "augment_small.npz")
SHAPES = [k[5:-6] for k in ARRAYS.files if k.startswith("geom") and "boxes" in k]
COUNT = 2000


def numbers(count, seed=7):
    shape = (count, NUMBERS_PER_PAIR)
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def crop_pairs(height, width, count=COUNT):
    rows = numbers(count)
    return np.stack([random_crop_pair(height, width, row, 0.08) for row in rows])


def shared_area(boxes):
    near = np.maximum(boxes[:, 0, :2], boxes[:, 1, :2])
    far = np.minimum(
        boxes[:, 0, :2] + boxes[:, 0, 2:], boxes[:, 1, :2] + boxes[:, 1, 2:]
    )
    return np.maximum(far - near, 0).prod(axis=1)


def resized(image, box, flipped, size):
    out = np.empty((size, size, 3), np.uint8)
    resize_crop(np.ascontiguousarray(image), np.asarray(box, np.int64), flipped, out)
    return out


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_are_the_originals(shape):
    """Means over 2,000 draws: 4 standard errors of the difference of two such means.

    Area, aspect, overlap, and how often crops do not meet (only a second crop that was
    drawn without the condition can miss the first).
    """
    width, height = map(int, shape.split("x"))
    ours = crop_pairs(height, width).astype(float)
    truth = ARRAYS[f"geom_{shape}/boxes"].astype(float)

    def figures(boxes):
        area = boxes[..., 2] * boxes[..., 3] / (width * height)
        shared = shared_area(boxes) / boxes[:, 1, 2:].prod(axis=1)
        aspect = np.log(boxes[..., 3] / boxes[..., 2])
        return np.column_stack([area, aspect, shared, shared < 0.01])

    a, b = figures(ours), figures(truth)
    error = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b))
    assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) <= 4 * error + 1e-9).all()
    assert ours.min() >= 0
    assert (ours[..., 0] + ours[..., 2]).max() <= height
    assert (ours[..., 1] + ours[..., 3]).max() <= width


def test_fallbacks_are_as_frequent_as_the_originals():
    """The central crop is the only one of its size in so narrow an image."""
    for shape in ("1000x200", "120x600"):
        width, height = map(int, shape.split("x"))
        central = min(height, round(width / 0.75)), min(width, round(height * 4 / 3))

        def share(boxes, central=central):
            hit = (boxes[..., 2:] == central).all(axis=-1)
            return hit.mean(), hit.std() / hit.size**0.5

        ours, error = share(crop_pairs(height, width))
        truth, other = share(ARRAYS[f"geom_{shape}/boxes"])
        assert abs(ours - truth) <= 4 * np.hypot(error, other), shape
        assert truth > 0.05


def test_coordinates_are_the_originals():
    """Bit for bit, from the recorded boxes and flips, inverted boxes included."""
    recorded = ("boxes", "flags", "coords")
    rows = zip(*(ARRAYS[f"geom_256x192/{name}"] for name in recorded), strict=False)
    for boxes, flags, coords in rows:
        got = overlap_boxes(boxes.astype(np.int64), flags.astype(bool))
        np.testing.assert_array_equal(got, coords)


def test_cut_equals_pillows_crop_resize_and_flip():
    image = ARRAYS["coord_image_256x192"]
    for index in range(12):
        for view in range(2):
            box = ARRAYS["crop64/boxes"][index, view]
            got = resized(image, box, bool(ARRAYS["crop64/flags"][index, view]), 64)
            truth = ARRAYS["crop64/pixels"][index, view].astype(int)
            # Pillow rounds twice, in fixed point; this once.
            assert np.abs(got - truth).mean() < 0.5 and np.abs(got - truth).max() <= 2


@pytest.mark.parametrize(
    ("image", "size"), [("image", 48), ("big", 96)], ids=["48 px", "96 px"]
)
def test_resizing_equals_pillows(image, size):
    key = "resize" if image == "image" else "big"
    for index, box in enumerate(ARRAYS[f"{key}/boxes_ijhw"]):
        got = resized(ARRAYS[image], box, False, size)
        truth = ARRAYS[f"{key}/{size}/{index}"].astype(int)
        assert np.abs(got - truth).mean() < 0.5 and np.abs(got - truth).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 4000), (4000, 3)])
def test_tiny_and_narrow_images_give_whole_views(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    for row in numbers(20):
        views, overlaps, _ = crop_views(image, row, 32, 0.08)
        assert (views == 77).all() and np.isfinite(overlaps).all()


def test_overlaps_bring_the_same_scene_point_to_the_same_place():
    """An image painted with its own coordinates, read at one place of both overlaps."""
    height, width, size = 240, 320, 128
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 / width, y * 255 / height, 0 * x], axis=-1)
    image = image.astype(np.uint8)
    checked = 0
    for row in numbers(60):
        views, overlaps, flipped = crop_views(image, row, size, 0.2)
        if (overlaps[:, 2:] - overlaps[:, :2]).min() < 0.2:
            continue
        seen = []
        for picture, box, flip in zip(views, overlaps, flipped, strict=True):
            u = 0.75 if flip else 0.25  # a flip mirrors the overlap too
            x0, y0, x1, y1 = box
            place = (y0 + 0.25 * (y1 - y0), x0 + u * (x1 - x0))
            r, c = (min(int(p * size), size - 1) for p in place)
            seen.append(picture[r, c, :2].astype(int))
        # A pixel of the view is up to 2.5 pixels of the image, 2 grey levels.
        assert np.abs(seen[0] - seen[1]).max() <= 4, seen
        checked += 1
    assert checked >= 15
