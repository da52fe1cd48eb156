"""Anchors: the boxes that proposals are guessed from, the same for all images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from slotcon_tf.types import Tensor

SIZES = (32, 64, 128, 256, 512)  # of a level each, square root of the area in pixels
RATIOS = (0.5, 1.0, 2.0)  # height over width
STRIDES = (4, 8, 16, 32, 64)  # of the levels p2 .. p6


def cell_anchors(size: float, ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """Anchors around (0, 0), one for each ratio.

    Args:
        size: Square root of their area, pixels.
        ratios: Height over width.

    Returns:
        float64 (len(ratios), 4).

    Example:
        >>> cell_anchors(32, (1.0,)).tolist()
        [[-16.0, -16.0, 16.0, 16.0]]
    """
    widths = np.sqrt(size**2 / np.asarray(ratios, np.float64))
    heights = np.asarray(ratios) * widths
    return np.stack([-widths, -heights, widths, heights], axis=-1) / 2


def level_anchors(
    height: int | Tensor,
    width: int | Tensor,
    stride: int,
    size: float,
    ratios: Sequence[float] = RATIOS,
    dtype: Any = "float32",
) -> Tensor:
    """Anchors of every cell of a map, of those in the padding too.

    Cell (i, j) has its anchors around (j * stride, i * stride), its corner and not its
    centre.

    Args:
        height, width: Of the map, ints or int32 scalars.
        stride: Pixels between cells.
        size: Of the anchors; see `cell_anchors`.
        ratios: Height over width.
        dtype: Of the result.

    Returns:
        (height * width * len(ratios), 4), the ratio fastest, then x, then y.

    Example:
        >>> level_anchors(2, 3, 4, 32).shape
        TensorShape([18, 4])

    Reference: detectron2's DefaultAnchorGenerator, offset 0.
    """
    cells = tf.constant(cell_anchors(size, ratios), dtype)  # (R, 4)
    x = tf.cast(tf.range(width) * stride, dtype)  # (w,)
    y = tf.cast(tf.range(height) * stride, dtype)  # (h,)
    y, x = tf.meshgrid(y, x, indexing="ij")  # (h, w)
    shifts = tf.stack([x, y, x, y], axis=-1)  # (h, w, 4)
    return tf.reshape(shifts[:, :, None] + cells, (-1, 4))
