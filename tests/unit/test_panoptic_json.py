"""Panoptic JSON: what is damaged ends in one line with the file and the entry."""

import copy
import json

import numpy as np
import pytest

from benchmarks.mutations.labels import MAKERS, REFUSALS, read
from slotcon_tf.data.labelled import VOID, LabelError, open_segmented
from tests.support import labelled_case as case

LAYOUTS = ("coco_panoptic", "coco_stuff27")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return case.coco(tmp_path_factory.mktemp("coco"), stuff=False)


@pytest.fixture
def about(root):
    """The JSON's path; what a test writes there is taken back."""
    path = root / "annotations" / "panoptic_val2017.json"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


def refused(root, layout="coco_panoptic"):
    with pytest.raises(LabelError) as error:
        open_segmented(layout, root, "val").load(0)
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    return text


WHOLE = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "not JSON": lambda data: b"<html>Not found</html>",
    "a pickle": lambda data: b"\x80\x04\x95" + data,
    "not UTF-8": lambda data: data.replace(b"person", b"p\xe9rson"),
    "half a character": lambda data: b"\xff\xfe" + data[:-1],
    "two values": lambda data: data + data,
    "NaN": lambda data: data.replace(b"70000", b"NaN", 1),
    "Infinity": lambda data: data.replace(b"70000", b"-Infinity", 1),
    "endless number": lambda data: data.replace(b"70000", b"7" * 5000, 1),
    "deep": lambda data: b'{"images": ' + b"[" * 100_000,
    "deep and closed": lambda data: b"[" * 100_000 + b"]" * 100_000,
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_files(root, about, name, layout):
    about.write_bytes(WHOLE[name](about.read_bytes()))
    text = refused(root, layout)
    assert "whole JSON file" in text and str(about) in text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_encodings_of_json(root, about, encoding):
    before = open_segmented("coco_panoptic", root, "val").load(1)[1]
    about.write_bytes(about.read_text().encode(encoding))
    after = open_segmented("coco_panoptic", root, "val").load(1)[1]
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("value", [[], [1], "text", 3, None, True, {}])
def test_tops_of_other_kinds(root, about, value):
    about.write_text(json.dumps(value))
    assert "its top" in refused(root) and str(about) in refused(root)


ABSENT = object()
IMAGE, SEGMENT = ("images", 1), ("annotations", 1, "segments_info", 2)
CATEGORY, ANNOTATION = ("categories", 1), ("annotations", 1)
OUTSIDE = ("../x", "/etc/passwd", "a/../../x", "..\\x", "C:\\x", "\\\\host\\x")
NO_NAMES = (ABSENT, None, 5, "", " ", [], {}, "a\0b", "a\nb", "\ud800")
# What is written where, and where the message says it is.
TOPS = ("images", "annotations", "categories")
ENTRIES = [
    *(("its top", (name,), (ABSENT, None, {}, [], "x", 5)) for name in TOPS),
    ("images[1]", IMAGE, (None, [], "x", 1)),
    ("images[1]", (*IMAGE, "id"), (ABSENT, None, True, 1.0, [], {}, 0)),
    ("images[1]", (*IMAGE, "file_name"), NO_NAMES + OUTSIDE),
    ("annotations[1]", ANNOTATION, (None, [], "x", 1)),
    (
        "annotations[1]",
        (*ANNOTATION, "image_id"),
        (ABSENT, None, 77, "1", False, 1.5, [1], 0),
    ),
    ("annotations[1]", (*ANNOTATION, "file_name"), NO_NAMES + OUTSIDE),
    (
        "annotations[1]",
        (*ANNOTATION, "segments_info"),
        (ABSENT, None, {}, "x", 3, True),
    ),
    ("annotations[1].segments_info[2]", SEGMENT, (None, [], "x", 1)),
    (
        "annotations[1].segments_info[2]",
        (*SEGMENT, "id"),
        (ABSENT, None, "70000", 0, -5, 2**24, 10**30, True, 7.0, [], 70_000),
    ),
    (
        "annotations[1].segments_info[2]",
        (*SEGMENT, "category_id"),
        (ABSENT, None, "1", 2, -1, 10**30, True, 1.0, [], {}),
    ),
    ("categories[1]", CATEGORY, (None, [], "x", 1)),
    (
        "categories[1]",
        (*CATEGORY, "id"),
        (ABSENT, None, "3", -1, 2**31, True, 3.0, 1, []),
    ),
    ("categories[1]", (*CATEGORY, "name"), (*NO_NAMES, "person")),
]


def changed(content, where, value):
    content = copy.deepcopy(content)
    *path, last = where
    holder = content
    for key in path:
        holder = holder[key]
    if value is ABSENT:
        del holder[last]
    else:
        holder[last] = value
    return content


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_entries(root, about, layout):
    content = json.loads(about.read_text())
    for place, where, values in ENTRIES:
        for value in values:
            about.write_text(json.dumps(changed(content, where, value)))
            text = refused(root, layout)
            assert f"{place}." in text and str(about) in text, (where, value, text)


@pytest.mark.parametrize("value", [ABSENT, None, 4, "", "furniture-thing", ["sky"]])
def test_unknown_supercategories(root, about, value):
    """Of no matter where categories are not merged."""
    content = json.loads(about.read_text())
    content = changed(content, (*CATEGORY, "supercategory"), value)
    about.write_text(json.dumps(content))
    assert "categories[1]" in refused(root, "coco_stuff27")
    assert open_segmented("coco_panoptic", root, "val").num_classes == 4


def test_too_many_categories(root, about):
    content = json.loads(about.read_text())
    content["categories"] += [{"id": 500 + i, "name": f"c{i}"} for i in range(300)]
    about.write_text(json.dumps(content))
    text = refused(root)
    assert "254 categories" in text and str(about) in text


def test_files_that_are_missing(root, about):
    content = json.loads(about.read_text())
    for where, what in (((*ANNOTATION,), "label map"), ((*IMAGE,), "image")):
        other = changed(content, (*where, "file_name"), "none.png")
        about.write_text(json.dumps(other))
        text = refused(root)
        assert f"1 of 2 pairs without {what}" in text and "none.png" in text


def test_pngs_of_another_version(root, about):
    content = json.loads(about.read_text())
    about.write_text(
        json.dumps(changed(content, ("annotations", 0, "segments_info"), []))
    )
    text = refused(root)
    assert "000000000000.png" in text and "70000" in text


def test_an_instances_file_in_its_place(root, about):
    content = json.loads(about.read_text())
    for entry in content["annotations"]:
        del entry["segments_info"], entry["file_name"]
        entry.update(bbox=[0, 0, 5, 5], category_id=1, iscrowd=0)
    about.write_text(json.dumps(content))
    assert "'file_name'" in refused(root)


def test_a_category_0_is_no_void(root, about):
    """Pixels of no segment are void; category 0 is a class like others."""
    content = json.loads(
        about.read_text().replace('"category_id": 1}', '"category_id": 0}')
    )
    content["categories"][0]["id"] = 0
    about.write_text(json.dumps(content))
    data = open_segmented("coco_panoptic", root, "val")
    expected = case.scene(0)[1].copy()
    expected[:2] = VOID
    np.testing.assert_array_equal(data.load(0)[1], expected)


def test_ids_of_images_may_be_text(root, about):
    """As in Cityscapes' panoptic files."""
    content = json.loads(about.read_text())
    for image, entry in zip(content["images"], content["annotations"], strict=True):
        image["id"] = entry["image_id"] = f"ulm_{image['id']}"
    about.write_text(json.dumps(content))
    assert len(open_segmented("coco_panoptic", root, "val")) == 2


@pytest.mark.parametrize("kind", MAKERS)
def test_mutated_sets_are_read_or_refused(tmp_path, kind):
    taken = 0
    for seed in range(60):
        _, data = MAKERS[kind](np.random.default_rng(seed))
        try:
            taken += bool(read(kind, data, tmp_path))
        except REFUSALS as error:
            assert "\n" not in str(error)
    assert 0 < taken < 60
