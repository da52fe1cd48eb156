"""open_objects: images with the boxes, classes and masks of their objects."""

from __future__ import annotations

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.known_files import digest_of
from slotcon_tf.data.labelled.decoding import LabelError
from slotcon_tf.data.objects.annotation import Annotation, Record
from slotcon_tf.data.objects.coco import read_instances
from slotcon_tf.data.source import spaced
from slotcon_tf.images.statistics import check_pixel_range

OBJECT_SETS = ("coco", "scenes", "tfds:NAME")


class ObjectImages:
    """Images with objects, read by their number, by any thread.

    Args:
        name: What to call the set in messages.
        records: A `Record` for each image.
        read: Function of a number that returns an image uint8 (height, width, 3),
            upright.
        categories: Dict of COCO's category id to name; their order is that of the
            classes.
        identify: Function that returns what is known of the images without reading
            them all; None: their number.

    Attributes:
        class_names: Tuple of C names.
        category_ids: Tuple of the C classes' ids in the set, and in COCO's results.
        num_images: Number of images.
        has_masks: Whether objects have polygons.
        sizes: int64 (num_images, 2), height and width of each.
        counts: int64 (num_images,), objects of each that training takes.

    Example:
        >>> records = [Record.of_objects(7, "a.jpg", 6, 8, [[1, 1, 4, 2]], [1])]
        >>> blank = lambda number: np.zeros((6, 8, 3), np.uint8)
        >>> data = ObjectImages("mine", records, blank, {3: "cat", 9: "dog"})
        >>> data
        mine: 1 images, 1 objects of 2 classes
        >>> image, annotation = data.load(0)
        >>> annotation.boxes.tolist(), data.class_names[annotation.classes[0]]
        ([[1.0, 1.0, 5.0, 3.0]], 'dog')
        >>> data.coco()["annotations"][0]["category_id"]
        9
    """

    in_order = False

    def __init__(
        self,
        name: str,
        records: Sequence[Record],
        read: Callable[[int], np.ndarray],
        categories: dict[int, str],
        *,
        identify: Callable[[], ImageSet] | None = None,
    ) -> None:
        self.name = name
        self.num_images = len(records)
        self.class_names = tuple(categories.values())
        self.category_ids = tuple(categories)
        self.has_masks = any(record.outlines is not None for record in records)
        sizes = [(record.height, record.width) for record in records]
        self.sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self.counts = np.array([len(record.wanted) for record in records], np.int64)
        self._records = records
        self._read = read
        self._identify = identify or (lambda: ImageSet(self.num_images, {}))

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return self.num_images

    def __repr__(self) -> str:
        return (
            f"{self.name}: {self.num_images} images, {self.counts.sum()} objects of "
            f"{self.num_classes} classes"
        )

    def annotation(self, index: int) -> Annotation:
        """Of image `index`, without reading it."""
        return self._records[int(index)].annotation()

    def load(self, index: int) -> tuple[np.ndarray, Annotation]:
        """Image `index`, uint8 (height, width, 3), and its objects.

        Raises:
            LabelError: If the image cannot be read, or is of another size.
        """
        image, annotation = self._read(int(index)), self.annotation(index)
        height, width = image.shape[:2]
        if (height, width) != (annotation.height, annotation.width):
            raise LabelError(
                "An image must be as large as its annotation says. Received: "
                f"{annotation.file_name} of {width}x{height}, upright, for "
                f"{annotation.width}x{annotation.height} in {self.name}. Mend its "
                "'width' and 'height', or resize one of both."
            )
        return image, annotation

    def sample(self, n: int) -> Iterator[tuple[np.ndarray, Annotation]]:
        """At most `n` images and their objects, evenly spaced."""
        for index in spaced(n, self.num_images):
            yield self.load(index)

    def __iter__(self) -> Iterator[tuple[np.ndarray, Annotation]]:
        for index in range(self.num_images):
            yield self.load(index)

    def coco(self) -> dict[str, Any]:
        """All that is to be found, and crowds, in COCO's JSON layout, for scoring.

        Returns:
            Dict of `images`, `annotations` (numbered from 1 on, since COCO's scores
            take 0 for none), `categories` (of the set's own ids). Objects that training
            skips count here, as they do in COCO's own scores.
        """
        images, annotations = [], []
        for record in self._records:
            names = ("file_name", "height", "width")
            image = {name: getattr(record, name) for name in names}
            images.append({"id": record.image_id, **image})
            for row in record.coco(self.category_ids):
                annotations.append({"id": len(annotations) + 1, **row})
        named = zip(self.category_ids, self.class_names, strict=True)
        categories = [{"id": number, "name": name} for number, name in named]
        parts = {"images": images, "annotations": annotations}
        return {**parts, "categories": categories}

    def identity(self) -> ImageSet:
        """What is known of images, objects and classes; see `ImageSet`."""
        found = self._identify()
        parts = (part for record in self._records for part in record.parts())
        labels = digest_of(found.labels, *parts)
        return dataclasses.replace(found, classes=self.class_names, labels=labels)


def has_objects(dataset: str) -> bool:
    """Whether a set of images, by its name, says what objects they have.

    Example:
        >>> has_objects("scenes"), has_objects("folder")
        (True, False)
    """
    return dataset in OBJECT_SETS or dataset.startswith("tfds:")


def open_objects(
    dataset: str,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "val",
    *,
    max_images: int | None = None,
    training: bool = False,
    masks: bool = True,
    pixel_range: Iterable[float] | None = None,
) -> ObjectImages:
    """Opens images with objects.

    Args:
        dataset: "coco", see `read_instances`; "scenes", drawn where they are not yet;
            or "tfds:NAME" of a prepared set with `image` and `objects`.
        data_dir: Folder of the set, or of tensorflow-datasets.
        split: Such as "train", "val"; tensorflow-datasets' slices are taken too.
        max_images: Evenly spaced images that are kept of more; None for all.
        training: Whether images without an object to find are left out.
        masks: Whether masks are to be learned: where a set of "coco" has any, objects
            without one are skipped then.
        pixel_range: (low, high) that images of more than 8 bits are read in: that of
            the model they are for, `statistics_of(model).pixel_range`.

    Returns:
        An `ObjectImages`.

    Raises:
        FileNotFoundError: If a part of the layout is missing.
        LabelError: If annotations are damaged, or there are no images.
        ValueError: If the data set is not known.

    Example:
        >>> images = open_objects("scenes", split="train")  # doctest: +SKIP
        >>> images.class_names[:3]  # doctest: +SKIP
        ('tree', 'house', 'car')
    """
    pixel_range = check_pixel_range(pixel_range)
    if not has_objects(dataset):
        near = difflib.get_close_matches(dataset, OBJECT_SETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"`dataset` of objects must be one of {', '.join(OBJECT_SETS)}. "
            f"Received: dataset={dataset}.{hint}"
        )
    if dataset == "coco":
        if not data_dir:
            raise ValueError("dataset=coco needs a folder. Set `data_dir`.")
        found = read_instances(pathlib.Path(data_dir), split, masks)
    else:
        # Here and not above: tensorflow-datasets takes a second.
        from slotcon_tf.data import builders, scenes
        from slotcon_tf.data.objects import stored

        if dataset == "scenes":
            builder = scenes.scenes_builder(data_dir, scenes.SceneObjects)
            split = "test" if split == "val" else split
        else:
            builder = builders.prepared_builder(dataset[5:], data_dir)
        found = stored.read_builder(builder, split)
    name = f"{dataset} {data_dir or ''} ({split})"
    numbers = [i for i, r in enumerate(found.records) if len(r.wanted) or not training]
    if not numbers:
        what = "images with objects" if training else "images"
        raise LabelError(f"{name} must hold {what}. Received: none.")
    numbers = [numbers[i] for i in spaced(max_images, len(numbers))]
    found.check(numbers)
    return ObjectImages(
        name,
        [found.records[i] for i in numbers],
        lambda index: found.read(numbers[index], pixel_range),
        found.categories,
        identify=lambda: found.identify(numbers),
    )
