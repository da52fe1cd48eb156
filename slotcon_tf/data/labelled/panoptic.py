"""read_panoptic: the JSON file of a panoptic set, or an error that names the entry."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from slotcon_tf.data.labelled.decoding import MAX_CLASSES, MAX_ID, LabelError
from slotcon_tf.data.reading import read_file

_MAX_SEGMENT = 256**3 - 1  # what the three channels of a pixel hold; 0 is no segment
_MAX_BYTES = 2**32  # of the file; COCO's largest has a tenth
_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # in no name


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
        >>> import tempfile
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
    content = _parsed(path)
    whole = _Entry(path, "its top", content)
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


class _Entry:
    """A dict of the file, and where it stands."""

    def __init__(self, path, place, value):
        self.path, self.place = path, place
        self._value = value
        if not isinstance(value, dict):
            raise self.error("an object", value)

    def error(self, need, got):
        shown = got if isinstance(got, str) else json.dumps(got, default=str)
        if len(shown) > 60:
            shown = f"{shown[:57]}..."
        return LabelError(
            f"A panoptic JSON must have {need} in {self.place}. Received: {shown!a} "
            f"in {self.path}. Write the file again, or mend that entry."
        )

    def get(self, name, need):
        if name not in self._value:
            raise self.error(need, f"no {name!r}")
        return self._value[name]

    def entries(self, name, least=1):
        """The dicts of a list; the list may be empty where `least` is 0."""
        values = self.get(name, f"a list {name!r}")
        if not isinstance(values, list) or len(values) < least:
            raise self.error(f"a list {name!r} that is not empty", values)
        inside = "" if self.place == "its top" else f"{self.place}."
        for index, value in enumerate(values):
            yield _Entry(self.path, f"{inside}{name}[{index}]", value)

    def number(self, name, low, high):
        """A whole number; true and 1.0 are none."""
        value = self.get(name, f"a number {name!r}")
        if type(value) is not int or not low <= value <= high:
            raise self.error(f"a whole number {name!r} from {low} to {high}", value)
        return value

    def identity(self, name):
        """What an image is known by: a whole number, or text as in Cityscapes'."""
        value = self.get(name, f"an {name!r}")
        if type(value) not in (int, str):
            raise self.error(f"a whole number or text as {name!r}", value)
        return value

    def text(self, name):
        value = self.get(name, f"a text {name!r}")
        if not isinstance(value, str) or not value.strip() or _ODD.search(value):
            raise self.error(f"a text {name!r}", value)
        return value

    def file_name(self):
        """A name below the folder of the images."""
        name = self.text("file_name")
        windows = pathlib.PureWindowsPath(name)  # parts end at / and \ there
        if windows.anchor or ".." in windows.parts:
            raise self.error("a 'file_name' below its folder", name)
        return name


def _parsed(path):
    def refused(constant):
        raise ValueError(f"{constant} is no number of JSON")

    try:
        # Bytes: it finds out whether they are UTF-8, with a mark or not, or UTF-16.
        return json.loads(read_file(path, _MAX_BYTES), parse_constant=refused)
    except (ValueError, OSError, RecursionError) as error:  # BadImage is a ValueError
        reason = str(error) or type(error).__name__
        raise LabelError(
            f"The panoptic annotations must be a whole JSON file. Received: {path} "
            f"({reason}). Copy or unpack it again."
        ) from None


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
