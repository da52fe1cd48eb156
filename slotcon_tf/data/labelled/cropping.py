"""Central squares of images and label maps, and evenly spaced numbers."""

import numpy as np
from PIL import Image


def crop_center(image, labels, size):
    """Resizes the shorter edge to `size` and cuts the central square.

    Args:
        image: uint8 (height, width, 3); resized bilinearly, with antialias.
        labels: uint8 (height, width); resized by nearest neighbour.
        size: Edge, pixels.

    Returns:
        Image uint8 (size, size, 3) and labels uint8 (size, size).
    """
    pixels = central_square(Image.fromarray(image), size, Image.BILINEAR)
    return pixels, central_square(Image.fromarray(labels), size, Image.NEAREST)


def central_square(image, size, how, shorter=None):
    """Central square of an image whose shorter edge was resized, by default to it."""
    scale = (shorter or size) / min(image.size)
    new = tuple(max(size, round(edge * scale)) for edge in image.size)
    left, top = ((edge - size) // 2 for edge in new)
    return np.asarray(image.resize(new, how).crop((left, top, left + size, top + size)))


def spaced(count, most):
    """Numbers of at most `most` of `count` things, evenly spaced."""
    most = min(count, most or count)
    return [i * count // most for i in range(most)]
