"""ROI-align: the part of a map under a box, resampled to a grid of fixed size."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from slotcon_tf.detection.boxes import areas
from slotcon_tf.detection.pyramid import LEVELS
from slotcon_tf.detection.roi_samples import bin_weights, taps
from slotcon_tf.devices import at_least_float32
from slotcon_tf.types import Tensor

_LEVEL_EPSILON = 1e-8
CANONICAL_SIZE, CANONICAL_LEVEL = 224.0, 4  # a box of ImageNet's size is seen on p4


def level_of(boxes: Tensor, lowest: int = 2, highest: int = 5) -> Tensor:
    """The pyramid level on which a box is looked at: the larger, the coarser.

    `floor(4 + log2(sqrt(area) / 224))`, within the levels that there are.

    Args:
        boxes: (..., 4) in pixels.
        lowest, highest: Levels.

    Returns:
        int32 (...,).

    Example:
        >>> boxes = tf.constant([[0.0, 0, 112, 112], [0, 0, 500, 500]])
        >>> level_of(boxes).numpy().tolist()
        [3, 5]

    Reference: Lin et al. 2017 (arXiv 1612.03144), equation 1; detectron2's
    assign_boxes_to_levels.
    """
    scale = tf.sqrt(areas(boxes)) / CANONICAL_SIZE + _LEVEL_EPSILON
    level = CANONICAL_LEVEL + tf.math.log(scale) / tf.math.log(
        tf.constant(2, scale.dtype)
    )
    # A turned box has no area's root; where it is looked at does not matter.
    level = tf.where(tf.math.is_finite(level), tf.floor(level), lowest)
    return tf.cast(tf.clip_by_value(level, lowest, highest), tf.int32)


def roi_align(
    maps: Tensor,
    boxes: Tensor,
    images: Tensor,
    *,
    stride: int,
    bins: int,
    fixed_shapes: bool = False,
) -> Tensor:
    """Averages of a map in a grid of bins over each box; see `bin_weights`.

    Of one level, for those who have a map of their own; the detector's `pool_regions`
    is the same of all levels at once, by the same matrices.

    Cell (i, j) of a map has its centre at ((j + 0.5) * stride, (i + 0.5) * stride).
    No gradient flows to the boxes.

    Args:
        maps: (N, H, W, C).
        boxes: (R, 4) in pixels of the input.
        images: Integers (R,), of N; one out of range gives zeros.
        stride: Pixels between cells.
        bins: Along each edge.
        fixed_shapes: As two dense matrices per box over the whole map, which compile
            for XLA and suit accelerators; else only the cells under a box are read.

    Returns:
        (R, bins, bins, C), computed in float32 at least.

    Example:
        >>> maps, box = tf.ones((1, 8, 8, 3)), tf.constant([[0.0, 0, 16, 16]])
        >>> roi_align(maps, box, tf.constant([0]), stride=4, bins=7).shape
        TensorShape([1, 7, 7, 3])
    """
    images, dtype = tf.cast(images, tf.int32), maps.dtype
    maps = at_least_float32(maps)
    if fixed_shapes:
        found = _by_matrices(maps, boxes, images, bins, stride)
    else:
        levels = tf.zeros(tf.shape(boxes)[:1], tf.int32)
        found = _by_cells([maps], [stride], levels, boxes, images, bins)
    return tf.cast(found, dtype)


def _by_matrices(maps, boxes, images, bins, stride):
    boxes = tf.stop_gradient(tf.cast(boxes, maps.dtype)) / stride - 0.5
    height, width = (
        maps.shape[1] or tf.shape(maps)[1],
        maps.shape[2] or tf.shape(maps)[2],
    )
    rows = bin_weights(boxes[:, 1], boxes[:, 3] - boxes[:, 1], bins, height)
    columns = bin_weights(boxes[:, 0], boxes[:, 2] - boxes[:, 0], bins, width)
    number = maps.shape[0] or tf.shape(maps)[0]
    own = tf.one_hot(images, number, dtype=maps.dtype)  # (R, N)
    return tf.einsum("rn,riy,rjx,nyxc->rijc", own, rows, columns, maps)


def _by_cells(maps, strides, levels, boxes, images, bins):
    """A sparse matrix, of bins by cells, times the maps; no cell is read in vain.

    The cells of all maps are those of one, map after map.
    """
    dtype, channels = maps[0].dtype, maps[0].shape[-1]
    shapes = tf.stack([tf.shape(level)[:3] for level in maps])  # (L, 3)
    ends = tf.cumsum(tf.reduce_prod(shapes, axis=1))  # (L,)
    starts = tf.concat([[0], ends[:-1]], 0)
    height, width = (tf.gather(shapes[:, axis], levels) for axis in (1, 2))  # (R,)
    stride = tf.gather(tf.constant(strides, dtype), levels)
    boxes = tf.stop_gradient(tf.cast(boxes, dtype)) / stride[:, None] - 0.5
    known = (images >= 0) & (images < shapes[0, 0])
    y, x = (
        taps(boxes[:, axis], boxes[:, axis + 2] - boxes[:, axis], bins, cells, known)
        for axis, cells in ((1, height), (0, width))
    )
    # An entry for every pair of a row and a column of a bin, bins in their order.
    per_bin = tf.reshape(y.counts[:, :, None] * x.counts[:, None, :], [-1])  # (R*b*b,)
    bin_ids = tf.repeat(tf.range(tf.size(per_bin)), per_bin)  # (E,)
    place = tf.range(tf.size(bin_ids)) - tf.gather(
        tf.cumsum(per_bin, exclusive=True), bin_ids
    )
    box, row, column = bin_ids // bins**2, bin_ids // bins % bins, bin_ids % bins
    row, column = box * bins + row, box * bins + column  # of (R * bins)
    wide = tf.gather(tf.reshape(x.counts, [-1]), column)
    (y_cell, y_weight), (x_cell, x_weight) = (
        y.at(row, place // wide),
        x.at(column, place % wide),
    )
    first = tf.gather(starts, levels) + images * height * width  # (R,)
    cell = tf.gather(first, box) + y_cell * tf.gather(width, box) + x_cell
    entries = tf.cast(tf.stack([bin_ids, cell], axis=1), tf.int64)  # (E, 2)
    shape = tf.cast(tf.stack([tf.size(per_bin), ends[-1]]), tf.int64)
    matrix = tf.SparseTensor(entries, y_weight * x_weight, shape)
    flat = tf.concat([tf.reshape(level, (-1, channels)) for level in maps], axis=0)
    found: Tensor = _times(matrix, flat)
    return tf.reshape(found, (-1, bins, bins, channels))


@tf.custom_gradient
def _product(entries, values, shape, flat):
    matrix = tf.SparseTensor(entries, values, shape)

    def gradient(upstream):
        back = tf.sparse.sparse_dense_matmul(matrix, upstream, adjoint_a=True)
        return None, None, None, back

    return tf.sparse.sparse_dense_matmul(matrix, flat), gradient


def _times(matrix, flat):
    """Sparse matrix by dense one; the weights have no gradient."""
    return _product(matrix.indices, matrix.values, matrix.dense_shape, flat)


def pool_regions(
    maps: Mapping[str, Tensor],
    boxes: Tensor,
    images: Tensor,
    *,
    bins: int,
    fixed_shapes: bool = False,
) -> Tensor:
    """Every box from the level of its size; see `roi_align` and `level_of`.

    Args:
        maps: P2 .. P5, (N, H_l, W_l, C) of strides 4 .. 32.
        boxes: (R, 4) in pixels of the input.
        images: Integers (R,), of N.
        bins: Along each edge.
        fixed_shapes: See `roi_align`.

    Returns:
        (R, bins, bins, C), in the order of the boxes.

    Example:
        >>> maps = {f"P{i}": tf.ones((1, 64 >> i, 64 >> i, 3)) for i in range(2, 6)}
        >>> boxes = tf.constant([[0.0, 0, 64, 64], [8, 8, 20, 20]])
        >>> pool_regions(maps, boxes, tf.constant([0, 0]), bins=7).shape
        TensorShape([2, 7, 7, 3])

    Reference: detectron2's ROIPooler.
    """
    levels, images = level_of(boxes), tf.cast(images, tf.int32)
    strides = [2**number for number in range(2, 2 + len(LEVELS))]
    dtype, own = maps[LEVELS[0]].dtype, [at_least_float32(maps[x]) for x in LEVELS]
    if not fixed_shapes:
        found = _by_cells(own, strides, levels - 2, boxes, images, bins)
        return tf.cast(found, dtype)
    parts = [
        _by_matrices(level, boxes, tf.where(levels == number, images, -1), bins, stride)
        for number, (level, stride) in enumerate(zip(own, strides, strict=True), 2)
    ]
    return tf.cast(tf.add_n(parts), dtype)
