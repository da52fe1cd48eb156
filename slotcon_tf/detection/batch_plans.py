"""What each batch is made of, known before an image is read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slotcon_tf.detection.grouping import PairedOrder
from slotcon_tf.detection.pyramid import MULTIPLE
from slotcon_tf.detection.resize import shortest_edge_size

_DRAWS = 1  # in the seeds, beside `grouping.ORDER`


class Row(NamedTuple):
    """How an image comes into its batch.

    Attributes:
        index: Its number.
        size: Height and width that it is resized to.
        flipped: Whether left and right change places.
        padded: Height and width of the batch.

    Example:
        >>> Row(3, (48, 64), False, (64, 64)).size
        (48, 64)
    """

    index: int
    size: tuple[int, int]
    flipped: bool
    padded: tuple[int, int]


class BatchPlans:
    """Which images, how large, and how far they are padded, by position.

    A pure function of the images' sizes, the seed and the position.

    Args:
        image_sizes: Int (num_images, 2), height and width of each.
        short_edges, long_edge, batch_size, seed, fixed_sizes, flip: See
            `object_batches`.

    Raises:
        ValueError: If edges are none.

    Example:
        >>> sizes = np.array([[60, 80], [48, 64]])
        >>> options = {"short_edges": (48,), "long_edge": 96, "flip": False}
        >>> plans = BatchPlans(sizes, batch_size=2, seed=0, **options)
        >>> plans.row(0).size, plans.row(0).padded
        ((48, 64), (64, 64))
    """

    def __init__(
        self,
        image_sizes: np.ndarray,
        *,
        short_edges: Sequence[int],
        long_edge: int,
        batch_size: int,
        seed: int = 0,
        fixed_sizes: Sequence[tuple[int, int]] = (),
        flip: bool = True,
    ) -> None:
        edges = [*short_edges, long_edge]
        if len(edges) < 2 or min(edges) < 1:
            raise ValueError(
                "short_edges and long_edge must be pixels. Received: "
                f"short_edges={short_edges}, long_edge={long_edge}."
            )
        for size in fixed_sizes:
            if len(size) != 2 or min(size) < 1 or any(x % MULTIPLE for x in size):
                raise ValueError(
                    "fixed_sizes must be heights and widths that are multiples of "
                    f"{MULTIPLE}. Received: {size}."
                )
        self._image_sizes = image_sizes
        self._short_edges, self._long_edge = tuple(short_edges), long_edge
        self._batch_size, self._seed, self._flip = batch_size, seed, flip
        self._fixed = sorted(fixed_sizes, key=lambda size: size[0] * size[1])
        paired = batch_size % 2 == 0
        self._order = PairedOrder(image_sizes, seed=seed, paired=paired)
        self._batch = functools.lru_cache(64)(self._batch_of)

    def row(self, position: int) -> Row:
        """Of the image at a position of the stream."""
        step, place = divmod(position, self._batch_size)
        return self._batch(step)[place]

    def _batch_of(self, step):
        first = step * self._batch_size
        drawn = [self._drawn(first + place) for place in range(self._batch_size)]
        needed = tuple(max(size[axis] for _, size, _ in drawn) for axis in (0, 1))
        padded = self._padded(needed)
        return [Row(i, _within(size, padded), flip, padded) for i, size, flip in drawn]

    def _drawn(self, position):
        rng = np.random.default_rng([self._seed, _DRAWS, position])
        short = self._short_edges[rng.integers(len(self._short_edges))]
        flipped = self._flip and bool(rng.random() < 0.5)
        index = self._order.image(position)
        height, width = self._image_sizes[index].tolist()
        size = shortest_edge_size(height, width, short, self._long_edge)
        return index, size, flipped

    def _padded(self, needed):
        """Height and width of a batch of images that need so much."""
        if not self._fixed:
            height, width = (-(-edge // MULTIPLE) * MULTIPLE for edge in needed)
            return height, width
        # The first of the largest: the smallest one that holds them.
        return max(self._fixed, key=lambda size: min(_share(needed, size), 1.0))


def _share(size, padded):
    """What a size is multiplied by to reach the edges of another."""
    return min(padded[0] / size[0], padded[1] / size[1])


def _within(size, padded):
    """A size, shrunk where it is larger than another."""
    share = _share(size, padded)
    if share >= 1:
        return size
    height, width = (
        max(min(int(edge * share + 0.5), most), 1)
        for edge, most in zip(size, padded, strict=True)
    )
    return height, width
