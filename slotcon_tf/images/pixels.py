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
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

if TYPE_CHECKING:
    from slotcon_tf.images.decoding import Decoded
    from slotcon_tf.images.statistics import PixelRange

TOPS = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
FEW_LEVELS = 16  # an image with fewer was probably read in a wrong range
_SAMPLED = 64  # rows and columns looked at first
_ROWS = 256  # converted at once: what is larger than bytes is never held whole


class BadImage(ValueError):
    """An image that cannot be used; its text is the reason.

    Example:
        >>> from slotcon_tf.images import decode_image
        >>> decode_image(b"")
        Traceback (most recent call last):
            ...
        slotcon_tf.images.pixels.BadImage: the file is empty
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


def has_few_levels(rgb: np.ndarray, values: np.ndarray) -> bool:
    """Whether an image has fewer than `FEW_LEVELS` values, and is no blank one.

    Args:
        rgb: uint8 (height, width, 3).
        values: What it was made from; an image of one value only does not count, since
            every data set may have some, but one that became so does.

    Example:
        >>> few = np.arange(12, dtype=np.uint8).reshape(3, 4, 1).repeat(3, -1)
        >>> has_few_levels(few, few)
        True
    """
    height, width, _ = rgb.shape
    some = rgb[:: max(1, height // _SAMPLED), :: max(1, width // _SAMPLED)]
    if _has_many_levels(some) or _has_many_levels(rgb):
        return False
    return bool(np.nanmin(values) < np.nanmax(values))


def _has_many_levels(rgb):
    seen = np.zeros(256, bool)
    for first in range(0, len(rgb), _ROWS):
        seen |= np.bincount(rgb[first : first + _ROWS].ravel(), minlength=256) > 0
        if seen.sum() >= FEW_LEVELS:
            return True
    return False


class PixelWatch:
    """Warns, once each per data set, of few grey levels and of unequal ranges.

    Args:
        name: Of the data set.

    Attributes:
        resumed: Whether what is read goes on with what an earlier version may have
            begun; the first image of more than 8 bits is then warned of.

    Example:
        >>> from slotcon_tf.images.decoding import decoded_of
        >>> watch = PixelWatch("photos")
        >>> watch.look("a.png", decoded_of(np.eye(40, 40, dtype=np.uint8), None))
    """

    def __init__(self, name: object) -> None:
        self.name = name
        self._flat = False
        self._ranges: set[tuple] = set()
        self.resumed = False

    def look(self, label: object, decoded: Decoded) -> None:
        """Looks at a `decoding.Decoded`; `label` names it."""
        if not self._flat and has_few_levels(decoded.rgb, decoded.values):
            self._flat = True
            logging.warning(
                "%s has fewer than %d grey levels as it is read, and others of %s may. "
                "If it is no drawing, train with pixel_range=low,high, the values "
                "that the images hold; slotcon-check-data counts such images.",
                str(label).encode("utf-8", "backslashreplace").decode(),
                FEW_LEVELS,
                self.name,
            )
        before = len(self._ranges)
        if decoded.read_in:
            self._ranges.add(decoded.read_in)
        if decoded.read_in and self.resumed:
            self.resumed = False
            logging.warning(
                "This run goes on without a pixel range, and %s holds images of more "
                "than 8 bits, which earlier versions divided by 257; now each is read "
                "in the range of its bits (%d..%d the first). To go on as before, stop "
                "and resume with pixel_range=0,65535.",
                *(self.name, *decoded.read_in),
            )
        if before == 1 and len(self._ranges) == 2:
            low, high = sorted(self._ranges)
            logging.warning(
                "Images of %s are read in different ranges, 0..%d and 0..%d, each by "
                "its largest value. If they are of one camera, train with "
                "pixel_range=0,%d.",
                *(self.name, low[1], high[1], high[1]),
            )
