"""Squares of images: what evaluation, export and pictures cut or stretch them to.

Three ways, as torchvision's Resize and CenterCrop make them:
"evaluation": the shorter edge becomes 8/7 of the square's (256 for 224), and the centre
is cut out, as ImageNet's evaluation does;
"central": the shorter edge becomes the square's, and the centre is cut out;
"stretched": both edges become the square's.

Pixels are resized bilinearly with antialias, ids of label maps by nearest neighbour.
`square` is Pillow's and gives bytes; `square_in_graph` is TensorFlow's, for the graph
that is served, and within a grey level of it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import tensorflow as tf
from PIL import Image

from slotcon_tf.types import Tensor

How = Literal["evaluation", "central", "stretched"]
EVALUATION_CROP = 224 / 256  # of the shorter edge, as ImageNet's evaluation has it


def square(
    pixels: np.ndarray, size: int, how: How = "evaluation", *, nearest: bool = False
) -> np.ndarray:
    """The square of an image.

    Args:
        pixels: uint8 (height, width, 3), or ids (height, width).
        size: Edge of the square, pixels.
        how: "evaluation", "central" or "stretched"; see above.
        nearest: Whether by nearest neighbour, as for ids.

    Returns:
        uint8 (size, size, 3), or (size, size).

    Raises:
        ValueError: If `how` is none of them.

    Example:
        >>> square(np.zeros((480, 640, 3), np.uint8), 224).shape
        (224, 224, 3)
    """
    image = Image.fromarray(pixels)
    by = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    (left, right), (top, bottom) = (
        _shown(edge, min(image.size), size, how) for edge in image.size
    )
    # Only what the square shows is computed: a narrow image would be very long.
    return np.asarray(image.resize((size, size), by, (left, top, right, bottom)))


def _shown(edge, shortest, size, how):
    """Where the square begins and ends on an edge of an image, as it is."""
    if how == "stretched":
        return 0, edge
    # torchvision's Resize rounds the longer edge down; its CenterCrop rounds half a
    # pixel to even, as `round` does.
    new = _shorter(size, how) * edge // shortest
    first = round((new - size) / 2)
    return first * edge / new, min((first + size) * edge / new, edge)


def _shorter(size, how):
    if how not in ("evaluation", "central"):
        raise ValueError(
            "`how` must be 'evaluation', 'central' or 'stretched'. "
            f"Received: how={how!r}."
        )
    return size if how == "central" else round(size / EVALUATION_CROP)


def square_in_graph(image: Tensor, size: int, how: How = "evaluation") -> Tensor:
    """The square of an image whose height and width are known at run time only.

    Args:
        image: (height, width, 3), grey levels.
        size: Edge of the square, pixels; 0 leaves the image as it is.
        how: "evaluation", "central" or "stretched"; see above.

    Returns:
        float32 (size, size, 3) of whole grey levels, within one of `square`'s.

    Raises:
        ValueError: If `how` is none of them.

    Example:
        >>> square_in_graph(tf.zeros([480, 640, 3], tf.uint8), 224).shape
        TensorShape([224, 224, 3])
    """
    if not size:
        return tf.cast(image, tf.float32)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    target, corner = tf.constant([size, size], tf.float32), tf.zeros([2])
    if how != "stretched":
        # As in `_shown`.
        target = tf.floor(_shorter(size, how) * shape / tf.reduce_min(shape) + 1e-4)
        corner = tf.round((target - size) / 2)
    image = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[None],
        size=[size, size],
        scale=target / shape,
        translation=-corner,
        kernel_type="triangle",
        antialias=True,
    )[0]
    return tf.round(tf.clip_by_value(image, 0.0, 255.0))


def resized_in_graph(image: Tensor, size: Any) -> Tensor:
    """An image of another size, as Pillow's bilinear resizing has it.

    Columns first, then rows, each rounded to bytes: nearly all values are Pillow's. The
    others, where a sum lies between two grey levels, are one off, two at most.

    Args:
        image: (height, width, 3), grey levels.
        size: int32 (2,), height and width of the result.

    Returns:
        float32 (*size, 3) of whole grey levels.

    Example:
        >>> resized_in_graph(tf.zeros([4, 6, 3], tf.uint8), [2, 3]).shape
        TensorShape([2, 3, 3])
    """
    image, (height, width) = tf.cast(image, tf.float32), tf.unstack(size)
    rows, columns = tf.unstack(tf.shape(image)[:2])
    one = tf.constant(1.0)
    for edges, scale in (
        ((rows, width), (one, width / columns)),
        ((height, width), (height / rows, one)),
    ):
        image = tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=tf.stack(edges),
            scale=tf.stack([tf.cast(x, tf.float32) for x in scale]),
            translation=[0.0, 0.0],
            kernel_type="triangle",
            antialias=True,
        )[0]
        image = tf.floor(tf.clip_by_value(image, 0.0, 255.0) + 0.5)
    return image
