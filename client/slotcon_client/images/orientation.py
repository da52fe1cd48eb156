"""EXIF orientation: what a file says of its pixels, and which way up they then are.

The rule, for training, label maps, and what is sent to a server. A plain JPEG
(`is_plain`) lies as it is stored. Of all others the EXIF orientation counts, a number
from 1 to 8; one that is broken, or no such number, is 1. The served graph does the same
(`slotcon_tf.serving.formats`).
"""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

# What a PNG has somewhere if anything in it may tell an orientation.
_IN_PNG = (b"eXIf", b"exif", b"xmp")
_UNDONE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def is_plain(image: Image.Image) -> bool:
    """Whether nothing but decoding is to be done: a colour JPEG without EXIF.

    Its XMP is not asked.

    Args:
        image: Opened by Pillow.

    Example:
        >>> is_plain(Image.new("RGB", (4, 3)))  # of no file
        False
    """
    return image.format == "JPEG" and image.mode == "RGB" and "exif" not in image.info


def orientation_of(image: Image.Image, data: bytes) -> int:
    """By which orientation `decode_image` turns a file.

    Args:
        image: The file, opened by Pillow, not loaded; a PNG that may tell behind its
            pixels is loaded here.
        data: Bytes of the file.

    Returns:
        A number from 1 to 8.

    Raises:
        Exception: What Pillow raises while it loads broken pixels.

    Example:
        >>> import io
        >>> exif, file = Image.Exif(), io.BytesIO()
        >>> exif[ExifTags.Base.Orientation] = 6
        >>> Image.new("RGB", (4, 3)).save(file, "PNG", exif=exif)
        >>> orientation_of(Image.open(file), file.getvalue())
        6
    """
    png = image.format == "PNG"
    if is_plain(image) or (png and not any(mark in data for mark in _IN_PNG)):
        return 1
    if png:
        image.load()
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  garbage beside good pixels
        return 1
    return next((number for number in range(1, 9) if number == value), 1)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as an orientation turns them.

    Args:
        pixels: (height, width, ...), as they are stored.
        orientation: From 1 to 8.

    Returns:
        A view of the pixels: (height, width, ...), of 5 to 8 (width, height, ...).

    Example:
        >>> upright(np.array([[1, 2, 3]]), 6)
        array([[1],
               [2],
               [3]])
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def load_as_stored(image: Image.Image, data: bytes) -> tuple[Image.Image, int]:
    """Loads an image whose pixels must stay where they are in the file: a label map.

    Args:
        image: Opened by Pillow, not loaded.
        data: Bytes of the file.

    Returns:
        The image, and its orientation.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> Image.new("L", (4, 3)).save(file, "PNG")
        >>> load_as_stored(Image.open(file), file.getvalue())[1]
        1
    """
    orientation = orientation_of(image, data)
    image.load()
    if image.format == "TIFF" and orientation in _UNDONE:  # which Pillow turns
        image = image.transpose(_UNDONE[orientation])
    return image, orientation
