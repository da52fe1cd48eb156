"""What a batch must be: two normalised views of every image, and where they meet."""

from __future__ import annotations

import collections.abc
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.images.statistics import IMAGENET, ImageStatistics
from slotcon_tf.types import Batch, Shape, Tensor

BATCH_KEYS = (
    "view_a",
    "view_b",
    "overlap_a",
    "overlap_b",
    "flipped_a",
    "flipped_b",
)
_DOOR = (
    "slotcon_tf.data.crop_pair_dataset(images, batch_size=...) makes such batches of "
    "images."
)
_NEED = f"A batch must be a dict with the keys {', '.join(BATCH_KEYS)}."
LOOKED_AT = 32  # images of a batch whose values are looked at
# Normalised by mean and standard deviation, pixels lie within 3 or so of 0; 50 leaves
# room for data of little contrast, and none for grey levels less their mean. A model's
# own statistics may need more.
_LARGEST = 50.0
_BEYOND = 2.0  # times what black and white become by the model's statistics
_DARK = 0.05  # of 1: images in 0..1 that are not all bright have pixels below
_SLACK = 0.01  # of an overlap box beyond its view: rounding
# A batch this large in which no box has any area does not come about by chance.
_MANY = 4


def check_kind(data: Any) -> None:
    """Refuses what is no batch, nor a data set of batches.

    Args:
        data: What `fit` was given, or a batch: a dict of arrays, or that with labels
            behind it. Generators are not looked into.

    Raises:
        ValueError: It says what a batch is, and what came.

    Example:
        >>> check_kind(dict.fromkeys(BATCH_KEYS))
        >>> check_kind([])  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        ValueError: A batch must be a dict with the keys view_a, ...
    """
    spec = getattr(data, "element_spec", None)
    if spec is not None:
        data = spec
    if isinstance(data, tuple | list) and len(data) in (1, 2, 3):
        data = data[0]
    if isinstance(data, collections.abc.Mapping):
        missing = [key for key in BATCH_KEYS if key not in data]
        if not missing:
            return
        received = f"no {', '.join(missing)}"
    elif hasattr(data, "shape") and hasattr(data, "dtype"):
        shape: Any = getattr(data, "shape", None)
        shape = shape if getattr(shape, "rank", 1) is None else tuple(shape)
        received = f"an array of shape {shape}"
    elif data is None:
        received = "nothing"
    elif isinstance(data, tuple | list | str | bytes | os.PathLike):
        received = f"a {type(data).__name__}"
    else:
        return
    raise ValueError(f"{_NEED} Received: {received}. {_DOOR}")


def as_batch(data: Any, input_shape: Shape | None = None) -> Batch:
    """A batch of `checked`, its colours changed if that was left to the step.

    Example:
        >>> batch = {f"view_{v}": np.zeros((4, 32, 32, 3), np.float32) for v in "ab"}
        >>> batch |= {f"overlap_{v}": np.zeros((4, 4), np.float32) for v in "ab"}
        >>> batch |= {f"flipped_{v}": np.zeros(4) for v in "ab"}
        >>> as_batch(batch)["view_a"].shape
        TensorShape([4, 32, 32, 3])
    """
    # Here and not above: the model needs nothing else of the data package.
    from slotcon_tf.data.photometric import apply_distortions

    return apply_distortions(checked(data, input_shape))


def checked(data: Any, input_shape: Shape | None = None) -> Batch:
    """A batch whose shapes and dtypes are right.

    Looks at nothing that is known at run time only, so that it costs nothing in a
    traced step.

    Args:
        data: A dict of arrays, or that with labels behind it, which are left out.
        input_shape: The encoder's (None, height, width, 3), None where it is free.

    Returns:
        Dict of tensors: floating view_a, view_b (B, size, size, 3) (uint8 beside
        distortion_a, distortion_b), floating overlap_a, overlap_b (B, 4), and bool
        flipped_a, flipped_b (B,).

    Raises:
        ValueError: If something is missing, or of another shape or dtype.

    Example:
        >>> batch = {f"view_{v}": np.zeros((4, 32, 32, 3), np.float32) for v in "ab"}
        >>> batch |= {f"overlap_{v}": np.zeros((4, 4), np.float32) for v in "ab"}
        >>> batch |= {f"flipped_{v}": np.zeros(4) for v in "ab"}
        >>> checked(batch)["flipped_a"].dtype
        tf.bool
    """
    check_kind(data)
    batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    batch = tf.nest.map_structure(tf.convert_to_tensor, dict(batch))
    later = "distortion_a" in batch
    for v in "ab":
        _check_view(f"view_{v}", batch[f"view_{v}"], input_shape, later)
        _check_overlap(f"overlap_{v}", batch[f"overlap_{v}"])
        name = f"flipped_{v}"
        _check_shape(name, batch[name], (None,))
        batch[name] = tf.cast(batch[name], "bool")
    first, second = batch["view_a"].shape, batch["view_b"].shape
    if first[1:] != second[1:]:
        raise ValueError(
            "Both views must have the same size. "
            f"Received: view_a {tuple(first)}, view_b {tuple(second)}. Resize one of "
            "them, or make two pairs of views of equal size."
        )
    counts = {batch[key].shape[0] for key in BATCH_KEYS} - {None}
    if len(counts) > 1:
        shapes = ", ".join(f"{key} {tuple(batch[key].shape)}" for key in BATCH_KEYS)
        raise ValueError(
            f"All parts of a batch must be of the same images. Received: {shapes}."
        )
    return batch


def _check_view(
    name: str, view: tf.Tensor, input_shape: Shape | None, later: bool
) -> None:
    if later and view.dtype != tf.uint8:
        raise ValueError(
            f"{name} must be uint8 where the step changes its colours (distortion_a). "
            f"Received: {view.dtype.name}."
        )
    if not later and not view.dtype.is_floating:
        raise ValueError(
            f"{name} must hold normalised floats. Received: {view.dtype.name}. "
            "Take (view / 255 - mean) / std with ImageNet's mean and standard "
            f"deviation. {_DOOR}"
        )
    shape = view.shape
    sized = shape.rank == 4 and None not in shape[1:]
    if not sized or shape[-1] != 3:
        shape = None if shape.rank is None else tuple(shape)
        raise ValueError(
            f"{name} must be images (B, size, size, 3), their size known before the "
            f"first step. Received: {name} of shape {shape}. Resize them to one size, "
            "and fix it with tf.ensure_shape."
        )
    check_size(name, shape, input_shape)


def check_size(name: str, shape: Any, input_shape: Shape | None) -> None:
    """Refuses images (B, height, width, 3) of another size than the encoder's.

    Example:
        >>> check_size("images", (8, 224, 224, 3), (None, None, None, 3))
    """
    pairs = zip(input_shape[1:3], shape[1:3], strict=True) if input_shape else ()
    if any(need not in (None, size) for need, size in pairs):
        raise ValueError(
            f"{name} must have the size that the encoder was built for, "
            f"{tuple(input_shape[1:3])}. Received: {name} of shape {tuple(shape)}. "
            "Resize them, or build the encoder with input_shape=(None, None, 3)."
        )


def _check_overlap(name: str, overlap: tf.Tensor) -> None:
    if not overlap.dtype.is_floating:
        raise ValueError(
            f"{name} must be boxes (x_min, y_min, x_max, y_max) as shares of the "
            f"view, floats from 0 to 1. Received: {overlap.dtype.name}. Divide boxes "
            "in pixels by the view's width and height."
        )
    _check_shape(name, overlap, (None, 4))


def _check_shape(name: str, value: tf.Tensor, need: Shape) -> None:
    shape = value.shape
    right = shape.rank == len(need) and all(
        n is None or size in (None, n) for n, size in zip(need, shape, strict=True)
    )
    if not right:
        wanted = "(B,)" if len(need) == 1 else f"(B, {need[1]})"
        shape = None if shape.rank is None else tuple(shape)
        raise ValueError(f"{name} must have shape {wanted}. Received: {shape}.")


def check_values(batch: Batch, statistics: ImageStatistics = IMAGENET) -> None:
    """Looks at the numbers of a batch, once before the first step.

    Args:
        batch: Dict of tensors or arrays, of right shapes and dtypes.
        statistics: What the model's images are normalised with.

    Raises:
        ValueError: If the views are not normalised, boxes are not shares of the view,
            or flips are neither 0 nor 1.

    Example:
        >>> view = np.random.default_rng(0).normal(size=(4, 32, 32, 3))
        >>> box = np.tile([0.1, 0.0, 0.9, 0.8], (4, 1))
        >>> own = {"view": view, "overlap": box, "flipped": np.zeros(4, bool)}
        >>> check_values({f"{k}_{v}": own[k] for k in own for v in "ab"})
    """
    for v in "ab":
        view = np.asarray(batch[f"view_{v}"][:LOOKED_AT])
        if view.dtype != np.uint8:  # of those, the step changes the colours first
            check_normalised(f"view_{v}", view, statistics)
        _check_boxes(f"overlap_{v}", np.asarray(batch[f"overlap_{v}"]))
        flips = np.unique(np.asarray(batch[f"flipped_{v}"]))
        if not np.isin(flips, (0, 1)).all():
            raise ValueError(
                f"flipped_{v} must say whether a view was flipped, True or False. "
                f"Received: {flips[:5].tolist()}."
            )


def check_normalised(
    name: str, images: Tensor, statistics: ImageStatistics = IMAGENET
) -> None:
    """Refuses floating images in 0 .. 1, in grey levels, or not divided.

    Args:
        name: Of the images, in the message.
        images: Floating array of images. One value throughout says nothing; what is
            not finite is left to those who look at losses.
        statistics: `ImageStatistics` that they should be normalised with.

    Raises:
        ValueError: It says what range came.

    Example:
        >>> check_normalised("images", np.random.default_rng(0).normal(size=(4, 4, 3)))
    """
    images = np.asarray(images, np.float32)
    finite = images[np.isfinite(images)]
    if not finite.size:
        return
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        return
    ends = [statistics.normalize(np.full(3, level, np.float32)) for level in (0, 255)]
    black, white = float(np.min(ends[0])), float(np.max(ends[1]))
    largest = max(_LARGEST if black < 0 else 0.0, _BEYOND * max(-black, white))
    # Bright images lie above the mean throughout, but not above white. Divided by 255
    # they have white at 1 exactly, or black near 0.
    shares = high == 1 or (high < 1 and low <= _DARK)
    if low >= 0 and black < 0 and shares:
        kind = "floats in 0..1"
    elif low >= 0 and high > _BEYOND * white:
        kind = "grey levels in 0..255" if high <= 255 else "raw levels"
    elif max(-low, high) > largest:
        kind = "not divided by a standard deviation"
    else:
        return
    raise ValueError(
        f"{name} must be normalised by mean and standard deviation. Received: values "
        f"from {low:.3g} to {high:.3g}, {kind}. Take (grey level / 255 - mean) / std "
        f"with mean={statistics.mean}, std={statistics.std}. {_DOOR}"
    )


def _check_boxes(name: str, boxes: np.ndarray) -> None:
    x_min, y_min, x_max, y_max = np.moveaxis(boxes.astype(np.float64), -1, 0)
    # Boxes of crops that do not meet are inverted, and lie anywhere.
    filled = boxes[(x_max > x_min) & (y_max > y_min)]
    outside = filled[((filled < -_SLACK) | (filled > 1 + _SLACK)).any(axis=-1)]
    if outside.size:
        shown = [round(float(n), 3) for n in outside[0]]
        raise ValueError(
            f"{name} must be boxes (x_min, y_min, x_max, y_max) as shares of the "
            f"view, from 0 to 1. Received: {shown}. Divide boxes in pixels by the "
            "view's width and height."
        )
    if not filled.size and len(boxes) >= _MANY:
        shown = [round(float(n), 3) for n in boxes[0]]
        raise ValueError(
            f"{name} must be boxes (x_min, y_min, x_max, y_max) with x_min < x_max "
            f"and y_min < y_max. Received: none such in {len(boxes)} images, the first "
            f"{shown}. Views of an image must overlap."
        )
