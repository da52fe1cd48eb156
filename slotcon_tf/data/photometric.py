"""The colour operations of the recipe, as Pillow and torchvision compute them.

Images are float32 (H, W, 3), RGB in grey levels 0 .. 255. Every operation returns
whole levels, as 8-bit images hold them, so that chains of operations agree too.

Reference: torchvision.transforms on PIL images; `tests/golden/augment_small.npz`.
"""

import tensorflow as tf

# ITU-R 601-2, Pillow's fixed-point weights for "L".
_LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
SOLARIZE_THRESHOLD = 128.0  # grey levels
BLUR_RADIUS = 6  # pixels; three standard deviations of the largest sigma
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _levels(x):
    return tf.round(tf.clip_by_value(x, 0.0, 255.0))


def _grey(image):
    return tf.round(tf.tensordot(image, tf.constant(_LUMA), 1))[..., None]


def _blend(image, other, factor):
    # Pillow truncates where it blends.
    return tf.floor(tf.clip_by_value(other + (image - other) * factor, 0.0, 255.0))


def brightness(image, factor):
    """Towards black (factor 0); 1 leaves the image."""
    return _blend(image, 0.0, factor)


def contrast(image, factor):
    """Towards the image's mean grey."""
    mean = tf.floor(tf.reduce_mean(_grey(image)) + 0.5)
    return _blend(image, mean, factor)


def saturation(image, factor):
    """Towards grey."""
    return _blend(image, _grey(image), factor)


def hue(image, shift):
    """Turns the hue by `shift` of a full circle, in Pillow's 8-bit HSV."""
    hsv = tf.floor(tf.image.rgb_to_hsv(image / 255.0) * 255.0 + 1e-3)
    # The shift is cut towards zero, as the cast to Pillow's byte does.
    step = tf.cast(tf.cast(shift * 255.0, tf.int32), tf.float32)
    turned = tf.math.floormod(hsv[..., :1] + step, 256.0)
    hsv = tf.concat([turned, hsv[..., 1:]], axis=-1)
    return _levels(tf.image.hsv_to_rgb(hsv / 255.0) * 255.0)


def grayscale(image):
    """Pillow's luminance in all three channels."""
    return tf.broadcast_to(_grey(image), tf.shape(image))


def solarize(image):
    """Inverts what is at or above the threshold."""
    return tf.where(image < SOLARIZE_THRESHOLD, image, 255.0 - image)


def gaussian_blur(image, sigma):
    """Gaussian of standard deviation `sigma` pixels; edges repeat outward."""
    offsets = tf.range(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=tf.float32)
    kernel = tf.exp(-0.5 * tf.square(offsets / sigma))
    kernel /= tf.reduce_sum(kernel)
    image = _blur_axis(image, kernel, 0)
    return _levels(_blur_axis(image, kernel, 1))


def _blur_axis(image, kernel, axis):
    """Folded: a symmetric kernel needs one product for both of its sides."""
    size = image.shape[axis]
    padding = [[0, 0], [0, 0], [0, 0]]
    padding[axis] = [BLUR_RADIUS, BLUR_RADIUS]
    # Repeating the edge: gather is what tf.pad has no mode for.
    index = tf.clip_by_value(tf.range(-BLUR_RADIUS, size + BLUR_RADIUS), 0, size - 1)
    wide = tf.gather(image, index, axis=axis)

    def part(start):
        begin = [0, 0, 0]
        begin[axis] = start
        extent = [-1, -1, -1]
        extent[axis] = size
        return tf.slice(wide, begin, extent)

    total = part(BLUR_RADIUS) * kernel[BLUR_RADIUS]
    for step in range(1, BLUR_RADIUS + 1):
        both = part(BLUR_RADIUS - step) + part(BLUR_RADIUS + step)
        total += both * kernel[BLUR_RADIUS + step]
    return total


def color_jitter(image, factors, order):
    """The four operations of the jitter, one after another.

    Args:
        image: float32 (H, W, 3).
        factors: float32 (4,) of brightness, contrast, saturation and hue.
        order: int32 (4,), a permutation of 0 .. 3 in the same numbering.
    """
    for place in range(4):
        image = tf.switch_case(
            order[place],
            [
                lambda image=image: brightness(image, factors[0]),
                lambda image=image: contrast(image, factors[1]),
                lambda image=image: saturation(image, factors[2]),
                lambda image=image: hue(image, factors[3]),
            ],
        )
        image.set_shape([*image.shape[:2], 3])
    return image


def normalize(image):
    """Grey levels to ImageNet's mean 0 and standard deviation 1 per channel."""
    mean = tf.constant(IMAGENET_MEAN) * 255.0
    return (image - mean) / (tf.constant(IMAGENET_STD) * 255.0)
