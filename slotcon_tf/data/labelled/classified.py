"""open_classified: images with a class for each."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.extensions import is_hidden
from slotcon_tf.data.labelled.classes import check_two_labels
from slotcon_tf.data.labelled.decoding import LabelError, decode_labelled, read_bytes
from slotcon_tf.data.listing import list_images
from slotcon_tf.data.source import Sample, spaced
from slotcon_tf.images.pixels import PixelWatch
from slotcon_tf.images.squares import square
from slotcon_tf.images.statistics import PixelRange, check_pixel_range

CLASSIFIED = ("class_folders", "imagenet", "tfds:NAME")
Examples = Callable[[Sequence[int]], Iterator[tuple[np.ndarray, int]]]


class ClassifiedImages:
    """Images with a class for each.

    Args:
        name: What to call the set in messages.
        examples: Function of rising numbers of images, below `num_images`, that returns
            an iterator of images uint8 (height, width, 3) and class numbers.
        num_images: Number of images.
        class_names: Tuple of C names.
        in_order: Whether an image is reached through those before it only.

    Example:
        >>> grey = np.zeros((3, 4, 3), np.uint8)
        >>> data = ClassifiedImages("mine", lambda n: ((grey, i) for i in n), 2, "ab")
        >>> data, data.load(1)[1]
        (mine: 2 images, 2 classes, 1)
    """

    def __init__(
        self,
        name: str,
        examples: Examples,
        num_images: int,
        class_names: Iterable[str],
        in_order: bool = False,
    ) -> None:
        self.name = name
        self.num_images = num_images
        self.class_names = tuple(class_names)
        self.in_order = in_order
        self._examples = examples

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return self.num_images

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return self._examples(range(self.num_images))

    def __repr__(self) -> str:
        return f"{self.name}: {self.num_images} images, {self.num_classes} classes"

    def load(self, index: int) -> tuple[np.ndarray, int]:
        """Image `index`, uint8 (height, width, 3), and its class.

        Raises:
            LabelError: If the image cannot be used.
        """
        return next(self._examples([int(index)]))

    def sample(self, n: int) -> Iterator[Sample]:
        """At most `n` images and their classes, evenly spaced."""
        numbers = spaced(n, self.num_images)
        for place, (image, label) in enumerate(self._examples(numbers)):
            yield Sample(place, f"image {numbers[place]}", image, label)


def open_classified(
    dataset: str,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "val",
    *,
    crop_size: int = 224,
    max_images: int | None = None,
    pixel_range: Iterable[float] | None = None,
) -> ClassifiedImages:
    """Opens images with a class for each.

    Args:
        dataset: "class_folders" or "imagenet": `data_dir`/SPLIT/CLASS/*; "tfds:NAME": a
            prepared tensorflow-datasets set with `image` and `label`.
        data_dir: Folder.
        split: Such as "train", "val".
        crop_size: Edge of the central square, cut after the shorter edge was resized
            to 8/7 of it (256 for 224); 0 leaves images as they are.
        max_images: Evenly spaced images that are kept of more; None for all.
        pixel_range: (low, high) that images of more than 8 bits are read in: that of
            the model they are for, `statistics_of(model).pixel_range`.

    Returns:
        A `ClassifiedImages`.

    Raises:
        FileNotFoundError: If the folder or set is missing.
        LabelError: If it holds no classes, or images of one only.
        ValueError: If the data set is not known.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (root / "val" / name).mkdir(parents=True)
        ...     Image.new("RGB", (40, 30)).save(root / "val" / name / "a.png")
        >>> data = open_classified("class_folders", root, crop_size=28)
        >>> [(data.class_names[label], image.shape) for image, label in data]
        [('cat', (28, 28, 3)), ('dog', (28, 28, 3))]
    """
    pixel_range = check_pixel_range(pixel_range)
    if dataset.startswith("tfds:"):
        # Here and not above: tensorflow-datasets takes a second.
        from slotcon_tf.data.builders import prepared_builder

        builder = prepared_builder(dataset[5:], data_dir)
        return _of_builder(builder, split, crop_size, max_images, pixel_range)
    if dataset not in CLASSIFIED:
        raise ValueError(
            "`dataset` of images with a class each must be one of "
            f"{', '.join(CLASSIFIED)}. Received: dataset={dataset}."
        )
    if not data_dir:
        raise ValueError(f"dataset={dataset} needs a folder. Set `data_dir`.")
    root = pathlib.Path(data_dir) / split
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} must hold a folder per class. Received: no such folder. Check "
            "`data_dir` and the split."
        )
    names = sorted(
        p.name for p in root.iterdir() if p.is_dir() and not is_hidden(p.name)
    )
    paths = list_images("folder", root)
    classes = {name: number for number, name in enumerate(names)}
    items = [(p, os.path.relpath(p, root).split(os.sep)) for p in paths]
    loose = [path for path, parts in items if len(parts) < 2]
    if loose or not names:
        raise LabelError(
            f"{root} must hold a folder per class, and no image beside them. "
            f"Received: {loose[:1] or 'no folder'}."
        )
    empty = sorted(set(names) - {parts[0] for _, parts in items})
    if empty:
        # Still a class, so that splits with and without its images count alike.
        logging.warning(
            "%s: %d of %d classes have no image: %s",
            *(root, len(empty), len(names), ", ".join(map(printable, empty[:5]))),
        )
    kept = [items[i] for i in spaced(max_images, len(items))]
    check_two_labels([classes[parts[0]] for _, parts in kept], root)
    watch = PixelWatch(root)

    def examples(numbers):
        for path, parts in (kept[number] for number in numbers):
            image = decode_labelled(read_bytes(path), path, watch, pixel_range)
            yield _cut(image, crop_size), classes[parts[0]]

    return ClassifiedImages(f"{dataset} {root}", examples, len(kept), names)


def _of_builder(
    builder: Any,
    split: str,
    crop_size: int,
    most: int | None,
    pixel_range: PixelRange | None,
) -> ClassifiedImages:
    from slotcon_tf.data.builders import split_size, tfds

    features = builder.info.features
    if "label" not in features:
        raise LabelError(
            f"{builder.info.full_name} must have a 'label'. Received: "
            f"{', '.join(features)}. Sets with label maps only are for groups, and for "
            "other tasks on pixels."
        )
    kept = spaced(most, split_size(builder, split))
    name = f"{builder.info.full_name} ({split})"
    watch = PixelWatch(builder.info.full_name)

    def stored(decoders, numbers):
        dataset = builder.as_dataset(
            split=split, shuffle_files=False, decoders=decoders
        )
        wanted = {kept[number] for number in numbers}
        examples = enumerate(dataset.as_numpy_iterator())
        return ((n, example) for n, example in examples if n in wanted)

    def examples(numbers):
        decoders = {"image": tfds.decode.SkipDecoding()}
        for number, example in stored(decoders, numbers):
            path = f"{name} {number}"
            image = decode_labelled(example["image"], path, watch, pixel_range)
            yield _cut(image, crop_size), int(example["label"])

    only = tfds.decode.PartialDecoding({"label": True})
    everything = stored(only, range(len(kept)))
    check_two_labels((example["label"] for _, example in everything), name)
    return ClassifiedImages(name, examples, len(kept), features["label"].names, True)


def _cut(image, size):
    return square(image, size) if size else image
