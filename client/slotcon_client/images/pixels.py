"""Pixel values of any depth to 8-bit RGB, by one rule for all images of a data set.

The rule. 8-bit values stay. Whole numbers of up to 16 bits are read as what their
camera wrote: 0 to the smallest of 255, 1023, 4095, 16383 and 65535 that holds the
image's largest value (8, 10, 12, 14 and 16 bits), so that a file says enough. A stretch
between an image's own extremes would make every image as bright as every other, and a
fixed division by 257 makes 12-bit images black. Where a dark image may fit a smaller
range than its neighbours, or values are 32-bit numbers, `pixel_range` fixes the range
for all images of more than 8 bits: low becomes 0, high 255, what lies outside is cut.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

PixelRange = tuple[float, float]  # (low, high) that become 0 and 255
TOPS = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
_ROWS = 256  # converted at once: what is larger than bytes is never held whole


class BadImage(ValueError):
    """An image that cannot be used; its text is the reason.

    Example:
        >>> from slotcon_client.images.decoding import decode_image
        >>> decode_image(b"")
        Traceback (most recent call last):
            ...
        slotcon_client.images.pixels.BadImage: the file is empty
    """


def range_of(pixels: np.ndarray) -> tuple[int, int]:
    """The range that values of more than 8 bits are read in without `pixel_range`.

    Args:
        pixels: uint16 array.

    Returns:
        (0, one of `TOPS`).

    Example:
        >>> range_of(np.array([[7, 3000]], np.uint16))
        (0, 4095)
    """
    highest = int(pixels.max(initial=0))
    return 0, next(top for top in TOPS if highest <= top)


def as_rgb(array: Any, pixel_range: PixelRange | None = None) -> np.ndarray:
    """An array of pixels, of a file or a user's own source, as 8-bit RGB.

    Args:
        array: (height, width), (height, width, 1), (height, width, 3) or with a fourth
            channel that is dropped; uint8, uint16, or any numbers with `pixel_range`.
        pixel_range: (low, high) that images of more than 8 bits are read in; None for
            the rule above, which knows nothing of floats and 32-bit numbers.

    Returns:
        uint8 (height, width, 3), contiguous.

    Raises:
        BadImage: If the array is no such image.

    Example:
        >>> as_rgb(np.array([[0.0, 0.5, 1.0]]), pixel_range=(0, 1))[0, :, 0]
        array([  0, 128, 255], dtype=uint8)
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = " Move the channels last: numpy.moveaxis(image, 0, -1)."
        raise BadImage(
            "an image must be (height, width), or have 1, 3 or 4 channels last. "
            f"Received: shape {array.shape}.{hint}"
        )
    array = _to_bytes(array[..., :3], pixel_range)
    if array.shape[-1] == 1:
        array = np.repeat(array, 3, axis=-1)
    return np.ascontiguousarray(array)


def _to_bytes(array, pixel_range):
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf":
        raise BadImage(f"pixels must be numbers. Received: {array.dtype}.")
    if pixel_range is not None:
        scale = functools.partial(_scaled, pixel_range=pixel_range)
    elif array.dtype == np.uint16:
        _, high = range_of(array)
        # Floored, so that 65535 levels are divided by 257.
        scale = lambda rows: rows.astype(np.uint32) * 255 // high  # noqa: E731
    else:
        raise BadImage(
            f"pixels of {array.dtype} have no fixed range: save it with 8 or 16 bits "
            "(of an array: uint8 or uint16), or open the data set, and train, with a "
            "pixel_range of (low, high)"
        )
    found = np.empty(array.shape, np.uint8)
    for first in range(0, len(array), _ROWS):
        found[first : first + _ROWS] = scale(array[first : first + _ROWS])
    return found


def _scaled(rows, pixel_range):
    """Rounded to what a float32 of k / 255 was made from. No number is dark."""
    low, high = pixel_range
    shares = (np.clip(np.nan_to_num(rows, nan=low), low, high) - low) / (high - low)
    return shares * 255.0 + 0.5
