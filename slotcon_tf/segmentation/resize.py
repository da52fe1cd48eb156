"""Bilinear resizing of maps as two matrices, with torch's two conventions."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from slotcon_tf.types import Tensor


def bilinear_matrix(
    length: int | Tensor,
    size: int | Tensor,
    *,
    align_corners: bool,
    dtype: str = "float32",
) -> Tensor:
    """Weights of each input in each output along one axis.

    Pixel centres: with `align_corners` the first and last centres of both grids
    coincide, output i lies at `i * (length - 1) / (size - 1)`; without it the outer
    edges do, output i lies at `(i + 0.5) * length / size - 0.5`, moved into the grid.
    Nothing is smoothed where the grid shrinks.

    Args:
        length: Inputs, int or int32 scalar.
        size: Outputs, int or int32 scalar.
        align_corners: See above.
        dtype: Of the result.

    Returns:
        (size, length); rows sum to 1.

    Reference: torch.nn.functional.interpolate(mode="bilinear").

    Example:
        >>> bilinear_matrix(2, 3, align_corners=True).numpy().tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    last = ops.cast(length - 1, dtype)
    places = ops.cast(ops.arange(size), dtype)  # (size,)
    if align_corners:
        places *= last / ops.cast(ops.maximum(size - 1, 1), dtype)
    else:
        places = (places + 0.5) * ((last + 1.0) / ops.cast(size, dtype)) - 0.5
    places = ops.clip(places, 0.0, last)
    inputs = ops.cast(ops.arange(length), dtype)  # (length,)
    return ops.relu(1.0 - ops.abs(places[:, None] - inputs))


def resize_bilinear(
    maps: Tensor, size: Sequence[int | Tensor], *, align_corners: bool
) -> Tensor:
    """Resizes maps; differentiable, compiles for XLA where sizes are static.

    Args:
        maps: (B, h, w, C) float32 or float64.
        size: Pair of height and width.
        align_corners: See `bilinear_matrix`.

    Returns:
        (B, height, width, C).

    Example:
        >>> maps = ops.reshape(ops.array([0.0, 1.0]), (1, 1, 2, 1))
        >>> resize_bilinear(maps, (1, 4), align_corners=False).numpy().ravel().tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    shape, dtype = ops.shape(maps), maps.dtype
    rows, columns = (
        bilinear_matrix(shape[a], size[a - 1], align_corners=align_corners, dtype=dtype)
        for a in (1, 2)
    )
    maps = ops.einsum("yh,bhwc->bywc", rows, maps)  # (B, height, w, C)
    return ops.einsum("xw,bywc->byxc", columns, maps)  # (B, height, width, C)
