"""What bins of a box read along one axis of a map: samples, cells and weights."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from slotcon_tf.types import Tensor


def bin_weights(
    start: Tensor, length: Tensor, bins: int, cells: int | Tensor
) -> Tensor:
    """Weights of a map's cells in each bin of boxes, along one axis.

    A box is cut into `bins` bins; a bin has `ceil(length / bins)` samples, evenly
    spaced, which are averaged. A sample between two centres of cells has both, in
    proportion; one that is at most a cell outside has the outermost cell, and one
    beyond counts as 0, in the average too. A box without length has no samples: 0.

    Args:
        start: (R,) where boxes begin; cell i has its centre at i.
        length: (R,) in cells.
        bins: Of a box.
        cells: Of the map along this axis.

    Returns:
        (R, bins, cells).

    Example:
        >>> one = tf.constant([1.0])
        >>> bin_weights(one, 2 * one, 2, 4).numpy().tolist()
        [[[0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.5, 0.5]]]

    Reference: torchvision's roi_align, aligned, with adaptive sampling.
    """
    last = tf.reshape(tf.cast(cells - 1, start.dtype), (1, 1))
    samples = _samples(start, length, bins, last)
    return _weights(samples, tf.zeros_like(last), cells)


class _Samples(NamedTuple):
    """Where bins have their samples along one axis; a box has as many in every bin.

    begin: (R, bins), where bins begin; step: (R, 1), between samples; number: (R, 1),
    of a bin; low, high: (R, bins), the first one that counts and the first beyond;
    last: (R, 1) or (1, 1), the last cell.
    """

    begin: Tensor
    step: Tensor
    number: Tensor
    low: Tensor
    high: Tensor
    last: Tensor

    def at(self, k):
        return self.begin + (k + 0.5) * self.step

    def before(self, places):
        """How many of those that count are before places (R, bins, T)."""
        k = tf.math.ceil((places - self.begin[..., None]) / self.step[..., None] - 0.5)
        return tf.clip_by_value(k, self.low[..., None], self.high[..., None])


def _samples(start, length, bins, last):
    dtype, start = start.dtype, start[:, None]
    size = length[:, None] / bins  # of a bin
    number = tf.maximum(tf.math.ceil(size), 0)  # (R, 1)
    step = tf.where(number > 0, size / tf.maximum(number, 1), 1)
    begin = start + tf.cast(tf.range(bins), dtype) * size  # (R, bins)
    found = _Samples(begin, step, number, tf.zeros_like(begin), number, last)
    low, high = (
        _counted(found, limit, reaches)
        for limit, reaches in ((-1, tf.less), (last + 1, tf.less_equal))
    )
    return found._replace(low=low, high=tf.maximum(low, high))


def _counted(samples, limit, reaches):
    """How many samples are below a limit, to the last bit: what is beyond counts 0."""
    count = tf.math.ceil((limit - samples.begin) / samples.step) - 2
    count = tf.clip_by_value(count, 0, samples.number)
    for _ in range(3):  # the guess may be too small by so many
        more = reaches(samples.at(count), limit) & (count < samples.number)
        count += tf.cast(more, count.dtype)
    return count


def _weights(samples, first, cells):
    """Weights (R, bins, cells) of cells from the `first` on, (R, bins) or (1, 1).

    Samples on a cell's left and on its right are added up as arithmetic series.
    """
    dtype, one = samples.begin.dtype, samples.step[..., None]
    offsets = tf.cast(tf.range(-1, cells + 1), dtype)
    places = first[..., None] + offsets
    places = tf.broadcast_to(places, [*tf.unstack(tf.shape(samples.begin)), cells + 2])
    before = samples.before(places)  # (R, bins, cells + 2)
    counts = before[..., 1:] - before[..., :-1]  # between cells
    middle = before[..., 1:] + before[..., :-1]  # twice the mean number and a half
    middle = samples.begin[..., None] + 0.5 * middle * one
    cell = places[..., 1:-1]
    left, right = counts[..., :-1], counts[..., 1:]
    # Beyond the outermost cells' centres is that cell alone.
    left *= tf.where(cell > 0, middle[..., :-1] - cell + 1, 1)
    right *= tf.where(cell < samples.last[..., None], cell + 1 - middle[..., 1:], 1)
    return (left + right) / tf.maximum(samples.number, 1)[..., None]


class Taps(NamedTuple):
    """The cells that bins read along one axis.

    Attributes:
        counts: int32 (R, bins), how many.
        first: int32 (R, bins), the first one.
        weights: (R, bins, most), from the first one on.

    Example: See `taps`.
        >>> Taps._fields
        ('counts', 'first', 'weights')
    """

    counts: Tensor
    first: Tensor
    weights: Tensor

    def at(self, rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Cells, and weights, of the numbered reads of rows (of R * bins)."""
        most = tf.shape(self.weights)[-1]
        cells = tf.gather(tf.reshape(self.first, [-1]), rows) + numbers
        return cells, tf.gather(tf.reshape(self.weights, [-1]), rows * most + numbers)


def taps(
    start: Tensor, length: Tensor, bins: int, cells: Tensor, known: Tensor
) -> Taps:
    """The cells that bins of boxes read, and no others; see `bin_weights`.

    Args:
        start, length, bins: As `bin_weights` takes them.
        cells: int32 (R,), of the map that each box is of.
        known: bool (R,); bins of others read nothing.

    Example:
        >>> one = tf.constant([1.0])
        >>> found = taps(one, 2 * one, 2, tf.constant([4]), one > 0)
        >>> found.counts.numpy().tolist(), found.first.numpy().tolist()
        ([[2, 2]], [[1, 2]])
    """
    last = tf.cast(cells - 1, start.dtype)[:, None]
    samples = _samples(start, length, bins, last)
    some = (samples.high > samples.low) & known[:, None]  # (R, bins)
    ends = (samples.at(samples.low), samples.at(samples.high - 1))
    lowest, highest = (tf.where(some, tf.clip_by_value(x, 0, last), 0) for x in ends)
    first = tf.floor(lowest)
    beyond = tf.minimum(tf.floor(highest) + 1, last)
    counts = tf.where(some, tf.cast(beyond - first, tf.int32) + 1, 0)
    most = tf.maximum(tf.reduce_max(counts), 1)
    return Taps(counts, tf.cast(first, tf.int32), _weights(samples, first, most))
