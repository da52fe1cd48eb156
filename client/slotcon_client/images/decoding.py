"""Bytes of an image file to RGB pixels, or a reason why not, with Pillow alone."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from slotcon_client.images import tiff
from slotcon_client.images.deep_png import deep_png
from slotcon_client.images.orientation import orientation_of, upright
from slotcon_client.images.pixels import BadImage, PixelRange, as_rgb, range_of

MAX_PIXELS = 89_478_485  # what Pillow itself warns about
# What may be opened. Pillow knows 40 more formats: PostScript starts another program.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM")
LOSSLESS = ("PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM")  # what label maps may be
# Photographs have 0.5 to 20 pixels per byte; a flat picture packs 350 and more. Small
# ones do no harm.
DENSE_PIXELS, PIXELS_PER_BYTE = 16_777_216, 100
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class Decoded(NamedTuple):
    """An image and where it comes from.

    Attributes:
        rgb: uint8 (height, width, 3).
        values: Of the file: uint8 (height, width, 3), or of more than 8 bits uint16,
            int32 or float32, with or without the last axis.
        read_in: (low, high) that values of more than 8 bits were read in, else None.

    Example:
        >>> deep = decoded_of(np.full((3, 4), 1000, np.uint16), pixel_range=None)
        >>> deep.rgb[0, 0], deep.read_in
        (array([249, 249, 249], dtype=uint8), (0, 1023))
    """

    rgb: np.ndarray
    values: np.ndarray
    read_in: PixelRange | None


def open_image(
    data: bytes, max_pixels: int = MAX_PIXELS, *, flat: bool = False
) -> Image.Image:
    """Reads the header only.

    Args:
        data: Bytes of the file.
        max_pixels: Larger images are refused, as are those above 16 megapixels with
            more than 100 pixels per byte, which no photograph has.
        flat: Whether a small file may hold a large flat area all the same, as label
            maps do.

    Returns:
        PIL.Image.Image, not decoded yet, in one of `FORMATS`, or HEIF where the
        package pillow-heif is installed.

    Raises:
        BadImage: If the bytes are no such image, or claim too many pixels.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(file, "PNG")
        >>> open_image(file.getvalue()).size
        (4, 3)
    """
    if not data:
        raise BadImage("the file is empty")
    if data.startswith(b"version https://git-lfs"):
        raise BadImage("a git LFS pointer, not the picture: run git lfs pull")
    heic = data[4:8] == b"ftyp" and data[8:12] in _HEIC and _can_read_heif()
    try:
        image = Image.open(io.BytesIO(data), formats=_formats(heic))
    except Image.DecompressionBombError:
        most = min(max_pixels, 2 * MAX_PIXELS)
        raise BadImage(f"more than {most} pixels by its header") from None
    except Image.UnidentifiedImageError:
        raise BadImage(_unknown(data)) from None
    except Exception as error:  # noqa: BLE001  broken headers fail in any way
        raise BadImage(str(error) or type(error).__name__) from None
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(f"{width}x{height} is more than {max_pixels} pixels")
    if not flat and width * height > max(DENSE_PIXELS, PIXELS_PER_BYTE * len(data)):
        raise BadImage(
            f"{width}x{height} pixels in {len(data)} bytes: above {DENSE_PIXELS} "
            f"pixels a file must have a byte for every {PIXELS_PER_BYTE} of them"
        )
    return image


@functools.cache
def _formats(heic):
    """The formats that a file is tried as."""
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    return (*known, "HEIF") if heic else tuple(known)


@functools.cache
def _can_read_heif():
    """Registers pillow-heif with Pillow, if it is installed."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _unknown(data):
    """Why none of the formats fits."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC and not _can_read_heif():
        return "a HEIC picture: pip install pillow-heif, or save it as JPEG"
    if data.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "PostScript, which is not opened: save it as JPEG or PNG"
    reason = tiff.why_not(data) if tiff.is_tiff(data) else ""
    if reason:
        return reason
    start = data[:16].lstrip().lower()
    return "a text file" if start.startswith(b"<") else "no known image format"


def decode_image(
    data: bytes, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None
) -> np.ndarray:
    """Bytes of an image file to RGB.

    Grey, palette, CMYK and 16-bit images become 8-bit RGB; the EXIF orientation is
    applied; of an animation the first frame is taken; transparency is dropped.

    Args:
        data: Bytes of the file.
        max_pixels: Larger images are refused by their header, before decoding; see
            `open_image`.
        pixel_range: (low, high) that images of more than 8 bits are read in; None for
            the rule of `slotcon_client.images.pixels`. That of a model's own images is
            `statistics_of(model).pixel_range`.

    Returns:
        uint8 (height, width, 3), contiguous.

    Raises:
        BadImage: If the bytes are no whole image, or not one that can be shown.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (4, 3), 200).save(file, "PNG")
        >>> decode_image(file.getvalue())[0, 0]
        array([200, 200, 200], dtype=uint8)
    """
    return decode_pixels(data, max_pixels, pixel_range).rgb


def decode_pixels(
    data: bytes, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None
) -> Decoded:
    """As `decode_image`, and the values that the image was made from.

    Args:
        data, max_pixels, pixel_range: As there.

    Raises:
        BadImage: As there.

    Example:
        >>> file = io.BytesIO()
        >>> deep = np.full((3, 4), 1000, np.uint16)
        >>> Image.fromarray(deep).save(file, "PNG")
        >>> decode_pixels(file.getvalue()).read_in
        (0, 1023)
    """
    return decode_opened(open_image(data, max_pixels), data, pixel_range)


def decode_opened(
    image: Image.Image,
    data: bytes,
    pixel_range: PixelRange | None = None,
    read_deep_png: Callable[[bytes], np.ndarray] = deep_png,
) -> Decoded:
    """As `decode_pixels`, of an image that `open_image` gave.

    Args:
        image: Not decoded yet.
        data: Bytes of its file.
        pixel_range: As there.
        read_deep_png: Function of a PNG of 16 bits in several channels to uint16
            (height, width, 3); Pillow drops 8 of the bits.

    Raises:
        BadImage: As there.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(file, "PNG")
        >>> decode_opened(open_image(file.getvalue()), file.getvalue()).rgb.shape
        (3, 4, 3)
    """
    try:
        values = _values(data, image, pixel_range, read_deep_png)
    except BadImage:
        raise
    except Exception as error:  # noqa: BLE001  broken bodies fail in any way
        raise BadImage(str(error).strip() or type(error).__name__) from None
    return decoded_of(values, pixel_range)


def decoded_of(values: np.ndarray, pixel_range: PixelRange | None) -> Decoded:
    """An array of pixels as a `Decoded`.

    Args:
        values, pixel_range: As `as_rgb` takes them.

    Raises:
        BadImage: If the array is no such image.

    Example:
        >>> decoded_of(np.zeros((3, 4), np.uint8), None).rgb.shape
        (3, 4, 3)
    """
    rgb = as_rgb(values, pixel_range)
    deep = values.dtype != np.uint8
    read_in = (pixel_range or range_of(values)) if deep else None
    return Decoded(rgb, values, read_in)


def _values(data, image, pixel_range, read_deep_png):
    """The values of a file, of one or three channels, upright."""
    if image.format == "TIFF":
        tiff.check_bands(image)
    orientation = orientation_of(image, data)
    if image.format == "PNG" and _is_deep_colour_png(data):
        return upright(read_deep_png(data), orientation)
    image.load()
    values = pillow_values(image)
    if image.format == "PPM" and image.mode == "I":
        # Its header says what white is, and Pillow has brought that to 65535.
        return (values // 257).astype(np.uint8)
    if image.format == "TIFF":  # which Pillow has turned
        if values.ndim == 3:
            tiff.check_depth(image, values, pixel_range)
        return values
    return upright(values, orientation)


def _is_deep_colour_png(data):
    """Whether a PNG has 16 bits and several channels: Pillow drops 8 of them."""
    return data[12:16] == b"IHDR" and data[24] == 16 and data[25] != 0


def pillow_values(image: Image.Image) -> np.ndarray:
    """The values of an image that Pillow has loaded, as they lie, without transparency.

    Args:
        image: Of any mode.

    Returns:
        uint8 (height, width, 3), or (height, width) of uint16, int32 or float32.

    Example:
        >>> pillow_values(Image.new("LA", (4, 3))).shape
        (3, 4, 3)
    """
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        return np.asarray(image)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))
