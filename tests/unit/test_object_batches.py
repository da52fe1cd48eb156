"""Batches of images with objects: order, sizes, contents, limits, and resuming."""

import collections
import types

import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.data.objects import ObjectImages
from slotcon_tf.data.objects.annotation import Record
from slotcon_tf.detection import MaskRCNN, object_batches
from slotcon_tf.detection.batch_plans import BatchPlans
from slotcon_tf.detection.grouping import PairedOrder
from slotcon_tf.detection.truth import edges_of
from slotcon_tf.encoders.resnet import backbone
from slotcon_tf.images.statistics import IMAGENET, ImageStatistics
from slotcon_tf.runs.detection_config import DetectionConfig
from slotcon_tf.runs.detection_run import DetectionRun

SIZES = [(60, 80), (60, 90), (48, 96), (60, 60), (90, 60), (80, 64), (60, 100)]
OPTIONS = {"short_edges": (48, 64), "long_edge": 96, "batch_size": 4}


def rectangles(number):
    """Two boxes x, y, w, h that do not touch, of an image."""
    return [[4 + number, 6, 20, 16 + number], [34, 30 - number, 18, 14]]


def images_of(boxes=rectangles, masks=True, sizes=SIZES):
    """White rectangles on black; each polygon is its box."""
    records = []
    for number, (height, width) in enumerate(sizes):
        own = boxes(number)
        outlines = [
            [np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], float)]
            for x, y, w, h in own
        ]
        classes = np.arange(len(own)) % 2
        options = {"outlines": outlines if masks else None}
        records.append(
            Record.of_objects(
                number, f"{number}", height, width, own, classes, **options
            )
        )

    def read(number):
        image = np.zeros((*sizes[number], 3), np.uint8)
        for x, y, w, h in boxes(number):
            image[y : y + h, x : x + w] = 255
        return image

    return ObjectImages("mine", records, read, {3: "cat", 9: "dog"})


def batches(count, images=None, **options):
    stream = object_batches(images or images_of(), **{**OPTIONS, **options})
    return [{k: v.numpy() for k, v in batch.items()} for batch in stream.take(count)]


def waited_for(order, sizes, passes):
    """Pairs as they get whole when images come one by one: detectron2's grouping."""
    waiting, pairs = {}, []
    for number in range(passes):
        for index in order._shuffled(number):
            wide = sizes[index][1] > sizes[index][0]
            if wide in waiting:
                pairs.append([waiting.pop(wide), index])
            else:
                waiting[wide] = index
    return np.ravel(pairs).tolist()


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7])
def test_pairs_of_one_aspect_as_they_get_whole(count):
    sizes = np.array(SIZES[:count])
    order = PairedOrder(sizes, seed=3)
    expected = waited_for(order, sizes, passes=7)
    found = [order.image(position) for position in range(len(expected))]
    assert found == expected
    # From anywhere, without what came before.
    assert PairedOrder(sizes, seed=3).image(len(found) - 1) == found[-1]


def test_every_image_comes_once_a_pass():
    order = PairedOrder(np.array(SIZES), seed=0)
    found = collections.Counter(order.image(p) for p in range(4 * len(SIZES)))
    assert set(found) == set(range(len(SIZES)))
    assert max(found.values()) <= 5 and min(found.values()) >= 3
    alone = PairedOrder(np.array(SIZES), seed=0, paired=False)
    passes = np.array([alone.image(p) for p in range(21)]).reshape(3, 7)
    assert (np.sort(passes, 1) == np.arange(7)).all()
    assert len({tuple(one) for one in passes}) == 3
    other = PairedOrder(np.array(SIZES), seed=1, paired=False)
    assert [other.image(p) for p in range(7)] != passes[0].tolist()


def test_a_square_is_no_landscape():
    order = PairedOrder(np.array([(6, 6), (6, 4), (4, 6), (4, 6)]), seed=0)
    pairs = [{order.image(2 * p), order.image(2 * p + 1)} for p in range(8)]
    assert {0, 1} in pairs and all(pair in ({0, 1}, {2, 3}) for pair in pairs)


def test_edges_and_flips_are_drawn_evenly():
    plans = BatchPlans(np.array([(60, 80)] * 4), seed=5, **OPTIONS)
    rows = [plans.row(position) for position in range(400)]
    heights = collections.Counter(row.size[0] for row in rows)
    assert set(heights) == {48, 64} and min(heights.values()) > 160
    assert 160 < sum(row.flipped for row in rows) < 240
    both = collections.Counter((row.size[0], row.flipped) for row in rows)
    assert min(both.values()) > 60  # neither tells the other
    still = BatchPlans(np.array([(60, 80)] * 4), seed=5, flip=False, **OPTIONS)
    assert not any(still.row(position).flipped for position in range(50))


def test_a_batch_is_padded_to_its_largest_rounded_up_to_32():
    for batch in batches(6):
        height, width = batch["sizes"].max(0)
        assert batch["images"].shape[1:3] == (
            -(-height // 32) * 32,
            -(-width // 32) * 32,
        )


def test_boxes_polygons_and_pixels_move_together():
    flipped = set()
    plans = BatchPlans(np.array(SIZES), **OPTIONS)
    for step, batch in enumerate(batches(4)):
        for row in range(4):
            flipped.add(plans.row(4 * step + row).flipped)
            height, width = batch["sizes"][row]
            pixels = batch["images"][row]
            # The mean colour, not black, is around.
            assert not pixels[height:].any() and not pixels[:, width:].any()
            white = pixels[:height, :width, 0] > 0.5
            inside = np.zeros_like(white)
            for box in np.rint(batch["boxes"][row][batch["valid"][row]]).astype(int):
                inside[box[1] : box[3], box[0] : box[2]] = True
            assert (white != inside).mean() < 0.05
            assert batch["valid"][row].sum() == 2
            assert sorted(batch["classes"][row][:2]) == [0, 1]
            for number in range(2):
                starts, ends = batch["starts"][row, number], batch["ends"][row, number]
                edge = (starts != ends).any(1)
                corners = starts[edge]
                box = [*corners.min(0), *corners.max(0)]
                np.testing.assert_allclose(box, batch["boxes"][row, number], atol=1e-9)
                np.testing.assert_array_equal(np.roll(corners, -1, 0), ends[edge])
    assert flipped == {True, False}


def test_pixels_are_normalised_as_the_model_says():
    statistics = ImageStatistics(mean=[0.5] * 3, std=[0.25] * 3)
    (batch,) = batches(1, statistics=statistics)
    assert np.unique(batch["images"]).min() == -2 and batch["images"].max() == 2
    (batch,) = batches(1)
    black = IMAGENET.normalize(tf.zeros(3)).numpy()
    assert (batch["images"][0, 0, 0] == black).all()


def test_a_stream_goes_on_where_it_is_told_to():
    stream = batches(5)
    for step in (1, 4):
        (batch,) = batches(1, start_step=step)
        for name, value in batch.items():
            np.testing.assert_array_equal(value, stream[step][name])
    (other,) = batches(1, seed=1)
    assert (other["sizes"] != stream[0]["sizes"]).any()


def test_hosts_make_their_own_rows_of_the_same_batch():
    whole = batches(3)
    for host in range(2):
        context = tf.distribute.InputContext(2, host, 2)
        for own, batch in zip(batches(3, input_context=context), whole, strict=True):
            rows = slice(2 * host, 2 * host + 2)
            np.testing.assert_array_equal(own["images"], batch["images"][rows])
            np.testing.assert_array_equal(own["sizes"], batch["sizes"][rows])
            count = own["boxes"].shape[1]
            np.testing.assert_array_equal(own["boxes"], batch["boxes"][rows, :count])


def test_objects_and_corners_are_padded_to_powers_of_two():
    def boxes(number):
        return rectangles(number)[:1] * (1 + 2 * (number % 2))

    (batch,) = batches(1, images_of(boxes, sizes=SIZES[:3]))
    assert batch["boxes"].shape == (4, 4, 4) and batch["starts"].shape == (4, 4, 4, 2)
    assert set(batch["valid"].sum(1)) == {1, 3}
    assert not batch["boxes"][~batch["valid"]].any()


def test_each_polygon_of_an_object_is_a_part():
    triangle = np.array([[0.0, 0], [8, 0], [8, 6]])
    starts, ends, parts = edges_of([[triangle, triangle + 10], [triangle]], 8)
    assert parts.tolist() == [[0, 0, 0, 1, 1, 1, 0, 0], [0] * 8]
    assert (starts[0, 3:6] == triangle + 10).all() and (ends[0, 5] == 10).all()
    assert (starts[1, 3:] == ends[1, 3:]).all()


def test_an_image_whose_objects_all_go_has_none_to_find():
    (batch,) = batches(1, images_of(lambda number: [[200, 5, 4, 4]]))
    assert batch["boxes"].shape == (4, 1, 4) and not batch["valid"].any()


def test_sets_without_masks_have_no_corners():
    (batch,) = batches(1, images_of(masks=False))
    assert set(batch) == {"images", "sizes", "boxes", "classes", "valid"}


def test_fixed_sizes_take_the_smallest_that_holds():
    fixed = ((96, 96), (64, 96), (96, 64))
    images = images_of(sizes=SIZES[:3])  # landscape all
    stream = object_batches(images, fixed_sizes=fixed, **OPTIONS)
    spec = {name: tuple(value.shape) for name, value in stream.element_spec.items()}
    assert spec["boxes"] == (4, 2, 4) and spec["starts"] == (4, 2, 256, 2)
    shapes = {batch["images"].shape[1:3] for batch in stream.take(4)}
    assert shapes == {(64, 96)}
    one = object_batches(images, fixed_sizes=((96, 96),), **OPTIONS)
    assert tuple(one.element_spec["images"].shape) == (4, 96, 96, 3)


def test_what_fits_no_fixed_size_is_shrunk():
    images = images_of(sizes=[(60, 120)] * 3)
    options = {
        "short_edges": (64,),
        "long_edge": 200,
        "fixed_sizes": [(64, 32), (32, 64)],
    }
    (batch,) = batches(1, images, **options)
    assert batch["images"].shape[1:3] == (32, 64)
    assert (batch["sizes"] == (32, 64)).all()
    # Objects with them.
    boxes = batch["boxes"][0]
    widths = (boxes[:, 2] - boxes[:, 0]) * 120 / 64
    assert sorted(np.rint(widths).tolist()) == [18, 20]


def test_with_fixed_sizes_the_smallest_of_many_objects_are_left_out(caplog):
    def boxes(number):
        return [[2, 2, 10, 10], [20, 2, 5, 5], [30, 2, 12, 12]]

    with caplog.at_level("WARNING", logger="absl"):
        (batch,) = batches(1, images_of(boxes), fixed_sizes=[(96, 96)], max_objects=2)
    assert batch["valid"].sum(1).tolist() == [2] * 4
    assert (batch["classes"] == 0).all()  # the first and the third, in their order
    (told,) = caplog.messages
    assert "7 of 7 images have more than 2 objects: their smallest 7" in told
    assert "Set max_objects=3" in told


def test_a_run_says_how_many_objects_and_corners():
    config = DetectionConfig(
        batch_size=2, fixed_sizes=("832x1344",), max_objects=2, max_corners=8
    )
    images = images_of(lambda number: [[2, 2, 10, 10]] * 3)
    run = types.SimpleNamespace(
        config=config,
        train_images=images,
        model=types.SimpleNamespace(statistics=IMAGENET),
    )
    batch = next(iter(DetectionRun.dataset(run, 0)))  # pyright: ignore[reportArgumentType]
    assert batch["boxes"].shape == (2, 2, 4)
    assert batch["starts"].shape == (2, 2, 8, 2)


def test_corners_are_thinned_out():
    angles = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    circle = 30 + 20 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    record = Record.of_objects(
        0, "a", 60, 80, [[10, 10, 40, 40]], [0], outlines=[[circle]]
    )
    images = ObjectImages(
        "mine", [record], lambda i: np.zeros((60, 80, 3), np.uint8), {1: "cat"}
    )
    (batch,) = batches(1, images, fixed_sizes=[(96, 96)], max_corners=64)
    starts, ends = batch["starts"][0, 0], batch["ends"][0, 0]
    assert starts.shape == (64, 2)
    count = (starts != ends).any(1).sum()
    assert 8 <= count <= 64
    corners = starts[:count]
    box = [*corners.min(0), *corners.max(0)]
    np.testing.assert_allclose(box, batch["boxes"][0, 0], atol=1)
    (batch,) = batches(1, images)
    assert batch["starts"].shape[2] == 512
    # Without fixed sizes only what would take a lot of memory.
    (batch,) = batches(1, images, max_corners=100)
    assert batch["starts"].shape[2] <= 128


def test_an_image_that_cannot_be_read_ends_the_stream():
    def read(number):
        raise ValueError("a.png cannot be read")

    images = images_of()
    images._read = read
    with pytest.raises(tf.errors.OpError, match="a.png cannot be read"):
        batches(1, images)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"short_edges": ()}, "short_edges="),
        ({"short_edges": (0, 48)}, "short_edges="),
        ({"long_edge": 0}, "long_edge=0"),
        ({"fixed_sizes": [(100, 64)]}, "multiples of 32"),
        ({"fixed_sizes": [(0, 64)]}, "multiples of 32"),
        ({"fixed_sizes": [(64,)]}, "multiples of 32"),
    ],
)
def test_wrong_settings(options, told):
    with pytest.raises(ValueError, match=told):
        object_batches(images_of(), **{**OPTIONS, **options})


def test_batches_divide_by_hosts():
    context = tf.distribute.InputContext(3, 0, 3)
    with pytest.raises(ValueError, match="Use 3"):
        object_batches(images_of(), input_context=context, **OPTIONS)


@pytest.mark.slow
def test_a_detector_learns_from_a_batch():
    model = MaskRCNN(
        backbone("resnet10", width=8),
        class_names=("cat", "dog"),
        channels=8,
        units=16,
        proposals=(20, 20),
        anchors_per_image=16,
        regions_per_image=16,
    )
    (batch,) = object_batches(images_of(), **{**OPTIONS, "batch_size": 2}).take(1)
    total, losses = model.compute_losses(batch)
    assert np.isfinite(float(total)) and all(float(x) > 0 for x in losses.values())
