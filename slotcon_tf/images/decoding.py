"""Bytes of an image file to RGB pixels, or a reason why not.

Images are decoded whole. Decoding the crops' common window instead saved 0 to 2% of the
decoder's time on 640x480 JPEGs and 7 to 12% at 12 megapixels, and changed pixels at the
window's border by up to 18 levels (AMD EPYC, 2026-11-24): not worth it.
"""

import functools
import io
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from slotcon_tf.images import tiff
from slotcon_tf.images.exif import orientation_of, turned
from slotcon_tf.images.pixels import BadImage, as_rgb, range_of
from slotcon_tf.images.statistics import check_pixel_range

__all__ = [
    "MAX_PIXELS",
    "BadImage",
    "as_rgb",
    "decode_image",
    "decode_pixels",
    "open_image",
    "use_pixel_range",
]

MAX_PIXELS = Image.MAX_IMAGE_PIXELS  # 89 million: what Pillow itself warns about
# What may be opened. Pillow knows 40 more formats: PostScript starts another program.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM")
# Photographs have 0.5 to 20 pixels per byte; a flat picture packs 350 and more. Small
# ones do no harm.
DENSE_PIXELS, PIXELS_PER_BYTE = 16_777_216, 100
_process = {"pixel_range": None}  # of `use_pixel_range`
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class Decoded(NamedTuple):
    """An image and where it comes from.

    Attributes:
        rgb: uint8 (height, width, 3).
        values: Of the file: uint8 (height, width, 3), or of more than 8 bits uint16,
            int32 or float32, with or without the last axis.
        read_in: (low, high) that values of more than 8 bits were read in, else None.
    """

    rgb: np.ndarray
    values: np.ndarray
    read_in: tuple | None


def use_pixel_range(pixel_range):
    """Sets the range of images of more than 8 bits for all that this process decodes.

    A command reads one data set, and its labelled images, pictures and samples must be
    read as those that the model learned from: `statistics_of(model).pixel_range`.

    Args:
        pixel_range: (low, high), or None for the rule of `slotcon_tf.images.pixels`.
    """
    _process["pixel_range"] = check_pixel_range(pixel_range)


def open_image(data, max_pixels=MAX_PIXELS):
    """Reads the header only.

    Args:
        data: Bytes of the file.
        max_pixels: Larger images are refused, as are those above 16 megapixels with
            more than 100 pixels per byte, which no photograph has.

    Returns:
        PIL.Image.Image, not decoded yet, in one of `FORMATS`, or HEIF where the
        package pillow-heif is installed.

    Raises:
        BadImage: If the bytes are no such image, or claim too many pixels.
    """
    if not data:
        raise BadImage("the file is empty")
    if data.startswith(b"version https://git-lfs"):
        raise BadImage("a git LFS pointer, not the picture: run git lfs pull")
    try:
        image = Image.open(io.BytesIO(data), formats=_formats(data))
    except Image.DecompressionBombError:
        most = min(max_pixels, 2 * Image.MAX_IMAGE_PIXELS)
        raise BadImage(f"more than {most} pixels by its header") from None
    except Image.UnidentifiedImageError:
        raise BadImage(_unknown(data)) from None
    except Exception as error:  # noqa: BLE001  broken headers fail in any way
        raise BadImage(str(error) or type(error).__name__) from None
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(f"{width}x{height} is more than {max_pixels} pixels")
    if width * height > max(DENSE_PIXELS, PIXELS_PER_BYTE * len(data)):
        raise BadImage(
            f"{width}x{height} pixels in {len(data)} bytes: above {DENSE_PIXELS} "
            f"pixels a file must have a byte for every {PIXELS_PER_BYTE} of them"
        )
    return image


def _formats(data):
    """The formats that a file is tried as."""
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC and _can_read_heif():
        known.append("HEIF")
    return known


@functools.cache
def _can_read_heif():
    """Registers pillow-heif with Pillow, if it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _unknown(data):
    """Why none of the formats fits."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC and not _can_read_heif():
        return 'a HEIC picture: pip install "slotcon_tf[heic]", or save it as JPEG'
    if data.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "PostScript, which is not opened: save it as JPEG or PNG"
    reason = tiff.why_not(data) if tiff.is_tiff(data) else ""
    if reason:
        return reason
    start = data[:16].lstrip().lower()
    return "a text file" if start.startswith(b"<") else "no known image format"


def decode_image(data, max_pixels=MAX_PIXELS, pixel_range=None):
    """Bytes of an image file to RGB.

    Grey, palette, CMYK and 16-bit images become 8-bit RGB; the EXIF orientation is
    applied; of an animation the first frame is taken; transparency is dropped.

    Args:
        data: Bytes of the file.
        max_pixels: Larger images are refused by their header, before decoding; see
            `open_image`.
        pixel_range: (low, high) that images of more than 8 bits are read in; None for
            that of `use_pixel_range`, or the rule of `slotcon_tf.images.pixels`.

    Returns:
        uint8 (height, width, 3), contiguous.

    Raises:
        BadImage: If the bytes are no whole image, or not one that can be shown.
    """
    return decode_pixels(data, max_pixels, pixel_range).rgb


def decode_pixels(data, max_pixels=MAX_PIXELS, pixel_range=None):
    """As `decode_image`, and the values that the image was made from.

    Returns:
        `Decoded`.
    """
    pixel_range = pixel_range or _process["pixel_range"]
    values = _decode(data, open_image(data, max_pixels), pixel_range)
    rgb = as_rgb(values, pixel_range)
    deep = values.dtype != np.uint8
    read_in = (pixel_range or range_of(values)) if deep else None
    return Decoded(rgb, values, read_in)


def _decode(data, image, pixel_range):
    try:
        if _is_plain_jpeg(image):
            try:
                # The same library and pixels as Pillow's, without its two copies.
                pixels = tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE")
                return pixels.numpy()
            except tf.errors.OpError:
                pass  # Pillow decides whether it can be used, and why not
        if image.format == "TIFF":
            tiff.check_bands(image)
        if image.format == "PNG" and _is_deep_colour_png(data):
            return turned(_deep_png(data), orientation_of(image))
        image.load()
        values = _values(_upright(image))
        if image.format == "PPM" and image.mode == "I":
            # Its header says what white is, and Pillow has brought that to 65535.
            return (values // 257).astype(np.uint8)
        if image.format == "TIFF" and values.ndim == 3:
            tiff.check_depth(image, values, pixel_range)
        return values
    except BadImage:
        raise
    except Exception as error:  # noqa: BLE001  broken bodies fail in any way
        raise BadImage(str(error).strip() or type(error).__name__) from None


def _is_plain_jpeg(image):
    """Whether nothing but decoding is to be done."""
    return image.format == "JPEG" and image.mode == "RGB" and "exif" not in image.info


def _is_deep_colour_png(data):
    """Whether a PNG has 16 bits and several channels: Pillow drops 8 of them."""
    return data[12:16] == b"IHDR" and data[24] == 16 and data[25] != 0


def _deep_png(data):
    try:
        return tf.io.decode_png(data, 3, tf.uint16).numpy()
    except tf.errors.OpError:
        raise BadImage("a broken PNG of 16 bits") from None


def _upright(image):
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  garbage beside a good picture
        return image


def _values(image):
    """The values of a decoded image, of one or three channels."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        return np.asarray(image)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))
