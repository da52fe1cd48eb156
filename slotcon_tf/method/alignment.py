"""Inverse augmentation: two views' maps brought onto the scene both of them show.

Frames. A map of H x W cells covers [0, 1] x [0, 1] of its crop; cell (i, j) has its
centre at ((j + 0.5) / W, (i + 0.5) / H), x before y (half-pixel centres). An overlap
box is (x_min, y_min, x_max, y_max) in that frame, of the view as the network sees it:
after the crop's flips and turns.
"""

from keras import ops


def _sampling_matrix(low, high, size, dtype):
    """Bilinear weights that read `size` evenly spaced samples of [low, high].

    Args:
        low, high: (B,) box edges along one axis, in [0, 1].
        size: Number of cells of the map, and of the samples.

    Returns:
        (B, size samples, size cells). Rows of an empty or inverted box are 0, as are
        samples more than one cell outside the map.
    """
    low = ops.cast(low, dtype)[:, None] * size  # (B, 1), in cells
    extent = ops.cast(high, dtype)[:, None] * size - low
    cells = ops.arange(size, dtype=dtype)
    position = low - 0.5 + (cells + 0.5) * (extent / size)  # (B, samples)
    inside = (position >= -1.0) & (position <= size) & (extent > 0.0)
    position = ops.clip(position, 0.0, size - 1.0)
    # A hat function around each cell's centre is linear interpolation.
    weights = ops.relu(1.0 - ops.abs(position[..., None] - cells))
    return weights * ops.cast(inside[..., None], dtype)


def align(maps, overlap, flipped, upended=None, transposed=None):
    """ROI-align of the overlap box to the full grid, then flips and turns undone.

    Exactly torchvision's `roi_align(..., aligned=True)` with adaptive sampling for
    every box no larger than the map: such a box takes one sample per cell, so the
    operation is a matrix on the rows and one on the columns. A flip reverses the
    order of a matrix's samples. Boxes without area give zeros.

    Args:
        maps: (B, H, W, K).
        overlap: (B, 4) boxes (x_min, y_min, x_max, y_max) in the crop's frame.
        flipped: bool (B,), whether the crop was flipped horizontally.
        upended: bool (B,), whether it was flipped vertically; None: none was.
        transposed: bool (B,), whether rows and columns changed places before the flips
            (`slotcon_tf.data.crops`), for square maps; None: of none.

    Returns:
        (B, H, W, K), in the scene's orientation.

    Reference: Wen et al. 2022 (arXiv 2205.15288), section 3.2.
    """
    height, width = maps.shape[1:3]
    x_min, y_min, x_max, y_max = ops.unstack(overlap, num=4, axis=-1)
    rows = _sampling_matrix(y_min, y_max, height, maps.dtype)  # (B, H', H)
    columns = _sampling_matrix(x_min, x_max, width, maps.dtype)  # (B, W', W)
    columns = ops.where(flipped[:, None, None], ops.flip(columns, axis=1), columns)
    if upended is not None:
        rows = ops.where(upended[:, None, None], ops.flip(rows, axis=1), rows)
    aligned = ops.einsum("bih,bjw,bhwk->bijk", rows, columns, maps)
    if transposed is None:
        return aligned
    if height != width:
        raise ValueError(
            "Views that were turned by quarters must give square maps. "
            f"Received: {height} x {width} cells. Leave rotate90 out."
        )
    other = ops.swapaxes(aligned, 1, 2)
    return ops.where(transposed[:, None, None, None], other, aligned)
