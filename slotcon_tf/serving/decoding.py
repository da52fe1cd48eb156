"""Bytes of image files to pixels, inside the graph that is served.

One bad image must not fail the others of its batch, and a graph cannot catch errors. A
tf.data pipeline inside it can: each image is a data set of one element, which errors
leave empty, with a row of zeros behind it.
"""

import functools

import tensorflow as tf

from slotcon_tf.serving.formats import (
    DAMAGED,
    EMPTY,
    OK,
    REASONS,
    TOO_LARGE,
    UNKNOWN,
    first_image,
)

__all__ = [
    "DAMAGED",
    "EMPTY",
    "OK",
    "REASONS",
    "TOO_LARGE",
    "UNKNOWN",
    "decode_batch",
    "fit",
]

EVALUATION_CROP = 224 / 256  # of the shorter edge, as ImageNet's evaluation has it
FILL = 32  # edge of what stands for a bad image of unknown size


def decode_batch(data, size, *, crop, max_pixels, pixel_range=None):
    """Decodes and resizes files of one batch, each for itself.

    See `slotcon_tf.serving.formats.first_image` for what is read.

    Args:
        data: string (N,), N may be 0.
        size: Edge of the square result in pixels; 0 keeps an image's own size, and N
            must be 1, or 0, then.
        crop: Whether the shorter edge is resized to `size` / 0.875 and the centre cut
            out, as in evaluation, or the whole image is stretched to the square.
        max_pixels: Larger images are not decoded.
        pixel_range: (low, high) that images of 16 bits are read in, or None; as of
            `slotcon_tf.serving.formats.first_image`.

    Returns:
        Tuple of float32 (N, size, size, 3) of whole grey levels, zeros where not ok,
        and int32 (N,), an index of `REASONS`.
    """
    edge = size or None
    read = _reader(max_pixels, pixel_range and tuple(pixel_range))

    def one(content):
        image, reason = read(content)
        image = tf.cond(
            tf.equal(reason, OK),
            lambda: fit(image, size, crop),
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


def fit(image, size, crop):
    """An image at the size of `decode_batch`, within a grey level of Pillow's.

    Args:
        image: (height, width, 3), grey levels.
        size, crop: As of `decode_batch`.

    Returns:
        float32 (size, size, 3) of whole grey levels.
    """
    if not size:
        return tf.cast(image, tf.float32)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    target, corner = tf.constant([size, size], tf.float32), tf.zeros([2])
    if crop:
        shorter = round(size / EVALUATION_CROP)
        # torchvision's Resize: the longer edge rounds down.
        target = tf.floor(shorter * shape / tf.reduce_min(shape) + 1e-4)
        # Half a pixel rounds to even, as in torchvision's CenterCrop.
        corner = tf.round((target - size) / 2)
    # Only what the crop shows is computed: a narrow image would be very long.
    image = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[None],
        size=[size, size],
        scale=target / shape,
        translation=-corner,
        kernel_type="triangle",
        antialias=True,
    )[0]
    return tf.round(tf.clip_by_value(image, 0.0, 255.0))
