"""object_of: an entry of "annotations" in COCO's instances, every value looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from slotcon_tf.data.labelled.decoding import MAX_ID
from slotcon_tf.data.labelled.json_entries import Entry, are_numbers
from slotcon_tf.data.objects.outlines import Outline, counts_of

_MAX_IMAGE = 2**63 - 1
_LEAST = 6  # numbers of a polygon
_BOX = 4
_OTHER_KINDS = {
    "segments_info": "segments, as a panoptic file has (dataset=coco_panoptic)",
    "caption": "a caption",
    "keypoints": "keypoints without a box",
}


class ObjectRow(NamedTuple):
    """An object of the file.

    Attributes:
        number: Its id, if it has one.
        image: The image's id.
        place: Where it stands in the file.
        box: x, y, width, height in pixels.
        class_number: 0 .. C - 1.
        crowd: Whether it is several.
        area: In pixels; NaN where the file does not say.
        empty: Whether its box has no area inside the image.
        outline: Its outline, if there is one.
        broken: Whether it can be scored at most, and not learned.

    Example: See `object_of`.
        >>> ObjectRow._fields[:3]
        ('number', 'image', 'place')
    """

    number: int | str | None
    image: int
    place: str
    box: list[float]
    class_number: int
    crowd: bool
    area: float
    empty: bool
    outline: Outline
    broken: bool

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask to be learned."""
        return self.outline is not None and not (self.broken or self.crowd)


def object_of(
    entry: Entry, sizes: Mapping[int, Sequence[int]], classes: Mapping[int, int]
) -> ObjectRow:
    """Reads an entry.

    Args:
        entry: Of "annotations".
        sizes: Height and width of each image, by id.
        classes: Number of each category's class, by id.

    Raises:
        LabelError: If something in it is not as it must be.

    Example:
        >>> value = {"image_id": 7, "category_id": 9, "bbox": [1, 1, 4, 2]}
        >>> entry = Entry("instances", "a.json", "annotations[0]", value)
        >>> object_of(entry, {7: (6, 8)}, {9: 1}).class_number
        1
    """
    for name, what in _OTHER_KINDS.items():
        if name in entry.value and "bbox" not in entry.value:
            raise entry.error("a list 'bbox'", what)
    image = entry.number("image_id", 0, _MAX_IMAGE)
    if image not in sizes:
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
    height, width = sizes[image]
    x, y, w, h = box = entry.numbers("bbox", 4)
    sides = min(x + w, width) - max(x, 0), min(y + h, height) - max(y, 0)
    outline, broken = _outline(entry, height, width)
    if broken and area is None:
        area = w * h
    return ObjectRow(
        number=number,
        image=image,
        place=entry.place,
        box=box,
        class_number=classes[category],
        crowd=bool(crowd),
        area=math.nan if area is None else float(area),
        empty=min(sides) <= 0,
        outline=outline,
        broken=broken,
    )


def _outline(entry, height, width) -> tuple[Outline, bool]:
    """Its outline, if it has one; and whether it is none to learn from.

    Such a one is kept as it stands where pycocotools reads it: four numbers are x, y,
    width and height to it, and an odd one is left out.
    """
    value = entry.value.get("segmentation")
    if value is None or value == []:
        return None, False
    if isinstance(value, dict):
        counts = _counts(entry, value, height, width)
        return value, not sum(counts[1::2])
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
    if polygons:
        return polygons, False
    lengths = {len(polygon) for polygon in value}
    readable = lengths == {_BOX} or min(lengths) > _BOX
    return [np.array(p, np.float64) for p in value] if readable else None, True


def _counts(entry, value, height, width) -> list[int]:
    """Run lengths that fit the image."""
    found: Any = value.get("counts")
    try:
        found = counts_of(value) if isinstance(found, str) else found
    except (ValueError, OverflowError):
        found = None
    whole = isinstance(found, list) and {*map(type, found)} <= {int}
    if not whole or min(found, default=0) < 0:
        need = "run lengths as 'counts' of its 'segmentation'"
        raise entry.error(need, value.get("counts"))
    if value.get("size") != [height, width] or sum(found) != height * width:
        got = f"size {value.get('size')}, {sum(found)} pixels"
        raise entry.error(f"a 'segmentation' of {height} x {width} pixels", got)
    return found
