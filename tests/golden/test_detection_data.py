"""Resizing and moving of objects: held to detectron2's training mapper.

`mapper` was recorded by running detectron2 (commit 02b5c4e2) on three images drawn from
a seed, `schedule` has its sizes of resized images: bit for bit.
"""

import numpy as np
import pytest

from slotcon_tf.data.objects.annotation import Record
from slotcon_tf.detection.resize import resize_image, shortest_edge_size
from slotcon_tf.detection.truth import moved_objects
from tests.support.detection_case import described, recorded
from tests.support.golden_case import draw

SEED = 2606
CASES = [(f"image{k}", case) for k in range(3) for case in ("down", "up", "cap")]


def test_sizes_of_resized_images():
    table = recorded("schedule")["resize/h_w_short_newh_neww"].tolist()
    assert len(table) == 120
    for height, width, short, *expected in table:
        assert [*shortest_edge_size(height, width, short, 1333)] == expected


def mapped(name, case):
    """Image, boxes, classes and polygons of an image, and the recorded ones."""
    about = described("mapper")[name]
    height, width = about["hw"]
    number = name[-1]
    fine = draw(SEED, f"map{number}_fine", (height, width, 3))
    cells = -(-height // 16), -(-width // 16), 3
    coarse = draw(SEED, f"map{number}_coarse", cells).repeat(16, 0).repeat(16, 1)
    image = 118 + 28 * fine + 40 * coarse[:height, :width]
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    rows = about["annotations"]
    outlines = [
        [np.reshape(p, (-1, 2)) for p in row["segmentation"]]
        if not row["iscrowd"]
        else None
        for row in rows
    ]
    record = Record.of_objects(
        1,
        name,
        height,
        width,
        [row["bbox"] for row in rows],
        [row["category_id"] for row in rows],
        crowd=[row["iscrowd"] for row in rows],
        outlines=outlines,
    )
    options = about["cases"][case]
    size = shortest_edge_size(height, width, options["short"], options["max"])
    flipped = bool(options["flip"])
    found = moved_objects(record.annotation(), *size, flipped)
    image = resize_image(image, *size)
    return image[:, ::-1] if flipped else image, *found


@pytest.mark.parametrize(("name", "case"), CASES)
def test_mapper(name, case):
    image, boxes, classes, polygons = mapped(name, case)
    expected = {
        key.rpartition("/")[2]: value
        for key, value in recorded("mapper").items()
        if key.startswith(f"{name[-1]}/{case}/")
    }
    np.testing.assert_array_equal(image.transpose(2, 0, 1), expected["image"])
    np.testing.assert_array_equal(
        boxes.astype(expected["boxes"].dtype), expected["boxes"]
    )
    np.testing.assert_array_equal(classes, expected["classes"])
    assert len(polygons) == sum(key.startswith("polygon_") for key in expected) == 3
    for number, (polygon,) in enumerate(polygons):
        assert polygon.dtype == np.float64
        np.testing.assert_array_equal(
            polygon.ravel(), np.ravel(expected[f"polygon_{number}"])
        )
