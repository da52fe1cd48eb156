"""Objects over images: boxes, masks, names and scores, found ones beside true ones."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from slotcon_tf.files import write_whole
from slotcon_tf.visualize.colors import label_colors, text_color

EDGE, LEAST_EDGE = 640, 480  # px, longer edge of a drawn image
_TINT = 0.45  # share of the class's colour in a mask
_TEXT_SHARE = 0.026  # height of names, of the picture's longer edge
_SMALLEST_TEXT = 12  # px
_MARGIN = 10  # px, between pictures
_TITLE_HEIGHT = 30  # px


class Objects(NamedTuple):
    """Objects of one picture, in its pixels, the most certain first.

    Attributes:
        boxes: (n, 4), x1, y1, x2, y2.
        classes: Integers (n,).
        masks: bool (n, height, width); None: boxes only.
        scores: (n,); None of true objects.

    Example:
        >>> Objects(np.zeros((0, 4)), np.zeros(0, int)).scores is None
        True
    """

    boxes: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | None = None
    scores: np.ndarray | None = None


def polygon_masks(
    polygons: Sequence[Sequence[np.ndarray]], height: int, width: int
) -> np.ndarray:
    """Objects' polygons as masks to look at; scores have their own, exact ones.

    Args:
        polygons: A list for each object: corners (k, 2), x and y in pixels, of each
            polygon.
        height, width: Of the masks.

    Returns:
        bool (n, height, width).

    Example:
        >>> square = np.array([[1, 1], [3, 1], [3, 2], [1, 2]])
        >>> polygon_masks([[square]], 3, 5).astype(int).tolist()
        [[[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]]]
    """
    masks = np.zeros((len(polygons), height, width), bool)
    for mask, parts in zip(masks, polygons, strict=True):
        drawn = Image.new("1", (width, height))
        draw = ImageDraw.Draw(drawn)
        for corners in parts:
            draw.polygon([(float(x), float(y)) for x, y in corners], fill=1)
        mask[:] = np.asarray(drawn)
    return masks


def objects_overlay(
    image: np.ndarray, objects: Objects, class_names: Sequence[str]
) -> np.ndarray:
    """An image with its objects: masks in their class's colour, boxes, names, scores.

    The colours are those that the classes have in all pictures (`label_colors`). Names
    stand on their boxes' edge where they cover no other name.

    Args:
        image: uint8 (height, width, 3).
        objects: `Objects`.
        class_names: Names of the classes.

    Returns:
        uint8 (height, width, 3).

    Example:
        >>> image = np.zeros((120, 160, 3), np.uint8)
        >>> cat = Objects(np.array([[20, 30, 90, 100]]), np.array([0]), None, [0.9])
        >>> picture = objects_overlay(image, cat, ("cat", "dog"))
        >>> picture[30, 60].tolist() == label_colors(1)[0].tolist()
        True
    """
    edge = max(image.shape[:2])
    line = max(2, round(edge / 320))
    colors = label_colors(len(class_names))[np.asarray(objects.classes, int)]
    widths, heights = (objects.boxes[:, 2:] - objects.boxes[:, :2]).T
    pixels, large_first = image, np.argsort(-widths * heights, kind="stable")
    for number in large_first if objects.masks is not None else ():
        pixels = _tinted(pixels, objects.masks[number], colors[number], line)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for number in large_first:
        _draw_box(draw, objects.boxes[number], colors[number], line)
    font = ImageFont.load_default(max(_SMALLEST_TEXT, round(_TEXT_SHARE * edge)))
    tags: list[_Tag] = []
    for number, label in enumerate(objects.classes):
        text = str(class_names[label])
        if objects.scores is not None:
            text += f" {objects.scores[number]:.2f}"
        box, color = objects.boxes[number], colors[number]
        tags.append(_Tag(draw, text, font, box, color, line, tags))
    for tag in reversed(tags):  # what is most certain lies on top
        tag.draw()
    return np.asarray(picture)


def _tinted(image, mask, color, line):
    """The image with a mask in a colour, and a line of it around."""
    share = _TINT * mask[..., None]
    out = (image * (1 - share) + color * share).astype(np.uint8)
    inner = ndimage.binary_erosion(mask, iterations=line)
    out[mask & ~inner] = color
    return out


def _draw_box(draw, box, color, line):
    """A box in a colour, with a thin dark line around: it shows on any image."""
    x1, y1, x2, y2 = (float(x) for x in np.round(box))
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="black")
    draw.rectangle((x1, y1, x2, y2), outline=tuple(map(int, color)), width=line)


class _Tag:
    """A name on its class's colour, at its box, where it covers no other if it can."""

    def __init__(self, draw, text, font, box, color, line, others):
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        pad = max(2, line)
        width, height = right - left + 2 * pad, bottom - top + 2 * pad
        x1, y1, x2, y2 = (float(value) for value in box)
        places = [
            (x1, y1 - height),  # above the box
            (x1, y1),  # within it
            (x2 - width, y1 - height),
            (x1, y2),  # below it
            (x2 - width, y1),
            (x1, y2 - height),
            (x2 - width, y2),
            (x2 - width, y2 - height),
        ]
        most = np.maximum(0, np.array(draw.im.size) - [width, height])
        choices = []
        for rank, place in enumerate(places):
            x, y = (float(value) for value in np.clip(place, 0, most))
            room = (x, y, x + width, y + height)
            covered = sum(_common(room, other.room) for other in others)
            # What the picture's edge moves may lie on something else.
            choices.append((covered, (x, y) != place, rank, room))
        *_, self.room = min(choices)
        self._draw, self._text, self._font, self._color = draw, text, font, color
        self._place = (self.room[0] + pad - left, self.room[1] + pad - top)

    def draw(self):
        fill, ink = (tuple(map(int, c)) for c in (self._color, text_color(self._color)))
        self._draw.rectangle(self.room, fill=fill)
        self._draw.text(self._place, self._text, fill=ink, font=self._font)


def _common(one, two):
    """Pixels that two boxes share."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    return max(width, 0) * max(height, 0)


def side_by_side(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]
) -> np.ndarray:
    """Pictures in rows on white, with titles above the columns.

    Args:
        rows: Lists of uint8 (height, width, 3), of any sizes.
        titles: Of the columns.

    Returns:
        uint8 (height, width, 3).

    Example:
        >>> pictures = [np.zeros((30, 40, 3), np.uint8)] * 2
        >>> side_by_side([pictures, pictures], ("truth", "found")).shape
        (120, 90, 3)
    """
    widths = [max(row[i].shape[1] for row in rows) for i in range(len(titles))]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    whole = (
        sum(widths) + _MARGIN * (len(widths) - 1),
        _TITLE_HEIGHT + sum(heights) + _MARGIN * (len(heights) + 1),
    )
    page = Image.new("RGB", whole, "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(18)
    x = 0
    for width, title in zip(widths, titles, strict=True):
        place = (x + width / 2, (_MARGIN + _TITLE_HEIGHT) / 2)
        draw.text(place, title, fill="black", font=font, anchor="mm")
        x += width + _MARGIN
    y = _TITLE_HEIGHT + _MARGIN
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for width, picture in zip(widths, row, strict=True):
            free = width - picture.shape[1]
            page.paste(Image.fromarray(picture), (x + free // 2, y))
            x += width + _MARGIN
        y += height + _MARGIN
    return np.asarray(page)


def write_png(path: str | pathlib.Path, pixels: np.ndarray) -> None:
    """Writes a picture, whole or not at all.

    Args:
        path: File; its folder is made.
        pixels: uint8 (height, width, 3).

    Example:
        >>> write_png("a.png", np.zeros((2, 3, 3), np.uint8))
        >>> Image.open("a.png").size
        (3, 2)
    """
    write_whole(path, lambda file: Image.fromarray(pixels).save(file, "PNG"))
