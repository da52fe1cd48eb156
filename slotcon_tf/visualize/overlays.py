"""Regions over images: where they are, and their colours, lines and numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from slotcon_tf.visualize.colors import text_color


class Point(NamedTuple):
    """A pixel of a region, and its distance to the nearest pixel outside, in pixels.

    Example:
        >>> point = Point(label=3, row=10, column=20, radius=4.5)
        >>> point.column, point.radius
        (20, 4.5)
    """

    label: int
    row: int
    column: int
    radius: float


def region_points(labels: np.ndarray, least_radius: float = np.inf) -> list[Point]:
    """Points well inside the regions of a label map.

    Args:
        labels: int (H, W).
        least_radius: Besides each label's largest component, others are given if a
            circle of this radius in pixels fits into them.

    Returns:
        List of `Point`, by label, the largest component first. The border of the map
        counts as outside.

    Example:
        >>> labels = np.zeros((5, 9), int)
        >>> labels[:, 4:] = 1
        >>> region_points(labels)[1]
        Point(label=1, row=2, column=6, radius=3.0)
    """
    points = []
    for label in np.unique(labels):
        found: Any = ndimage.label(labels == label)
        components, count = found
        sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
        boxes = ndimage.find_objects(components)
        for rank, index in enumerate(np.argsort(-sizes, kind="stable")):
            if rank and sizes[index] < np.pi * least_radius**2 / 2:
                break
            box = boxes[index]
            inside = np.pad(components[box] == index + 1, 1)
            distance: Any = ndimage.distance_transform_edt(inside)
            row, column = np.unravel_index(distance.argmax(), distance.shape)
            radius = float(distance[row, column])
            if rank == 0 or radius >= least_radius:
                row, column = row - 1 + box[0].start, column - 1 + box[1].start
                points.append(Point(int(label), int(row), int(column), radius))
    return points


def _grown(region: np.ndarray, pixels: int) -> np.ndarray:
    """A region bool (H, W) and all pixels up to a distance from it."""
    if not region.any():
        return region.copy()
    return ndimage.distance_transform_edt(~region) <= pixels


OVERLAY = 0.6  # share of the group's colour
_BOUNDARY = np.array([255, 255, 255], np.uint8)
# Outside of a lit region the image is grey, from one level to another: dark things and
# bright ones both stand out of it.
_VEIL = (70, 150)
_TEXT_SHARE = 0.05  # height of numbers, of the picture's longer edge
_SMALLER, _SMALLEST_TEXT = 0.7, 11  # share of that, px
_ROOM = 0.7  # a further region is numbered if its radius has this share of a number


def overlay(
    image: np.ndarray, labels: np.ndarray, colors: np.ndarray, line: int = 1
) -> np.ndarray:
    """Colours of labels over an image, with white lines between regions.

    Args:
        image: uint8 (H, W, 3).
        labels: int (H, W); ids outside the colours (void) leave the image as it is.
        colors: uint8 (count, 3).
        line: Width of the lines in pixels.

    Returns:
        uint8 (H, W, 3).

    Example:
        >>> image, labels = np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=int)
        >>> colors = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
        >>> overlay(image, labels, colors).shape
        (4, 4, 3)
    """
    known = (labels >= 0) & (labels < len(colors))
    color = colors[np.where(known, labels, 0)].astype(np.float32)
    share = np.where(known, OVERLAY, 0.0)[..., None]
    out = (image * (1 - share) + color * share).astype(np.uint8)
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    if line > 1:
        edge = ndimage.binary_dilation(edge, np.ones((line, line), bool))
    out[edge] = _BOUNDARY  # pyright: ignore[reportCallIssue, reportArgumentType]
    return out


def numbered_overlay(
    image: np.ndarray, labels: np.ndarray, colors: np.ndarray
) -> np.ndarray:
    """`overlay` with numbers in the regions: nobody depends on colours alone.

    A number stands at the point of the label's largest component that is farthest
    from its border, and in further components that have the room. Larger regions come
    first; what would cover another number is written small, or left out.

    Args:
        image: uint8 (H, W, 3).
        labels: int (H, W) of ids below `len(colors)`.
        colors: uint8 (count, 3).

    Returns:
        uint8 (H, W, 3).

    Example:
        >>> from slotcon_tf.visualize import label_colors
        >>> image = np.zeros((64, 64, 3), np.uint8)
        >>> labels = np.repeat([[0, 1]], 32, axis=1).repeat(64, axis=0)
        >>> picture = numbered_overlay(image, labels, label_colors(2))
        >>> picture.shape
        (64, 64, 3)
    """
    edge = max(image.shape[:2])
    height = max(_SMALLEST_TEXT, round(_TEXT_SHARE * edge))  # px, of numbers
    line = max(2, round(edge / 250))
    picture = Image.fromarray(overlay(image, labels, colors, line))
    draw = ImageDraw.Draw(picture)
    small = max(_SMALLEST_TEXT, round(_SMALLER * height))
    fonts = [ImageFont.load_default(size) for size in (height, small)]
    points = region_points(labels, least_radius=_ROOM * height)
    written = []
    for point in sorted(points, key=lambda p: -p.radius):
        for font in fonts:
            text = _Text(draw, point, str(point.label), font, picture.size)
            if not any(text.covers(other) for other in written):
                text.draw()
                written.append(text)
                break
    return np.asarray(picture)


class _Text:
    """White text with a black rim, centred at a point but whole in the picture."""

    def __init__(self, draw, point, text, font, size):
        rim = max(1, round(font.size / 8))
        self._style = {"font": font, "anchor": "mm", "stroke_width": rim}
        self._draw, self._text = draw, text
        left, top, right, bottom = draw.textbbox((0, 0), text, **self._style)
        x = np.clip(point.column + 0.5, -left, max(-left, size[0] - right))
        y = np.clip(point.row + 0.5, -top, max(-top, size[1] - bottom))
        self._place = (float(x), float(y))
        self.box = (x + left, y + top, x + right, y + bottom)

    def covers(self, other):
        """Whether the two overlap."""
        (a, b, c, d), (e, f, g, h) = self.box, other.box
        return a < g and e < c and b < h and f < d

    def draw(self):
        self._draw.text(
            self._place, self._text, "white", stroke_fill="black", **self._style
        )


def spotlight(image: np.ndarray, region: np.ndarray, color: np.ndarray) -> np.ndarray:
    """An image grey and flat but for one region, which has a coloured outline.

    A black or white line runs outside of the coloured one, for contrast.

    Args:
        image: uint8 (H, W, 3).
        region: bool (H, W).
        color: uint8 (3,).

    Returns:
        uint8 (H, W, 3).

    Example:
        >>> image = np.full((32, 32, 3), 200, np.uint8)
        >>> region = np.zeros((32, 32), bool)
        >>> region[8:24, 8:24] = True
        >>> lit = spotlight(image, region, np.array([255, 160, 0], np.uint8))
        >>> lit[16, 16].tolist(), lit[16, 7].tolist(), lit[0, 0].tolist()
        ([200, 200, 200], [255, 160, 0], [132, 132, 132])
    """
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    veiled = _VEIL[0] + (_VEIL[1] - _VEIL[0]) / 255.0 * grey
    out = np.where(region[..., None], image, veiled.astype(np.uint8))
    width = max(2, round(max(region.shape) / 110))  # px
    inner, outer = _grown(region, width), _grown(region, width + max(1, width // 2))
    out[outer & ~inner] = text_color(color)
    out[inner & ~region] = color
    return out


def fit_edge(image: np.ndarray, largest: int, smallest: int = 1) -> np.ndarray:
    """Resizes an image so that its longer edge lies between two lengths.

    Args:
        image: uint8 (H, W, 3).
        largest, smallest: In pixels.

    Returns:
        uint8 (h, w, 3) of the same aspect; the image itself where it fits.

    Example:
        >>> fit_edge(np.zeros((480, 640, 3), np.uint8), largest=320).shape
        (240, 320, 3)
    """
    edge = max(image.shape[:2])
    wanted = min(max(edge, smallest), largest)
    if wanted == edge:
        return image
    height, width = (max(1, round(n * wanted / edge)) for n in image.shape[:2])
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)
