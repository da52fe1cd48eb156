"""Classes of the public data sets, and which ids of their files are which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slotcon_tf.data.labelled.classes import ClassTable

_VOC = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
# The 19 classes of Cityscapes' benchmark by their id in *_labelIds.png.
_CITYSCAPES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
_CITYSCAPES_IDS = range(-1, 34)
_ADE20K_CLASSES = 150
# Supercategories of COCO-Stuff, things before stuff, with the ids 0 .. 181 that its
# stuffthingmaps give their classes. Reference: Caesar et al. 2018 (arXiv 1612.03716),
# the label hierarchy; the order is that of the benchmark of 27 classes (Ji et al. 2019,
# arXiv 1807.06653; Cho et al. 2021, arXiv 2103.17070).
_COCO_STUFF = {
    "electronic": range(71, 77),
    "appliance": range(77, 83),
    "food": range(51, 61),
    "furniture": range(61, 71),
    "indoor": range(83, 91),
    "kitchen": range(43, 51),
    "accessory": range(25, 33),
    "animal": range(15, 25),
    "outdoor": range(9, 15),
    "person": (0,),
    "sports": range(33, 43),
    "vehicle": range(1, 9),
    "ceiling": (101, 102),
    "floor": (100, *range(113, 118)),
    "food-stuff": (120, 121, 152, 169),
    "furniture-stuff": (97, 106, 107, 109, 111, 122, 129, 132, 155, 160, 164),
    "raw-material": (99, 131, 138, 142),
    "textile": (91, 92, 103, 104, 108, 130, 136, 140, 151, 166, 167),
    "wall": range(170, 177),
    "window": (179, 180),
    "building": (94, 95, 127, 150, 157, 165),
    "ground": (110, 124, 125, 135, 139, 143, 144, 146, 148, 153, 158),
    "plant": (93, 96, 118, 123, 128, 133, 141, 162, 168),
    "sky": (105, 156),
    "solid": (126, 134, 149, 159, 161, 181),
    "structural": (98, 112, 137, 145, 163),
    "water": (119, 147, 154, 177, 178),
}
NO_SEGMENT = -1  # no category: some sets call one 0
COCO_STUFF_27 = tuple(_COCO_STUFF)


def voc() -> ClassTable:
    """PASCAL VOC: 21 classes, the first is background.

    Example:
        >>> voc().names[:2]
        ('background', 'aeroplane')
    """
    return ClassTable(dict(enumerate(_VOC)))


def cityscapes() -> ClassTable:
    """Cityscapes: 19 of the ids in `*_labelIds.png`; the others are void.

    Example:
        >>> cityscapes().names[:2]
        ('road', 'sidewalk')
    """
    return ClassTable(_CITYSCAPES, void=_CITYSCAPES_IDS)


def ade20k(names: Sequence[str] = ()) -> ClassTable:
    """ADE20K: ids 1 to 150; 0, "other", is void.

    Args:
        names: Of the 150 classes, if known.

    Example:
        >>> len(ade20k().names)
        150
    """
    names = names or [f"class {i}" for i in range(1, _ADE20K_CLASSES + 1)]
    return ClassTable(dict(enumerate(names, start=1)), void=(0,))


def coco_stuff27() -> ClassTable:
    """COCO-Stuff's stuffthingmaps merged to its 27 supercategories.

    Example:
        >>> coco_stuff27().names[-1]
        'water'
    """
    merged = {
        number: index
        for index, numbers in enumerate(_COCO_STUFF.values())
        for number in numbers
    }
    return ClassTable(dict(enumerate(COCO_STUFF_27)), merged=merged)


def coco_panoptic(categories: list[dict[str, Any]], *, merge: bool) -> ClassTable:
    """The categories of a panoptic JSON.

    Args:
        categories: List of dicts with `id`, `name` and `supercategory`.
        merge: Whether they are merged to the 27 supercategories of COCO-Stuff.

    Returns:
        A `ClassTable` of category ids; `NO_SEGMENT` is void.

    Example:
        >>> coco_panoptic([{"id": 1, "name": "person"}], merge=False).names
        ('person',)
    """
    if not merge:
        return ClassTable({c["id"]: c["name"] for c in categories}, void=(NO_SEGMENT,))
    place = {name: index for index, name in enumerate(COCO_STUFF_27)}
    merged = {c["id"]: place[c["supercategory"]] for c in categories}
    return ClassTable(dict(enumerate(COCO_STUFF_27)), void=(NO_SEGMENT,), merged=merged)
