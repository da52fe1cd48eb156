"""read_instances: COCO's `instances_*.json`, or an error that names the entry."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

import numpy as np
from absl import logging

from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.known_files import files_of
from slotcon_tf.data.labelled.decoding import MAX_ID, decode_labelled, read_bytes
from slotcon_tf.data.labelled.json_entries import Entry, are_numbers, read_json
from slotcon_tf.data.objects.annotation import Found, Record
from slotcon_tf.data.objects.coco_files import check_files, find_files, image_folder
from slotcon_tf.data.objects.outlines import Outline, counts_of
from slotcon_tf.images.pixels import PixelWatch

_KIND = "instances"
_MAX_EDGE = 2**20  # pixels
_LEAST = 6  # numbers of a polygon
_NAMED = 3  # entries that a warning names
_EMPTY = "without a box of any area inside the image"
_BARE = "without a polygon of six numbers or more"
_OTHER_KINDS = {
    "segments_info": "segments, as a panoptic file has (dataset=coco_panoptic)",
    "caption": "a caption",
    "keypoints": "keypoints without a box",
}


def read_instances(root: pathlib.Path, split: str) -> Found:
    """Reads a set in the layout of COCO's instances.

    Args:
        root: Folder of the set; see `coco_files.find_files`.
        split: "train", "val" and so on, or a JSON file below the folder.

    Raises:
        FileNotFoundError: If there is no such file.
        LabelError: If the file is damaged, or an entry is; it names which.

    Example:
        >>> import json, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "annotations").mkdir(), (root / "val2017").mkdir()
        (None, None)
        >>> box = {"image_id": 7, "category_id": 9, "bbox": [1, 1, 4, 2]}
        >>> image = {"id": 7, "file_name": "a.jpg", "height": 6, "width": 8}
        >>> about = {"images": [image], "annotations": [box]}
        >>> about["categories"] = [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}]
        >>> path = root / "annotations" / "instances_val2017.json"
        >>> _ = path.write_text(json.dumps(about))
        >>> found = read_instances(root, "val")
        >>> found.categories, found.records[0].annotation()
        ({3: 'cat', 9: 'dog'}, a.jpg: 8x6, 1 objects)

    Reference: the format at cocodataset.org/#format-data, "Object Detection".
    """
    about, folders = find_files(root, split)
    records, categories = _records(about)
    folder = image_folder(folders, [record.file_name for record in records], about)
    paths = [folder / record.file_name for record in records]
    watch = PixelWatch(folder)

    def read(index, pixel_range):
        path = paths[index]
        return decode_labelled(read_bytes(path), path, watch, pixel_range)

    def identify(numbers):
        files = files_of([paths[i] for i in numbers], folder)
        return ImageSet(len(numbers), {"source": "files"}, **files)

    def check(numbers):
        check_files([paths[i] for i in numbers], about)

    return Found(records, categories, read, identify, check)


def _records(path):
    top = read_json(path, _KIND, constants=True)
    categories = _categories(top)
    classes = {number: place for place, number in enumerate(categories)}
    images = _images(top)
    rows: dict[int, list[dict[str, Any]]] = {number: [] for number in images}
    seen = set()
    for entry in top.entries("annotations", least=0):
        row = _object(entry, images, classes)
        if row["id"] is not None and row["id"] in seen:
            raise entry.error("an 'id' of its own", row["id"])
        seen.add(row["id"])
        rows[row.pop("image")].append(row)
    every = [row for own in rows.values() for row in own]
    has_masks = any(row["outline"] is not None or row["broken"] for row in every)
    _skip(every, has_masks, path)
    records = [_record(images[i], own, has_masks) for i, own in rows.items()]
    return records, categories


def _categories(top):
    found = {}
    for entry in top.entries("categories"):
        number, name = entry.number("id", 0, MAX_ID), entry.text("name")
        if number in found or name in found.values():
            raise entry.error("an 'id' and a 'name' of its own", f"{number} {name}")
        found[number] = name
    return dict(sorted(found.items()))


def _images(top):
    found = {}
    for entry in top.entries("images"):
        number = entry.number("id", 0, 2**63 - 1)
        if number in found:
            raise entry.error("an 'id' of its own", number)
        size = [entry.number(name, 1, _MAX_EDGE) for name in ("height", "width")]
        found[number] = (number, entry.file_name(), *size)
    return found


def _object(entry: Entry, images, classes):
    """What an entry of "annotations" says, as a dict."""
    for name, what in _OTHER_KINDS.items():
        if name in entry.value and "bbox" not in entry.value:
            raise entry.error("a list 'bbox'", what)
    image = entry.number("image_id", 0, 2**63 - 1)
    if image not in images:
        raise entry.error("the image_id of an image", image)
    category = entry.number("category_id", 0, MAX_ID)
    if category not in classes:
        raise entry.error("the 'category_id' of a category", category)
    area = entry.value.get("area")
    if area is not None and not (are_numbers([area]) and area >= 0):
        raise entry.error("a number 'area' from 0 on", area)
    crowd = entry.value.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise entry.error("0 or 1 as 'iscrowd'", crowd)
    number = entry.value.get("id")
    if number is not None and type(number) not in (int, str):
        raise entry.error("a whole number 'id'", number)
    height, width = images[image][2:]
    outline, broken = _outline(entry, height, width)
    x, y, w, h = box = entry.numbers("bbox", 4)
    sides = min(x + w, width) - max(x, 0), min(y + h, height) - max(y, 0)
    return {
        "id": number,
        "image": image,
        "place": entry.place,
        "box": box,
        "empty": min(sides) <= 0,
        "class": classes[category],
        "crowd": bool(crowd),
        "area": math.nan if area is None else float(area),
        "outline": outline,
        "broken": broken,
    }


def _outline(entry: Entry, height, width) -> tuple[Outline, bool]:
    """Its outline, if it has one; and whether there is one that cannot be used."""
    value = entry.value.get("segmentation")
    if value is None or value == []:
        return None, False
    if isinstance(value, dict):
        counts = _counts(entry, value, height, width)
        return (value, False) if sum(counts[1::2]) else (None, True)
    if not isinstance(value, list) or not all(map(are_numbers, value)):
        raise entry.error(
            "a list of polygons, each a list of numbers, or run lengths, as "
            "'segmentation'",
            value,
        )
    polygons = [
        np.array(polygon, np.float64).reshape(-1, 2)
        for polygon in value
        if len(polygon) >= _LEAST and len(polygon) % 2 == 0
    ]
    return polygons or None, not polygons


def _counts(entry: Entry, value, height, width):
    """Run lengths that fit the image."""
    counts = value.get("counts")
    try:
        found = counts_of(value) if isinstance(counts, str) else counts
    except (ValueError, OverflowError):
        found = None
    whole = isinstance(found, list) and {*map(type, found)} <= {int}
    if not whole or min(found, default=0) < 0:
        raise entry.error("run lengths as 'counts' of its 'segmentation'", counts)
    if value.get("size") != [height, width] or sum(found) != height * width:
        got = f"size {value.get('size')}, {sum(found)} pixels"
        raise entry.error(f"a 'segmentation' of {height} x {width} pixels", got)
    return found


def _skip(rows, has_masks, path):
    """Marks what training cannot use, and tells how many."""
    found = {_EMPTY: [], _BARE: []}
    for row in rows:
        reason = None
        if row["empty"]:
            reason = _EMPTY
        elif has_masks and row["outline"] is None:
            reason = _BARE
        row["skipped"] = reason is not None and not row["crowd"]
        if row["skipped"]:
            found[reason].append(row["place"])
    for reason, places in found.items():
        if places:
            more = ", ..." if len(places) > _NAMED else ""
            logging.warning(
                "Skipped %d of %d objects %s in %s: %s%s",
                len(places),
                len(rows),
                reason,
                os.fspath(path),
                ", ".join(places[:_NAMED]),
                more,
            )


def _record(image, rows, has_masks):
    return Record.of_objects(
        *image,
        [row["box"] for row in rows],
        [row["class"] for row in rows],
        crowd=[row["crowd"] for row in rows],
        skipped=[row["skipped"] for row in rows],
        areas=[row["area"] for row in rows],
        outlines=[row["outline"] for row in rows] if has_masks else None,
    )
