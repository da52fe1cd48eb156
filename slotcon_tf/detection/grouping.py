"""In which order images come: endless shuffled passes, in pairs of one aspect."""

from __future__ import annotations

import functools

import numpy as np

ORDER = 0  # in the seeds, so that nothing else draws the same numbers


class PairedOrder:
    """Every image once a pass, in another order each time, paired with its like.

    Images come as they are shuffled; each waits for the next one that is as it is,
    landscape (wider than high) or not, also over the end of a pass. Pairs go out as
    they are whole. A pure function of (seed, position): no pass before is gone through.

    Args:
        sizes: Int (num_images, 2), height and width of each image.
        seed: Of the run.
        paired: Whether there are pairs, or images in the shuffled order alone.

    Example:
        >>> order = PairedOrder(np.array([[3, 4], [4, 3], [3, 4], [4, 3]]), seed=0)
        >>> first_pass = [order.image(position) for position in range(4)]
        >>> sorted(first_pass), abs(first_pass[0] - first_pass[1])
        ([0, 1, 2, 3], 2)

    Reference: detectron2's AspectRatioGroupedDataset.
    """

    def __init__(self, sizes: np.ndarray, *, seed: int, paired: bool = True) -> None:
        self.seed = seed
        self.paired = paired
        self._num_images = len(sizes)
        self._wide = sizes[:, 1] > sizes[:, 0]
        counts = [int(self._wide.sum()), int((~self._wide).sum())]
        self._counts = dict(zip((True, False), counts, strict=True))
        self._pairs = functools.lru_cache(4)(self._pairs_of)

    def image(self, position: int) -> int:
        """Number of the image at a position of the stream, from 0 on."""
        if not self.paired:
            number, place = divmod(position, self._num_images)
            return int(self._shuffled(number)[place])
        pair, member = divmod(position, 2)
        number = position // self._num_images
        while self._before(number) > pair:
            number -= 1
        while self._before(number + 1) <= pair:
            number += 1
        return int(self._pairs(number)[pair - self._before(number), member])

    def _before(self, number):
        """Pairs that are whole before a pass begins."""
        return sum(number * count // 2 for count in self._counts.values())

    def _shuffled(self, number):
        rng = np.random.default_rng([self.seed, ORDER, number])
        return rng.permutation(self._num_images)

    def _pairs_of(self, number):
        """Pairs that get whole in a pass: ints (pairs, 2)."""
        order = self._shuffled(number)
        pairs, whole = [], []
        for kind, count in self._counts.items():
            places = np.flatnonzero(self._wide[order] == kind)
            images = order[places]
            if number * count % 2:  # one waits since the pass before
                earlier = self._shuffled(number - 1)
                waiting = earlier[self._wide[earlier] == kind][-1:]
                images = np.concatenate([waiting, images])
                places = np.concatenate([[-1], places])
            count = len(images) // 2
            pairs.append(images[: 2 * count].reshape(count, 2))
            whole.append(places[1 : 2 * count : 2])
        return np.concatenate(pairs)[np.argsort(np.concatenate(whole))]
