"""Sources of what is stored: files, records, tensorflow-datasets; and of nothing."""

import difflib
import functools
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from slotcon_tf.data.reading import Patience, largest_file, read_file
from slotcon_tf.data.records import RecordReader
from slotcon_tf.data.source_bases import NumberedSource, SequentialSource, Source

_FAKE_IMAGES, _FAKE_SIZE = 1024, (96, 128)


class FileSource(NumberedSource):
    """Image files.

    Args:
        paths: Paths that tf.io.gfile reads.
        name: What to call the source in messages.
        folders_known: Whether their folders were all there.
        passed_over: What was not taken of a folder, `PassedOver`.
        **limits: Of `Source`: `max_pixels`, `max_bad_share`, `pixel_range`.
    """

    def __init__(self, paths, name, *, folders_known=True, passed_over="", **limits):
        super().__init__(name, len(paths), **limits)
        self.paths = paths
        self.passed_over = passed_over
        self.patience = Patience(folders_known=folders_known)

    def label(self, number):
        return self.paths[number]

    def path(self, label):
        return label

    def read(self, number):
        return read_file(self.paths[number], largest_file(self.max_pixels))

    def read_patiently(self, number):
        """Bytes of a file, which is waited for if its disk is away."""
        return self._patiently(self.paths[number], functools.partial(self.read, number))


class RecordSource(NumberedSource):
    """Images in the shards that `python -m trainers.prepare` writes."""

    def __init__(self, folder, **limits):
        reader = RecordReader(folder)
        super().__init__(f"records {folder}", reader.num_images, **limits)
        reader.max_bytes = largest_file(self.max_pixels)
        self.read, self.label = reader.read, reader.label

    def path(self, label):
        return label.partition(" of ")[2]


class BuilderSource(SequentialSource):
    """Images of a tensorflow-datasets builder, read in the order they are stored.

    Args:
        builder: A prepared builder with an `image` feature.
        split: Name of the split.
        **limits: Of `Source`: `max_pixels`, `max_bad_share`, `pixel_range`.
    """

    def __init__(self, builder, split, **limits):
        self.builder, self.split = builder, split
        count = split_size(builder, split)
        super().__init__(f"{builder.info.full_name} ({split})", count, **limits)

    def stored(self):
        return self.builder.as_dataset(
            split=self.split,
            shuffle_files=False,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        ).map(lambda example: example["image"])


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
        ValueError: If there is no such set, or it has no images.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
        raise ValueError(_unknown_set(name)) from None
    except (ValueError, KeyError, AssertionError, RuntimeError) as error:
        # Of a configuration, a version or a folder; what follows the line is long.
        raise ValueError(
            "tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:1.0.0 must name a set of "
            f"tensorflow-datasets. Received: tfds:{name}: "
            f"{str(error).splitlines()[0]}"
        ) from None
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


def _unknown_set(name):
    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name.split("/")[0].split(":")[0], known, n=1)
    return (
        "tfds:NAME must name a set of tensorflow-datasets. Received: "
        f"tfds:{name}, which is none."
        + (
            f" Did you mean tfds:{near[0]}?"
            if near
            else " See tensorflow.org/datasets."
        )
    )
