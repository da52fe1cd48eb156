"""What a source of images is (`Source`), and what those of this package share.

An image source reads any image by its number (`NumberedSource`), or only in the order
in which images are stored (`SequentialSource`, `in_order`). What somebody else has made
is taken by an adapter (`memory_sources.CheckedSource`), so that nothing behind the
door, `sources.source_of`, asks what kind of source it has.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

from slotcon_tf.data.bad_images import BadImages, printable
from slotcon_tf.data.extensions import PassedOver
from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.reading import Patience, reason_of
from slotcon_tf.images.decoding import MAX_PIXELS, BadImage, Decoded, decode_pixels
from slotcon_tf.images.pixels import PixelWatch
from slotcon_tf.images.statistics import PixelRange, check_pixel_range

_SHUFFLE_BLOCK = 8_192  # encoded images held at once by sources read in sequence
_REPLACEMENT_TRIES = 100
_Candidate = tuple[int, str, Callable[[], Any]]  # number, label, what reads it


class Sample(NamedTuple):
    """One of some images of a source.

    Attributes:
        place: Which of them it is, from 0; those that cannot be used count.
        name: Short, for captions.
        image: uint8 (height, width, 3).
        labels: Of a labelled set uint8 (height, width) or a class number, else None.

    Example:
        >>> from slotcon_tf.data import open_source
        >>> place, name, image, labels = next(open_source("fake").sample(6))
        >>> place, name, image.shape, labels
        (0, 'image 0', (96, 128, 3), None)
    """

    place: int
    name: str
    image: np.ndarray
    labels: Any = None


@runtime_checkable
class Source(Protocol):
    """Images by their number, or in the order in which they are stored.

    Every source of images is one, and every labelled set.

    Attributes:
        name: What to call it in messages.
        num_images: Number of images, the bad ones included.
        in_order: Whether an image is reached through those before it only.

    Example:
        >>> from slotcon_tf.data import open_source
        >>> source = open_source("fake")
        >>> isinstance(source, Source), source.load(3).shape
        (True, (96, 128, 3))
        >>> [sample.name for sample in source.sample(2)]
        ['image 0', 'image 512']
    """

    name: str
    num_images: int
    in_order: bool

    def load(self, *item: Any) -> Any:
        """Image `index`; of a labelled set with its labels behind it."""
        ...

    def sample(self, n: int) -> Iterator[Sample]:
        """At most `n` images, evenly spaced; of a source read in order, the first."""
        ...


def spaced(n: int | None, count: int) -> list[int]:
    """At most `n` of the numbers 0 .. count - 1, evenly spaced, rising; None: all.

    Example:
        >>> spaced(3, 9)
        [0, 3, 6]
    """
    most = min(count, n or count)
    return [i * count // most for i in range(most)]


class ImageSource:
    """What all image sources share.

    Args:
        name: What to call the source in messages.
        num_images: Number of images, the bad ones included.
        max_pixels: Larger images count as bad.
        max_bad_share: Largest share of bad images.
        pixel_range: (low, high) that images of more than 8 bits are read in; None for
            the rule of `slotcon_tf.images.pixels`.

    Attributes:
        bad: `BadImages`, the record of images that could not be used.
        passed_over: `PassedOver`, what of a folder is no image.
        pixel_watch: `PixelWatch` that warns of images read in a wrong range.

    Example: See `NumberedSource` and `SequentialSource`.
        >>> ImageSource("none", 10)
        none: 10 images
    """

    in_order = False

    def __init__(
        self,
        name: str,
        num_images: int,
        max_pixels: int = MAX_PIXELS,
        max_bad_share: float = 0.1,
        pixel_range: Iterable[float] | None = None,
    ) -> None:
        self.name = name
        self.num_images = num_images
        self.max_pixels = max_pixels
        self.pixel_range: PixelRange | None = check_pixel_range(pixel_range)
        self.pixel_watch = PixelWatch(name)
        self.passed_over = PassedOver()
        self.bad = BadImages(num_images, max_bad_share)
        self.patience = Patience()

    def __repr__(self) -> str:
        return f"{self.name}: {self.num_images} images"

    def load(self, *item: Any) -> np.ndarray:
        """An image, uint8 (height, width, 3): one that can be used, whatever it takes.

        Args:
            *item: Its number; of a source read in order an item of `examples`.
        """
        raise NotImplementedError

    def examples(self, seed: Any) -> tf.data.Dataset:
        """One epoch of the items that `load` takes, of a source read in order.

        Args:
            seed: int64 (2,) that they are shuffled by, or None.
        """
        raise NotImplementedError

    def sample(self, n: int) -> Iterator[Sample]:
        """At most `n` images, evenly spaced; of a source read in order, the first.

        Training replaces an image that cannot be used by another one. Here it is left
        out: recorded in `bad`, which warns of it.

        Raises:
            TooManyBadImages: If more are bad than the source allows.
        """
        for place, (number, label, read) in enumerate(self._candidates(n)):
            try:
                image = self.decode(read()).rgb
            except (BadImage, OSError, tf.errors.OpError) as error:
                self.bad.add(label, reason_of(error))
            else:
                yield Sample(place, self.caption(number), image)

    def decode(self, data: Any) -> Decoded:
        """What was read as a `Decoded`; BadImage if it is no image."""
        return decode_pixels(data, self.max_pixels, self.pixel_range)

    def identity(self) -> ImageSet:
        """What is known of the images without reading them all."""
        return ImageSet(self.num_images, {"source": type(self).__name__})

    def caption(self, number: int) -> str:
        """A short name of image `number`."""
        return f"image {number}"

    def path(self, label: str) -> str | None:
        """The file that a label names, or None."""
        return None

    def _candidates(self, n: int) -> Iterator[_Candidate]:
        """What `sample` tries."""
        raise NotImplementedError

    def _image(self, label: str, read: Callable[[], Any]) -> np.ndarray | None:
        """The image whose data `read` gives; None if it is bad, which is noted."""
        try:
            # What was bad before may be there again, but is not waited for.
            again = label in self.bad.reasons
            data = read() if again else self.patience.read(read, self.path(label))
            decoded = self.decode(data)
            self.pixel_watch.look(label, decoded)
        except (BadImage, OSError, tf.errors.OpError) as error:
            self.bad.add(label, reason_of(error))
            return None
        if self.bad.reasons:
            self.bad.good(label)
        else:
            self.bad.read += 1
        return decoded.rgb

    def _none_left(self, label: str) -> NoReturn:
        self.bad.stop(
            f"An image must be readable. Received: none of those tried of "
            f"{self.num_images}, the last {printable(label)} "
            f"({self.bad.reasons.get(label)}). Check {self.name}."
        )


class NumberedSource(ImageSource):
    """A source whose images are read by their number; `label` and `read` say how.

    Args:
        **arguments: Of `ImageSource`.

    Example:
        >>> class Files(NumberedSource):
        ...     def label(self, number):
        ...         return f"{number}.png"
        ...     def read(self, number):  # bytes of an image file
        ...         grey = np.full((4, 4, 3), number, np.uint8)
        ...         return tf.io.encode_png(grey).numpy()
        >>> Files("files", 10).load(7)[0, 0]
        array([7, 7, 7], dtype=uint8)
    """

    def label(self, number: int) -> str:
        """What to call image `number` in messages."""
        raise NotImplementedError

    def read(self, number: int) -> Any:
        """The data of image `number`, as `decode` takes it."""
        raise NotImplementedError

    def load(self, index: int) -> np.ndarray:
        """Image `index`, uint8 (height, width, 3).

        One that cannot be used is replaced by another one, always the same.
        """
        for number in self._numbers_from(int(index)):
            label = self.label(number)
            image = self._image(label, functools.partial(self.read, number))
            if image is not None:
                return image
        self._none_left(label)

    def _candidates(self, n):
        for number in spaced(n, self.num_images):
            yield number, self.label(number), functools.partial(self.read, number)

    def _numbers_from(self, index):
        """An image's number, then those that replace it, far from it and each other."""
        count = self.num_images
        stride = max(1, int(0.618 * count))
        cycle = count // math.gcd(stride, count)
        for step in range(min(_REPLACEMENT_TRIES, count)):
            yield (index + step * stride + step // cycle) % count


class SequentialSource(ImageSource):
    """Images that are read in the order in which they are stored; `stored` says how.

    Args:
        name, num_images, **limits: Of `ImageSource`.
        block: Stored images that are held at once, to shuffle them.

    Example:
        >>> class Stored(SequentialSource):
        ...     def stored(self):
        ...         png = tf.io.encode_png(tf.zeros([4, 4, 3], tf.uint8))
        ...         return tf.data.Dataset.from_tensors(png)
        >>> source = Stored("stored", 1)
        >>> items = source.examples(None).as_numpy_iterator()
        >>> [source.load(*item).shape for item in items]
        [(4, 4, 3)]
    """

    in_order = True

    def __init__(
        self, name: str, num_images: int, block: int = _SHUFFLE_BLOCK, **limits: Any
    ) -> None:
        super().__init__(name, num_images, **limits)
        self.block = min(num_images, block)
        self._spare: tuple[str, Callable[[], Any]] | None = None
        self._looking = threading.Lock()

    def stored(self) -> tf.data.Dataset:
        """Dataset of every image, as `decode` takes it, always in one order."""
        raise NotImplementedError

    def examples(self, seed: Any) -> tf.data.Dataset:
        """One epoch of (number, stored image), shuffled by `seed`; None: not.

        Blocks are shuffled, and statelessly: Dataset.shuffle mixes in the global seed.
        """
        dataset = self.stored().enumerate()
        if seed is None:
            return dataset

        def shuffled(numbers, encoded):
            order = tf.range(tf.size(numbers))
            order = tf.random.experimental.stateless_shuffle(order, seed)  # pyright: ignore[reportAttributeAccessIssue]
            return tf.gather(numbers, order), tf.gather(encoded, order)

        blocks = dataset.batch(self.block)
        return blocks.map(shuffled).unbatch()

    def load(self, number: int, encoded: Any) -> np.ndarray:
        """A stored image, uint8 (height, width, 3); a bad one gives the first good."""
        label = self._label(number)
        image = self._image(label, lambda: encoded)
        if image is None:
            with self._looking:
                self._spare = self._spare or self._look_for_spare()
            if self._spare:
                label, read = self._spare
                image = self._image(label, read)
        if image is None:
            self._none_left(label)
        return image

    def _label(self, number):
        return f"{self.name} {int(number)}"

    def _candidates(self, n):
        stored = self.examples(None).take(min(n, self.num_images))
        for number, data in stored.as_numpy_iterator():
            yield int(number), self._label(number), lambda data=data: data

    def _look_for_spare(self):
        """The first image that decodes, however many bad ones lie before it."""
        for number, data in self.examples(None).as_numpy_iterator():
            label = self._label(number)
            try:
                self.decode(data)
            except (BadImage, OSError) as error:
                self.bad.add(label, reason_of(error))
            else:
                return label, lambda data=data: data
        return None
