"""read_instances: COCO's `instances_*.json`, or an error that names the entry."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib

from absl import logging

from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.known_files import files_of
from slotcon_tf.data.labelled.decoding import MAX_ID, decode_labelled, read_bytes
from slotcon_tf.data.labelled.json_entries import read_json
from slotcon_tf.data.objects.annotation import Record, StoredSet
from slotcon_tf.data.objects.coco_entries import ObjectRow, object_of
from slotcon_tf.data.objects.coco_files import check_files, find_files, image_folder
from slotcon_tf.images.pixels import PixelWatch

_KIND = "instances"
_MAX_EDGE = 2**20  # pixels
_NAMED = 3  # entries that a warning names
_EMPTY = "without a box of any area inside the image"
_BARE = "without a polygon of six numbers or more"


def read_instances(root: pathlib.Path, split: str, masks: bool = True) -> StoredSet:
    """Reads a set in the layout of COCO's instances.

    Args:
        root: Folder of the set; see `coco_files.find_files`.
        split: "train", "val" and so on, or a JSON file below the folder.
        masks: Whether objects without an outline are skipped, in a set that has any;
            one whose outline is broken is skipped in any case.

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
        >>> (root / "val2017" / "a.jpg").touch()
        >>> found = read_instances(root, "val")
        >>> found.categories, found.records[0].annotation()
        ({3: 'cat', 9: 'dog'}, a.jpg: 8x6, 1 objects)

    Reference: the format at cocodataset.org/#format-data, "Object Detection".
    """
    about, folders = find_files(root, split)
    with _uncollected():
        records, categories = _records(about, masks)
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

    return StoredSet(records, categories, read, identify, check)


@contextlib.contextmanager
def _uncollected():
    """Looking for garbage among millions of lists that are none doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _records(path, masks):
    top = read_json(path, _KIND, constants=True)
    categories = _categories(top)
    classes = {number: place for place, number in enumerate(categories)}
    images = _images(top)
    objects: dict[int, list[ObjectRow]] = {number: [] for number in images}
    sizes = {number: image[2:] for number, image in images.items()}
    seen = set()
    for entry in top.entries("annotations", least=0):
        row = object_of(entry, sizes, classes)
        if row.number is not None and row.number in seen:
            raise entry.error("an 'id' of its own", row.number)
        seen.add(row.number)
        objects[row.image].append(row)
    every = [row for own in objects.values() for row in own]
    has_masks = any(row.has_mask for row in every)
    skipped = _skipped(every, has_masks and masks, path)
    records = [
        Record.of_objects(
            *images[number],
            [row.box for row in own],
            [row.class_number for row in own],
            crowd=[row.crowd for row in own],
            skipped=[row.place in skipped for row in own],
            areas=[row.area for row in own],
            outlines=[row.outline for row in own] if has_masks else None,
        )
        for number, own in objects.items()
    ]
    return records, categories


def _categories(top):
    found = {}
    for entry in top.entries("categories"):
        number, name = entry.number("id", 0, MAX_ID), entry.text("name")
        if number in found or name in found.values():
            raise entry.error("an 'id' and a 'name' of its own", f"{number} {name}")
        found[number] = name
    return dict(sorted(found.items()))


def _images(top) -> dict[int, tuple[int, str, int, int]]:
    found = {}
    for entry in top.entries("images"):
        number = entry.number("id", 0, 2**63 - 1)
        if number in found:
            raise entry.error("an 'id' of its own", number)
        height = entry.number("height", 1, _MAX_EDGE)
        width = entry.number("width", 1, _MAX_EDGE)
        found[number] = number, entry.file_name(), height, width
    return found


def _skipped(rows, masks, path):
    """Places of the objects that training cannot use; it is told how many."""
    empty, bare = [], []
    for row in rows:
        if row.empty and not row.crowd:
            empty.append(row.place)
        elif not row.crowd and (row.broken or masks and not row.has_mask):
            bare.append(row.place)
    for places, what in ((empty, _EMPTY), (bare, _BARE)):
        if places:
            logging.warning(
                "Skipped %d of %d objects %s in %s: %s%s",
                len(places),
                len(rows),
                what,
                os.fspath(path),
                ", ".join(places[:_NAMED]),
                ", ..." if len(places) > _NAMED else "",
            )
    return {*empty, *bare}
