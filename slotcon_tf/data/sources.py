"""Where images come from: folders, lists, records, tensorflow-datasets, scenes, fake.

A source has `num_images`, `name`, `bad` (the record of images that could not be used)
and `load`, which gives an image as uint8 (height, width, 3). Most read any image by its
number; `SequentialSource` has `examples` and reads in the order of storage.
"""

import difflib
import functools
import os
import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from slotcon_tf.data.bad_images import BadImages, TooManyBadImages, printable
from slotcon_tf.data.decoding import MAX_PIXELS, BadImage, decode_pixels
from slotcon_tf.data.listing import LAYOUTS, is_remote, list_images, read_list
from slotcon_tf.data.pixels import PixelWatch
from slotcon_tf.data.records import RecordReader
from slotcon_tf.data.scenes import scenes_builder
from slotcon_tf.statistics import check_pixel_range

DATASETS = (*LAYOUTS, "list", "records", "scenes", "fake", "tfds:NAME")
_FAKE_IMAGES, _FAKE_SIZE = 1024, (96, 128)
_SHUFFLE_BLOCK = 8_192  # encoded images held at once by sources read in sequence
_REPLACEMENT_TRIES = 100


class Source:
    """What all sources share.

    Args:
        name: What to call the source in messages.
        num_images: Number of images, the bad ones included.
        max_pixels: Larger images count as bad.
        max_bad_share: Largest share of bad images.
        pixel_range: (low, high) that images of more than 8 bits are read in; None for
            the rule of `slotcon_tf.data.pixels`.
    """

    def __init__(
        self,
        name,
        num_images,
        max_pixels=MAX_PIXELS,
        max_bad_share=0.1,
        pixel_range=None,
    ):
        self.name = name
        self.num_images = num_images
        self.max_pixels = max_pixels
        self.pixel_range = check_pixel_range(pixel_range)
        self._pixels = PixelWatch(name)
        self.bad = BadImages(num_images, max_bad_share)

    def __repr__(self):
        return f"{self.name}: {self.num_images} images"

    def _first_good(self, candidates):
        """The first image of (label, function that reads its bytes) that decodes."""
        for label, read in candidates:
            try:
                limits = self.max_pixels, self.pixel_range
                decoded = decode_pixels(read(), *limits)
                self._pixels.look(label, decoded)
                return decoded.rgb
            except (BadImage, OSError, tf.errors.OpError) as error:
                self.bad.add(label, getattr(error, "strerror", None) or str(error))
        self.bad.fatal = TooManyBadImages(
            f"One of {_REPLACEMENT_TRIES} images tried must be readable. Received: "
            f"none, the last {printable(label)}. Check {self.name}."
        )
        raise self.bad.fatal


class NumberedSource(Source):
    """A source whose images are read by their number; `label` and `read` say how."""

    def load(self, index):
        """Image `index`, uint8 (height, width, 3).

        One that cannot be used is replaced by another one, always the same.
        """
        return self._first_good(
            (self.label(number), functools.partial(self.read, number))
            for number in self._numbers_from(int(index))
        )

    def _numbers_from(self, index):
        """An image's number, then those that replace it, far from it and each other."""
        stride = max(1, int(0.618 * self.num_images))
        for step in range(min(_REPLACEMENT_TRIES, self.num_images)):
            yield (index + step * stride) % self.num_images


class FileSource(NumberedSource):
    """Image files.

    Args:
        paths: Paths that tf.io.gfile reads.
        name: What to call the source in messages.
        **limits: `max_pixels` and `max_bad_share`.
    """

    def __init__(self, paths, name, **limits):
        super().__init__(name, len(paths), **limits)
        self.paths = paths

    def label(self, number):
        return self.paths[number]

    def read(self, number):
        return read_file(self.paths[number])


class RecordSource(NumberedSource):
    """Images in the shards that `python -m trainers.prepare` writes."""

    def __init__(self, folder, **limits):
        reader = RecordReader(folder)
        super().__init__(f"records {folder}", reader.num_images, **limits)
        self.read = reader.read

    def label(self, number):
        return f"record {number}"


class SequentialSource(Source):
    """Images of a tensorflow-datasets builder, read in the order they are stored.

    Args:
        builder: A prepared builder with an `image` feature.
        split: Name of the split.
        **limits: `max_pixels` and `max_bad_share`.
    """

    def __init__(self, builder, split, **limits):
        self.builder, self.split = builder, split
        count = split_size(builder, split)
        super().__init__(f"{builder.info.full_name} ({split})", count, **limits)

    def examples(self, seed):
        """One epoch of (number, encoded image), shuffled by `seed`; None: not.

        Blocks are shuffled, and statelessly: Dataset.shuffle mixes in the global seed.
        """
        dataset = (
            self.builder.as_dataset(
                split=self.split,
                shuffle_files=False,
                decoders={"image": tfds.decode.SkipDecoding()},
                read_config=tfds.ReadConfig(
                    interleave_cycle_length=1, try_autocache=False
                ),
            )
            .map(lambda example: example["image"])
            .enumerate()
        )
        if seed is None:
            return dataset

        def shuffled(numbers, encoded):
            order = tf.range(tf.size(numbers))
            order = tf.random.experimental.stateless_shuffle(order, seed)
            return tf.gather(numbers, order), tf.gather(encoded, order)

        blocks = dataset.batch(min(self.num_images, _SHUFFLE_BLOCK))
        return blocks.map(shuffled).unbatch()

    def load(self, number, encoded):
        """Encoded bytes to uint8 (height, width, 3); bad ones give the first good."""
        return self._first_good(self._from(number, encoded))

    def _from(self, number, encoded):
        yield f"{self.name} {int(number)}", lambda: encoded
        first = self.examples(None).take(_REPLACEMENT_TRIES)
        for other, data in first.as_numpy_iterator():
            yield f"{self.name} {int(other)}", lambda data=data: data


class FakeSource(Source):
    """Coloured patches made from the image's number: no files, for smoke tests."""

    def __init__(self, **limits):
        super().__init__("fake", _FAKE_IMAGES, **limits)

    def load(self, index):
        """Image `index`, uint8 (height, width, 3)."""
        patches = np.random.default_rng(int(index)).integers(0, 256, (6, 8, 3))
        height, width = _FAKE_SIZE
        image = patches.astype(np.uint8).repeat(height // 6, 0).repeat(width // 8, 1)
        return np.ascontiguousarray(image)


def read_file(path):
    """Bytes of a file, local or remote."""
    if is_remote(path):
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    with open(path, "rb") as file:
        return file.read()


def open_source(dataset, data_dir=None, *, split="train", **limits):
    """Opens a source of images.

    Args:
        dataset: One of
            "folder": every image below `data_dir`;
            "coco": `data_dir`/train2017; "coco_plus": and unlabeled2017;
            "imagenet": `data_dir`/train/CLASS/*;
            "list": `data_dir` is a text file, an image path per line, relative to it;
            "records": the folder that `python -m trainers.prepare` wrote;
            "tfds:NAME" or "tfds:NAME/CONFIG": a prepared tensorflow-datasets set;
            "scenes": the embedded procedural scenes; "fake": coloured patches.
        data_dir: Folder, list file, or tensorflow-datasets' folder.
        split: Of tensorflow-datasets sources.
        **limits: max_pixels: larger images count as bad (89 million); max_bad_share:
            reading stops when a larger share is bad (0.1); pixel_range: (low, high)
            that images of more than 8 bits are read in.

    Returns:
        A `Source`.

    Raises:
        ValueError: If the name is unknown, or there are no images.
        FileNotFoundError: If the folder, a part of its layout or the list is missing.
    """
    if dataset in LAYOUTS:
        paths = list_images(dataset, data_dir)
        return FileSource(paths, f"{dataset} {data_dir}", **limits)
    if dataset == "list":
        return FileSource(read_list(data_dir), f"list {data_dir}", **limits)
    if dataset == "records":
        return RecordSource(data_dir, **limits)
    if dataset == "scenes":
        return SequentialSource(scenes_builder(data_dir), split, **limits)
    if dataset == "fake":
        return FakeSource(**limits)
    if dataset.startswith("tfds:"):
        return SequentialSource(
            prepared_builder(dataset[5:], data_dir), split, **limits
        )
    near = difflib.get_close_matches(dataset, DATASETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"dataset must be one of {', '.join(DATASETS)}. Received: {dataset!r}.{hint}"
    )


def open_files(dataset, data_dir):
    """The `FileSource` of a folder or list, for programs that work on image files.

    Raises:
        ValueError, FileNotFoundError: As `open_source`; and if it is no such source.
    """
    source = open_source(dataset, data_dir)
    if not isinstance(source, FileSource):
        raise ValueError(
            f"Only image files are taken. Received: --dataset={dataset}. Use one of "
            f"{', '.join((*LAYOUTS, 'list'))}."
        )
    return source


def source_of(source):
    """A `Source` as it is; a path as a folder of images or a .txt list."""
    if isinstance(source, str | os.PathLike):
        kind = "list" if os.fspath(source).endswith(".txt") else "folder"
        return open_source(kind, source)
    return source


def split_size(builder, split):
    """Number of examples of a tensorflow-datasets split, or a slice of one.

    Raises:
        ValueError: If there is no such split.
    """
    try:
        return builder.info.splits[split].num_examples
    except (KeyError, ValueError):
        raise ValueError(
            f"split must be one of {', '.join(builder.info.splits)}, or a slice of "
            f"one. Received: {split!r} of {builder.info.full_name}."
        ) from None


def prepared_builder(name, data_dir):
    """A tensorflow-datasets builder of images that is prepared already.

    Raises:
        FileNotFoundError: If it is not.
        ValueError: If it has no images.
    """
    builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    if "image" not in builder.info.features:
        raise ValueError(
            f"A tensorflow-datasets set must have an 'image' feature. Received: {name} "
            f"with {', '.join(builder.info.features)}."
        )
    if not pathlib.Path(builder.data_dir).is_dir():
        raise FileNotFoundError(
            f"tfds:{name} must be prepared in {builder.data_dir}. Received: no such "
            f"folder. Run: tfds build {name}"
        )
    return builder
