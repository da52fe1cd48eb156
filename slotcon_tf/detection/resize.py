"""Resizing by the shortest edge, with detectron2's rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image


def shortest_edge_size(
    height: int, width: int, short: int, long: int
) -> tuple[int, int]:
    """Height and width whose shorter one is `short`, the longer one `long` at most.

    Args:
        height, width: Of an image, in pixels.
        short, long: Of the resized one.

    Returns:
        Tuple of ints, 1 at least.

    Example:
        >>> shortest_edge_size(480, 640, 800, 1333)
        (800, 1067)
        >>> shortest_edge_size(300, 640, 800, 1333)
        (625, 1333)

    Reference: detectron2's ResizeShortestEdge.
    """
    scale = short / min(height, width)
    if height < width:
        new_height, new_width = float(short), scale * width
    else:
        new_height, new_width = scale * height, float(short)
    longest = max(new_height, new_width)
    if longest > long:
        new_height *= long / longest
        new_width *= long / longest
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def detector_edges(
    model: Any, short_edge: int | None = None, long_edge: int | None = None
) -> tuple[int, int]:
    """Shortest and longest edge that a detector brings images to.

    Args:
        model: `MaskRCNN`.
        short_edge, long_edge: Pixels; None: as the model keeps them.

    Raises:
        ValueError: If the longest would be shorter than the shortest.

    Example:
        >>> from types import SimpleNamespace
        >>> detector_edges(SimpleNamespace(short_edge=800, long_edge=1333), 640)
        (640, 1333)
    """
    short, long = short_edge or model.short_edge, long_edge or model.long_edge
    if long < short:
        raise ValueError(
            "`long_edge` must be no shorter than `short_edge`. Received: "
            f"long_edge={long} and short_edge={short}"
            f"{'' if long_edge and short_edge else ' (one is of the detector)'}. Set "
            f"long_edge={short} or more."
        )
    return short, long


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes bilinearly, smoothed where it shrinks: Pillow's, as detectron2 has it.

    Args:
        image: uint8 (h, w, 3).
        height, width: Wanted.

    Returns:
        uint8 (height, width, 3).

    Example:
        >>> resize_image(np.full((4, 6, 3), 7, np.uint8), 2, 3).shape
        (2, 3, 3)
    """
    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
