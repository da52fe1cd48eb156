"""Images of a source for pictures: spread over it, without the bad ones."""

import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.reading import reason_of
from slotcon_tf.data.source_bases import SequentialSource
from slotcon_tf.images.decoding import BadImage


class Photograph(NamedTuple):
    """An image of a source.

    Attributes:
        name: Short, for captions.
        image: uint8 (height, width, 3).
    """

    name: str
    image: np.ndarray


def photographs(source, count):
    """Images spread evenly over a source; of one that is read in sequence, the first.

    Training replaces an image that cannot be used by another one. Here it is left out:
    recorded in `source.bad`, which warns of it.

    Args:
        source: A `Source`.
        count: Images tried at most.

    Yields:
        `Photograph`, or None for an image that cannot be used.

    Raises:
        TooManyBadImages: If more are bad than the source allows.
    """
    for label, load in _candidates(source, count):
        try:
            image = load()
        except (BadImage, OSError, tf.errors.OpError) as error:
            source.bad.add(label, reason_of(error))
            yield None
            continue
        yield Photograph(pathlib.PurePath(printable(label)).name, image)


def spread(count, total):
    """`count` of the numbers 0 .. total - 1, the first and the last included, rising.

    Returns:
        List of int.
    """
    chosen = np.linspace(0, total - 1, min(count, total)).round()
    return np.unique(chosen.astype(int)).tolist()


def _candidates(source, count):
    """Pairs of a label and a function without arguments that gives the image."""
    count = min(count, source.num_images)
    if isinstance(source, SequentialSource):
        for number, data in source.examples(None).take(count).as_numpy_iterator():
            yield f"image {number}", lambda data=data: source.decode(data).rgb
        return
    for number in spread(count, source.num_images):
        if hasattr(source, "read"):
            load = lambda n=number: source.decode(source.read(n)).rgb  # noqa: E731
            yield source.label(number), load
        else:
            yield f"{source.name} {number}", lambda n=number: source.load(n)
