"""The first image of a file as pixels, inside the graph that is served.

No decoder sees a file whose header has not been looked at: sizes decide before memory
is taken, and what the decoders would stumble over is left out
(`slotcon_tf.serving.containers`).
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from slotcon_client.images.pixels import TOPS
from slotcon_client.plain_files import EXIF_SEARCHED
from slotcon_client.reasons import (
    DAMAGED,
    EMPTY,
    NOT_SERVED,
    OK,
    REASONS,
    TOO_LARGE,
    UNKNOWN,
    reason_of,
)
from slotcon_tf.images.statistics import PixelRange
from slotcon_tf.serving.containers import File, gif_image, png_image, webp_image
from slotcon_tf.types import Tensor

__all__ = [
    "DAMAGED",
    "EMPTY",
    "EXIF_SEARCHED",
    "MAX_EDGE",
    "NOT_SERVED",
    "OK",
    "REASONS",
    "TOO_LARGE",
    "UNKNOWN",
    "first_image",
    "jpeg_orientation",
    "reason_of",
]

# Of JPEG and GIF, the largest that they can be. Resizing takes memory by the longer
# edge: a PNG of a few kilobytes may be 50 million pixels wide.
MAX_EDGE = 65_535
_HEAD = 32  # bytes that tell the format
_MOST_SCANS = 1000  # of a JPEG; photographs have about ten, and each takes its time
_TIFF = np.array([0x4D4D002A, 0x002A4949])  # "MM" and 42; "II" and 42, backwards
_RGB_MASKS = (0xFF0000, 0xFF00, 0xFF)


def first_image(
    content: Tensor, max_pixels: int, pixel_range: PixelRange | None = None
) -> tuple[Tensor, Tensor]:
    """Decodes a file by its content.

    JPEG, PNG, WebP, BMP and GIF as `slotcon_tf.images.decoding.decode_image` does: the
    first frame, turned upright by the EXIF orientation, transparency dropped. Other
    kinds are refused by name where they are known.

    Args:
        content: string scalar.
        max_pixels: Larger images are not decoded, nor those with an edge above
            `MAX_EDGE`.
        pixel_range: (low, high) that images of 16 bits are read in; None for the
            fewest of 8, 10, 12, 14 and 16 bits that hold an image's values.

    Returns:
        Tuple of uint8 (height, width, 3), of any size where it is not ok, and int32,
        an index of `REASONS`. Damage behind the header is an error.

    Example:
        >>> png = tf.io.encode_png(tf.zeros([3, 4, 3], tf.uint8))
        >>> image, reason = first_image(png, max_pixels=10**6)
        >>> image.shape, reason_of(int(reason))
        (TensorShape([3, 4, 3]), 'ok')
    """
    head = tf.strings.join([tf.strings.substr(content, 0, _HEAD), b"\0" * _HEAD])

    def is_(start, *magics):
        piece = tf.strings.substr(head, start, len(magics[0]))
        return tf.reduce_any(piece == list(magics))

    def named(reason):
        return lambda: (_nothing(), tf.constant(reason), tf.constant(1))

    def of(function):
        return lambda: function(File(content), max_pixels)

    image, reason, turn = tf.case(
        [
            (tf.strings.length(content) == 0, named(EMPTY)),
            (is_(0, b"\xff\xd8\xff"), of(_jpeg)),
            (is_(0, b"\x89PNG"), of(functools.partial(_png, pixel_range=pixel_range))),
            (is_(0, b"GIF8"), of(_gif)),
            (is_(0, b"BM"), of(_bmp)),
            (is_(0, b"RIFF") & is_(8, b"WEBP"), of(_webp)),
            # TIFF, the family of HEIC and AVIF, JPEG 2000 and XL.
            (is_(0, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), named(NOT_SERVED)),
            (is_(4, b"ftyp", b"jP  ", b"JXL "), named(NOT_SERVED)),
            (is_(0, b"\xff\x4f", b"\xff\x0a"), named(NOT_SERVED)),
        ],
        default=named(UNKNOWN),
    )
    return _upright(image, turn), reason


def _nothing():
    return tf.zeros([1, 1, 3], tf.uint8)


def _judged(height, width, max_pixels, whole: Tensor = True):
    """OK, or why an image of this size is not decoded."""
    large = (height * width > max_pixels) | (tf.maximum(height, width) > MAX_EDGE)
    reason = tf.where(large, TOO_LARGE, OK)
    return tf.where(
        (height < 1) | (width < 1) | ~tf.cast(whole, tf.bool), DAMAGED, reason
    )


def _if_ok(reason, decode, turn: Tensor = 1):
    return tf.cond(reason == OK, decode, _nothing), reason, turn


def _jpeg(file, max_pixels):
    shape = tf.cast(tf.io.extract_jpeg_shape(file.content), tf.int64)
    scans = (file.data[:-1] == 0xFF) & (file.data[1:] == 0xDA)
    few = tf.math.count_nonzero(scans) <= _MOST_SCANS
    return _if_ok(
        _judged(shape[0], shape[1], max_pixels, few),
        lambda: tf.io.decode_jpeg(file.content, 3, dct_method="INTEGER_ACCURATE"),
        jpeg_orientation(file.content),
    )


def _png(file, max_pixels, pixel_range):
    content, exif = png_image(file)
    height, width = file.number(20, 4, big=True), file.number(16, 4, big=True)
    whole = tf.strings.length(content) > 0
    return _if_ok(
        _judged(height, width, max_pixels, whole),
        lambda: tf.cond(
            file.number(24, 1) == 16,
            lambda: _eight_bits(tf.io.decode_png(content, 3, tf.uint16), pixel_range),
            lambda: tf.io.decode_png(content, 3),
        ),
        _orientation_at(file, exif),
    )


def _eight_bits(image, pixel_range):
    if pixel_range:
        low, high = pixel_range
        image = tf.clip_by_value(tf.cast(image, tf.float64), low, high)
        return tf.cast((image - low) / (high - low) * 255.0 + 0.5, tf.uint8)
    image = tf.cast(image, tf.int32)
    tops = tf.constant(TOPS)
    top = tf.reduce_min(tf.boolean_mask(tops, tops >= tf.reduce_max(image)))
    return tf.cast(image * 255 // top, tf.uint8)


def _gif(file, max_pixels):
    found, colour = gif_image(file)
    return _placed(found, max_pixels, tf.cast(colour, tf.uint8), 1)


def _webp(file, max_pixels):
    found = webp_image(file)
    turn = _orientation_at(file, found.exif)
    return _placed(found, max_pixels, tf.zeros([3], tf.uint8), turn)


def _placed(found, max_pixels, colour, turn):
    """An image on its canvas, of one colour elsewhere."""
    whole = (tf.strings.length(found.content) > 0) & tf.reduce_all(found.size > 0)

    def decode():
        image = tf.io.decode_image(found.content, expand_animations=False)
        image = tf.ensure_shape(image, (None, None, None))[..., :3]
        full = tf.reduce_all(found.size == found.canvas)
        return tf.cond(full, lambda: image, lambda: _framed(image, found, colour))

    height, width = tf.unstack(found.canvas)
    return _if_ok(_judged(height, width, max_pixels, whole), decode, turn)


def _framed(image, found, colour):
    rest = found.canvas - found.corner - found.size
    margins = tf.stack([found.corner, rest], axis=1)
    inside = tf.pad(tf.ones(found.size, tf.bool), margins)
    image = tf.pad(image, tf.concat([margins, tf.zeros([1, 2], tf.int64)], 0))
    return tf.where(inside[..., None], image, colour)  # pyright: ignore[reportArgumentType]


def _bmp(file, max_pixels):
    offset, header = file.number(10, 4), file.number(14, 4)
    width, height = file.signed(18), file.signed(22)
    bits, packing = file.number(28, 2), file.number(30, 4)
    masks = tf.stack([file.number(54 + 4 * i, 4) for i in range(3)])
    plain = (packing == 0) & tf.reduce_any(bits == [1, 4, 8, 24, 32])
    plain |= (packing == 3) & (bits == 32) & tf.reduce_all(masks == _RGB_MASKS)
    plain &= tf.reduce_any(header == [40, 52, 56, 64, 108, 124])
    rows = tf.abs(height)
    reason = _judged(rows, width, max_pixels)
    reason = tf.where((reason == OK) & ~plain, NOT_SERVED, reason)

    def decode():
        length = (bits * width + 31) // 32 * 4
        data = tf.reshape(file.data[offset : offset + rows * length], [rows, length])
        image = tf.cond(
            bits >= 24,
            lambda: tf.reshape(data[:, : width * bits // 8], [rows, width, bits // 8])[  # pyright: ignore[reportArgumentType]
                ..., :3
            ],
            lambda: tf.gather(_palette(file), _unpacked(data, bits)[:, :width]),
        )
        return tf.cond(height > 0, lambda: image[::-1], lambda: image)[..., ::-1]

    return _if_ok(reason, decode)


def _palette(file):
    """uint8 (256, 3) of a BMP, blue first."""
    data = file.data[14 + file.number(14, 4) :][:1024]
    return tf.reshape(tf.pad(data, [[0, 1024 - tf.size(data)]]), [256, 4])[:, :3]


def _unpacked(data, bits):
    """int32 values of 1, 4 or 8 bits, along the rows."""
    bits = tf.cast(bits, tf.int32)
    shifts = tf.range(8 - bits, -1, -bits)
    values = tf.bitwise.right_shift(tf.cast(data, tf.int32)[..., None], shifts)
    return tf.reshape(values % 2**bits, [tf.shape(data)[0], -1])


def jpeg_orientation(content: Tensor) -> Tensor:
    """The EXIF orientation of a JPEG, 1 to 8; 1 where it has none, or a broken one.

    Args:
        content: string scalar.

    Returns:
        int32 scalar.

    Example:
        >>> jpeg = tf.io.encode_jpeg(tf.zeros([3, 4, 3], tf.uint8))
        >>> int(jpeg_orientation(jpeg))
        1
    """
    file = File(tf.strings.substr(content, 0, EXIF_SEARCHED))
    data = tf.pad(file.data, [[0, 5]])
    starts = tf.ones([tf.size(file.data)], tf.bool)
    for offset, byte in enumerate(b"Exif\0\0"):
        starts &= data[offset : tf.size(file.data) + offset] == byte
    found = tf.argmax(tf.cast(starts, tf.int32))
    return _orientation_at(file, tf.where(tf.reduce_any(starts), found + 6, file.size))


def _orientation_at(file, tiff):
    """The orientation in the EXIF data at a place; 1 where there is none."""
    big = file.number(tiff, 1) == ord("M")

    def number(place, count):
        low, high = file.number(place, count), file.number(place, count, big=True)
        return tf.where(big, high, low)

    directory = tiff + number(tiff + 4, 4)
    entries = tf.range(tf.minimum(number(directory, 2), 64))
    places = directory + 2 + 12 * entries
    values = tf.where(
        file.shorts(places, big) == 0x0112, file.shorts(places + 8, big), 0
    )
    value = tf.reduce_max(values)
    marked = number(tiff, 4) == tf.where(big, *_TIFF)
    return tf.where(marked & (value >= 1) & (value <= 8), tf.cast(value, tf.int32), 1)


def _upright(image, orientation):
    """As `slotcon_tf.images.orientation.upright`, of what is known at run time only."""
    swapped = orientation >= 5
    image = tf.cond(swapped, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)

    def one_of(*values):
        return tf.reduce_any(orientation == tf.constant(values))

    mirrored, upside_down = one_of(2, 3, 6, 7), one_of(3, 4, 7, 8)
    image = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
    return tf.cond(upside_down, lambda: image[::-1], lambda: image)
