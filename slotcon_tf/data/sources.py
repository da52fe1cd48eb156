"""Where images come from: open_source by name, open_images of what somebody holds."""

from __future__ import annotations

import collections.abc
import difflib
import os
from typing import Any

import numpy as np
import tensorflow as tf

from slotcon_tf.data.extensions import PassedOver
from slotcon_tf.data.listing import LAYOUTS, check_there, list_images, read_list
from slotcon_tf.data.memory_sources import (
    ArraySource,
    CheckedSource,
    DatasetSource,
    GeneratorSource,
    kind_of,
)
from slotcon_tf.data.reading import read_file, remote_errors, without_scheme
from slotcon_tf.data.source import ImageSource, NumberedSource, SequentialSource
from slotcon_tf.data.stored_sources import FakeSource, FileSource, RecordSource

__all__ = [
    "DATASETS",
    "FileSource",
    "NumberedSource",
    "SequentialSource",
    "open_files",
    "open_images",
    "open_source",
    "read_file",
    "source_of",
]

_OF_FILES = (*LAYOUTS, "list")
DATASETS = (*_OF_FILES, "records", "scenes", "fake", "tfds:NAME")


@remote_errors("A source of images")
def open_source(
    dataset: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    split: str = "train",
    allow_remote: bool = False,
    **limits: Any,
) -> ImageSource:
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
        allow_remote: Whether a list on this machine may name files elsewhere (gs://).
        **limits: max_pixels: larger images count as bad (89 million); max_bad_share:
            reading stops when a larger share is bad (0.1); pixel_range: (low, high)
            that images of more than 8 bits are read in.

    Returns:
        An `ImageSource`.

    Raises:
        ValueError: If the name is unknown, or there are no images.
        FileNotFoundError: If the folder, a part of its layout or the list is missing.
        OSError: If it cannot be read.

    Example:
        >>> source = open_source("fake")
        >>> source
        fake: 1024 images
        >>> source.load(0).shape
        (96, 128, 3)
    """
    dataset = "folder" if dataset == "folders" else dataset  # as of label maps
    if dataset in _OF_FILES:
        return _files(dataset, data_dir, allow_remote, limits)
    if dataset == "records":
        return RecordSource(data_dir, **limits)
    if dataset == "fake":
        return FakeSource(**limits)
    if dataset == "scenes" or dataset.startswith("tfds:"):
        # Here and not above: tensorflow-datasets takes a second.
        from slotcon_tf.data import builders, scenes

        if dataset == "scenes":
            builder = scenes.scenes_builder(data_dir)
        else:
            builder = builders.prepared_builder(dataset[5:], data_dir)
        return builders.BuilderSource(builder, split, **limits)
    near = difflib.get_close_matches(dataset, DATASETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"`dataset` must be one of {', '.join(DATASETS)}. Received: dataset={dataset}."
        f"{hint}"
    )


def open_files(
    dataset: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    allow_remote: bool = False,
    **limits: Any,
) -> FileSource:
    """The `FileSource` of a folder or list, for programs that work on image files.

    Args:
        dataset, data_dir, allow_remote, **limits: Of `open_source`.

    Raises:
        ValueError, FileNotFoundError: As `open_source`; and if it is no such source.

    Example:
        >>> open_files("fake", None)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: Only image files are taken. Received: dataset=fake. ...
    """
    dataset = "folder" if dataset == "folders" else dataset
    if dataset not in _OF_FILES:
        raise ValueError(
            f"Only image files are taken. Received: dataset={dataset}. Use one of "
            f"{', '.join(_OF_FILES)}."
        )
    return _files(dataset, data_dir, allow_remote, limits)


@remote_errors("A source of images")
def _files(dataset, data_dir, allow_remote, limits):
    name = f"{dataset} {data_dir}"
    if dataset == "list":
        paths = read_list(data_dir, allow_remote)
        root = os.path.dirname(without_scheme(os.fspath(data_dir)))
        return FileSource(paths, name, root=root, folders_known=False, **limits)
    passed_over = PassedOver()
    paths = list_images(dataset, data_dir, passed_over)
    root = without_scheme(os.fspath(data_dir))
    return FileSource(paths, name, root=root, passed_over=passed_over, **limits)


def open_images(
    images: Any, num_images: int | None = None, **limits: Any
) -> ImageSource:
    """A source of images that somebody has.

    Args:
        images: One of
            a path of a folder of images, or of a text file that lists them;
            (N, height, width, 3), or (N, height, width) grey, of uint8 or uint16, or of
            other numbers with `pixel_range`: NumPy, TensorFlow, a memory map, HDF5;
            a list of paths;
            a sequence: what has a length and gives an image for a number;
            a tf.data.Dataset of single images, or of tuples or dicts with one first or
            under "image", in the same order on every pass;
            a function without arguments that returns a new iterator of images, or what
            can be iterated again and again, with `num_images`.
            Images of sequences and iterators are arrays, PIL images, paths, bytes of
            image files, or tuples and dicts as above.
        num_images: Images of one pass, where it cannot be asked for. A tf.data.Dataset
            that does not know is counted once, which reads it.
        **limits: max_pixels, max_bad_share and pixel_range, as in `open_source`.

    Returns:
        An `ImageSource`.

    Raises:
        ValueError: If the first image is no such image, or what was given can be read
            only once, has no end, or no length.
        FileNotFoundError: If none of the paths is there.

    Example:
        >>> images = np.zeros((10, 48, 64, 3), np.uint8)
        >>> open_images(images)
        array: 10 images
        >>> open_images(lambda: iter(images), num_images=10)
        function: 10 images
    """
    if isinstance(images, str | os.PathLike):
        path = os.fspath(images)
        listed = path.endswith(".txt") or os.path.isfile(path)
        return open_source("list" if listed else "folder", images, **limits)
    if hasattr(images, "to_numpy"):
        images = images.to_numpy()  # a column of a table
    if tf.is_tensor(images):
        images = images.numpy()
    if isinstance(images, np.ndarray) and images.dtype.kind in "OUS":
        images = images.tolist()
    if isinstance(images, tf.data.Dataset):
        return DatasetSource(images, num_images, **limits)
    if hasattr(images, "__next__"):
        raise ValueError(
            "An iterator can be read only once, and training reads every epoch. "
            f"Received: {kind_of(images)}. Give a function that makes a new one, and "
            "num_images: open_images(lambda: make(), num_images=N)."
        )
    if hasattr(images, "shape") and hasattr(images, "dtype"):
        return ArraySource(images, **limits)
    if isinstance(images, collections.abc.Mapping | collections.abc.Set):
        raise ValueError(
            "Images must be an array, a sequence, a tf.data.Dataset or a function. "
            f"Received: {kind_of(images)}. Give list(...) of its images."
        )
    if hasattr(images, "__len__") and hasattr(images, "__getitem__"):
        return _of_sequence(images, limits)
    if callable(images):
        return GeneratorSource(images, num_images, "function", **limits)  # pyright: ignore[reportArgumentType]
    if hasattr(images, "__iter__"):
        return GeneratorSource(
            lambda: iter(images), num_images, kind_of(images), **limits
        )
    raise ValueError(
        "Images must be a path, an array, a sequence, a tf.data.Dataset, a function or "
        f"a source. Received: {kind_of(images)}."
    )


def source_of(source: Any) -> ImageSource:
    """An `ImageSource` of whatever stands for one: the door of all that takes images.

    A source is taken as it is, all else as `open_images` takes it. A source that is not
    of this package gets an adapter, `CheckedSource`, that checks its images.

    Args:
        source: A source, an object of `num_images` and `load(number)`, or images.

    Raises:
        ValueError, FileNotFoundError: As `open_images`.

    Example:
        >>> source_of(np.zeros((10, 48, 64, 3), np.uint8))
        array: 10 images
    """
    of_package = type(source).__module__.startswith(f"{__package__}.")
    if isinstance(source, ImageSource) and of_package:
        return source
    if hasattr(source, "load") and hasattr(source, "num_images"):
        return CheckedSource(source)
    return open_images(source)


def _of_sequence(images, limits):
    if (
        isinstance(images, list | tuple)
        and images
        and all(isinstance(path, str | os.PathLike) for path in images)
    ):
        paths = [os.fspath(path) for path in images]
        check_there(paths, "A list of paths", f"The first is {paths[0]}.")
        return FileSource(paths, f"{len(paths)} paths", folders_known=False, **limits)
    return ArraySource(images, kind_of(images), **limits)
