"""open_segmented: images with a class for every pixel."""

import difflib
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from slotcon_tf.data.decoding import BadImage, decode_image
from slotcon_tf.data.labelled.decoding import (
    VOID,
    ClassTable,
    LabelError,
    check_size,
    decode_ids,
    decode_panoptic_ids,
)
from slotcon_tf.data.labelled.layouts import LAYOUTS, read_class_names
from slotcon_tf.data.scenes import scenes_builder
from slotcon_tf.data.sources import prepared_builder, split_size

SEGMENTED = (*LAYOUTS, "scenes", "tfds:NAME")
# Names that tensorflow-datasets' sets give their label maps.
LABEL_FEATURES = (
    "segmentation_label",
    "segmentation_mask",
    "segmentation",
    "annotations",
    "label_map",
)


class SegmentedImages:
    """Images with a class for every pixel, read by their number.

    Args:
        name: What to call the set in messages.
        read: Function of a number that returns an image uint8 (height, width, 3), its
            ids (height, width) and the label map's path.
        num_images: Number of images.
        table: `ClassTable`; None to make a class of every id that is found.
        void_ids: Ids that count nowhere, for sets without a table.
        crop_size: Edge of the square that images are resized to by their shorter edge
            and cut from the centre of; 0 leaves them as they are.

    Attributes:
        class_names: Tuple of C names.
    """

    def __init__(self, name, read, num_images, *, table, void_ids=(), crop_size=0):
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
        found = set()
        for index in range(self.num_images):
            found.update(np.unique(self._read(index)[1]).tolist())
        found -= {VOID, *void_ids}
        return ClassTable({i: str(i) for i in sorted(found)}, void=void_ids)


def open_segmented(
    dataset,
    data_dir=None,
    split="val",
    *,
    crop_size=None,
    class_file=None,
    void_ids=(),
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
        void_ids: Ids that count nowhere, beside 255; whole numbers or their text.
        image_list: Text file of image names (without folder and ending) to keep, such
            as the subset a benchmark is defined on.
        max_images: Evenly spaced images that are kept of more; None for all.

    Returns:
        A `SegmentedImages`.

    Raises:
        FileNotFoundError: If a part of the layout is missing.
        LabelError: If images have no label map, or there are no images.
        ValueError: If the data set is not known.
    """
    if crop_size is None:
        crop_size = 320 if dataset == "coco_stuff27" else 0
    try:
        void_ids = [int(number) for number in void_ids]
    except ValueError:
        raise ValueError(
            f"void_ids must be whole numbers. Received: {void_ids}."
        ) from None
    table = read_class_names(class_file) if class_file else None
    if dataset in LAYOUTS:
        if not data_dir:
            raise ValueError(f"--dataset={dataset} needs a folder: set --data_dir.")
        found = LAYOUTS[dataset](pathlib.Path(data_dir), split)
        kept = _kept(found.pairs, image_list, max_images)
        _check_pairs(found.pairs, kept, data_dir)
        read, count = _file_reader(found, kept), len(kept)
        table = table or found.table
    elif dataset == "scenes" or dataset.startswith("tfds:"):
        if dataset == "scenes":
            builder = scenes_builder(data_dir)
            split = "test" if split == "val" else split
        else:
            builder = prepared_builder(dataset[5:], data_dir)
        names = (builder.info.metadata or {}).get("categories")
        if table is None and names:
            table = ClassTable(dict(enumerate(names)))
        read, count = _builder_reader(builder, split, max_images)
    else:
        near = difflib.get_close_matches(dataset, SEGMENTED, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"A labelled data set must be one of {', '.join(SEGMENTED)}. "
            f"Received: {dataset!r}.{hint}"
        )
    if table and void_ids:
        raise LabelError(
            "--void_ids is for sets that do not name their classes. Received: "
            f"{void_ids} for classes {', '.join(table.names[:5])} ... Set "
            "--class_file with a class named void."
        )
    return SegmentedImages(
        f"{dataset} {data_dir or ''} ({split})",
        read,
        count,
        table=table,
        void_ids=void_ids,
        crop_size=crop_size,
    )


def crop_center(image, labels, size):
    """Resizes the shorter edge to `size` and cuts the central square.

    Args:
        image: uint8 (height, width, 3); resized bilinearly, with antialias.
        labels: uint8 (height, width); resized by nearest neighbour.
        size: Edge, pixels.

    Returns:
        Image uint8 (size, size, 3) and labels uint8 (size, size).
    """
    pixels = central_square(Image.fromarray(image), size, Image.BILINEAR)
    return pixels, central_square(Image.fromarray(labels), size, Image.NEAREST)


def central_square(image, size, how, shorter=None):
    """Central square of an image whose shorter edge was resized, by default to it."""
    scale = (shorter or size) / min(image.size)
    new = tuple(max(size, round(edge * scale)) for edge in image.size)
    left, top = ((edge - size) // 2 for edge in new)
    return np.asarray(image.resize(new, how).crop((left, top, left + size, top + size)))


def spaced(count, most):
    """Numbers of at most `most` of `count` things, evenly spaced."""
    most = min(count, most or count)
    return [i * count // most for i in range(most)]


def read_image(path):
    """A file of a labelled set; see `decode_labelled`."""
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    return decode_labelled(data, path)


def decode_labelled(data, path):
    """An image of a labelled set, which must be readable: uint8 (height, width, 3).

    Training replaces what cannot be decoded; a score must be that of the whole set.

    Raises:
        LabelError: If it is not.
    """
    try:
        return decode_image(data)
    except BadImage as error:
        raise _unreadable(path, error) from None


def _unreadable(path, error):
    return LabelError(
        f"Every image of a labelled set must be readable. Received: {path} ({error}). "
        "Mend it, or leave it out."
    )


def _kept(pairs, image_list, most):
    numbers = range(len(pairs))
    if image_list:
        names = set(pathlib.Path(image_list).read_text("utf-8").split())
        numbers = [i for i in numbers if pairs[i][0].stem in names]
        if len(numbers) < len(names):
            logging.warning(
                "%d of the %d names in %s have no image",
                len(names) - len(numbers),
                len(names),
                image_list,
            )
    return [numbers[i] for i in spaced(len(numbers), most)] if numbers else []


def _check_pairs(pairs, kept, data_dir):
    if not kept:
        raise LabelError(f"{data_dir} must hold images of this split. Received: none.")
    for place, what in ((0, "image"), (1, "label map")):
        missing = [pairs[i][place] for i in kept if not os.path.exists(pairs[i][place])]
        if missing:
            raise LabelError(
                f"Every image needs its label map. Received: {len(missing)} of "
                f"{len(kept)} pairs without {what}, the first {missing[0]}. Complete "
                "the data, or name the whole pairs in a list (--dataset=list)."
            )


def _file_reader(found, kept):
    def read(index):
        image_path, label_path = found.pairs[kept[index]]
        image, data = read_image(image_path), label_path.read_bytes()
        if found.segments:
            ids = decode_panoptic_ids(data, label_path)
            ids = _categories(ids, found.segments[kept[index]], label_path)
        else:
            ids = decode_ids(data, label_path)
        check_size(ids, image, label_path)
        return image, ids, label_path

    return read


def _categories(ids, segments, path):
    found, place = np.unique(ids, return_inverse=True)
    strange = [i for i in found.tolist() if i and i not in segments]
    if strange:
        raise LabelError(
            f"Segments of {path} must be described in the JSON file. Received: "
            f"{strange[:3]}. The PNGs and the JSON are of different versions."
        )
    values = np.array([segments.get(i, 0) for i in found.tolist()], np.int32)
    return values[place].reshape(ids.shape)


def _builder_reader(builder, split, most):
    """Examples of a tensorflow-datasets set; what was read stays, still encoded."""
    count = split_size(builder, split)
    features = builder.info.features
    feature = next((name for name in LABEL_FEATURES if name in features), None)
    if feature is None:
        raise LabelError(
            f"{builder.info.full_name} must have a label map, one of "
            f"{', '.join(LABEL_FEATURES)}. Received: {', '.join(features)}."
        )
    decoders = {
        "image": tfds.decode.SkipDecoding(),
        feature: tfds.decode.SkipDecoding(),
    }
    read_config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = builder.as_dataset(
        split=split, shuffle_files=False, decoders=decoders, read_config=read_config
    )
    kept, encoded = spaced(count, most), {}
    examples = enumerate(dataset.as_numpy_iterator())

    def read(index):
        number = kept[index]
        while number not in encoded:
            place, example = next(examples)
            encoded[place] = example["image"], example[feature]
        data, labels = encoded[number]
        path = f"{builder.info.full_name} ({split}) {number}"
        image = decode_labelled(data, path)
        ids = decode_ids(labels, path)
        check_size(ids, image, path)
        return image, ids, path

    return read, len(kept)
