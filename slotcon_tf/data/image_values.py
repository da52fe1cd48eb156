"""What people hold for an image, as uint8 RGB, or the reason why it is none."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from slotcon_tf.data.reading import largest_file, read_file
from slotcon_tf.images.decoding import (
    MAX_PIXELS,
    Decoded,
    decode_pixels,
    decoded_of,
    pillow_values,
)
from slotcon_tf.images.orientation import orientation_of, upright
from slotcon_tf.images.pixels import BadImage
from slotcon_tf.images.statistics import PixelRange

_WITH_8_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


class UnfitImage(BadImage):
    """A value that stands for no image, whatever file it may be of.

    Example:
        >>> decoded(3)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        slotcon_tf.data.image_values.UnfitImage: An image must be uint8, 0 to 255, ...
    """


def image_of(item: Any) -> Any:
    """The image of an item of a data set.

    Args:
        item: An image, or a tuple, or a dict with "image". An image is an array, a PIL
            image, the bytes of an image file, or a path.

    Returns:
        The image; of a path, the bytes of its file.

    Raises:
        UnfitImage: If a dict has no image.
        BadImage: If a path is no regular file.
        OSError: If a path cannot be read.

    Example:
        >>> image_of({"image": 3, "label": 4}), image_of((3, 4)), image_of(3)
        (3, 3, 3)
    """
    if isinstance(item, dict):
        if "image" not in item:
            raise UnfitImage(f"An item must have 'image'. Received: {list(item)[:5]}")
        item = item["image"]
    elif isinstance(item, tuple) and item:
        item = item[0]
    return read_file(item) if isinstance(item, str | os.PathLike) else item


def decoded(
    item: Any, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None
) -> Decoded:
    """An item of a data set to RGB.

    Args:
        item: As for `image_of`. Arrays are as `pixels.as_rgb` takes them: uint8 or
            uint16, colour or grey; of other numbers with `pixel_range` only.
        max_pixels: Larger images are refused.
        pixel_range: Of images of more than 8 bits; see `decoding.decode_image`.

    Returns:
        `decoding.Decoded`, its `rgb` contiguous.

    Raises:
        UnfitImage: If it is no image; what must hold, what came, what to do.
        BadImage: If its file is none.
        OSError: If a path cannot be read.

    Example:
        >>> decoded((Image.new("L", (4, 3)), "a label")).rgb.shape
        (3, 4, 3)
    """
    if isinstance(item, str | os.PathLike):
        item = read_file(item, largest_file(max_pixels))
    image = image_of(item)
    if isinstance(image, bytes | np.bytes_):
        return decode_pixels(bytes(image), max_pixels, pixel_range)
    if isinstance(image, Image.Image):
        image = _of_pillow(image)
    try:
        image = np.asarray(image)
    except Exception:  # noqa: BLE001  anything may be no array in any way
        raise UnfitImage(_unfit(f"{type(image).__name__}", "Give an array")) from None
    if pixel_range is None and image.dtype not in (np.uint8, np.uint16):
        raise UnfitImage(_unfit(_described(image), _cure_of_type(image)))
    if len(image.shape) not in (2, 3) or image.shape[2:] not in ((), (1,), (3,), (4,)):
        raise UnfitImage(_unfit(_described(image), _cure_of_shape(image.shape)))
    if image.dtype.kind not in "iuf" or not image.size:
        raise UnfitImage(_unfit(_described(image), "Give an array of pixels"))
    height, width = image.shape[:2]
    if height * width > max_pixels:
        raise BadImage(f"{width}x{height} is more than {max_pixels} pixels")
    return decoded_of(image, pixel_range)


def _of_pillow(image):
    if image.mode not in _WITH_8_BITS:
        raise UnfitImage(
            _unfit(f"a PIL image of mode {image.mode}", "Give the path of its file")
        )
    image.load()
    # Its file is not here; it may have told an orientation.
    return upright(pillow_values(image), orientation_of(image, b"exif"))


def _unfit(received, cure):
    return (
        "An image must be uint8, 0 to 255, (height, width, 3). "
        f"Received: {received}. {cure}"
    )


def _described(image):
    text = f"{image.dtype} {image.shape}"
    if image.dtype.kind in "fiub" and image.size:
        text += f" from {image.min():g} to {image.max():g}"
    return text


def _cure_of_type(image):
    kind = image.dtype.kind
    if kind == "b":
        return "Give 255 * image.astype('uint8')"
    if kind in "fiu" and image.size and image.min() >= 0:
        if kind == "f" and image.max() <= 1:
            return "Give np.round(255 * image).astype('uint8'), or pixel_range=(0, 1)"
        if image.max() <= 255:
            return "Give np.round(image).astype('uint8')"
    if kind in "fiu":
        return "Map its range to 0 to 255, or set pixel_range=(low, high)"
    return "Give an array of pixels"


def _cure_of_shape(shape):
    if len(shape) == 3 and shape[0] in (1, 3):
        return "Channels come last: give np.moveaxis(image, 0, -1)"
    if len(shape) == 3 and shape[-1] == 2:
        return "Give image[..., :1]"
    if len(shape) == 4:
        return "That is a batch: give one image at a time"
    return "Give one image at a time, its channels last"
