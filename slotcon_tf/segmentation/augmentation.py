"""What training does to an image and its labels: resize, cut, flip, change colours.

Frames: pixels, x to the right, y down. Boxes are (left, top, right, bottom), and may
have fractions: the source box of a cut of the resized image.

Reference: mmsegmentation's RandomResize, RandomCrop, RandomFlip and
PhotoMetricDistortion. Differs: images that shrink are resized with antialias (Pillow),
where OpenCV takes single pixels; hue and saturation change in floats, not in OpenCV's
8-bit HSV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from slotcon_tf.data.labelled import VOID

CAT_TRIES = 10  # crops that are tried for `cat_max_ratio`
FLIP_PROBABILITY = 0.5
DISTORTION_PROBABILITY = 0.5  # of each of the four operations
BRIGHTNESS_DELTA = 32  # grey levels
CONTRAST_RANGE = SATURATION_RANGE = (0.5, 1.5)
HUE_DELTA = 18  # of 180, OpenCV's full circle


def _fitting_scale(height: int, width: int, scale: Sequence[int]) -> float:
    """Factor by which an image just fits into (long edge, short edge), pixels."""
    longer, shorter = max(scale), min(scale)
    return min(longer / max(height, width), shorter / min(height, width))


def fitted_size(height: int, width: int, scale: Sequence[int]) -> tuple[int, int]:
    """Height and width of an image that was resized to fit, the aspect kept.

    Example:
        >>> fitted_size(480, 640, (2048, 512))
        (512, 683)
    """
    factor = _fitting_scale(height, width, scale)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


@dataclass(frozen=True)
class Augmentation:
    """The random changes of one protocol.

    Attributes:
        scale: (long, short), pixels: what images fit into, before the random factor.
        crop_size: Edge of the square that is cut, pixels.
        ratios: Range of the random factor, uniform.
        cat_max_ratio: Largest share of one class among a crop's valid pixels; crops
            are drawn up to `CAT_TRIES` times for it. 1 takes the first.
        flip: Probability of a horizontal flip.
        distort: Whether `distort_colors` follows.

    Example:
        >>> augment = Augmentation(scale=(64, 48), crop_size=32, ratios=(1.0, 1.0))
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> labels = np.zeros((48, 64), np.uint8)
        >>> crop, _ = augment(image, labels, np.random.default_rng(0))
        >>> crop.shape
        (32, 32, 3)
    """

    scale: tuple
    crop_size: int
    ratios: tuple = (0.5, 2.0)
    cat_max_ratio: float = 1.0
    flip: float = FLIP_PROBABILITY
    distort: bool = False

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """One random crop.

        Args:
            image: uint8 (height, width, 3).
            labels: uint8 (height, width).
            rng: numpy Generator, which decides everything.

        Returns:
            Tuple of uint8 (h, w, 3) and uint8 (h, w); h and w are `crop_size`, or less
            where the resized image is smaller.
        """
        height, width = labels.shape
        ratio = rng.uniform(*self.ratios)
        long, short = (max(1, int(edge * ratio)) for edge in self.scale)
        size = fitted_size(height, width, (long, short))
        pixels, classes = Image.fromarray(image), Image.fromarray(labels)
        for _ in range(CAT_TRIES):
            box, cut = self._box(size, (height, width), rng)
            found = np.asarray(classes.resize(cut, Image.Resampling.NEAREST, box))
            if self._varied(found):
                break
        else:
            box, cut = self._box(size, (height, width), rng)
            found = np.asarray(classes.resize(cut, Image.Resampling.NEAREST, box))
        # Only the cut is resized, by the same grid as the whole image would be.
        image = np.asarray(pixels.resize(cut, Image.Resampling.BILINEAR, box))
        if rng.uniform() < self.flip:
            image, found = image[:, ::-1], found[:, ::-1]
        if self.distort:
            image = distort_colors(image, rng)
        return np.ascontiguousarray(image), np.ascontiguousarray(found)

    def _box(self, size, original, rng):
        """A crop of the resized image: its box in the original; its width, height."""
        cut = [min(self.crop_size, edge) for edge in size]
        first = [
            rng.integers(0, edge - c + 1) for edge, c in zip(size, cut, strict=True)
        ]
        (top, bottom), (left, right) = (
            (o * f / s, min(o * (f + c) / s, o))
            for f, c, s, o in zip(first, cut, size, original, strict=True)
        )
        return (left, top, right, bottom), (cut[1], cut[0])

    def _varied(self, labels):
        if self.cat_max_ratio >= 1:
            return True
        counts = np.bincount(labels.ravel(), minlength=VOID + 1)
        counts[VOID] = 0
        share = counts.max() / max(counts.sum(), 1)
        return np.count_nonzero(counts) > 1 and share < self.cat_max_ratio


def distort_colors(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue, each with probability 0.5.

    Contrast comes before saturation and hue or after them, with equal probability.

    Args:
        image: uint8 (H, W, 3).
        rng: numpy Generator.

    Returns:
        uint8 (H, W, 3).

    Example:
        >>> image = np.full((2, 3, 3), 100, np.uint8)
        >>> found = distort_colors(image, np.random.default_rng(1))
        >>> found.shape, found.dtype.name, bool((found == image).all())
        ((2, 3, 3), 'uint8', False)
    """

    def chosen():
        return rng.uniform() < DISTORTION_PROBABILITY

    pixels = image.astype(np.float32)
    if chosen():
        pixels = _levels(pixels + rng.uniform(-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA))
    contrast_first, contrast = chosen(), chosen()
    factor = rng.uniform(*CONTRAST_RANGE)
    if contrast and contrast_first:
        pixels = _levels(pixels * factor)
    if chosen():
        pixels = _levels(change_saturation(pixels, rng.uniform(*SATURATION_RANGE)))
    if chosen():
        pixels = _levels(turn_hue(pixels, rng.integers(-HUE_DELTA, HUE_DELTA) / 180.0))
    if contrast and not contrast_first:
        pixels = _levels(pixels * factor)
    return pixels.astype(np.uint8)


def change_saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies HSV's saturation, up to 1; value and hue stay.

    Args:
        pixels: float32 (H, W, 3), grey levels.
        factor: 0 is grey.

    Returns:
        float32 (H, W, 3).

    Example:
        >>> red = np.float32([[[200, 100, 100]]])
        >>> change_saturation(red, 0.5).tolist(), change_saturation(red, 2.0).tolist()
        ([[[200.0, 150.0, 150.0]]], [[[200.0, 0.0, 0.0]]])
    """
    value = pixels.max(axis=-1, keepdims=True)
    chroma = value - pixels.min(axis=-1, keepdims=True)
    # The saturation chroma / value may not exceed 1.
    factor = np.minimum(factor, value / np.maximum(chroma, 1e-6))
    return value - (value - pixels) * factor


def turn_hue(pixels: np.ndarray, turn: float) -> np.ndarray:
    """Adds a share of the full circle to HSV's hue.

    Args:
        pixels: float32 (H, W, 3), grey levels.
        turn: In circles.

    Returns:
        float32 (H, W, 3).

    Example:
        >>> turn_hue(np.float32([[[200, 0, 0]]]), 1 / 3).round().tolist()  # green
        [[[0.0, 200.0, 0.0]]]
    """
    red, green, blue = np.moveaxis(pixels, -1, 0)
    value = pixels.max(axis=-1)
    chroma = value - pixels.min(axis=-1)
    safe = np.maximum(chroma, 1e-6)
    sixths = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + np.float32(6 * turn)
    out = np.empty_like(pixels)
    for channel, offset in enumerate((5, 3, 1)):
        k = (offset + sixths) % 6
        out[..., channel] = value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1)
    return out


def _levels(pixels):
    return np.floor(np.clip(pixels, 0, 255))
