"""The colour operations of the recipe, as Pillow and torchvision compute them.

Images are float32 (B, H, W, 3), RGB in grey levels 0 .. 255; parameters have one value
per image, (B,). Every operation returns whole levels, as 8-bit images hold them, so
that chains of operations agree too. No operation branches or has a dynamic shape: all
of them compile for CPU, GPU and TPU.

Reference: torchvision.transforms on PIL images; `tests/golden/augment_small.npz`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla  # not public, and nowhere else

from slotcon_tf.images.statistics import IMAGENET, ImageStatistics, normalize
from slotcon_tf.types import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
# ITU-R 601-2, Pillow's fixed-point weights for "L".
_LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
SOLARIZE_THRESHOLD = 128.0  # grey levels
BLUR_RADIUS = 6  # pixels; three standard deviations of the largest sigma


def _each(parameter):
    """(B,) to (B, 1, 1, 1)."""
    return tf.convert_to_tensor(parameter)[..., None, None, None]  # pyright: ignore[reportArgumentType]


def _channels(images):
    return images[..., 0:1], images[..., 1:2], images[..., 2:3]


def _levels(x):
    return tf.round(tf.clip_by_value(x, 0.0, 255.0))


def _grey(images):
    r, g, b = _channels(images)
    return tf.round(r * _LUMA[0] + g * _LUMA[1] + b * _LUMA[2])


def _mean(grey):
    return tf.floor(tf.reduce_mean(grey, axis=(-3, -2, -1), keepdims=True) + 0.5)


def _blend(images, other, factor):
    # Pillow truncates where it blends.
    return tf.floor(tf.clip_by_value(other + (images - other) * factor, 0.0, 255.0))


def _partner(images, operation):
    """What an operation blends with: black, the image's mean grey, or its grey."""
    operation = _each(operation)
    grey = _grey(images)
    other = tf.where(operation == CONTRAST, _mean(grey), grey)
    return tf.where(operation == BRIGHTNESS, 0.0, other)


def brightness(images: Tensor, factor: Any) -> Tensor:
    """Towards black (factor 0); 1 leaves the image.

    Example:
        >>> float(brightness(tf.fill([1, 1, 1, 3], 200.0), [0.5])[0, 0, 0, 0])
        100.0
    """
    return _blend(images, _partner(images, BRIGHTNESS), _each(factor))


def contrast(images: Tensor, factor: Any) -> Tensor:
    """Towards the image's mean grey.

    Example:
        >>> float(contrast(tf.fill([1, 1, 1, 3], 200.0), [0.5])[0, 0, 0, 0])
        200.0
    """
    return _blend(images, _partner(images, CONTRAST), _each(factor))


def saturation(images: Tensor, factor: Any) -> Tensor:
    """Towards grey.

    Example:
        >>> red = tf.constant([[[[200.0, 0.0, 0.0]]]])
        >>> saturation(red, [0.0]).numpy().ravel().tolist()
        [60.0, 60.0, 60.0]
    """
    return _blend(images, _partner(images, SATURATION), _each(factor))


def hue(images: Tensor, shift: Any) -> Tensor:
    """Turns the hue by `shift` of a full circle, in Pillow's 8-bit HSV.

    Example:
        >>> red = tf.constant([[[[200.0, 0.0, 0.0]]]])
        >>> hue(red, [0.0]).numpy().ravel().tolist()
        [200.0, 0.0, 0.0]
    """
    r, g, b = _channels(images)
    value = tf.maximum(tf.maximum(r, g), b)
    chroma = value - tf.minimum(tf.minimum(r, g), b)
    inverse = 1.0 / tf.maximum(chroma, 1.0)
    turn = tf.where(
        value == r,
        (g - b) * inverse,
        tf.where(value == g, 2.0 + (b - r) * inverse, 4.0 + (r - g) * inverse),
    )
    turn = turn / 6.0
    # Pillow cuts to bytes; the small number undoes float32's falling short of a whole.
    turn = tf.floor((turn - tf.floor(turn)) * 255.0 + 1e-3)
    strength = tf.floor(chroma / tf.maximum(value, 1.0) * 255.0 + 1e-3) / 255.0
    # The shift is cut towards zero, as the cast to Pillow's byte does.
    turn += tf.cast(tf.cast(_each(shift) * 255.0, tf.int32), tf.float32)
    turn -= 256.0 * tf.floor(turn / 256.0)
    # Position on the circle of six, for red, green and blue at once.
    place = turn * (6.0 / 255.0) + tf.constant([5.0, 3.0, 1.0])
    place -= 6.0 * tf.floor(place / 6.0)
    away = tf.clip_by_value(tf.minimum(place, 4.0 - place), 0.0, 1.0)
    return _levels(value - value * strength * away)


def grayscale(images: Tensor) -> Tensor:
    """Pillow's luminance in all three channels.

    Example:
        >>> red = tf.constant([[[[200.0, 0.0, 0.0]]]])
        >>> grayscale(red).numpy().ravel().tolist()
        [60.0, 60.0, 60.0]
    """
    return tf.broadcast_to(_grey(images), tf.shape(images))


def solarize(images: Tensor) -> Tensor:
    """Inverts what is at or above the threshold.

    Example:
        >>> solarize(tf.constant([100.0, 200.0])).numpy().tolist()
        [100.0, 55.0]
    """
    return tf.where(images < SOLARIZE_THRESHOLD, images, 255.0 - images)


def gaussian_blur(
    images: Tensor,
    sigma: Any,
    keep: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Gaussian of standard deviation `sigma` pixels; edges repeat outward.

    `keep` is applied to what is read many times; see `apply_distortions`.

    Example:
        >>> gaussian_blur(tf.fill([1, 4, 4, 3], 7.0), [1.5]).shape
        TensorShape([1, 4, 4, 3])
    """
    sigma = tf.convert_to_tensor(sigma)
    offsets = tf.range(BLUR_RADIUS + 1, dtype=tf.float32)
    kernel = tf.exp(-0.5 * tf.square(offsets / sigma[..., None]))
    total = 2.0 * tf.reduce_sum(kernel, axis=-1, keepdims=True) - kernel[..., :1]
    weights = tf.unstack(kernel / total, axis=-1)
    for axis in (images.shape.rank - 3, images.shape.rank - 2):
        images = _blur_axis(images, weights, axis, keep)
    return _levels(images)


def _blur_axis(images, weights, axis, keep):
    """Folded: a symmetric kernel needs one product for both of its sides."""
    size, rank = images.shape[axis], images.shape.rank

    def part(wide, start, length):
        begin, extent = [0] * rank, [-1] * rank
        begin[axis], extent[axis] = start, length
        return tf.slice(wide, begin, extent)

    first, last = part(images, 0, 1), part(images, size - 1, 1)
    wide = keep(
        tf.concat([first] * BLUR_RADIUS + [images] + [last] * BLUR_RADIUS, axis)
    )
    total = part(wide, BLUR_RADIUS, size) * _each(weights[0])
    for step in range(1, BLUR_RADIUS + 1):
        both = part(wide, BLUR_RADIUS - step, size) + part(
            wide, BLUR_RADIUS + step, size
        )
        total += both * _each(weights[step])
    return total


def color_jitter(
    images: Tensor, factors: Tensor, order: Tensor, applied: Tensor
) -> Tensor:
    """The four operations of the jitter, one after another, in each image's own order.

    All but the hue are blends with another picture. So there are three blends before
    the hue and three after it, of which those that an image does not need rest: one
    pass, without branches, whatever the orders.

    Args:
        images: float32 (B, H, W, 3).
        factors: float32 (B, 4) of brightness, contrast, saturation and hue.
        order: int32 (B, 4), permutations of 0 .. 3 in the same numbering.
        applied: bool (B,), images that are changed at all.

    Example:
        >>> images, order = tf.fill([1, 4, 4, 3], 7.0), tf.constant([[0, 1, 2, 3]])
        >>> same = color_jitter(images, tf.zeros([1, 4]), order, tf.constant([False]))
        >>> bool(tf.reduce_all(same == images))
        True
    """
    place_of_hue = tf.argmax(tf.cast(order == HUE, tf.int32), -1, tf.int32)  # (B,)
    for place in range(3):
        images = _ordered_blend(
            images, factors, order[..., place], applied & (place < place_of_hue)
        )
    images = tf.where(_each(applied), hue(images, factors[..., HUE]), images)
    for place in range(1, 4):
        images = _ordered_blend(
            images, factors, order[..., place], applied & (place > place_of_hue)
        )
    return images


def _ordered_blend(images, factors, operation, applied):
    """Brightness, contrast or saturation, as `operation` (B,) says for each image."""
    factor = tf.gather(factors, operation, batch_dims=operation.shape.rank)
    blended = _blend(images, _partner(images, operation), _each(factor))
    return tf.where(_each(applied), blended, images)


def distort(
    images: Tensor,
    parameters: dict[str, Tensor],
    *,
    keep: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """The colour part of the recipe, each image with its own parameters.

    Args:
        images: uint8 or float32 (B, H, W, 3) in grey levels.
        parameters: From `recipe.distortions`, and from `with_statistics` or not.
        keep: Applied to what is read many times; see `apply_distortions`.

    Returns:
        float32 (B, H, W, 3), normalised.

    Example:
        >>> from slotcon_tf.data.recipe import distortions, draw_numbers
        >>> parameters = distortions(draw_numbers(0, 5)[None])["a"]
        >>> distort(tf.zeros([1, 16, 16, 3]), parameters).shape
        TensorShape([1, 16, 16, 3])
    """
    images = tf.cast(images, tf.float32)
    images = color_jitter(
        images, parameters["factors"], parameters["order"], parameters["jitter"]
    )
    grey = _each(parameters["grayscale"])
    images = keep(tf.where(grey, grayscale(images), images))
    sigma = parameters["blur_sigma"]
    blurred = gaussian_blur(images, tf.maximum(sigma, 1e-3), keep)
    images = tf.where(_each(sigma > 0), blurred, images)
    images = tf.where(_each(parameters["solarize"]), solarize(images), images)
    if "mean" not in parameters:
        return normalize(images)
    mean, std = (parameters[name][..., None, None, :] for name in ("mean", "std"))
    return normalize(images, mean, std)


def with_statistics(
    parameters: dict[str, Tensor], statistics: ImageStatistics
) -> dict[str, Tensor]:
    """The parameters of `distort`, with what to normalise by, unless it is ImageNet's.

    It travels with the batch, so that the device does as the host would.

    Args:
        parameters: Dict of tensors (B, ...).
        statistics: `ImageStatistics`.

    Example:
        >>> grey = ImageStatistics([0.5] * 3, [0.25] * 3)
        >>> with_statistics({"jitter": tf.constant([True])}, grey)["mean"].shape
        TensorShape([1, 3])
    """
    if statistics == IMAGENET:
        return parameters
    count = tf.shape(parameters["jitter"])[0]
    values = {"mean": statistics.mean, "std": statistics.std}
    tile: Any = tf.tile
    rows = {name: tile([value], [count, 1]) for name, value in values.items()}
    size = parameters["jitter"].shape[0]
    return parameters | {n: tf.ensure_shape(r, [size, 3]) for n, r in rows.items()}


def _kept(x):
    """Makes XLA write `x` down instead of working it out again at every use.

    Without it the blur takes three times as long on a CPU.
    """
    return xla.optimization_barrier(x)[0]  # pyright: ignore[reportIndexIssue]


_distort_compiled = tf.function(
    functools.partial(distort, keep=_kept), autograph=False, jit_compile=True
)


def apply_distortions(batch: dict[str, Any]) -> dict[str, Any]:
    """Changes the colours of a batch of `crop_pair_dataset(augment_on="device")`.

    Compiled by XLA wherever it runs: fused, they take a fifth of the time on a CPU.

    Args:
        batch: Dict with uint8 view_a, view_b and distortion_a, distortion_b. Without
            the latter two it is given back as it is.

    Returns:
        Dict with float32 view_a, view_b, and without the parameters.

    Example:
        >>> apply_distortions({"view_a": 1.0})  # has none
        {'view_a': 1.0}
    """
    if "distortion_a" not in batch:
        return batch
    batch = dict(batch)
    for view in "ab":
        parameters = batch.pop(f"distortion_{view}")
        batch[f"view_{view}"] = _distort_compiled(batch[f"view_{view}"], parameters)
    return batch
