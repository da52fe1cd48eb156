"""What every source of images is.

A source has `num_images`, `name`, `bad` (the record of images that could not be used)
and `load`, which gives an image as uint8 (height, width, 3). A `NumberedSource` reads
any image by its number; a `SequentialSource` has `examples`.
"""

import functools
import math
import threading

import tensorflow as tf

from slotcon_tf.data.bad_images import BadImages, printable
from slotcon_tf.data.reading import Patience, reason_of
from slotcon_tf.images.decoding import MAX_PIXELS, BadImage, decode_pixels
from slotcon_tf.images.pixels import PixelWatch
from slotcon_tf.images.statistics import check_pixel_range

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
            the rule of `slotcon_tf.images.pixels`.
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
        self.pixel_watch = PixelWatch(name)
        self.bad = BadImages(num_images, max_bad_share)
        self.patience = Patience()

    def __repr__(self):
        return f"{self.name}: {self.num_images} images"

    def decode(self, data):
        """What was read as a `Decoded`; BadImage if it is no image."""
        return decode_pixels(data, self.max_pixels, self.pixel_range)

    def _first_good(self, candidates):
        """The first image of (label, function that reads its bytes) that decodes."""
        self.bad.check()
        for label, read in candidates:
            try:
                decoded = self.decode(self._patiently(label, read))
                self.pixel_watch.look(label, decoded)
            except (BadImage, OSError, tf.errors.OpError) as error:
                self.bad.add(label, reason_of(error))
            else:
                self.bad.good(label)
                return decoded.rgb
        self.bad.stop(
            f"An image must be readable. Received: none of those tried of "
            f"{self.num_images}, the last {printable(label)} "
            f"({self.bad.reasons.get(label)}). Check {self.name}."
        )

    def _patiently(self, label, read):
        # What was bad before may be there again, but is not waited for.
        if label in self.bad.reasons:
            return read()
        return self.patience.read(read, self.path(label))

    def path(self, label):
        """The file that a label names, or None."""
        return None


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
        count = self.num_images
        stride = max(1, int(0.618 * count))
        cycle = count // math.gcd(stride, count)
        for step in range(min(_REPLACEMENT_TRIES, count)):
            yield (index + step * stride + step // cycle) % count


class SequentialSource(Source):
    """Images that are read in the order in which they are stored.

    Args:
        name, num_images, **limits: Of `Source`.
        block: Stored images that are held at once, to shuffle them.
    """

    def __init__(self, name, num_images, block=_SHUFFLE_BLOCK, **limits):
        super().__init__(name, num_images, **limits)
        self.block = min(num_images, block)
        self._spare = None
        self._looking = threading.Lock()

    def stored(self):
        """tf.data.Dataset of every image, as `decode` takes it, always in one order."""
        raise NotImplementedError

    def examples(self, seed):
        """One epoch of (number, stored image), shuffled by `seed`; None: not.

        Blocks are shuffled, and statelessly: Dataset.shuffle mixes in the global seed.
        """
        dataset = self.stored().enumerate()
        if seed is None:
            return dataset

        def shuffled(numbers, encoded):
            order = tf.range(tf.size(numbers))
            order = tf.random.experimental.stateless_shuffle(order, seed)
            return tf.gather(numbers, order), tf.gather(encoded, order)

        blocks = dataset.batch(self.block)
        return blocks.map(shuffled).unbatch()

    def load(self, number, encoded):
        """Encoded bytes to uint8 (height, width, 3); bad ones give the first good."""
        return self._first_good(self._from(number, encoded))

    def _from(self, number, encoded):
        yield f"{self.name} {int(number)}", lambda: encoded
        with self._looking:
            spare = self._spare = self._spare or self._look_for_spare()
        if spare:
            yield spare

    def _look_for_spare(self):
        """The first image that decodes, however many bad ones lie before it."""
        for number, data in self.examples(None).as_numpy_iterator():
            label = f"{self.name} {int(number)}"
            try:
                self.decode(data)
            except (BadImage, OSError) as error:
                self.bad.add(label, reason_of(error))
            else:
                return label, lambda data=data: data
        return None
