"""Colours of labels: the same in every picture, told apart by colour-blind people."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np

# Okabe and Ito 2008 without black, an indigo, then each time the colour whose smallest
# distance (CIELAB) to all before it is largest, as seen with all three cones and, by
# the matrices of Machado et al. 2009, without the red or the green ones. Distances at
# that worst: 17 among the first eight, 15 among the first 24, 13 among all 32.
_NAMED = (
    *("#56B4E9", "#009E73", "#0072B2", "#E69F00", "#D55E00", "#CC79A7", "#F0E442"),
    *("#332288", "#0000FF", "#443311", "#00FF99", "#9955FF", "#553355", "#AAEEDD"),
    *("#EE1155", "#0011BB", "#CCAA55", "#00EEFF", "#7799FF", "#884400", "#88CC99"),
    *("#3355BB", "#992288", "#447744", "#AAEE66", "#44BBCC", "#662233", "#3344FF"),
    *("#2244CC", "#AA4477", "#CC6633", "#AABB77"),
)
_GOLDEN_RATIO = 0.618034
# Share of each channel in the luminance of linear light (Rec. 709).
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_MIDDLE = 0.179  # luminance at which black and white text have the same contrast


def label_colors(count: int) -> np.ndarray:
    """Colours of labels 0 .. count - 1: a label's colour depends on its id alone.

    The first 32 are picked by hand; the others walk around the hue circle while their
    brightness alternates, so that neighbours differ in more than hue.

    Args:
        count: Number of labels.

    Returns:
        uint8 (count, 3).

    Example:
        >>> label_colors(2).shape
        (2, 3)
    """
    colors = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in _NAMED]
    for index in range(len(colors), count):
        hue = (index * _GOLDEN_RATIO) % 1.0
        value, saturation = ((0.95, 0.45), (0.55, 0.8), (0.8, 0.65))[index % 3]
        rgb = colorsys.hsv_to_rgb(hue, saturation, value)
        colors.append(tuple(round(255 * c) for c in rgb))
    return np.array(colors[:count], np.uint8).reshape(-1, 3)


def matched_colors(
    num_groups: int, matching: Mapping[int, int], num_classes: int
) -> np.ndarray:
    """Colours of groups: of its class where a group has one, its own elsewhere.

    Args:
        num_groups: Number of groups.
        matching: Dict of group to class.
        num_classes: Number of classes; their colours are `label_colors(num_classes)`.

    Returns:
        uint8 (num_groups, 3).

    Example:
        >>> colors = matched_colors(3, {2: 0}, num_classes=2)
        >>> (colors[2] == label_colors(2)[0]).all()
        np.True_
    """
    colors = label_colors(num_classes + num_groups)
    return np.array(
        [
            colors[matching[g]] if g in matching else colors[num_classes + g]
            for g in range(num_groups)
        ]
    )


def hex_color(color: Sequence[int] | np.ndarray) -> str:
    """A colour, three numbers from 0 to 255, as `#rrggbb`.

    Example:
        >>> hex_color([255, 160, 0])
        '#ffa000'
    """
    return "#" + "".join(f"{int(c):02x}" for c in color)


def text_color(color: Sequence[int] | np.ndarray) -> np.ndarray:
    """Black or white, uint8 (3,), whichever reads better on a colour.

    Example:
        >>> text_color([255, 255, 0])  # black on yellow
        array([0, 0, 0], dtype=uint8)
    """
    share = np.asarray(color, np.float64) / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    level = 0 if linear @ _LUMINANCE > _MIDDLE else 255
    return np.full(3, level, np.uint8)
