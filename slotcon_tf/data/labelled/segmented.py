"""open_segmented: images with a class for every pixel."""

import difflib
import pathlib

import numpy as np
from absl import logging

from slotcon_tf.data.labelled.class_file import read_class_names
from slotcon_tf.data.labelled.classes import (
    ClassTable,
    table_of_found,
    table_of_values,
)
from slotcon_tf.data.labelled.cropping import crop_center
from slotcon_tf.data.labelled.decoding import LabelError
from slotcon_tf.data.labelled.layouts import LAYOUTS
from slotcon_tf.data.labelled.readers import LABEL_FEATURES as LABEL_FEATURES
from slotcon_tf.data.labelled.readers import (
    builder_names,
    builder_reader,
    check_pairs,
    file_reader,
    kept_pairs,
)
from slotcon_tf.data.scenes import scenes_builder
from slotcon_tf.data.sources import prepared_builder

SEGMENTED = (*LAYOUTS, "scenes", "tfds:NAME")
_MAX_ID = 2**31 - 1


class SegmentedImages:
    """Images with a class for every pixel, read by their number.

    Args:
        name: What to call the set in messages.
        read: Function of a number that returns an image uint8 (height, width, 3), its
            ids (height, width) and the label map's path.
        num_images: Number of images.
        table: `ClassTable`; None to make a class of every id that is found.
        void_ids: Ids that count nowhere, for sets without a table; see
            `table_of_found`.
        crop_size: Edge of the square that images are resized to by their shorter edge
            and cut from the centre of; 0 leaves them as they are.

    Attributes:
        class_names: Tuple of C names.
    """

    def __init__(self, name, read, num_images, *, table, void_ids=None, crop_size=0):
        self.name = name
        self.num_images = num_images
        self.crop_size = crop_size
        self._read = read
        if table is None:
            table = self._scan(void_ids)
        self._table = table
        self.class_names = table.names

    @property
    def num_classes(self):
        return len(self.class_names)

    def __len__(self):
        return self.num_images

    def __repr__(self):
        return f"{self.name}: {self.num_images} images, {self.num_classes} classes"

    def load(self, index):
        """Image `index` and its classes.

        Returns:
            Tuple of uint8 (height, width, 3) and uint8 (height, width), `VOID` where a
            pixel counts nowhere.

        Raises:
            LabelError: If image or label map cannot be used.
        """
        image, ids, path = self._read(int(index))
        labels = self._table.classes(ids, path)
        if self.crop_size:
            image, labels = crop_center(image, labels, self.crop_size)
        return image, labels

    def __iter__(self):
        for index in range(self.num_images):
            yield self.load(index)

    def _scan(self, void_ids):
        logging.info("%s names no classes: looking through label maps.", self.name)
        pixels = {}
        for index in range(self.num_images):
            found, counts = np.unique(self._read(index)[1], return_counts=True)
            for number, count in zip(found.tolist(), counts.tolist(), strict=True):
                pixels[number] = pixels.get(number, 0) + count
        table = table_of_found(pixels, void_ids, self.name)
        logging.info("%s has the classes %s.", self.name, ", ".join(table.names))
        return table


def crop_size_of(dataset):
    """Edge of the central squares that a set is measured on; 0 for whole images."""
    return 320 if dataset == "coco_stuff27" else 0  # as published


def open_segmented(
    dataset,
    data_dir=None,
    split="val",
    *,
    crop_size=None,
    class_file=None,
    void_ids=None,
    label_ids=None,
    image_list=None,
    max_images=None,
):
    """Opens images with label maps.

    Args:
        dataset: One of `LAYOUTS` ("folders", "list", "voc", "cityscapes", "ade20k",
            "coco_panoptic", "coco_stuff27"; each function there says what it looks
            for), "scenes", or "tfds:NAME" of a prepared set with an image and a label
            map.
        data_dir: Folder; for "list" also the list itself.
        split: Such as "train", "val"; tensorflow-datasets' slices are taken too.
        crop_size: See `SegmentedImages`; None is 320 for coco_stuff27, as published,
            and 0 elsewhere.
        class_file: "id name" per line, for sets that do not name their classes.
        void_ids: Ids that count nowhere, beside 255; whole numbers or their text. An
            empty list says of maps of 0 and 255 alone that both are classes.
        label_ids: The ids of the classes, in their order, for masks such as 0 and 255;
            the names are those of the file of classes, if there is one, not those of
            a public data set.
        image_list: Text file of image names (without folder and ending) to keep, such
            as the subset a benchmark is defined on.
        max_images: Evenly spaced images that are kept of more; None for all.

    Returns:
        A `SegmentedImages`.

    Raises:
        FileNotFoundError: If a part of the layout is missing.
        LabelError: If images have no label map, there are no images, or label maps do
            not tell what their classes are.
        ValueError: If the data set is not known.
    """
    dataset = "folders" if dataset == "folder" else dataset
    if crop_size is None:
        crop_size = crop_size_of(dataset)
    void_ids = _numbers("void_ids", void_ids)
    label_ids = _numbers("label_ids", label_ids)
    table = named = read_class_names(class_file) if class_file else None
    if dataset in LAYOUTS:
        if not data_dir:
            raise ValueError(f"dataset={dataset} needs a folder. Set `data_dir`.")
        found = LAYOUTS[dataset](pathlib.Path(data_dir), split)
        kept = kept_pairs(found.pairs, image_list, max_images)
        check_pairs(found.pairs, kept, data_dir)
        table = table or found.table
        read, count = file_reader(found, kept, bool(table)), len(kept)
        named = named or (found.table if dataset in ("folders", "list") else None)
    elif dataset == "scenes" or dataset.startswith("tfds:"):
        if dataset == "scenes":
            builder = scenes_builder(data_dir)
            split = "test" if split == "val" else split
        else:
            builder = prepared_builder(dataset[5:], data_dir)
        names = builder_names(builder)
        if table is None and names:
            table = named = ClassTable(dict(enumerate(names)))
        read, count = builder_reader(builder, split, max_images)
    else:
        near = difflib.get_close_matches(dataset, SEGMENTED, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"`dataset` of label maps must be one of {', '.join(SEGMENTED)}. "
            f"Received: dataset={dataset}.{hint}"
        )
    if label_ids:
        table = table_of_values(label_ids, void_ids, named)
    elif table and len(table.names) < 2:
        raise LabelError(
            "There must be two classes at least, or any network is perfect. Received: "
            f"only {table.names[0]!r} for {dataset} {data_dir or ''}. Name the others "
            "in `class_file`."
        )
    elif table and void_ids:
        raise LabelError(
            "`void_ids` is for sets that do not name their classes. Received: "
            f"{void_ids} for classes {', '.join(table.names[:5])} ... Set "
            "`class_file` with a class named void."
        )
    return SegmentedImages(
        f"{dataset} {data_dir or ''} ({split})",
        read,
        count,
        table=table,
        void_ids=void_ids,
        crop_size=crop_size,
    )


def _numbers(name, values):
    """A list of whole numbers, or None."""
    if values is None:
        return None
    try:
        found = [int(value) for value in values]
    except (TypeError, ValueError):
        found = None
    if found is None or any(abs(number) > _MAX_ID for number in found):
        raise ValueError(
            f"`{name}` must be a list of whole numbers below 2^31. Received: {values}."
        )
    return found
