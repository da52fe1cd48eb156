"""Bytes of image files to pixels, inside the graph that is served.

One bad image must not fail the others of its batch, and a graph cannot catch errors. A
tf.data pipeline inside it can: each image is a data set of one element, which errors
leave empty, with a row of zeros behind it.
"""

from __future__ import annotations

import functools

import tensorflow as tf

from slotcon_tf.images.squares import square_in_graph
from slotcon_tf.images.statistics import PixelRange
from slotcon_tf.serving.formats import (
    DAMAGED,
    EMPTY,
    OK,
    REASONS,
    TOO_LARGE,
    UNKNOWN,
    first_image,
)
from slotcon_tf.types import Tensor

__all__ = [
    "DAMAGED",
    "EMPTY",
    "OK",
    "REASONS",
    "TOO_LARGE",
    "UNKNOWN",
    "decode_batch",
]

FILL = 32  # edge of what stands for a bad image of unknown size


def decode_batch(
    data: Tensor,
    size: int,
    *,
    crop: bool,
    max_pixels: int,
    pixel_range: PixelRange | None = None,
) -> tuple[Tensor, Tensor]:
    """Decodes and resizes files of one batch, each for itself.

    See `slotcon_tf.serving.formats.first_image` for what is read.

    Args:
        data: string (N,), N may be 0.
        size: Edge of the square result in pixels; 0 keeps an image's own size, and N
            must be 1, or 0, then.
        crop: Whether squares are cut as in evaluation, or images are stretched to them;
            see `slotcon_tf.images.squares`.
        max_pixels: Larger images are not decoded.
        pixel_range: (low, high) that images of 16 bits are read in, or None; as of
            `slotcon_tf.serving.formats.first_image`.

    Returns:
        Tuple of float32 (N, size, size, 3) of whole grey levels, zeros where not ok,
        and int32 (N,), an index of `REASONS`.

    Example:
        >>> png = tf.io.encode_png(tf.fill([30, 40, 3], tf.constant(7, tf.uint8)))
        >>> files = tf.stack([png, b"no image"])
        >>> images, status = decode_batch(
        ...     files, 16, crop=True, max_pixels=10**6
        ... )  # doctest: +SKIP
        >>> images.shape, [REASONS[code] for code in status]  # doctest: +SKIP
        (TensorShape([2, 16, 16, 3]), ['ok', 'no known image format'])
    """
    edge, how = size or None, "evaluation" if crop else "stretched"
    read = _reader(max_pixels, pixel_range and tuple(pixel_range))

    def one(content):
        image, reason = read(content)
        image = tf.cond(
            tf.equal(reason, OK),
            lambda: square_in_graph(image, size, how),
            lambda: _nothing(size),
        )
        return tf.ensure_shape(image, (edge, edge, 3)), reason

    def alone(content):
        found = tf.data.Dataset.from_tensors(content).map(one).ignore_errors()
        failed = tf.data.Dataset.from_tensors((_nothing(size), tf.constant(DAMAGED)))
        return found.concatenate(failed).take(1)

    count = tf.size(data)
    # A batch has at least one element; of an empty one it is dropped again.
    data = tf.cond(
        count > 0, lambda: tf.convert_to_tensor(data), lambda: tf.constant([b""])
    )
    images = (
        tf.data.Dataset.from_tensor_slices(data)
        .interleave(
            alone,
            cycle_length=8,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .batch(tf.size(data, tf.int64))
    )
    images, reasons = images.get_single_element()
    return images[:count], tf.ensure_shape(reasons, (None,))[:count]


@functools.cache
def _reader(max_pixels, pixel_range):
    """`first_image` as a graph, which all signatures share."""
    function = functools.partial(
        first_image, max_pixels=max_pixels, pixel_range=pixel_range
    )
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(function, input_signature=signature, autograph=False)


def _nothing(size):
    return tf.zeros((size or FILL, size or FILL, 3))
