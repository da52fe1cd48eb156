"""Where the usual layouts keep images and label maps.

A function per layout; each returns a `Found`.
"""

import json
import os
import pathlib
import re
from dataclasses import dataclass, field

from slotcon_tf.data.labelled import taxonomies
from slotcon_tf.data.labelled.decoding import ClassTable, LabelError
from slotcon_tf.data.listing import list_images

LABEL_EXTENSIONS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
_VOID_NAMES = {"void", "unlabeled", "unlabelled", "ignore", "ignored"}


@dataclass
class Found:
    """Files of a labelled set.

    Attributes:
        pairs: List of (image, label map), pathlib.Paths.
        table: `ClassTable`; None if the label maps must tell.
        segments: Of panoptic sets: a dict of segment id to category id per pair.
    """

    pairs: list
    table: ClassTable | None = None
    segments: list = field(default_factory=list)


def folders(root, split):
    """`SPLIT/` with `SPLITannot/`, or `images/SPLIT/` with `annotations/`, `labels/` or
    `masks/SPLIT/`; with `images/` and the others as they are where there is no SPLIT.

    Images and label maps have the same name but for the ending. `classes.txt`, if there
    is one, names the classes.
    """
    candidates = [(root / split, root / f"{split}annot")]
    for labels in ("annotations", "labels", "masks"):
        candidates.append((root / "images" / split, root / labels / split))
        candidates.append((root / "images", root / labels))
    for images, labels in candidates:
        if images.is_dir() and labels.is_dir():
            return Found(_by_name(images, labels), _named(root))
    raise FileNotFoundError(
        f"{root} must hold {split}/ and {split}annot/, or images/{split}/ and "
        f"annotations/{split}/ (or labels/, masks/). Received: neither. Check "
        "--data_dir and --split, or name the files in a list (--dataset=list)."
    )


def listed(root, split):
    """`SPLIT.txt`, or the list that is named: an image and its label map per line."""
    path = root if root.is_file() else root / f"{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} must be a text file with an image and its label map per line. "
            "Received: no such file. Check --data_dir and --split."
        )
    pairs = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        # A tab where names have blanks.
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) != 2:
            raise LabelError(
                "A line must name an image and its label map, with a blank or a tab "
                f"between. Received: {line!r} in line {number} of {path}."
            )
        pairs.append(tuple(path.parent / part.strip() for part in parts))
    return Found(pairs, _named(path.parent))


def voc(root, split):
    """PASCAL VOC 2012; split "trainaug" is train with SBD's SegmentationClassAug."""
    for below in ("", "VOC2012", "VOCdevkit/VOC2012"):
        if (root / below / "JPEGImages").is_dir():
            root = root / below
            break
    lists = root / "ImageSets" / "Segmentation"
    augmented = split == "trainaug"
    if augmented and not (lists / "trainaug.txt").exists():
        names = _names(lists / "train.txt") + _names(lists / "aug.txt")
    else:
        names = _names(lists / f"{split}.txt")
    labels, more = root / "SegmentationClass", root / "SegmentationClassAug"
    pairs = []
    for name in names:
        label = labels / f"{name}.png"
        if augmented and not label.exists():
            label = more / f"{name}.png"
        pairs.append((root / "JPEGImages" / f"{name}.jpg", label))
    return Found(pairs, taxonomies.voc())


def cityscapes(root, split):
    """`leftImg8bit/SPLIT/CITY/` and `gtFine/SPLIT/CITY/`, by their ids."""
    images = _folder(root / "leftImg8bit" / split)
    pairs = []
    for image in map(pathlib.Path, list_images("folder", images)):
        name = image.name.replace("_leftImg8bit.", "_gtFine_labelIds.")
        name = re.sub(r"\.\w+$", ".png", name)
        city = image.parent.relative_to(images)
        pairs.append((image, root / "gtFine" / split / city / name))
    return Found(pairs, taxonomies.cityscapes())


def ade20k(root, split):
    """ADEChallengeData2016: `images/` and `annotations/` with training, validation."""
    if (root / "ADEChallengeData2016").is_dir():
        root = root / "ADEChallengeData2016"
    folder = {"train": "training", "val": "validation"}.get(split, split)
    pairs = _by_name(
        _folder(root / "images" / folder), _folder(root / "annotations" / folder)
    )
    about, names = root / "objectInfo150.txt", ()
    if about.is_file():
        rows = [line.split("\t") for line in about.read_text("utf-8").splitlines()]
        names = [row[-1].split(",")[0].strip() for row in rows if row[0].isdigit()]
    return Found(pairs, taxonomies.ade20k(names))


def coco_panoptic(root, split, *, merge=False):
    """`SPLIT2017/`, `annotations/panoptic_SPLIT2017.json` and its folder of PNGs."""
    images, name = _folder(root / f"{split}2017"), f"panoptic_{split}2017"
    about = root / "annotations" / f"{name}.json"
    if not about.is_file():
        raise FileNotFoundError(
            f"{about} must describe the segments. Received: no such file."
        )
    content = json.loads(about.read_text("utf-8"))
    files = {entry["id"]: entry["file_name"] for entry in content["images"]}
    pairs, segments = [], []
    for entry in content["annotations"]:
        image = images / files[entry["image_id"]]
        pairs.append((image, root / "annotations" / name / entry["file_name"]))
        segments.append({s["id"]: s["category_id"] for s in entry["segments_info"]})
    table = taxonomies.coco_panoptic(content["categories"], merge=merge)
    return Found(pairs, table, segments)


def coco_stuff27(root, split):
    """COCO merged to 27 supercategories: of `stuffthingmaps/SPLIT2017/`, else panoptic.

    The published numbers are those of the stuffthingmaps.
    """
    maps = root / "stuffthingmaps" / f"{split}2017"
    if not maps.is_dir():
        maps = root / "annotations" / f"{split}2017"  # as some keep them
    if maps.is_dir():
        pairs = _by_name(_folder(root / f"{split}2017"), maps)
        return Found(pairs, taxonomies.coco_stuff27())
    return coco_panoptic(root, split, merge=True)


LAYOUTS = {
    "folders": folders,
    "list": listed,
    "voc": voc,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "coco_panoptic": coco_panoptic,
    "coco_stuff27": coco_stuff27,
}


def read_class_names(path):
    """A `ClassTable` of a text file: "id name" per line, or a name per line.

    Behind a tab anything may follow the name. Classes named void, unlabeled or ignore
    count nowhere.
    """
    ids, void = {}, []
    lines = pathlib.Path(path).read_text("utf-8").splitlines()
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        first, _, rest = line.strip().replace("\t", " ", 1).partition(" ")
        if first.isdigit() and rest:
            number, name = int(first), rest.partition("\t")[0].strip()
        else:
            number, name = len(ids) + len(void), line.partition("\t")[0].strip()
        if name.lower() in _VOID_NAMES:
            void.append(number)
        else:
            ids[number] = name
    return ClassTable(dict(sorted(ids.items())), void=void)


def _named(root):
    path = root / "classes.txt"
    return read_class_names(path) if path.is_file() else None


def _folder(path):
    if not path.is_dir():
        raise FileNotFoundError(
            f"The data set needs the folder {path}. Received: no such folder. Check "
            "--data_dir and --split."
        )
    return path


def _names(path):
    if not path.is_file():
        raise FileNotFoundError(
            f"The data set needs the list {path}. Received: no such file. Check "
            "--data_dir and --split."
        )
    return path.read_text("utf-8").split()


def _by_name(images, labels):
    """Pairs every image with the label map of its name; a missing one stays named."""
    stems = {}
    for where, _, names in os.walk(labels):
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() in LABEL_EXTENSIONS:
                below = os.path.relpath(where, labels)
                stems[os.path.normpath(os.path.join(below, stem))] = name
    pairs = []
    for image in map(pathlib.Path, list_images("folder", images)):
        key = os.path.splitext(image.relative_to(images))[0]
        name = stems.get(key, f"{image.stem}.png")
        pairs.append((image, labels / image.relative_to(images).parent / name))
    return pairs
