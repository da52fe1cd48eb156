"""Bytes of an image file to RGB pixels, or a reason why not.

Images are decoded whole. Decoding the crops' common window instead saved 0 to 2% of the
decoder's time on 640x480 JPEGs and 7 to 12% at 12 megapixels, and changed pixels at the
window's border by up to 18 levels (AMD EPYC, 2026-11-24): not worth it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from slotcon_client.images.decoding import (
    FORMATS,
    LOSSLESS,
    MAX_PIXELS,
    Decoded,
    decode_opened,
    decoded_of,
    open_image,
    pillow_values,
)
from slotcon_client.images.orientation import is_plain
from slotcon_client.images.pixels import BadImage, PixelRange

__all__ = [
    "FORMATS",
    "LOSSLESS",
    "MAX_PIXELS",
    "BadImage",
    "Decoded",
    "decode_image",
    "decode_pixels",
    "decoded_of",
    "open_image",
    "pillow_values",
]


def decode_image(
    data: bytes, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None
) -> np.ndarray:
    """Bytes of an image file to RGB.

    Grey, palette, CMYK and 16-bit images become 8-bit RGB; the EXIF orientation is
    applied; of an animation the first frame is taken; transparency is dropped.

    Args:
        data: Bytes of the file.
        max_pixels: Larger images are refused by their header, before decoding; see
            `open_image`.
        pixel_range: (low, high) that images of more than 8 bits are read in; None for
            the rule of `slotcon_tf.images.pixels`. That of a model's own images is
            `statistics_of(model).pixel_range`.

    Returns:
        uint8 (height, width, 3), contiguous.

    Raises:
        BadImage: If the bytes are no whole image, or not one that can be shown.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (4, 3), 200).save(file, "PNG")
        >>> decode_image(file.getvalue())[0, 0]
        array([200, 200, 200], dtype=uint8)
    """
    return decode_pixels(data, max_pixels, pixel_range).rgb


def decode_pixels(
    data: bytes, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None
) -> Decoded:
    """As `decode_image`, and the values that the image was made from.

    Args:
        data, max_pixels, pixel_range: As there.

    Raises:
        BadImage: As there.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> deep = np.full((3, 4), 1000, np.uint16)
        >>> Image.fromarray(deep).save(file, "PNG")
        >>> decode_pixels(file.getvalue()).read_in
        (0, 1023)
    """
    image = open_image(data, max_pixels)
    if is_plain(image):
        try:
            # The same library and pixels as Pillow's, without its two copies.
            pixels = tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE").numpy()
            return Decoded(pixels, pixels, None)
        except tf.errors.OpError:
            pass  # Pillow decides whether it can be used, and why not
    return decode_opened(image, data, pixel_range, _deep_png)


def _deep_png(data):
    try:
        return tf.io.decode_png(data, 3, tf.uint16).numpy()
    except tf.errors.OpError:
        raise BadImage("a broken PNG of 16 bits") from None
