"""Entries of COCO's JSON, value by value: json_entries and coco_entries."""

import codecs
import math

import numpy as np
import pytest

from slotcon_tf.data.labelled import LabelError
from slotcon_tf.data.labelled.json_entries import Entry, are_numbers, read_json
from slotcon_tf.data.objects.coco_entries import object_of

SIZES, CLASSES = {7: (6, 8)}, {9: 1}  # an image of 6 x 8 pixels, a category
SQUARE = [1, 1, 5, 1, 5, 3, 1, 3]


def entry(**value):
    return Entry("instances", "a.json", "annotations[3]", value)


def row(**changes):
    value = {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1, 1, 4, 2]}
    return object_of(entry(**{**value, **changes}), SIZES, CLASSES)


@pytest.mark.parametrize(
    ("method", "given", "need"),
    [
        (("number", 0, 9), True, "a whole number 'x' from 0 to 9"),
        (("number", 0, 9), 1.0, "a whole number 'x' from 0 to 9"),
        (("number", 0, 9), 10, "a whole number 'x' from 0 to 9"),
        (("numbers", 2), [1, math.nan], "a list 'x' of 2 numbers"),
        (("numbers", 2), [1], "a list 'x' of 2 numbers"),
        (("text",), " ", "a text 'x'"),
        (("text",), "a\nb", "a text 'x'"),
        (("identity",), 1.5, "a whole number or text as 'x'"),
    ],
)
def test_values_that_are_refused(method, given, need):
    name, *more = method
    with pytest.raises(LabelError, match="An instances JSON must have") as error:
        getattr(entry(x=given), name)("x", *more)
    assert need in str(error.value) and "in annotations[3]." in str(error.value)
    assert " in a.json. " in str(error.value)
    with pytest.raises(LabelError, match="Received: \"no 'x'\""):
        getattr(entry(), name)("x", *more)


@pytest.mark.parametrize("name", ["/a.jpg", "../a.jpg", "b\\..\\a.jpg", "C:\\a.jpg"])
def test_names_stay_below_their_folder(name):
    with pytest.raises(LabelError, match="a 'file_name' below its folder"):
        entry(file_name=name).file_name()
    assert entry(file_name="b/a.jpg").file_name() == "b/a.jpg"


def test_entries_are_dicts_with_their_place():
    inner = entry(parts=[{"id": 1}, {"id": 2}])
    places = [one.place for one in inner.entries("parts")]
    assert places == ["annotations[3].parts[0]", "annotations[3].parts[1]"]
    assert not list(entry(parts=[]).entries("parts", least=0))
    for wrong in ([], {}, None):
        with pytest.raises(LabelError, match="'parts' that is not empty"):
            list(entry(parts=wrong).entries("parts"))
    with pytest.raises(LabelError, match="an object in"):
        list(entry(parts=[3]).entries("parts"))


def test_numbers_are_finite_and_fit_a_float():
    assert are_numbers([]) and are_numbers([1, -2.5])
    for wrong in ([math.inf], [True], ["1"], [[1]], [10**400], (1,), None):
        assert not are_numbers(wrong)


def test_files_are_whole_json_of_an_object(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(codecs.BOM_UTF8 + '{"name": "Übung"}'.encode())
    assert read_json(path, "instances").text("name") == "Übung"
    for wrong in (b'{"a": 1', b'{"a": NaN}', b"", b"[" * 99_999):
        path.write_bytes(wrong)
        with pytest.raises(LabelError, match="must be a whole JSON file"):
            read_json(path, "instances")
    path.write_bytes(b'{"a": NaN}')
    assert math.isnan(read_json(path, "instances", constants=True).value["a"])
    path.write_bytes(b"[]")
    with pytest.raises(LabelError, match="an object in its top"):
        read_json(path, "instances")


def test_an_object_with_its_outline():
    found = row(segmentation=[SQUARE], area=8, iscrowd=0)
    assert found.class_number == 1 and found.area == 8 and found.has_mask
    assert not (found.empty or found.crowd or found.broken)
    np.testing.assert_array_equal(found.outline[0].ravel(), SQUARE)
    assert math.isnan(row().area) and row().outline is None and not row().has_mask
    counts = {"size": [6, 8], "counts": [6, 6, 36]}
    crowd = row(iscrowd=1, segmentation=counts)
    assert crowd.crowd and crowd.outline == counts and not crowd.has_mask


@pytest.mark.parametrize(
    ("box", "empty"),
    [((0, 0, 8, 6), False), ((8, 0, 4, 4), True), ((-4, 1, 4, 2), True)],
)
def test_boxes_without_an_area_in_the_image(box, empty):
    assert row(bbox=list(box)).empty == empty


def test_outlines_that_are_only_scored():
    """Too few or odd numbers; pycocotools reads the first two, not the last."""
    four, odd = row(segmentation=[[1, 1, 4, 2]]), row(segmentation=[SQUARE[:5]])
    assert four.broken and odd.broken and not four.has_mask
    assert four.area == 8 and len(four.outline[0]) == 4
    assert row(segmentation=[[1, 1]]).outline is None
    nothing = {"size": [6, 8], "counts": [48]}
    assert row(segmentation=nothing).broken


@pytest.mark.parametrize(
    ("changes", "need"),
    [
        ({"image_id": 8}, "the image_id of an image"),
        ({"category_id": 3}, "the 'category_id' of a category"),
        ({"area": -1}, "a number 'area' from 0 on"),
        ({"iscrowd": 2}, "0 or 1 as 'iscrowd'"),
        ({"id": 1.5}, "a whole number 'id'"),
        ({"bbox": [1, 1, 4]}, "a list 'bbox' of 4 numbers"),
        ({"segmentation": [[1, "2"]]}, "a list of polygons"),
        ({"segmentation": {"size": [6, 8], "counts": [1, -1]}}, "run lengths as"),
        ({"segmentation": {"size": [8, 6], "counts": [48]}}, "of 6 x 8 pixels"),
    ],
)
def test_objects_that_are_refused(changes, need):
    with pytest.raises(LabelError) as error:
        row(**changes)
    assert need in str(error.value) and "annotations[3]" in str(error.value)


def test_other_kinds_are_named():
    with pytest.raises(LabelError, match="a caption"):
        object_of(entry(image_id=7, caption="A cat."), SIZES, CLASSES)
