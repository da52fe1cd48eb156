"""Where the usual layouts keep images and label maps.

A function per layout, of the root folder and the split; each returns a `SplitFiles`,
and raises FileNotFoundError where a part is missing.

    >>> import pathlib
    >>> coco_stuff27(pathlib.Path("no folder"), "val")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    FileNotFoundError: The data set needs the folder no folder/val2017. Received: ...
"""

from __future__ import annotations

import os
import pathlib
import re
from dataclasses import dataclass, field

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.labelled import taxonomies
from slotcon_tf.data.labelled.class_file import (
    is_labelme,
    read_class_names,
    read_text,
)
from slotcon_tf.data.labelled.classes import ClassTable
from slotcon_tf.data.labelled.decoding import LabelError
from slotcon_tf.data.labelled.panoptic import read_panoptic
from slotcon_tf.data.listing import list_images
from slotcon_tf.data.lists import image_column, read_rows
from slotcon_tf.data.reading import without_scheme

# Of several the first is taken; the last two are refused when they are read.
LABEL_EXTENSIONS = (
    *(".png", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
    *(".jpg", ".jpeg"),
)
# What people call the column of the label maps, beside `IMAGE_COLUMNS`.
_LABEL_COLUMNS = (
    *("mask", "masks", "label", "labels", "label_map", "annotation", "segmentation"),
    *("mask_path", "label_path", "mask_file", "label_file"),
)


@dataclass
class SplitFiles:
    """Files of a labelled set.

    Attributes:
        pairs: List of (image, label map), pathlib.Paths.
        table: `ClassTable`; None if the label maps must tell.
        segments: Of panoptic sets: a dict of segment id to category id per pair.

    Example:
        >>> SplitFiles([(pathlib.Path("a.jpg"), pathlib.Path("a.png"))]).table is None
        True
    """

    pairs: list[tuple[pathlib.Path, pathlib.Path]]
    table: ClassTable | None = None
    segments: list[dict[int, int]] = field(default_factory=list)


def folders(root: pathlib.Path, split: str) -> SplitFiles:
    """`SPLIT/` with `SPLITannot/`, or `images/SPLIT/` with `annotations/`, `labels/` or
    `masks/SPLIT/`; with `images/` and the others as they are where there is no SPLIT.

    Images and label maps have the same name but for the ending. `classes.txt`, if there
    is one, names the classes.

    Example:
        >>> import tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("val/a.jpg", "valannot/a.png"):
        ...     (root / name).parent.mkdir(parents=True)
        ...     (root / name).touch()
        >>> [(image.name, labels.name) for image, labels in folders(root, "val").pairs]
        [('a.jpg', 'a.png')]
    """
    candidates = [(root / split, root / f"{split}annot")]
    for labels in ("annotations", "labels", "masks"):
        candidates.append((root / "images" / split, root / labels / split))
        candidates.append((root / "images", root / labels))
    for images, labels in candidates:
        if images.is_dir() and labels.is_dir():
            return SplitFiles(_by_name(images, labels), _named(root))
    raise FileNotFoundError(
        f"{root} must hold {split}/ and {split}annot/, or images/{split}/ and "
        f"annotations/{split}/ (or labels/, masks/). Received: neither. Check "
        "`data_dir` and the split, or name the files in a list (dataset=list)."
    )


def listed(root: pathlib.Path, split: str) -> SplitFiles:
    """`SPLIT.txt`, or the list that is named: an image and its label map per line.

    Example:
        >>> import tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (root / "val.txt").write_text("photos/a.jpg masks/a.png")
        >>> ((image, labels),) = listed(root, "val").pairs
        >>> image == root / "photos" / "a.jpg", labels.name
        (True, 'a.png')
    """
    path = root if root.is_file() else root / f"{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} must be a text file with an image and its label map per line. "
            "Received: no such file. Check `data_dir` and the split."
        )
    try:
        rows, header = read_rows(path)
    except ValueError as error:
        raise LabelError(str(error)) from None
    columns = _columns(header)
    pairs = []
    for row in rows:
        # Blanks part names of any ending.
        cells = row.cells if len(row.cells) > 1 else row.text.split()
        if columns:
            cells = [cells[i] for i in columns if i < len(cells)]
        if len(cells) != 2 or not all(cells):
            raise LabelError(
                "A line must name an image and its label map, with a tab, a comma or a "
                f"blank between. Received: {printable(row.text)[:80]!r} in line "
                f"{row.number} of {path}."
            )
        pairs.append(tuple(path.parent / without_scheme(cell) for cell in cells))
    return SplitFiles(pairs, _named(path.parent))


def voc(root: pathlib.Path, split: str) -> SplitFiles:
    """PASCAL VOC 2012; split "trainaug" is train with SBD's SegmentationClassAug.

    Example:
        >>> import tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> lists = root / "ImageSets" / "Segmentation"
        >>> lists.mkdir(parents=True)
        >>> _ = (lists / "val.txt").write_text("2007_000033")
        >>> [(image.name, labels.name) for image, labels in voc(root, "val").pairs]
        [('2007_000033.jpg', '2007_000033.png')]
    """
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
    return SplitFiles(pairs, taxonomies.voc())


def cityscapes(root: pathlib.Path, split: str) -> SplitFiles:
    """`leftImg8bit/SPLIT/CITY/` and `gtFine/SPLIT/CITY/`, by their ids.

    Example:
        >>> import tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> city = root / "leftImg8bit" / "val" / "ulm"
        >>> city.mkdir(parents=True)
        >>> (city / "ulm_000000_000019_leftImg8bit.png").touch()
        >>> [labels.name for _, labels in cityscapes(root, "val").pairs]
        ['ulm_000000_000019_gtFine_labelIds.png']
    """
    images = _folder(root / "leftImg8bit" / split)
    pairs = []
    for image in map(pathlib.Path, list_images("folder", images)):
        name = image.name.replace("_leftImg8bit.", "_gtFine_labelIds.")
        name = re.sub(r"\.\w+$", ".png", name)
        city = image.parent.relative_to(images)
        pairs.append((image, root / "gtFine" / split / city / name))
    return SplitFiles(pairs, taxonomies.cityscapes())


def ade20k(root: pathlib.Path, split: str) -> SplitFiles:
    """ADEChallengeData2016: `images/` and `annotations/` with training, validation.

    Example:
        >>> import tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("images/validation/a.jpg", "annotations/validation/a.png"):
        ...     (root / name).parent.mkdir(parents=True)
        ...     (root / name).touch()
        >>> [(image.name, labels.name) for image, labels in ade20k(root, "val").pairs]
        [('a.jpg', 'a.png')]
    """
    if (root / "ADEChallengeData2016").is_dir():
        root = root / "ADEChallengeData2016"
    folder = {"train": "training", "val": "validation"}.get(split, split)
    pairs = _by_name(
        _folder(root / "images" / folder), _folder(root / "annotations" / folder)
    )
    about, names = root / "objectInfo150.txt", ()
    if about.is_file():
        rows = [line.split("\t") for line in read_text(about).splitlines()]
        rows = [row for row in rows if row[0].isdigit()]
        if [row[0] for row in rows] != [str(i) for i in range(1, 151)]:
            raise LabelError(
                f"{about} must name the classes 1 to 150 in order. Received: "
                f"{len(rows)} lines that begin with a number and a tab. Copy it again."
            )
        names = [row[-1].split(",")[0].strip() for row in rows]
    return SplitFiles(pairs, taxonomies.ade20k(names))


def coco_panoptic(root: pathlib.Path, split: str, *, merge: bool = False) -> SplitFiles:
    """`SPLIT2017/`, `annotations/panoptic_SPLIT2017.json` and its folder of PNGs.

    Example:
        >>> import json, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "val2017").mkdir(), (root / "annotations").mkdir()
        (None, None)
        >>> row = {"image_id": 1, "file_name": "a.png", "segments_info": []}
        >>> about = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [row]}
        >>> about["categories"] = [{"id": 1, "name": "person", "isthing": 1}]
        >>> text = json.dumps(about)
        >>> _ = (root / "annotations" / "panoptic_val2017.json").write_text(text)
        >>> coco_panoptic(root, "val").table.names
        ('person',)
    """
    images, name = _folder(root / f"{split}2017"), f"panoptic_{split}2017"
    about = root / "annotations" / f"{name}.json"
    if not about.is_file():
        raise FileNotFoundError(
            f"{about} must describe the segments. Received: no such file."
        )
    content = read_panoptic(about, taxonomies.COCO_STUFF_27 if merge else None)
    folder = root / "annotations" / name
    pairs = [(images / image, folder / label) for image, label in content.files]
    table = taxonomies.coco_panoptic(content.categories, merge=merge)
    return SplitFiles(pairs, table, content.segments)


def coco_stuff27(root: pathlib.Path, split: str) -> SplitFiles:
    """COCO merged to 27 supercategories: of `stuffthingmaps/SPLIT2017/`, else panoptic.

    The published numbers are those of the stuffthingmaps.

    Example:
        >>> import tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("val2017/a.jpg", "stuffthingmaps/val2017/a.png"):
        ...     (root / name).parent.mkdir(parents=True)
        ...     (root / name).touch()
        >>> len(coco_stuff27(root, "val").table.names)
        27
    """
    maps = root / "stuffthingmaps" / f"{split}2017"
    if not maps.is_dir():
        maps = root / "annotations" / f"{split}2017"  # as some keep them
    if maps.is_dir():
        pairs = _by_name(_folder(root / f"{split}2017"), maps)
        return SplitFiles(pairs, taxonomies.coco_stuff27())
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


def _columns(header):
    """Numbers of the columns of images and label maps; None: there are just those."""
    label = next((name for name in _LABEL_COLUMNS if name in (header or ())), None)
    return (image_column(header), header.index(label)) if label else None


def _named(root):
    """The table of `classes.txt`, or of a list of classes that labelme has made."""
    if (root / "classes.txt").is_file():
        return read_class_names(root / "classes.txt")
    for name in ("labels.txt", "class_names.txt"):
        if (root / name).is_file() and is_labelme(root / name):
            return read_class_names(root / name)
    return None


def _folder(path):
    if not path.is_dir():
        raise FileNotFoundError(
            f"The data set needs the folder {path}. Received: no such folder. Check "
            "`data_dir` and the split."
        )
    return path


def _names(path):
    if not path.is_file():
        raise FileNotFoundError(
            f"The data set needs the list {path}. Received: no such file. Check "
            "`data_dir` and the split."
        )
    return read_text(path).split()


def _preference(name):
    return LABEL_EXTENSIONS.index(os.path.splitext(name)[1].lower()), name


def _by_name(images, labels):
    """Pairs every image with the label map of its name; a missing one stays named."""
    stems = {}
    for where, _, names in os.walk(labels):
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() in LABEL_EXTENSIONS:
                below = os.path.relpath(where, labels)
                key = os.path.normpath(os.path.join(below, stem))
                stems[key] = min(name, stems.get(key, name), key=_preference)
    pairs = []
    for image in map(pathlib.Path, list_images("folder", images)):
        key = os.path.splitext(image.relative_to(images))[0]
        name = stems.get(key, f"{image.stem}.png")
        pairs.append((image, labels / image.relative_to(images).parent / name))
    return pairs
