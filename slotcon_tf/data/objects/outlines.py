"""Outlines of objects: polygons, run lengths, masks, and one made of another."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

# A list of polygons (k, 2); run lengths as COCO has them, {"size", "counts"}; the bytes
# of an image that is not 0 inside; or None where nothing can be used.
Outline = list[np.ndarray] | dict[str, Any] | bytes | None

# Pixels between a traced outline and its simpler form. The outline keeps 0.35 from the
# centres of pixels, and COCO's fill rounds by 0.1: the same pixels are filled.
_TOLERANCE = 0.25


def polygons_of(outline: Outline) -> list[np.ndarray]:
    """Polygons float64 (k, 2) of an outline, traced where it is none.

    Example:
        >>> polygons_of({"size": [2, 3], "counts": [2, 2, 2]})[0].tolist()
        [[1.0, 0.5], [1.5, 0.0], [2.0, 0.5], [2.0, 1.5], [1.5, 2.0], [1.0, 1.5]]
    """
    if outline is None or isinstance(outline, list):
        return outline or []
    return trace(mask_of(outline))


def mask_of(outline: dict[str, Any] | bytes) -> np.ndarray:
    """bool (height, width) of run lengths, or of an image.

    Example:
        >>> mask_of({"size": [2, 3], "counts": [2, 2, 2]}).astype(int).tolist()
        [[0, 1, 0], [0, 1, 0]]
    """
    if isinstance(outline, bytes):
        pixels = np.asarray(Image.open(io.BytesIO(outline)))
        return np.any(pixels.reshape(*pixels.shape[:2], -1), axis=-1)
    counts = counts_of(outline)
    values = np.arange(len(counts)) % 2 == 1
    height, width = outline["size"]
    return np.repeat(values, counts).reshape(width, height).T


def counts_of(outline: dict[str, Any]) -> list[int]:
    """Run lengths of {"size", "counts"}, unpacked if `counts` is a text.

    Example:
        >>> counts_of({"size": [2, 3], "counts": "222"})
        [2, 2, 2]
        >>> counts_of({"size": [2, 5], "counts": "2220"})
        [2, 2, 2, 2]

    Raises:
        ValueError: If a text is cut off.

    Reference: pycocotools' rleFrString: 5 bits a character, the lowest first, the sixth
    says that more follow; from the fourth number on the difference to the last but one.
    """
    packed = outline["counts"]
    if isinstance(packed, list):
        return packed
    counts, value, shift = [], 0, 0
    for code in packed.encode() if isinstance(packed, str) else packed:
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        value, shift = 0, 0
    if shift:
        raise ValueError("its last number is cut off")
    return counts


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths of a mask bool (height, width), not packed.

    Example:
        >>> run_lengths(np.array([[0, 1, 0], [0, 1, 0]], bool))
        {'size': [2, 3], 'counts': [2, 2, 2]}
    """
    flat = mask.T.ravel()  # columns after each other
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff(np.concatenate([[0], changes, [flat.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons around the parts of a mask, which COCO's fill fills to the mask.

    A polygon goes midway between the centres of pixels in and out. Holes are reached
    and left on one line, which a fill by odd and even does not see.

    Args:
        mask: bool (height, width).

    Returns:
        List of float64 (k, 2), corners x, y in pixels; pixel (0, 0) has its centre at
        (0.5, 0.5).

    Example:
        >>> ring = np.ones((5, 5), bool)
        >>> ring[2, 2] = False
        >>> (polygon,) = trace(ring)
        >>> len(polygon)
        14
    """
    import contourpy  # here: most sets have polygons

    padded = np.pad(mask, 1).astype(float)
    kind = contourpy.FillType.OuterOffset
    parts = contourpy.contour_generator(z=padded, fill_type=kind).filled(0.5, 2.0)
    found = []
    for points, offsets in zip(*parts, strict=True):
        ends = zip(offsets[:-1], offsets[1:], strict=True)
        rings = [_simple(points[a:b] - 0.5) for a, b in ends]
        # A ring's last corner is its first again: the way to the next one and back.
        back = [ring[-1:] for ring in rings[-2:0:-1]]
        found.append(np.concatenate([*rings, *back])[: None if rings[1:] else -1])
    return found


def fewer_corners(polygons: list[np.ndarray], most: int) -> list[np.ndarray]:
    """Polygons of at most so many corners together, as near as they can be.

    Corners near the line of others go first, from half a pixel on; with them parts
    that are as thin as that.

    Args:
        polygons: float64 (k, 2) each, of one object.
        most: Corners, 4 at least.

    Example:
        >>> angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
        >>> circle = 50 + 40 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        >>> len(fewer_corners([circle], 32)[0])
        32
    """
    tolerance, found = 0.5, polygons
    while sum(map(len, found)) > most:
        closed = (np.concatenate([polygon, polygon[:1]]) for polygon in polygons)
        found = [_simple(ring, tolerance)[:-1] for ring in closed]
        found = [polygon for polygon in found if len(polygon) > 2]
        tolerance *= 2
    if polygons and not found:
        corners = np.concatenate(polygons)
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        found = [np.array([[left, top], [right, top], [right, bottom], [left, bottom]])]
    return found


def _simple(ring, tolerance=_TOLERANCE):
    """A closed ring without the corners that lie near the line of others.

    Reference: Douglas and Peucker 1973.
    """
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    kept, spans = {0, far, len(ring) - 1}, [(0, far), (far, len(ring) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        along = ring[last] - ring[first]
        away = ring[first + 1 : last] - ring[first]
        away = np.abs(away[:, 0] * along[1] - away[:, 1] * along[0])
        worst = int(away.argmax())
        if away[worst] > tolerance * np.hypot(*along):
            middle = first + 1 + worst
            kept.add(middle)
            spans += [(first, middle), (middle, last)]
    return ring[sorted(kept)]


def area_of(outline: Outline) -> float:
    """Pixels inside an outline; NaN where there is none.

    Example:
        >>> area_of([np.array([[0, 0], [2, 0], [2, 3]])])
        3.0
    """
    if isinstance(outline, dict):
        return float(sum(counts_of(outline)[1::2]))
    if isinstance(outline, bytes):
        return float(mask_of(outline).sum())
    if not outline:
        return float("nan")
    return sum(_polygon_area(polygon) for polygon in outline)


def _polygon_area(corners):
    x, y = np.asarray(corners, float).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def segmentation_of(outline: Outline) -> Any:
    """A `segmentation` of COCO's layout, for scoring; None where there is none.

    Example:
        >>> segmentation_of([np.array([[0, 0], [2, 0], [2, 3]])])
        [[0.0, 0.0, 2.0, 0.0, 2.0, 3.0]]
    """
    if isinstance(outline, bytes):
        return run_lengths(mask_of(outline))
    if not isinstance(outline, list):
        return outline
    return [polygon.astype(float).ravel().tolist() for polygon in outline]
