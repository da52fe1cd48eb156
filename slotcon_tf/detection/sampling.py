"""Sampling: of very many boxes, a fixed number that losses are taken of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from slotcon_tf.detection.matching import BACKGROUND, FOREGROUND
from slotcon_tf.types import Tensor

# Function of candidates, bool (M,), how many are wanted, an int32 scalar of at most
# `most`, and `most`: which are taken, bool (M,).
Choice: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]


def random_choice(seed: Tensor) -> Choice:
    """Every subset of the candidates is as likely as any other.

    Args:
        seed: int (2,); the same seed chooses the same.

    Example:
        >>> choose = random_choice(tf.constant([0, 7]))
        >>> candidates = tf.constant([True, False, True, True])
        >>> taken = choose(candidates, tf.constant(2), 3)
        >>> int(tf.math.count_nonzero(taken & candidates))
        2
    """

    def choose(candidates: Tensor, wanted: Tensor, most: int) -> Tensor:
        # Whole numbers: of 24 bits of a float, some of 200,000 would be the same.
        limits = {
            "minval": 0,
            "maxval": tf.int32.max,
            "dtype": tf.int32,
            "alg": "philox",
        }
        lots = tf.random.stateless_uniform(tf.shape(candidates), seed, **limits)
        lots = tf.where(candidates, lots, -1)
        size: Tensor = candidates.shape[0] or tf.shape(lots)[0]
        count = min(most, size) if isinstance(size, int) else tf.minimum(most, size)
        drawn = tf.math.top_k(lots, count)
        taken = (tf.range(count) < wanted) & (drawn.values >= 0)
        return tf.scatter_nd(drawn.indices[:, None], taken, tf.shape(candidates))

    return choose


def sample(
    label: Tensor,
    number: int,
    positive_share: float,
    choose: Choice | tuple[Choice, Choice],
) -> tuple[Tensor, Tensor]:
    """Chooses foreground, up to a share of `number`, and fills with background.

    Args:
        label: (M,) of `match`.
        number: Wanted in all.
        positive_share: Of `number` that is foreground at most.
        choose: Of both, or of foreground and of background.

    Returns:
        Tuple of bool (M,), the foreground and the background that was taken; fewer
        than `number` where there are fewer.

    Example:
        >>> label = tf.constant([1, 0, -1, 1, 1])
        >>> choose = random_choice(tf.constant([0, 7]))
        >>> [int(x.numpy().sum()) for x in sample(label, 3, 0.67, choose)]
        [2, 1]

    Reference: detectron2's subsample_labels.
    """
    of_foreground, of_background = (
        choose if isinstance(choose, tuple) else (choose,) * 2
    )
    foreground, background = label == FOREGROUND, label == BACKGROUND
    most = int(number * positive_share)
    positives = tf.minimum(tf.math.count_nonzero(foreground, dtype=tf.int32), most)
    negatives = tf.math.count_nonzero(background, dtype=tf.int32)
    negatives = tf.minimum(negatives, number - positives)
    return (
        of_foreground(foreground, positives, most),
        of_background(background, negatives, number),
    )


def gathered(first: Tensor, second: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Places of what was taken, `first` before `second`, padded to a fixed number.

    Args:
        first, second: bool (..., M), disjoint.
        number: Of the result.

    Returns:
        Tuple of int32 (..., number) and bool (..., number), which are there; others
        are 0.

    Example:
        >>> places, there = gathered(*tf.constant([[False, True], [True, False]]), 3)
        >>> places.numpy().tolist(), there.numpy().tolist()
        ([1, 0, 0], [True, True, False])
    """
    missing = number if first.shape[-1] is None else max(number - first.shape[-1], 0)
    pads = [*[[0, 0]] * (first.shape.rank - 1), [0, missing]]
    rank = tf.where(first, 2, tf.where(second, 1, 0))
    found = tf.math.top_k(tf.pad(rank, pads), number)  # stable
    there = found.values > 0
    return tf.where(there, found.indices, 0), there
