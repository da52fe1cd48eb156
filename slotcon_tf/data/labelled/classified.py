"""open_classified: images with a class for each."""

import os
import pathlib

import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.extensions import is_hidden
from slotcon_tf.data.labelled.classes import check_two_labels
from slotcon_tf.data.labelled.cropping import central_square, spaced
from slotcon_tf.data.labelled.decoding import (
    LabelError,
    decode_labelled,
    read_image,
)
from slotcon_tf.data.listing import list_images
from slotcon_tf.data.sources import prepared_builder, split_size
from slotcon_tf.images.pixels import PixelWatch

CLASSIFIED = ("class_folders", "imagenet", "tfds:NAME")
_RESIZED = 256 / 224  # the shorter edge before the crop, in crops


class ClassifiedImages:
    """Images with a class for each.

    Args:
        name: What to call the set in messages.
        examples: Function without arguments that returns an iterator of images uint8
            (height, width, 3) and class numbers.
        num_images: Number of images.
        class_names: Tuple of C names.
    """

    def __init__(self, name, examples, num_images, class_names):
        self.name = name
        self.num_images = num_images
        self.class_names = tuple(class_names)
        self._examples = examples

    @property
    def num_classes(self):
        return len(self.class_names)

    def __len__(self):
        return self.num_images

    def __iter__(self):
        return self._examples()

    def __repr__(self):
        return f"{self.name}: {self.num_images} images, {self.num_classes} classes"


def open_classified(
    dataset, data_dir=None, split="val", *, crop_size=224, max_images=None
):
    """Opens images with a class for each.

    Args:
        dataset: "class_folders" or "imagenet": `data_dir`/SPLIT/CLASS/*; "tfds:NAME": a
            prepared tensorflow-datasets set with `image` and `label`.
        data_dir: Folder.
        split: Such as "train", "val".
        crop_size: Edge of the central square, cut after the shorter edge was resized
            to 8/7 of it (256 for 224); 0 leaves images as they are.
        max_images: Evenly spaced images that are kept of more; None for all.

    Returns:
        A `ClassifiedImages`.

    Raises:
        FileNotFoundError: If the folder or set is missing.
        LabelError: If it holds no classes, or images of one only.
        ValueError: If the data set is not known.
    """
    if dataset.startswith("tfds:"):
        builder = prepared_builder(dataset[5:], data_dir)
        return _of_builder(builder, split, crop_size, max_images)
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
    kept = [items[i] for i in spaced(len(items), max_images)]
    check_two_labels([classes[parts[0]] for _, parts in kept], root)

    watch = PixelWatch(root)

    def examples():
        for path, parts in kept:
            yield _cut(read_image(path, watch), crop_size), classes[parts[0]]

    return ClassifiedImages(f"{dataset} {root}", examples, len(kept), names)


def _of_builder(builder, split, crop_size, most):
    features = builder.info.features
    if "label" not in features:
        raise LabelError(
            f"{builder.info.full_name} must have a 'label'. Received: "
            f"{', '.join(features)}. Sets with label maps only are for groups, and for "
            "other tasks on pixels."
        )
    count = split_size(builder, split)
    kept = set(spaced(count, most))

    watch = PixelWatch(builder.info.full_name)

    def stored(decoders):
        dataset = builder.as_dataset(
            split=split, shuffle_files=False, decoders=decoders
        )
        examples = enumerate(dataset.as_numpy_iterator())
        return ((n, example) for n, example in examples if n in kept)

    def examples():
        for number, example in stored({"image": tfds.decode.SkipDecoding()}):
            path = f"{builder.info.full_name} ({split}) {number}"
            image = _cut(decode_labelled(example["image"], path, watch), crop_size)
            yield image, int(example["label"])

    name = f"{builder.info.full_name} ({split})"
    only = tfds.decode.PartialDecoding({"label": True})
    check_two_labels((example["label"] for _, example in stored(only)), name)
    return ClassifiedImages(name, examples, len(kept), features["label"].names)


def _cut(image, size):
    if not size:
        return image
    shorter = round(size * _RESIZED)
    return central_square(Image.fromarray(image), size, Image.BILINEAR, shorter)
