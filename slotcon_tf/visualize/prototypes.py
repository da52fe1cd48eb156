"""Prototypes over many images: how much each is used, and its nearest images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from slotcon_tf.visualize.maps import ImageMaps, groups_at
from slotcon_tf.visualize.overlays import fit_edge

THUMBNAIL = 240  # px, longer edge


class Usage(NamedTuple):
    """How positions spread over prototypes.

    Attributes:
        shares: float (K,), share of the positions that each prototype wins; sum 1.
        order: int (K,), prototypes by falling share, low numbers first among equals.
        entropy: In bits; log2(K) at most.
        perplexity: 2 ** entropy: as many prototypes used equally would have it.
        unused: Number of prototypes that win nowhere.

    Example:
        >>> usage = usage_of(np.array([6, 2, 0, 0]))
        >>> usage.order.tolist(), usage.unused
        ([0, 1, 2, 3], 2)
    """

    shares: np.ndarray
    order: np.ndarray
    entropy: float
    perplexity: float
    unused: int


def usage_of(counts: np.ndarray) -> Usage:
    """`Usage` of counts.

    Args:
        counts: int (K,), positions that each prototype wins.

    Raises:
        ValueError: If no position is counted.

    Example:
        >>> usage = usage_of(np.array([5, 5, 0]))
        >>> usage.shares, usage.perplexity
        (array([0.5, 0.5, 0. ]), 2.0)
    """
    counts = np.asarray(counts, np.float64)
    if not counts.sum() > 0:
        raise ValueError(
            "counts must hold one position at least. Received: none. Give images."
        )
    shares = counts / counts.sum()
    used = shares[shares > 0]
    entropy = float(max(0.0, -(used * np.log2(used)).sum()))
    order = np.argsort(-shares, kind="stable")
    return Usage(shares, order, entropy, 2.0**entropy, int((shares == 0).sum()))


def nearest_images(
    similarity: np.ndarray, active: np.ndarray, count: int
) -> np.ndarray:
    """The images whose slot is nearest to a prototype.

    Reference: the original's viz_slots ranks all images by the mean cosine of the
    positions that a prototype wins. Differs: the rank is the cosine of the slot itself,
    which the contrastive loss compares, and only among images with the prototype.

    Args:
        similarity: float (N,), cosine of each image's slot and the prototype.
        active: bool (N,), whether the prototype wins a position of the image.
        count: Images wanted at most.

    Returns:
        int (n,), n <= count, the nearest first, early images first among equals.

    Example:
        >>> active = np.array([True, True, False])
        >>> nearest_images(np.array([0.2, 0.8, 0.9]), active, count=5)
        array([1, 0])
    """
    found = np.flatnonzero(active)
    order = np.argsort(-np.asarray(similarity)[found], kind="stable")
    return found[order[:count]]


class PrototypeAtlas:
    """Collects, image by image, what the pictures of prototypes need.

    Small pictures and label maps are kept, and no map of features: some thousand images
    fit into memory.

    Args:
        num_prototypes: K.

    Example:
        >>> logits = np.zeros((2, 2, 3), np.float32)
        >>> logits[..., 1] = 1
        >>> maps = ImageMaps(logits, logits, np.array([0.1, 0.9, 0.3]))
        >>> atlas = PrototypeAtlas(3)
        >>> atlas.add("cat.jpg", np.zeros((64, 64, 3), np.uint8), maps)
        >>> atlas.nearest(1, count=5), atlas.usage().unused
        ([(0, 0.9)], 2)
    """

    def __init__(self, num_prototypes: int) -> None:
        self.num_prototypes = num_prototypes
        self.names = []
        self._counts = np.zeros(num_prototypes, np.int64)
        self._similarity, self._active = [], []
        self._thumbnails, self._groups, self._winners = [], [], []

    def __len__(self):
        return len(self.names)

    def add(self, name: str, image: np.ndarray, maps: ImageMaps) -> None:
        """Adds an image.

        Args:
            name: For its caption.
            image: uint8 (height, width, 3).
            maps: Its `ImageMaps`.
        """
        winners = maps.winners
        counts = np.bincount(winners.ravel(), minlength=self.num_prototypes)
        small = fit_edge(image, THUMBNAIL, THUMBNAIL)
        self.names.append(name)
        self._counts += counts
        self._active.append(counts > 0)
        self._similarity.append(maps.similarity)
        self._thumbnails.append(small)
        self._groups.append(groups_at(maps.logits, small.shape[:2]))  # pyright: ignore[reportArgumentType]
        self._winners.append(winners.astype(np.int32))

    def usage(self) -> Usage:
        """`Usage` over all positions of all images."""
        return usage_of(self._counts)

    def num_images(self, prototype: int) -> int:
        """Number of images in which a prototype is active."""
        return int(sum(active[prototype] for active in self._active))

    def nearest(self, prototype: int, count: int) -> list[tuple[int, float]]:
        """See `nearest_images`; pairs of an image's number and its cosine."""
        similarity = np.array([s[prototype] for s in self._similarity])
        active = np.array([a[prototype] for a in self._active], bool)
        found = nearest_images(similarity, active, count)
        return [(int(i), float(similarity[i])) for i in found]

    def region(self, number: int, prototype: int) -> tuple[np.ndarray, np.ndarray]:
        """A small picture and a prototype's region in it.

        Args:
            number: Of the image, in the order of `add`.
            prototype: Its id.

        Returns:
            Tuple of uint8 (h, w, 3) and bool (h, w).
        """
        picture = self._thumbnails[number]
        region = self._groups[number] == prototype
        if not region.any():  # won between the pixels of the small picture
            winners = self._winners[number]
            rows, columns = (
                np.arange(n) * m // n
                for n, m in zip(picture.shape[:2], winners.shape, strict=True)
            )
            region = winners[rows[:, None], columns] == prototype
        return picture, region
