"""Slots, assignments and attention maps of images, for Python users."""

from __future__ import annotations

import operator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.images.statistics import ImageStatistics, statistics_of
from slotcon_tf.method.networks import GroupingNetwork
from slotcon_tf.method.objective import active_slots, l2_normalize, pool_slots
from slotcon_tf.training.batches import check_normalised, check_size
from slotcon_tf.types import Tensor


def read_slots(
    network: GroupingNetwork, images: Tensor, temperature: float, batch_size: int = 32
) -> dict[str, np.ndarray]:
    """What a network sees in images; see `SlotCon.slots`.

    Args:
        network: A `GroupingNetwork`.
        images: uint8 (B, height, width, 3), or normalised floats.
        temperature: Of the assignments.
        batch_size: Images at once.

    Returns:
        Dict of `slots`, `assignments`, `probabilities` and `active`.

    Raises:
        ValueError: If the images have another shape or are not normalised.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_prototypes": 3, "hidden_dim": 16, "projection_dim": 4}
        >>> network = GroupingNetwork(backbone("resnet10", width=8), **sizes)
        >>> images = np.zeros((1, 64, 64, 3), np.uint8)
        >>> read_slots(network, images, temperature=0.07)["slots"].shape
        (1, 3, 4)
    """
    images = _as_images(images, statistics_of(network.encoder))
    check_size("images", images.shape, network.encoder.input_shape)
    _check_batch_size(batch_size)
    parts = []
    for start in range(0, len(images), batch_size):
        part = tf.convert_to_tensor(images[start : start + batch_size])
        found = _read(network, part, temperature)
        parts.append({name: value.numpy() for name, value in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def unit_slots(
    projected: Tensor,
    assignment_logits: Tensor,
    temperature: float,
    indices: Tensor | None = None,
) -> Tensor:
    """Slots of length 1, pooled as in training.

    Args:
        projected: Projected map (B, H, W, D).
        assignment_logits, temperature, indices: See `objective.pool_slots`.

    Returns:
        (B, K, D), or (B, M, D) of `indices`; float32 or better.

    Example:
        >>> slots = unit_slots(tf.ones((1, 7, 7, 4)), tf.zeros((1, 7, 7, 3)), 0.07)
        >>> slots.shape, round(float(tf.norm(slots[0, 0])), 4)
        (TensorShape([1, 3, 4]), 1.0)
    """
    slots = pool_slots(projected, assignment_logits, temperature, indices)
    return l2_normalize(slots)


def check_called_on(inputs: Any) -> None:
    """Refuses what a model cannot be called on: a batch of pairs, grey levels.

    Example:
        >>> check_called_on(np.zeros((1, 64, 64, 3), np.float32))
    """
    if isinstance(inputs, dict):
        raise ValueError(
            "The model is called on normalised images (B, height, width, 3). "
            f"Received: a dict of {', '.join(inputs)}. Give one of its views, or "
            "take fit or evaluate, which read pairs of views."
        )
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if keras.backend.is_int_dtype(dtype):
        raise ValueError(
            "The model is called on normalised images (B, height, width, 3). "
            f"Received: {dtype}. Take model.slots(images), or "
            "(grey level / 255 - mean) / std."
        )


def _as_images(images: Tensor, statistics: ImageStatistics) -> np.ndarray:
    images = np.asarray(images)
    floating = np.issubdtype(images.dtype, np.floating)
    right = images.ndim == 4 and images.shape[-1] == 3 and len(images)
    if not right or not (floating or images.dtype == np.uint8):
        raise ValueError(
            "images must be RGB, (B, height, width, 3), uint8 or normalised floats. "
            f"Received: {images.dtype} of shape {images.shape}. One image is "
            "images[None]; images of several sizes go one size at a time."
        )
    if floating:
        check_normalised("images", images, statistics)
    return images


def _check_batch_size(batch_size: Any) -> None:
    try:
        right = operator.index(batch_size) >= 1
    except TypeError:
        right = False
    if not right:
        raise ValueError(
            "batch_size must be a whole number from 1 on: the images that go through "
            f"at once. Received: batch_size={batch_size!r}. Take 1 where memory is "
            "scarce."
        )


@tf.function(reduce_retracing=True, autograph=False)
def _read(
    network: GroupingNetwork, images: Tensor, temperature: float
) -> dict[str, Tensor]:
    if images.dtype == tf.uint8:
        statistics = statistics_of(network.encoder)
        images = statistics.normalize(tf.cast(images, tf.float32))
    found = network(images, training=False)
    logits = found["assignment_logits"]
    slots = unit_slots(found["projected"], logits, temperature)
    return {
        "slots": tf.cast(slots, tf.float32),
        "assignments": tf.argmax(logits, axis=-1, output_type=tf.int32),
        "probabilities": tf.cast(tf.nn.softmax(logits / temperature), tf.float32),
        "active": active_slots(logits),
    }
