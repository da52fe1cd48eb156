"""Images with objects: COCO's JSON, tensorflow-datasets' and the embedded scenes."""

import copy
import io
import json
import math

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from slotcon_tf.data import scenes
from slotcon_tf.data.drawing import MIN_SHOWN, THINGS, draw_scene, draw_things
from slotcon_tf.data.labelled import LabelError
from slotcon_tf.data.objects import open_objects
from slotcon_tf.data.objects.outlines import (
    counts_of,
    fewer_corners,
    mask_of,
    run_lengths,
    trace,
)

SQUARE = [4, 4, 14, 4, 14, 12, 4, 12]
HEIGHT, WIDTH = 24, 32


def category(number, name):
    return {"id": number, "name": name}


def thing(number, image=7, kind=9, box=(4, 4, 10, 8), **more):
    row = {"id": number, "image_id": image, "category_id": kind, "bbox": list(box)}
    return {**row, "iscrowd": 0, "segmentation": [SQUARE], **more}


def image_row(number, name, height=HEIGHT, width=WIDTH):
    return {"id": number, "file_name": name, "height": height, "width": width}


def content():
    """Two images with objects, one with a crowd only, one with nothing."""
    names = "abcd"
    return {
        "images": [image_row(7 - i, f"{name}.png") for i, name in enumerate(names)],
        "categories": [category(9, "dog"), category(3, "cat"), category(90, "cow")],
        "annotations": [
            thing(11),
            thing(12, kind=3, box=(0, 0, 4, 2), area=7.5),
            thing(13, image=6, kind=90),
            thing(14, image=5, iscrowd=1, segmentation=crowd()),
        ],
    }


def crowd(height=HEIGHT, width=WIDTH):
    """Run lengths, unpacked: the second column of pixels."""
    return {"size": [height, width], "counts": [height, height, height * (width - 2)]}


@pytest.fixture
def root(tmp_path):
    """COCO's layout; a test writes the JSON it needs."""
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    for number, name in enumerate("abcd"):
        pixels = np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8)
        pixels[0, 0] = 255
        Image.fromarray(pixels).save(tmp_path / "val2017" / f"{name}.png")
    write(tmp_path, content())
    return tmp_path


def write(root, about):
    text = about if isinstance(about, str) else json.dumps(about)
    (root / "annotations" / "instances_val2017.json").write_text(text)
    return root


def test_classes_are_in_the_order_of_ids_with_gaps(root):
    images = open_objects("coco", root, "val")
    assert images.class_names == ("cat", "dog", "cow")
    assert images.category_ids == (3, 9, 90)
    assert images.annotation(0).classes.tolist() == [1, 0]
    assert images.annotation(1).classes.tolist() == [2]


def test_objects_of_an_image(root):
    images = open_objects("coco", root, "val")
    pixels, found = images.load(0)
    assert pixels.shape == (HEIGHT, WIDTH, 3) and pixels[0, 0, 0] == 255
    assert (found.image_id, found.file_name) == (7, "a.png")
    assert found.boxes.tolist() == [[4, 4, 14, 12], [0, 0, 4, 2]]
    assert found.polygons[0][0].tolist() == np.reshape(SQUARE, (-1, 2)).tolist()
    assert images.has_masks and images.counts.tolist() == [2, 1, 0, 0]


def test_training_leaves_out_images_without_an_object(root):
    assert open_objects("coco", root, "val").num_images == 4
    images = open_objects("coco", root, "val", training=True)
    assert [found.file_name for _, found in images] == ["a.png", "b.png"]


def test_images_kept_are_evenly_spaced(root):
    images = open_objects("coco", root, "val", max_images=2)
    assert [images.annotation(i).file_name for i in range(2)] == ["a.png", "c.png"]
    assert [found.file_name for _, found in images.sample(1)] == ["a.png"]
    assert images.load(1)[0][1, 1, 0] == 80  # of the third image
    assert images.sizes.tolist() == [[HEIGHT, WIDTH]] * 2
    assert len(images.coco()["images"]) == 2


def test_ground_truth_has_crowds_the_files_ids_and_numbers_from_one(root):
    about = content()
    about["annotations"].append(thing(15, box=(1, 1, 0, 5)))  # skipped
    truth = open_objects("coco", write(root, about), "val").coco()
    rows = truth["annotations"]
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["category_id"] for row in rows] == [9, 3, 9, 90, 9]
    assert [row["iscrowd"] for row in rows] == [0, 0, 0, 0, 1]
    assert [row["bbox"] for row in rows][2] == [1, 1, 0, 5]
    assert [row["area"] for row in rows] == [80, 7.5, 80, 80, HEIGHT]
    assert rows[0]["segmentation"] == [SQUARE] and rows[4]["segmentation"] == crowd()
    assert truth["categories"][0] == category(3, "cat")
    assert truth["images"][0] == image_row(7, "a.png")
    json.dumps(truth)


def test_what_has_no_polygon_or_box_is_skipped_counted_and_named(root, caplog):
    about = content()
    about["annotations"] += [
        thing(21, segmentation=[[1, 2, 3, 4]]),
        thing(22, segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        thing(23, segmentation=[]),
        thing(24, segmentation=[[1, 2, 3, 4], SQUARE]),
        thing(25, box=(WIDTH, 2, 5, 5)),
        thing(26, box=(3, 3, -2, 5)),
        thing(27, iscrowd=1, box=(3, 3, 0, 0), segmentation=crowd()),
        thing(28, iscrowd=1, segmentation=[]),
        thing(29, segmentation={**crowd(), "counts": [HEIGHT * WIDTH]}),
    ]
    with caplog.at_level("WARNING", logger="absl"):
        images = open_objects("coco", write(root, about), "val")
    assert images.counts.tolist() == [3, 1, 0, 0]
    assert [len(p) for p in images.annotation(0).polygons] == [1, 1, 1]
    box, bare = sorted(caplog.messages)
    assert "2 of 13 objects without a box" in box
    assert "annotations[8], annotations[9]" in box
    assert "4 of 13 objects without a polygon" in bare and "annotations[4]" in bare
    # Scores take what pycocotools takes; what has no outline has no mask there.
    rows = images.coco()["annotations"]
    assert [row.get("segmentation") for row in rows[2:5]] == [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        None,
    ]
    assert rows[-3]["segmentation"]["counts"] == [HEIGHT * WIDTH]


def test_a_crowds_outline_makes_no_set_with_masks(root, caplog):
    about = content()
    for row in about["annotations"][:3]:
        del row["segmentation"]
    images = open_objects("coco", write(root, about), "val", training=True)
    assert not images.has_masks and images.counts.tolist() == [2, 1]
    assert not caplog.messages


def test_objects_without_an_outline_are_skipped_for_masks_alone(root, caplog):
    about = content()
    del about["annotations"][0]["segmentation"]
    about["annotations"][2]["segmentation"] = [[1, 2, 3, 4]]
    write(root, about)
    assert open_objects("coco", root, "val").counts.tolist() == [1, 0, 0, 0]
    caplog.clear()
    images = open_objects("coco", root, "val", masks=False)
    # One that is broken is skipped in any case.
    assert images.counts.tolist() == [2, 0, 0, 0]
    assert "1 of 4 objects without a polygon" in caplog.text
    assert [len(own) for own in images.annotation(0).polygons] == [0, 1]


def test_a_set_without_masks(root):
    about = content()
    for row in about["annotations"]:
        row["segmentation"] = []
    images = open_objects("coco", write(root, about), "val")
    assert not images.has_masks and images.counts.tolist() == [2, 1, 0, 0]
    assert images.annotation(0).polygons == [[], []]
    assert "segmentation" not in images.coco()["annotations"][0]


@pytest.mark.parametrize("packed", [False, True])
def test_run_lengths_that_are_no_crowd_are_traced(root, packed):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[4:12, 4:14] = True
    mask[6:8, 6:9] = False
    runs = run_lengths(mask)
    if packed:
        pycoco = pytest.importorskip("faster_coco_eval.core.mask")
        counts = pycoco.encode(np.asfortranarray(mask, np.uint8))["counts"]
        runs = {**runs, "counts": counts.decode()}
        assert counts_of(runs) == run_lengths(mask)["counts"]
    about = content()
    about["annotations"][0]["segmentation"] = runs
    images = open_objects("coco", write(root, about), "val")
    ((polygon,), _) = images.annotation(0).polygons
    assert polygon.min(0).tolist() == [4, 4] and polygon.max(0).tolist() == [14, 12]
    assert images.coco()["annotations"][0]["segmentation"] == runs


def filled(polygons, height, width):
    pycoco = pytest.importorskip("faster_coco_eval.core.mask")
    parts = pycoco.frPyObjects([p.ravel().tolist() for p in polygons], height, width)
    return pycoco.decode(pycoco.merge(parts)).astype(bool)


def test_traced_polygons_fill_the_same_pixels():
    rng = np.random.default_rng(0)
    for _ in range(40):
        height, width = rng.integers(3, 40, 2)
        coarse = rng.random((height, width)) < rng.uniform(0.2, 0.9)
        mask = coarse.repeat(rng.integers(1, 4), 0)[:height]
        np.testing.assert_array_equal(filled(trace(mask), height, width), mask)
        np.testing.assert_array_equal(mask_of(run_lengths(mask)), mask)


def test_fewer_corners_keep_the_shape():
    _, things = draw_things(np.random.default_rng([2, 3]))
    for _, mask in things:
        polygons = fewer_corners(trace(mask), 24)
        assert 3 <= sum(map(len, polygons)) <= 24
        found = filled(polygons, *mask.shape)
        assert (found & mask).sum() / (found | mask).sum() > 0.8
    dust = [np.array([[x, 0.0], [x + 0.1, 0], [x, 0.1]]) for x in range(20)]
    assert fewer_corners(dust, 8)[0].tolist() == [
        [0, 0],
        [19.1, 0],
        [19.1, 0.1],
        [0, 0.1],
    ]


def refused(root, about=None):
    with pytest.raises(LabelError) as error:
        images = open_objects("coco", root if about is None else write(root, about))
        for index in range(images.num_images):
            images.load(index)
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    return text


ABSENT = object()
IMAGE, THING, CATEGORY = ("images", 1), ("annotations", 1), ("categories", 1)
NUMBERS = (ABSENT, None, True, 1.5, "7", [], {}, -1)
ENTRIES = [
    *(("its top", (name,), (ABSENT, None, {}, "x", 5)) for name in ("images",)),
    ("its top", ("categories",), (ABSENT, None, {}, [], "x")),
    ("its top", ("annotations",), (ABSENT, None, {}, "x")),
    ("images[1]", IMAGE, (None, [], "x")),
    ("images[1]", (*IMAGE, "id"), (*NUMBERS, 7)),
    ("images[1]", (*IMAGE, "height"), (*NUMBERS, 0, 10**9)),
    ("images[1]", (*IMAGE, "width"), (*NUMBERS, 0, math.nan)),
    ("images[1]", (*IMAGE, "file_name"), (ABSENT, None, 5, "", "../a.png", "/a.png")),
    ("categories[1]", CATEGORY, (None, [], "x")),
    ("categories[1]", (*CATEGORY, "id"), (*NUMBERS, 9)),
    ("categories[1]", (*CATEGORY, "name"), (ABSENT, None, 5, "", "dog")),
    ("annotations[1]", THING, (None, [], "x")),
    ("annotations[1]", (*THING, "id"), (True, 1.5, [], 11)),
    ("annotations[1]", (*THING, "image_id"), (*NUMBERS, 8)),
    ("annotations[1]", (*THING, "category_id"), (*NUMBERS, 4)),
    ("annotations[1]", (*THING, "iscrowd"), (2, "0", None, [])),
    ("annotations[1]", (*THING, "area"), ("7", -1, [], math.nan, math.inf)),
    (
        "annotations[1]",
        (*THING, "bbox"),
        (ABSENT, None, [], [1, 2, 3], [1, 2, 3, "4"], [1, 2, math.nan, 4], {})
        + ([1, 2, math.inf, 4], [1, 2, 10**400, 4], [[1, 2, 3, 4]], [1, 2, 3, True]),
    ),
    (
        "annotations[1]",
        (*THING, "segmentation"),
        ("x", 5, SQUARE, [[*SQUARE[:-1], math.nan]], [[*SQUARE[:-1], "4"]], [[None]])
        + ({}, {"size": [HEIGHT, WIDTH]}, {"size": [HEIGHT, WIDTH], "counts": "o"})
        + ({"size": [WIDTH, HEIGHT], "counts": [0, HEIGHT * WIDTH]},)
        + ({"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH - 1]},)
        + ({"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]},),
    ),
]


def changed(about, where, value):
    about = copy.deepcopy(about)
    *path, last = where
    holder = about
    for key in path:
        holder = holder[key]
    if value is ABSENT:
        del holder[last]
    else:
        holder[last] = value
    return about


@pytest.mark.parametrize(
    ("place", "where", "values"), ENTRIES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_damaged_entries_are_named(root, place, where, values):
    for value in values:
        text = refused(root, changed(content(), where, value))
        assert f"{place}." in text and "instances_val2017.json" in text, (value, text)


@pytest.mark.parametrize(
    "text", ["", "<html>", "{}{}", '{"images": [', "[" * 100_000, "\0\0\0"]
)
def test_damaged_files_are_named(root, text):
    found = refused(root, text)
    assert "whole JSON file" in found and "instances_val2017.json" in found


def test_other_kinds_of_files_are_told(root):
    results = [{"image_id": 7, "category_id": 9, "bbox": [1, 1, 2, 2], "score": 0.5}]
    assert "an object" in refused(root, json.dumps(results))
    about = content()
    for name, value in (("segments_info", []), ("caption", "a dog"), ("keypoints", [])):
        row = {"id": 1, "image_id": 7, "category_id": 9, name: value}
        text = refused(root, {**about, "annotations": [row]})
        assert "'bbox' in annotations[0]" in text
        assert {"segments_info": "coco_panoptic"}.get(name, name) in text


def test_images_that_are_missing_unreadable_or_of_another_size(root):
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(root / "val2017" / "b.png")
    text = refused(root)
    assert "b.png of 33x24" in text and "32x24" in text
    (root / "val2017" / "b.png").write_bytes(b"no image")
    assert "b.png" in refused(root)
    (root / "val2017" / "b.png").unlink()
    text = refused(root)
    assert "1 of 4 missing" in text and "b.png" in text


def test_images_are_upright(root):
    """The JSON's size is that of the turned image."""
    path = root / "val2017" / "a.png"
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[0, 0] = 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    image.save(path, exif=exif)
    assert "a.png of 24x32, upright, for 32x24" in refused(root)
    about = content()
    about["images"][0] = image_row(7, "a.png", WIDTH, HEIGHT)
    pixels, found = open_objects("coco", write(root, about), "val").load(0)
    assert pixels.shape[:2] == (found.height, found.width) == (WIDTH, HEIGHT)
    assert pixels[0, -1, 0] == 255


@pytest.mark.parametrize(
    ("about", "images", "split", "below"),
    [
        ("annotations/instances_val.json", "val", "val", ""),
        ("annotations/instances_val.json", "images/val", "val", ""),
        ("annotations/instances_default.json", "images/default", "default", ""),
        ("val/_annotations.coco.json", "val", "val", ""),
        ("labels/mine.json", "labels", "labels/mine.json", ""),
        (
            "annotations/instances_mine.json",
            "mine",
            "val",
            "annotations/instances_mine.json",
        ),
    ],
)
def test_layouts(root, about, images, split, below):
    path = root / "annotations" / "instances_val2017.json"
    (root / about).parent.mkdir(exist_ok=True)
    (root / "images").mkdir()
    (root / images).parent.mkdir(exist_ok=True)
    for file in (root / "val2017").iterdir():
        (root / images).mkdir(exist_ok=True)
        file.rename(root / images / file.name)
    path.rename(root / about)
    found = open_objects("coco", root / below, split)
    assert found.load(0)[1].file_name == "a.png"


def test_a_part_of_a_set_has_its_images_where_they_are(root):
    part = root / "annotations" / "instances_val2017_half.json"
    part.write_text(json.dumps(content()))
    split = "annotations/instances_val2017_half.json"
    assert open_objects("coco", root, split).load(1)[0][1, 1, 0] == 40
    assert open_objects("coco", part, "val").num_images == 4
    (root / "other").mkdir()
    for name in "abcd":
        (root / "other" / f"{name}.png").touch()
    with pytest.raises(FileNotFoundError, match="all of them in .*other and in "):
        open_objects("coco", root, split)


def test_what_is_not_there(root):
    with pytest.raises(FileNotFoundError, match="instances_train2017.json"):
        open_objects("coco", root, "train")
    with pytest.raises(ValueError, match="data_dir"):
        open_objects("coco", None, "val")
    with pytest.raises(ValueError, match="Did you mean 'scenes'"):
        open_objects("scene", root, "val")
    about = content()
    about["annotations"] = []
    write(root, about)
    assert open_objects("coco", root, "val").num_images == 4
    with pytest.raises(LabelError, match="must hold images with objects"):
        open_objects("coco", root, "val", training=True)
    for file in (root / "val2017").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="none of 4 there, such as a.png"):
        open_objects("coco", root, "val")


def test_identity_tells_other_objects_and_other_images(root, tmp_path_factory):
    def digest(about=None):
        found = open_objects("coco", write(root, about or content()), "val").identity()
        return found.labels, found.names, found.classes

    first = digest()
    assert first == digest() and first[2] == ("cat", "dog", "cow")
    for where, value in (
        ((*THING, "bbox"), [1, 1, 4, 2]),
        ((*THING, "segmentation"), [[4, 4, 14, 4, 14, 13]]),
        ((*THING, "category_id"), 9),
        ((*THING, "iscrowd"), 1),
    ):
        assert digest(changed(content(), where, value))[0] != first[0]


class Boxes(tfds.core.GeneratorBasedBuilder):
    """The layout of COCO in tensorflow-datasets; no masks."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        thing = {
            "area": np.int64,
            "bbox": tfds.features.BBoxFeature(),
            "id": np.int64,
            "is_crowd": np.bool_,
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        }
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "objects": tfds.features.Sequence(thing),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, size in enumerate([(300, 400), (333, 217)]):
            height, width = size
            box = tfds.features.BBox(
                10.25 / height, 20.31 / width, 110.5 / height, 120 / width
            )
            row = {"area": 77, "bbox": box, "id": 5, "label": 1}
            objects = [{**row, "is_crowd": False}, {**row, "is_crowd": True}]
            if number:
                flat = tfds.features.BBox(0.2, 0.3, 0.2, 0.5)
                objects.append({**row, "is_crowd": False, "bbox": flat})
            # The second lies on its side, and says so.
            turned, exif = size[:: 1 - 2 * number], Image.Exif()
            exif[0x0112] = 6 if number else 1
            file = io.BytesIO()
            Image.new("RGB", turned[::-1]).save(file, "JPEG", exif=exif)
            file.seek(0)
            yield number, {"image": file, "objects": objects[number:]}


class SmallMasks(tfds.core.GeneratorBasedBuilder):
    """Masks of half the image's size."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        thing = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "mask": tfds.features.Image(shape=(None, None, 1)),
        }
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "objects": tfds.features.Sequence(thing),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        mask = np.ones((10, 12, 1), np.uint8)
        box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
        things = [{"bbox": box, "label": 0, "mask": mask}]
        yield 0, {"image": np.zeros((20, 24, 3), np.uint8), "objects": things}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """tensorflow-datasets' folder with a few scenes, and boxes without masks."""
    path = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "NUM_TRAIN", 12)
        patch.setattr(scenes, "NUM_TEST", 4)
        scenes.scenes_builder(path, scenes.SceneObjects)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    for builder in (Boxes, SmallMasks):
        builder(data_dir=path).download_and_prepare(download_config=config)
    return path


def test_boxes_of_tensorflow_datasets(folder):
    images = open_objects("tfds:boxes", folder, "train")
    assert images.class_names == ("cat", "dog") and not images.has_masks
    assert sorted(images.counts) == [0, 1]  # but for crowds, and a flat one
    by_size = {tuple(found.boxes.shape): found for _, found in images}
    found = by_size[1, 4]
    # float32 shares of the edges give the annotated pixels back.
    assert found.boxes.tolist() == [[20.31, 10.25, 120.0, 110.5]]
    assert found.classes.tolist() == [1] and found.polygons == [[]]
    rows = images.coco()["annotations"]
    assert sorted(row["iscrowd"] for row in rows) == [0, 0, 1, 1]
    assert {row["area"] for row in rows} == {77}
    assert open_objects("tfds:boxes", folder, "train", training=True).num_images == 1


def test_masks_of_another_size(folder):
    with pytest.raises(LabelError, match=r"as large as its image.*objects\.mask"):
        open_objects("tfds:small_masks", folder, "train")


def test_splits_of_tensorflow_datasets(folder):
    with pytest.raises(ValueError, match="split must be one of train"):
        open_objects("tfds:boxes", folder, "val")
    assert open_objects("scenes", folder, "train[:25%]").num_images == 3


def test_tensorflow_datasets_without_objects(folder, monkeypatch):
    monkeypatch.setattr(scenes, "NUM_TRAIN", 1)
    monkeypatch.setattr(scenes, "NUM_TEST", 1)
    scenes.scenes_builder(folder)
    with pytest.raises(LabelError, match="'objects' with 'bbox'"):
        open_objects("tfds:scenes", folder, "test")


def test_scenes_have_tight_boxes_and_exact_masks(folder, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        images = open_objects("scenes", folder, "val")
    assert not caplog.messages
    assert images.num_images == 4 and images.class_names == THINGS
    assert images.has_masks and images.counts.sum() > 4
    drawn = [draw_things(np.random.default_rng([3, i])) for i in range(4)]
    truth = images.coco()["annotations"]
    for image, found in images:
        error = [np.abs(image - other.astype(int)).mean() for other, _ in drawn]
        things = drawn[int(np.argmin(error))][1]
        assert min(error) < 8  # grey levels, of JPEG
        rows = [row for row in truth if row["image_id"] == found.image_id]
        for (kind, mask), box, number, polygons, row in zip(
            things, found.boxes, found.classes, found.polygons, rows, strict=True
        ):
            assert images.class_names[number] == kind
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            np.testing.assert_array_equal(filled(polygons, 144, 192), mask)
            assert row["area"] == mask.sum()
            np.testing.assert_array_equal(mask_of(row["segmentation"]), mask)


def test_things_are_several_of_a_kind_and_never_slivers():
    several = 0
    for index in range(20, 60):  # the 52nd has a sliver of 11 pixels
        image, things = draw_things(np.random.default_rng([7, index]))
        assert image.shape == (144, 192, 3)
        assert all(mask.sum() >= MIN_SHOWN for _, mask in things)
        assert (
            sum(mask.astype(int) for _, mask in things).max() <= 1 if things else True
        )
        kinds = [kind for kind, _ in things]
        several += len(kinds) > len(set(kinds))
    assert several > 20


SUMS = [64382797, 39293630, 52520911, 30250548, 42961976]
MEANS = [135.59, 127.04, 120.3, 120.33, 124.16]


def test_the_other_scenes_are_as_they_were():
    """Of their drawing before there were instances."""
    masks, images = [], []
    for index in range(5):
        image, mask = draw_scene(np.random.default_rng([0, index]))
        masks.append(mask.astype(np.int64).ravel())
        images.append(image.mean())
    weights = np.arange(masks[0].size) % 1009
    assert [int(mask @ weights) for mask in masks] == SUMS
    np.testing.assert_allclose(images, MEANS, atol=0.05)
