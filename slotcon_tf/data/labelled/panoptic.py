"""read_panoptic: the JSON file of a panoptic set, or an error that names the entry."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from slotcon_tf.data.labelled.decoding import MAX_CLASSES, MAX_ID
from slotcon_tf.data.labelled.json_entries import read_json

_MAX_SEGMENT = 256**3 - 1  # what the three channels of a pixel hold; 0 is no segment


@dataclass
class Panoptic:
    """What a panoptic JSON says.

    Attributes:
        files: List of (image, PNG), names relative to their folders.
        segments: A dict of segment id to category id for each of them.
        categories: List of dicts with `id`, `name`, `supercategory`.

    Example: See `read_panoptic`.
        >>> Panoptic([("3.jpg", "3.png")], [{9: 1}], []).segments
        [{9: 1}]
    """

    files: list[tuple[str, str]]
    segments: list[dict[int, int]]
    categories: list[dict[str, Any]]


def read_panoptic(
    path: str | os.PathLike[str], supercategories: Collection[str] | None = None
) -> Panoptic:
    """Reads a JSON file in COCO's panoptic format.

    Args:
        path: The file.
        supercategories: Those that a category must have one of; None: any, or none.

    Returns:
        A `Panoptic`.

    Raises:
        LabelError: If the file is damaged, or an entry is; it names which.

    Example:
        >>> import json, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "panoptic.json")
        >>> segments = [{"id": 9, "category_id": 1}]
        >>> note = {"image_id": 3, "file_name": "3.png", "segments_info": segments}
        >>> _ = path.write_text(json.dumps({
        ...     "images": [{"id": 3, "file_name": "3.jpg"}],
        ...     "annotations": [note],
        ...     "categories": [{"id": 1, "name": "sky"}],
        ... }))
        >>> found = read_panoptic(path)
        >>> found.files, found.segments
        ([('3.jpg', '3.png')], [{9: 1}])

    Reference: the format at cocodataset.org/#format-data, "Panoptic Segmentation".
    """
    whole = read_json(path, "panoptic")
    categories = _categories(whole, supercategories)
    known = {c["id"] for c in categories}
    images = _images(whole)
    files, segments, seen = [], [], set()
    for entry in whole.entries("annotations"):
        image = entry.identity("image_id")
        if image not in images:
            raise entry.error("the image_id of an image", image)
        if image in seen:
            raise entry.error("one annotation per image", f"image_id {image!r} again")
        seen.add(image)
        files.append((images[image], entry.file_name()))
        segments.append(_segments(entry, known))
    return Panoptic(files, segments, categories)


def _categories(whole, supercategories):
    categories, ids, names = [], set(), set()
    for entry in whole.entries("categories"):
        number = entry.number("id", 0, MAX_ID)
        name = entry.text("name")
        if number in ids or name in names:
            raise entry.error("an 'id' and a 'name' of its own", f"{number} {name}")
        ids.add(number)
        names.add(name)
        found = {"id": number, "name": name}
        if supercategories is not None:
            found["supercategory"] = entry.text("supercategory")
            if found["supercategory"] not in supercategories:
                raise entry.error(
                    "one of COCO-Stuff's supercategories", found["supercategory"]
                )
        categories.append(found)
    if supercategories is None and len(categories) >= MAX_CLASSES:
        raise whole.error(f"at most {MAX_CLASSES - 1} categories", len(categories))
    return categories


def _images(whole):
    images = {}
    for entry in whole.entries("images"):
        number = entry.identity("id")
        if number in images:
            raise entry.error("an 'id' of its own", number)
        images[number] = entry.file_name()
    return images


def _segments(annotation, known):
    """Segment id to category id; an image may have no segment."""
    segments = {}
    for entry in annotation.entries("segments_info", least=0):
        number = entry.number("id", 1, _MAX_SEGMENT)
        if number in segments:
            raise entry.error("an 'id' of its own", number)
        category = entry.number("category_id", 0, MAX_ID)
        if category not in known:
            raise entry.error("the 'category_id' of a category", category)
        segments[number] = category
    return segments
