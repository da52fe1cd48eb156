"""Pixels of any depth: the rule, `slotcon_client.images.pixels`, and its watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from slotcon_client.images.pixels import TOPS, BadImage, as_rgb, range_of

if TYPE_CHECKING:
    from slotcon_tf.images.decoding import Decoded

__all__ = [
    "FEW_LEVELS",
    "TOPS",
    "BadImage",
    "PixelWatch",
    "as_rgb",
    "has_few_levels",
    "range_of",
]

FEW_LEVELS = 16  # an image with fewer was probably read in a wrong range
_SAMPLED = 64  # rows and columns looked at first
_ROWS = 256  # looked at at once


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
