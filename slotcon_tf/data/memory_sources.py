"""Sources of what somebody has: arrays, sequences, tf.data, generators, own sources."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.extensions import is_image_file
from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.image_values import UnfitImage, decoded, image_of
from slotcon_tf.data.source import (
    ImageSource,
    NumberedSource,
    SequentialSource,
    spaced,
)
from slotcon_tf.images.decoding import MAX_PIXELS, Decoded
from slotcon_tf.images.pixels import BadImage
from slotcon_tf.images.statistics import check_pixel_range
from slotcon_tf.progress import bar
from slotcon_tf.python_calls import ended_at_exit

_BLOCK_BYTES = 2**29  # of images that are not encoded, held at once to shuffle them
_LARGEST_BLOCK = 8_192
_COMPARED = 4  # images of two passes
_BAD = b"bad image: "
_ARRAY = b"\x93NUMPY"  # how numpy's own format begins


class ArraySource(NumberedSource):
    """Images of one array, or of a sequence.

    Args:
        images: What gives an image for a number, and has a length.
        name: What to call the source in messages.
        **limits: Of `ImageSource`: `max_pixels`, `max_bad_share`, `pixel_range`.

    Example:
        >>> ArraySource(np.zeros((10, 30, 40), np.uint8)).load(7).shape
        (30, 40, 3)
    """

    def __init__(self, images: Any, name: str = "array", **limits: Any) -> None:
        shape = getattr(images, "shape", None)
        if shape is not None and len(shape) == 3 and shape[-1] in (3, 4):
            raise ValueError(
                "An array must hold several images, (N, height, width, 3). Received: "
                f"shape {tuple(shape)}, which is one. Give images[None]."
            )
        count = _count(shape[0] if shape else len(images) if shape is None else 0)
        super().__init__(name, count, **limits)
        self._images = images
        _check_first(self, self.read(0))

    def label(self, number: int) -> str:
        return f"{self.name} {number}"

    def read(self, number: int) -> Any:
        return self._images[number]

    def decode(self, data: Any) -> Decoded:
        return decoded(data, self.max_pixels, self.pixel_range)


class DatasetSource(SequentialSource):
    """Images of a tf.data.Dataset; see `sources.open_images`.

    Args:
        dataset: Of images.
        num_images: Of one pass; None to ask the data set, or to count them.
        name: What to call the source in messages.
        **limits: Of `ImageSource`.

    Example:
        >>> images = tf.zeros([9, 4, 4, 3], tf.uint8)
        >>> DatasetSource(tf.data.Dataset.from_tensor_slices(images))
        tf.data.Dataset: 9 images
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        num_images: int | None = None,
        name: str = "tf.data.Dataset",
        **limits: Any,
    ) -> None:
        images = _images_of(dataset, limits.get("pixel_range"))
        if num_images is None:
            num_images = _cardinality(images)
        # Fewer or more than promised are an error where they end.
        num_images = _count(num_images)
        known = tf.data.experimental.assert_cardinality(num_images)
        self._type = images.element_spec.dtype
        if self._type != tf.string:
            images = images.map(tf.io.serialize_tensor)
        self._stored = images.apply(known)
        first, *_ = start = self._start(name, num_images)
        block = max(1, min(_BLOCK_BYTES // max(len(first), 1), _LARGEST_BLOCK))
        super().__init__(name, num_images, block, **limits)
        if self._type == tf.string and is_image_file(first.decode("utf-8", "replace")):
            raise ValueError(
                "A tf.data.Dataset of strings must give the bytes of image files. "
                f"Received: {printable(first.decode('utf-8', 'replace'))}, a path. "
                "Give the list of the paths."
            )
        _check_first(self, first)
        if start != self._start(name, num_images):
            logging.warning(
                "%s gives other images, or another order, on each pass: a run on it "
                "cannot be repeated or resumed exactly. Shuffling and augmentation are "
                "done behind it; leave them out of it.",
                name,
            )

    def _start(self, name, num_images):
        try:
            return list(self._stored.take(_COMPARED).as_numpy_iterator())
        except tf.errors.FailedPreconditionError:
            raise ValueError(
                "A data set must hold as many images as num_images says. Received: "
                f"fewer of {name}, num_images={num_images}."
            ) from None

    def stored(self) -> tf.data.Dataset:
        return self._stored

    def decode(self, data: Any) -> Decoded:
        if self._type != tf.string:
            data = tf.io.parse_tensor(data, self._type).numpy()
        return decoded(data, self.max_pixels, self.pixel_range)


class GeneratorSource(DatasetSource):
    """Images of a function that returns an iterator; see `sources.open_images`.

    Args:
        make: The function.
        num_images: Of one pass.
        name: What to call the source in messages.
        **limits: Of `ImageSource`.

    Example:
        >>> images = np.zeros((9, 4, 4, 3), np.uint8)
        >>> GeneratorSource(lambda: iter(images), 9, "mine")
        mine: 9 images
    """

    def __init__(
        self,
        make: Callable[[], Iterable[Any]],
        num_images: int | None,
        name: str,
        **limits: Any,
    ) -> None:
        if num_images is None:
            raise ValueError(
                f"Images without a length need num_images. Received: {kind_of(make)}. "
                "Give open_images(..., num_images=N), N being the images of one pass."
            )
        self.name, self.max_pixels = name, limits.get("max_pixels", MAX_PIXELS)
        self.pixel_range = check_pixel_range(limits.get("pixel_range"))
        again = make()
        if again is make():
            raise ValueError(
                "A function of images must return a new iterator each time. Received: "
                f"{kind_of(again)}, twice the same. Make it within the function."
            )

        for item in again:
            _check_first(self, item)
            break

        def pack():
            return map(ended_at_exit(functools.partial(_packed, self)), make())

        spec = tf.TensorSpec((), tf.string)
        stored = tf.data.Dataset.from_generator(pack, output_signature=spec)
        super().__init__(stored, num_images, name, **limits)

    def decode(self, data: Any) -> Decoded:
        if isinstance(data, bytes) and data.startswith(_BAD):
            raise BadImage(data.removeprefix(_BAD).decode())
        if isinstance(data, bytes) and data.startswith(_ARRAY):
            data = np.load(io.BytesIO(data), allow_pickle=False)
        return decoded(data, self.max_pixels, self.pixel_range)


class CheckedSource(ImageSource):
    """The adapter for somebody's own source, whose images are checked.

    Args:
        source: With `num_images` and `load`, which gives an image for its number. It
            may have `examples(seed)`, a tf.data.Dataset of items that `load` takes,
            if it is read in order; `pixel_range` if its images are no bytes; `name`,
            and `bad`, a `BadImages`.

    Raises:
        ValueError: If it holds no images, or its first one is none.

    Example:
        >>> class Mine:
        ...     num_images = 10
        ...     def load(self, number):
        ...         return np.full((4, 4, 3), number, np.uint8)
        >>> CheckedSource(Mine()).load(7)[0, 0]
        array([7, 7, 7], dtype=uint8)
    """

    def __init__(self, source: Any) -> None:
        name = getattr(source, "name", type(source).__name__)
        super().__init__(
            name,
            _count(source.num_images),
            pixel_range=getattr(source, "pixel_range", None),
        )
        self._source = source
        self.in_order = getattr(source, "in_order", hasattr(source, "examples"))
        self.bad = getattr(source, "bad", None) or self.bad
        for item in self._items(1):
            _check_first(self, source.load(*item))

    def examples(self, seed: Any) -> tf.data.Dataset:
        return self._source.examples(seed)

    def identity(self) -> ImageSet:
        """What the source says of itself, if it does."""
        own = getattr(self._source, "identity", super().identity)
        return own()

    def decode(self, data: Any) -> Decoded:
        return decoded(data, self.max_pixels, self.pixel_range)

    def load(self, *item: Any) -> np.ndarray:  # pyright: ignore[reportReturnType]
        """An image, uint8 (height, width, 3)."""
        self.bad.check()
        image = self._source.load(*item)
        try:
            return self.decode(image).rgb
        except BadImage as error:
            self.bad.stop(f"{self.name}.load must give images: {error}")

    def _items(self, n):
        if self.in_order:
            return self.examples(None).take(n).as_numpy_iterator()
        return ((number,) for number in spaced(n, self.num_images))

    def _candidates(self, n):
        for item in self._items(min(n, self.num_images)):
            read = functools.partial(self._source.load, *item)
            yield int(item[0]), f"{self.name} {int(item[0])}", read


def _count(count):
    if int(count) < 1:
        raise ValueError(f"A source must hold images. Received: {int(count)} of them.")
    return int(count)


def kind_of(images: Any) -> str:
    """What to call what somebody gave, in messages.

    Example:
        >>> kind_of({"a": 1})
        'dict'
    """
    return type(images).__name__


def _check_first(source, first):
    """Raises ValueError in one line unless a source's first image is one.

    Files are not asked: a bad one is replaced like any other.
    """
    try:
        source.decode(first)
    except UnfitImage as error:
        raise ValueError(f"{error} (image 0 of {source.name}).") from None
    except (BadImage, OSError):
        pass


def _images_of(dataset, pixel_range):
    """A dataset of images alone: numbers, or strings of encoded ones."""
    spec = dataset.element_spec
    if isinstance(spec, dict) and "image" in spec:
        dataset = dataset.map(lambda example: example["image"])
    elif isinstance(spec, tuple) and spec:
        dataset = dataset.map(lambda image, *_: image)
    spec = dataset.element_spec
    dense = isinstance(spec, tf.TensorSpec)
    good = dense and (
        spec.dtype in (tf.uint8, tf.uint16, tf.string) or pixel_range is not None
    )
    rank = spec.shape.rank if good else None
    if good and (rank is None or rank in ((0,) if spec.dtype == tf.string else (2, 3))):
        return dataset
    cure = "Map each element to an image, before views and batches are made"
    if rank in (1, 4):
        cure = "Give single images: call .unbatch()"
    elif dense and spec.dtype.is_floating:
        cure = (
            "Give tf.cast(tf.round(255 * image), tf.uint8) of what lies in 0 to 1, or "
            "pixel_range=(low, high)"
        )
    raise ValueError(
        "A tf.data.Dataset of images must give uint8 (height, width, 3), or the bytes "
        f"of image files. Received: {spec}. {cure}."
    )


def _cardinality(dataset):
    count = int(dataset.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "A tf.data.Dataset of images must end: it is read once per epoch. "
            "Received: one without end. Leave .repeat() out, or call .take(N)."
        )
    if count == tf.data.UNKNOWN_CARDINALITY:
        shown = bar(dataset, unit="image", desc="count (num_images= saves this)")
        count = sum(1 for _ in shown)
    return count


def _packed(source, item):
    """An image of a generator as bytes."""
    try:
        item = image_of(item)
        if isinstance(item, bytes):
            return item
        image = decoded(item, source.max_pixels, source.pixel_range).rgb
    except (BadImage, OSError) as error:
        return _BAD + str(error).encode("utf-8", "backslashreplace")
    file = io.BytesIO()
    np.save(file, image, allow_pickle=False)
    return file.getvalue()
