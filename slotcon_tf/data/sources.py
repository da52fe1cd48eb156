"""Where images come from: folders, lists, tensorflow-datasets, scenes, fake."""

import difflib
import io
import os
import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image, ImageOps

from slotcon_tf.data.scenes import scenes_builder

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
DATASETS = (
    "folder",
    "coco",
    "coco_plus",
    "imagenet",
    "list",
    "scenes",
    "fake",
    "tfds:NAME",
)
# Folders below data_dir that a layout must have.
_LAYOUTS = {
    "folder": (".",),
    "coco": ("train2017",),
    "coco_plus": ("train2017", "unlabeled2017"),
    "imagenet": ("train",),
}
_FAKE_IMAGES, _FAKE_SIZE = 1024, (96, 128)
_SHUFFLE_BLOCK = 8_192  # encoded images held at once by sources read in sequence
_REPLACEMENT_TRIES = 100


class FileSource:
    """Image files, read in any order.

    Args:
        paths: Paths that tf.io.gfile reads.
        name: What to call the source in messages.

    Attributes:
        num_images: Number of files.
    """

    def __init__(self, paths, name):
        self.paths = np.asarray(paths)
        self.name = name
        self.num_images = len(paths)
        self._reported = set()

    def __repr__(self):
        return f"{self.name}: {self.num_images} images"

    def load(self, index):
        """Image number `index`, uint8 (height, width, 3): a TensorFlow operation.

        A file that cannot be read is replaced by the next one that can, and named in
        a warning once.
        """
        image = tf.numpy_function(self._read, [index], tf.uint8, stateful=False)
        image.set_shape([None, None, 3])
        return image

    def _read(self, index):
        for step in range(min(_REPLACEMENT_TRIES, self.num_images)):
            path = str(self.paths[(int(index) + step) % self.num_images])
            try:
                return decode_image(tf.io.gfile.GFile(path, "rb").read())
            except Exception as error:  # noqa: BLE001  any broken file, in any way
                if path not in self._reported:
                    self._reported.add(path)
                    logging.warning("Skipped %s: %s", path, error)
        raise ValueError(
            f"One of {_REPLACEMENT_TRIES} images in a row must be readable. Received: "
            f"none of those from {self.paths[int(index)]} on. Check the folder."
        )


class SequentialSource:
    """Images of a tensorflow-datasets builder, read in the order they are stored.

    Args:
        builder: A prepared builder with an `image` feature.
        split: Name of the split.
    """

    def __init__(self, builder, split):
        self.builder, self.split = builder, split
        self.name = f"{builder.info.full_name} ({split})"
        self.num_images = builder.info.splits[split].num_examples

    def __repr__(self):
        return f"{self.name}: {self.num_images} images"

    def examples(self, seed):
        """One epoch of encoded images, shuffled by `seed` int32 (2,); None: not."""
        dataset = self.builder.as_dataset(
            split=self.split,
            shuffle_files=False,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        ).map(lambda example: example["image"])
        if seed is None:
            return dataset
        # Blocks are shuffled statelessly: Dataset.shuffle would mix in the global seed.
        blocks = dataset.batch(min(self.num_images, _SHUFFLE_BLOCK))
        return blocks.map(
            lambda block: tf.random.experimental.stateless_shuffle(block, seed)
        ).unbatch()

    def decode(self, encoded):
        """Encoded bytes to uint8 (height, width, 3)."""
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        image.set_shape([None, None, 3])
        return image


class FakeSource:
    """Coloured patches made from the image's number: no files, for smoke tests."""

    name, num_images = "fake", _FAKE_IMAGES

    def __repr__(self):
        return f"{self.name}: {self.num_images} images"

    def load(self, index):
        seed = tf.stack([tf.cast(index, tf.int32), 0])
        coarse = tf.random.stateless_uniform([6, 8, 3], seed, 0.0, 255.0)
        image = tf.image.resize(coarse, _FAKE_SIZE, "nearest")
        return tf.cast(image, tf.uint8)


def decode_image(data):
    """Bytes of an image file to uint8 (height, width, 3), RGB, upright.

    Grey, palette, CMYK and 16-bit images become 8-bit RGB; EXIF orientation is
    applied; of an animation the first frame is taken; transparency is dropped.

    Raises:
        PIL.UnidentifiedImageError, OSError: If the bytes are no whole image.
        PIL.Image.DecompressionBombError: If the image claims absurdly many pixels.
    """
    image = Image.open(io.BytesIO(data))
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def open_source(dataset, data_dir=None, *, split="train"):
    """Opens a source of images.

    Args:
        dataset: One of
            "folder": every image below `data_dir`;
            "coco": `data_dir`/train2017; "coco_plus": and unlabeled2017;
            "imagenet": `data_dir`/train/CLASS/*;
            "list": `data_dir` is a text file, an image path per line, relative to it;
            "tfds:NAME" or "tfds:NAME/CONFIG": a prepared tensorflow-datasets set;
            "scenes": the embedded procedural scenes; "fake": coloured patches.
        data_dir: Folder, list file, or tensorflow-datasets' folder.
        split: Of tensorflow-datasets sources.

    Returns:
        A source with `num_images` and `name`.

    Raises:
        ValueError: If the name is unknown, or there are no images.
        FileNotFoundError: If the folder, a part of its layout or the list is missing.
    """
    if dataset in _LAYOUTS:
        return FileSource(_walk(dataset, data_dir), f"{dataset} {data_dir}")
    if dataset == "list":
        return FileSource(_read_list(data_dir), f"list {data_dir}")
    if dataset == "scenes":
        return SequentialSource(scenes_builder(data_dir), split)
    if dataset == "fake":
        return FakeSource()
    if dataset.startswith("tfds:"):
        return SequentialSource(_prepared(dataset[5:], data_dir), split)
    near = difflib.get_close_matches(dataset, DATASETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"dataset must be one of {', '.join(DATASETS)}. Received: {dataset!r}.{hint}"
    )


def _walk(dataset, data_dir):
    if not data_dir:
        raise ValueError(
            f"Dataset {dataset!r} needs data_dir, a folder. Set --data_dir."
        )
    data_dir = os.fspath(data_dir)
    paths = []
    for part in _LAYOUTS[dataset]:
        folder = data_dir if part == "." else os.path.join(data_dir, part)
        if not tf.io.gfile.isdir(folder):
            raise FileNotFoundError(
                f"Dataset {dataset!r} needs the folder {folder}. Received: no such "
                "folder. Check --data_dir."
            )
        for where, folders, files in tf.io.gfile.walk(folder):
            folders[:] = [f for f in folders if not f.startswith(".")]
            paths += [
                os.path.join(where, name)
                for name in files
                if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
            ]
    if not paths:
        raise ValueError(
            f"The folder {data_dir} must hold images ({', '.join(EXTENSIONS)}). "
            "Received: none in it or below it. Check --data_dir."
        )
    return sorted(paths)


def _read_list(path):
    if not path or not tf.io.gfile.exists(os.fspath(path)):
        raise FileNotFoundError(
            f"Dataset 'list' needs a text file of image paths. Received: {path!r}, no "
            "such file. Check --data_dir."
        )
    folder = os.path.dirname(os.fspath(path))
    paths = []
    with tf.io.gfile.GFile(os.fspath(path)) as lines:
        for line in map(str.strip, lines):
            if not line or line.startswith("#"):
                continue
            whole = os.path.join(folder, line)
            # Lists often carry a label behind the path.
            first = os.path.join(folder, line.split()[0])
            paths.append(first if first != whole and _is_image(first) else whole)
    if not paths:
        raise ValueError(f"The list {path} must name images. Received: an empty list.")
    return paths


def _is_image(path):
    return path.lower().endswith(EXTENSIONS)


def _prepared(name, data_dir):
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
