"""open_segmented: images with a class for every pixel."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from absl import logging

from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.known_files import digest_of
from slotcon_tf.data.labelled.class_file import read_class_names
from slotcon_tf.data.labelled.classes import (
    ClassTable,
    table_of_found,
    table_of_values,
)
from slotcon_tf.data.labelled.decoding import MAX_ID, LabelError
from slotcon_tf.data.labelled.layouts import LAYOUTS
from slotcon_tf.data.labelled.readers import LABEL_FEATURES as LABEL_FEATURES
from slotcon_tf.data.labelled.readers import (
    Read,
    builder_names,
    builder_reader,
    check_pairs,
    file_identity,
    file_reader,
    kept_pairs,
)
from slotcon_tf.data.source import Sample, spaced
from slotcon_tf.images.squares import square
from slotcon_tf.images.statistics import check_pixel_range

SEGMENTED = (*LAYOUTS, "scenes", "tfds:NAME")


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
        in_order: Whether an image is reached through those before it only.
        identify: Function that returns what is known of the images and label maps
            without reading them all; None: their number.

    Attributes:
        class_names: Tuple of C names.

    Example:
        >>> image, ids = np.zeros((3, 4, 3), np.uint8), np.array([[0, 0, 7, 3]] * 3)
        >>> table = ClassTable({0: "sky", 7: "road"}, void=(3,))
        >>> read = lambda number: (image, ids, "a.png")
        >>> data = SegmentedImages("mine", read, 1, table=table)
        >>> data.load(0)[1][0].tolist()
        [0, 0, 1, 255]
    """

    def __init__(
        self,
        name: str,
        read: Read,
        num_images: int,
        *,
        table: ClassTable | None,
        void_ids: list[int] | None = None,
        crop_size: int = 0,
        in_order: bool = False,
        identify: Callable[[], ImageSet] | None = None,
    ) -> None:
        self.name = name
        self.in_order = in_order
        self.num_images = num_images
        self.crop_size = crop_size
        self._read = read
        self._identify = identify or (lambda: ImageSet(num_images, {}))
        if table is None:
            table = self._scan(void_ids)
        self._table = table
        self.class_names = table.names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return self.num_images

    def __repr__(self) -> str:
        return f"{self.name}: {self.num_images} images, {self.num_classes} classes"

    def identity(self) -> ImageSet:
        """What is known of images, label maps and classes; see `ImageSet`."""
        found = self._identify()
        labels = digest_of(found.labels, repr(self._table.ids))
        return dataclasses.replace(found, classes=self.class_names, labels=labels)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image `index` and its classes.

        Returns:
            Tuple of uint8 (height, width, 3) and uint8 (height, width), `VOID` where a
            pixel counts nowhere.

        Raises:
            LabelError: If image or label map cannot be used.
        """
        image, labels, _ = self._loaded(int(index))
        return image, labels

    def sample(self, n: int) -> Iterator[Sample]:
        """At most `n` images and their classes, evenly spaced."""
        for place, index in enumerate(spaced(n, self.num_images)):
            image, labels, path = self._loaded(index)
            yield Sample(place, pathlib.PurePath(path).name, image, labels)  # pyright: ignore[reportArgumentType]

    def _loaded(self, index):
        image, ids, path = self._read(index)
        labels = self._table.classes(ids, path)
        if self.crop_size:
            image = square(image, self.crop_size, "central")
            labels = square(labels, self.crop_size, "central", nearest=True)
        return image, labels, path

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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


def crop_size_of(dataset: str) -> int:
    """Edge of the central squares that a set is measured on; 0 for whole images.

    Example:
        >>> crop_size_of("coco_stuff27"), crop_size_of("voc")
        (320, 0)
    """
    return 320 if dataset == "coco_stuff27" else 0  # as published


def open_segmented(
    dataset: str,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "val",
    *,
    crop_size: int | None = None,
    class_file: str | None = None,
    void_ids: Iterable[int | str] | None = None,
    label_ids: Iterable[int | str] | None = None,
    image_list: str | None = None,
    max_images: int | None = None,
    pixel_range: Iterable[float] | None = None,
) -> SegmentedImages:
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
        pixel_range: (low, high) that images of more than 8 bits are read in: that of
            the model they are for, `statistics_of(model).pixel_range`.

    Returns:
        A `SegmentedImages`.

    Raises:
        FileNotFoundError: If a part of the layout is missing.
        LabelError: If images have no label map, there are no images, or label maps do
            not tell what their classes are.
        ValueError: If the data set is not known.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name, ids in (("val", 0), ("valannot", 1)):
        ...     (folder / name).mkdir()
        ...     grey = np.full((3, 4), ids, np.uint8)
        ...     grey[0] = 0
        ...     Image.fromarray(grey).save(folder / name / "a.png")
        >>> data = open_segmented("folders", folder)
        >>> data.class_names
        ('0', '1')
        >>> image, labels = data.load(0)
        >>> labels.tolist()
        [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    """
    pixel_range = check_pixel_range(pixel_range)
    dataset = "folders" if dataset == "folder" else dataset
    if crop_size is None:
        crop_size = crop_size_of(dataset)
    void_ids = _numbers("void_ids", void_ids)
    label_ids = _numbers("label_ids", label_ids)
    table = named = read_class_names(class_file) if class_file else None
    in_order = dataset not in LAYOUTS
    if dataset in LAYOUTS:
        if not data_dir:
            raise ValueError(f"dataset={dataset} needs a folder. Set `data_dir`.")
        found = LAYOUTS[dataset](pathlib.Path(data_dir), split)
        kept = kept_pairs(found.pairs, image_list, max_images)
        check_pairs(found.pairs, kept, data_dir)
        table = table or found.table
        read = file_reader(found, kept, bool(table), pixel_range)
        count = len(kept)
        identify = functools.partial(file_identity, found, kept, data_dir)
        named = named or (found.table if dataset in ("folders", "list") else None)
    elif dataset == "scenes" or dataset.startswith("tfds:"):
        # Here and not above: tensorflow-datasets takes a second.
        from slotcon_tf.data import builders, scenes

        if dataset == "scenes":
            builder = scenes.scenes_builder(data_dir)
            split = "test" if split == "val" else split
        else:
            builder = builders.prepared_builder(dataset[5:], data_dir)
        names = builder_names(builder)
        if table is None and names:
            table = named = ClassTable(dict(enumerate(names)))
        read, count = builder_reader(builder, split, max_images, pixel_range)
        identify = functools.partial(builders.builder_identity, builder, split)
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
            f"only {table.names[0]!r} for {dataset} {data_dir or ''}. Name the others "  # pyright: ignore[reportGeneralTypeIssues]
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
        in_order=in_order,
        identify=identify,
    )


def _numbers(name, values):
    """A list of whole numbers, or None."""
    if values is None:
        return None
    try:
        found = [int(value) for value in values]
    except (TypeError, ValueError):
        found = None
    if found is None or any(abs(number) > MAX_ID for number in found):
        raise ValueError(
            f"`{name}` must be a list of whole numbers below 2^31. Received: {values}."
        )
    return found
