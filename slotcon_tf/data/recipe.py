"""The random numbers of the recipe: which, how many, and what they decide.

An image's two views need `NUMBERS` uniform numbers. They are a function of the run's
seed and of the image's position in the stream alone.

Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from slotcon_tf.data.crops import NUMBERS_PER_PAIR
from slotcon_tf.types import Tensor

JITTER_PROBABILITY = 0.8
JITTER_STRENGTH = (0.4, 0.4, 0.2, 0.1)  # brightness, contrast, saturation, hue
GRAYSCALE_PROBABILITY = 0.2
BLUR_PROBABILITY = {"a": 1.0, "b": 0.1}
BLUR_SIGMA = (0.1, 2.0)  # pixels
SOLARIZE_PROBABILITY = {"a": 0.0, "b": 0.2}
NUMBERS_PER_DISTORTION = 13
NUMBERS = NUMBERS_PER_PAIR + 2 * NUMBERS_PER_DISTORTION


def draw_numbers(seed: int, position: Any) -> Tensor:
    """The uniform numbers of the image at a position of the stream.

    Args:
        seed: Of the run, whole number.
        position: int64 scalar; image 0 of step 0 has position 0.

    Returns:
        float32 (NUMBERS,) in [0, 1).

    Example:
        >>> draw_numbers(seed=0, position=5).shape == [NUMBERS]
        True
    """
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(position, tf.int64)])
    return tf.random.stateless_uniform([NUMBERS], key, alg="philox")


def draw_turns(seed: int, position: Any, vertical_flip: bool, rotate90: bool) -> Tensor:
    """The uniform numbers that turn the views of the image at a position.

    They come from a stream beside that of `draw_numbers`, which stays as it is.

    Args:
        seed, position: As of `draw_numbers`.
        vertical_flip, rotate90: Whether views are turned so at all.

    Returns:
        float32 (2, 2) in [0, 1]: for each view whether it is turned upside down, and
        by how many quarters, as `crops.turned_views` reads them.

    Example:
        >>> draw_turns(0, 5, vertical_flip=False, rotate90=False).numpy().tolist()
        [[1.0, 0.0], [1.0, 0.0]]
    """
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(position, tf.int64)])
    key = tf.random.experimental.stateless_fold_in(key, 1, alg="philox")  # pyright: ignore[reportAttributeAccessIssue]
    numbers = tf.random.stateless_uniform([2, 2], key, alg="philox")
    never = tf.constant([1.0, 0.0])  # not upside down, by no quarter
    return tf.where([vertical_flip, rotate90], numbers, never)


def distortions(numbers: Tensor) -> dict[str, dict[str, Tensor]]:
    """What `photometric.distort` does to each view.

    Args:
        numbers: float32 (B, NUMBERS), from `draw_numbers`.

    Returns:
        Dict "a", "b" of dicts: jitter bool (B,), factors float32 (B, 4), order int32
        (B, 4), grayscale bool (B,), blur_sigma float32 (B,) in pixels, 0 for none, and
        solarize bool (B,).

    Example:
        >>> parameters = distortions(draw_numbers(0, 5)[None])["b"]
        >>> parameters["factors"].shape
        TensorShape([1, 4])
    """
    parts = tf.split(
        numbers, [NUMBERS_PER_PAIR] + 2 * [NUMBERS_PER_DISTORTION], axis=-1
    )
    return {view: _distortion(u, view) for view, u in zip("ab", parts[1:], strict=True)}


def _distortion(u, view):
    low, high = BLUR_SIGMA
    blur = u[:, 3] < BLUR_PROBABILITY[view]
    return {
        "jitter": u[:, 0] < JITTER_PROBABILITY,
        "grayscale": u[:, 1] < GRAYSCALE_PROBABILITY,
        "solarize": u[:, 2] < SOLARIZE_PROBABILITY[view],
        "blur_sigma": tf.where(blur, low + (high - low) * u[:, 4], 0.0),
        "factors": (2.0 * u[:, 5:9] - 1.0) * JITTER_STRENGTH + [1.0, 1.0, 1.0, 0.0],
        "order": tf.argsort(u[:, 9:13], axis=-1),
    }
