"""How pixels become a model's images: what it was trained with, and keeps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from slotcon_client.images.pixels import PixelRange
from slotcon_tf.types import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_pixel_range(pixel_range: Iterable[float] | None) -> PixelRange | None:
    """A pair (low, high) as a tuple of floats, or None as it is.

    Raises:
        ValueError: If it is no pair of finite numbers, the first one the smaller.

    Example:
        >>> check_pixel_range([0, 4095])
        (0.0, 4095.0)
    """
    if pixel_range is None:
        return None
    pair = _floats(pixel_range)
    if len(pair) != 2 or not all(map(math.isfinite, pair)) or not pair[0] < pair[1]:
        raise ValueError(
            "`pixel_range` must be (low, high) with low < high. "
            f"Received: {pixel_range!r}."
        )
    return pair


def _floats(values):
    """A tuple of floats, empty where the values are something else."""
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return ()


@dataclasses.dataclass(frozen=True)
class ImageStatistics:
    """Mean and standard deviation per channel, and the range of deep pixels.

    Attributes:
        mean: Three shares of 255.
        std: Three positive shares of 255.
        pixel_range: (low, high) that images of more than 8 bits are read in, or None,
            see `slotcon_tf.images.pixels`.

    Raises:
        ValueError: If they are not.

    Example:
        >>> grey = ImageStatistics(mean=[0.5] * 3, std=[0.25] * 3)
        >>> float(grey.normalize(tf.fill([3], 255.0))[0])
        2.0
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    pixel_range: PixelRange | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            given = getattr(self, name)
            values = _floats(given)
            low = 0.0 if name == "mean" else 1e-4
            if len(values) != 3 or not all(low <= value <= 1.0 for value in values):
                raise ValueError(
                    f"`{name}` must be three numbers from {low:g} to 1, for red, green "
                    f"and blue, as shares of 255. Received: {name}={given!r}. "
                    "Divide grey levels by 255."
                )
            # Through the frozen class's back door: lists of a file become tuples.
            object.__setattr__(self, name, values)
        object.__setattr__(self, "pixel_range", check_pixel_range(self.pixel_range))

    def normalize(self, images: Any) -> Tensor:
        """Grey levels 0 .. 255 (..., 3) to mean 0 and deviation 1 per channel."""
        return normalize(images, self.mean, self.std)

    def config(self) -> dict[str, list]:
        """What differs from ImageNet's, as arguments that JSON can hold."""
        own, usual = dataclasses.asdict(self), dataclasses.asdict(IMAGENET)
        return {k: list(v) for k, v in own.items() if v != usual[k]}


IMAGENET = ImageStatistics()


def normalize(
    images: Any, mean: Any = IMAGENET_MEAN, std: Any = IMAGENET_STD
) -> Tensor:
    """Grey levels to mean 0 and standard deviation 1 per channel.

    Args:
        images: float32 (..., 3), grey levels 0 .. 255.
        mean, std: Shares of 255, three numbers or a tensor; ImageNet's by default.

    Returns:
        float32 (..., 3).

    Example:
        >>> [round(float(x), 2) for x in normalize(tf.fill([3], 255.0))]
        [2.25, 2.43, 2.64]
    """
    mean, std = tf.convert_to_tensor(mean), tf.convert_to_tensor(std)
    return (images - mean * 255.0) / (std * 255.0)


def statistics_of(model: Any) -> ImageStatistics:
    """The statistics that a model's images are normalised with.

    Args:
        model: A `SlotCon`, a `Segmenter` or an encoder; one that keeps none has
            ImageNet's.

    Example:
        >>> from slotcon_tf import backbone
        >>> statistics_of(backbone("resnet18", mean=[0.5] * 3, std=[0.2] * 3)).std
        (0.2, 0.2, 0.2)
    """
    return getattr(model, "statistics", None) or IMAGENET


def chosen_statistics(encoder: Any, **asked: Any) -> ImageStatistics:
    """What was asked for of `ImageStatistics`; where None, the encoder's.

    Args:
        encoder: As `statistics_of` takes it.
        **asked: mean, std, pixel_range.

    Example:
        >>> chosen_statistics(None, pixel_range=(0, 4095)).pixel_range
        (0.0, 4095.0)
    """
    asked = {name: value for name, value in asked.items() if value is not None}
    return dataclasses.replace(statistics_of(encoder), **asked)
