"""The order of images: epochs of a stream, and passes over it, each where one ended."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from slotcon_tf.data.source import ImageSource

EACH = "each"  # one epoch a pass
# Nothing here depends on a tensor in Python's own control flow; looking for it takes
# AutoGraph a second and more.
unconverted = tf.autograph.experimental.do_not_convert


def pass_length(epochs: Any, steps: int, start_step: int) -> int | None:
    """Steps of a pass over `crop_pair_dataset`; None for an endless one.

    Args:
        epochs: `EACH`, a number or None, as `crop_pair_dataset` takes it.
        steps: Of an epoch.
        start_step: Where the first pass begins.

    Raises:
        ValueError: If it is something else.

    Example:
        >>> pass_length("each", 231, 0), pass_length(3, 231, 500)
        (231, 193)
    """
    if epochs is None:
        return None
    if epochs == EACH:
        return steps
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer):
        raise ValueError(
            f"epochs must be {EACH!r}, a whole number, or None for an endless stream. "
            f"Received: epochs={epochs!r}."
        )
    return max(int(epochs) * steps - start_step, 0)


def passes(
    positions: Callable[[Any], tf.data.Dataset],
    start_step: int,
    length: int | None,
    batch_size: int,
) -> tf.data.Dataset:
    """Dataset of the elements of one pass, other ones every time it is iterated.

    Args:
        positions: Function of a step, a number or a tensor, that returns the endless
            dataset from there on.
        start_step: Where the first pass begins.
        length: Steps of a pass; None for an endless one, always from `start_step` on.
        batch_size: Elements of a step.

    Example:
        >>> counted = lambda step: tf.data.Dataset.range(2 * step, tf.int64.max)
        >>> stream = passes(counted, start_step=0, length=2, batch_size=2)
        >>> [int(x) for x in stream], [int(x) for x in stream]
        ([0, 1, 2, 3], [4, 5, 6, 7])
    """
    if length is None:
        return positions(start_step)
    count = itertools.count()  # its `next` is one operation: threads share it

    def first_step(_):
        number = tf.numpy_function(lambda: np.int64(next(count)), [], tf.int64)
        return start_step + tf.ensure_shape(number, []) * length

    @unconverted
    def one_pass(step):
        return positions(step).take(length * batch_size)

    return tf.data.Dataset.range(1).map(first_step).flat_map(one_pass)


def positions(
    source: ImageSource, per_epoch: int, seed: int, shuffle: bool, start: Any
) -> tf.data.Dataset:
    """Endless dataset of (position, *item): what `source.load` takes, in its order.

    Args:
        source: Whose images.
        per_epoch: Images of an epoch, which has an order of its own.
        seed: Of the run.
        shuffle: Whether the order is random.
        start: First position, a number or an int64 tensor.

    Example:
        >>> from slotcon_tf.data import open_source
        >>> stream = positions(open_source("fake"), 4, seed=0, shuffle=False, start=2)
        >>> [tuple(map(int, pair)) for pair in stream.take(3)]
        [(2, 2), (3, 3), (4, 0)]
    """

    def key(epoch):
        return tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])

    if not source.in_order:

        @unconverted
        def item(position):
            index = position % per_epoch
            if shuffle:
                last = tf.constant(source.num_images - 1, tf.int64)
                index = tf.random.experimental.index_shuffle(  # pyright: ignore[reportAttributeAccessIssue]
                    index, key(position // per_epoch), last
                )
            return position, index

        return tf.data.Dataset.range(start, tf.int64.max).map(item)

    # AutoGraph could not even read tfds's decorated methods.
    @unconverted
    def epoch(number):
        examples = source.examples(key(number) if shuffle else None).take(per_epoch)
        first = number * per_epoch
        positions = tf.data.Dataset.range(first, first + per_epoch)
        return tf.data.Dataset.zip(positions, examples).map(lambda p, item: (p, *item))

    first_epoch, skipped = start // per_epoch, start % per_epoch
    stream = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch)
    return stream.skip(skipped)
