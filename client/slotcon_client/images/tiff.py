"""What a TIFF holds by its header: how many bands, of how many bits, on which page."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from slotcon_client.images.pixels import BadImage, PixelRange

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 258, 262, 277, 284, 338, 339
_SUBFILE = 254
_WHITE_IS_0, _CMYK, _ALPHA, _SIGNED = 0, 5, (1, 2), 2
_NUMBERS = {1: "whole numbers", 2: "signed numbers", 3: "floats"}


def is_tiff(data: bytes) -> bool:
    """Whether these bytes begin as a TIFF.

    Example:
        >>> is_tiff(b"II*\\0 and so on")
        True
    """
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_bands(image: Any) -> None:
    """Checks that a TIFF that Pillow has opened is one picture of 1, 3 or 4 bands.

    Raises:
        BadImage: If it holds more bands or a stack of pages, of which Pillow would
            read a part only, or values that it would take for others.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(file, "TIFF")
        >>> check_bands(Image.open(file))  # is one picture
    """
    tags = image.tag_v2
    samples = int(tags.get(_SAMPLES, 1))
    extra = tags.get(_EXTRA, ())
    inks = tags.get(_PHOTOMETRIC) == _CMYK
    alpha = samples == 2 and len(extra) == 1 and extra[0] in _ALPHA
    if samples not in (1, 3, 4) and not alpha and not inks:
        raise BadImage(_said(tags))
    deep = max(tags.get(_BITS, (1,))) > 8
    if deep and tags.get(_PLANAR) == 2:
        raise BadImage(_said(tags))
    if samples == 1 and deep and tags.get(_PHOTOMETRIC) == _WHITE_IS_0:
        raise BadImage(
            "a TIFF of more than 8 bits whose 0 is white (PhotometricInterpretation "
            "0): save it inverted, as a PNG of 16 bits"
        )
    if not deep and tags.get(_FORMAT, (1,))[0] == _SIGNED:
        raise BadImage(_said(tags))
    if samples == 1 and is_stack(image):
        raise BadImage(
            "a TIFF stack: several pages of one band and size. One picture is needed: "
            "save the page that counts, or three of them as RGB"
        )


def check_depth(image: Any, pixels: np.ndarray, pixel_range: PixelRange | None) -> None:
    """Checks what Pillow gives of RGB of 16 bits: the upper 8, fine for their range.

    Args:
        image: As of `check_bands`.
        pixels: What Pillow gave, uint8 (height, width, 3).
        pixel_range: That the image is to be read in, or None.

    Raises:
        BadImage: If the values reach into a quarter of that range only, or another is
            asked for.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(file, "TIFF")
        >>> with Image.open(file) as image:
        ...     check_depth(image, np.asarray(image), None)  # has 8 bits
    """
    deep = max(image.tag_v2.get(_BITS, (8,))) > 8
    if deep and (pixel_range not in (None, (0, 65535)) or pixels.max(initial=0) < 64):
        raise BadImage(
            "an RGB TIFF of 16 bits, of which only the upper 8 can be read: save it as "
            "a PNG of 16 bits"
        )


def why_not(data: bytes) -> str:
    """The reason why Pillow does not open a TIFF, by its header; "" if unknown.

    Example:
        >>> why_not(b"II*\\0")
        ''
    """
    try:
        file = io.BytesIO(data)
        header = file.read(8)
        if header[2] == 43:
            header += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        return _said(tags) if _BITS in tags else ""
    except Exception:  # noqa: BLE001  broken headers fail in any way
        return ""


def _said(tags):
    samples = int(tags.get(_SAMPLES, 1))
    bits = tags.get(_BITS, (1,))
    numbers = _NUMBERS.get(tags.get(_FORMAT, (1,))[0], "numbers")
    planar = " one behind the other" if tags.get(_PLANAR) == 2 else ""
    return (
        f"a TIFF of {samples} band{'s' * (samples != 1)} of {max(bits)}-bit {numbers}"
        f"{planar}, which is not read: save it as grey or RGB of 8 bits, or as a PNG "
        "of 8 or 16 bits"
    )


def is_stack(image: Image.Image) -> bool:
    """Whether an image's second page, or frame, is one more picture of the same size.

    Of a TIFF it is of the same mode, too, and no thumbnail.

    Args:
        image: Opened by Pillow, not loaded; it is left at its first page.

    Example:
        >>> file, page = io.BytesIO(), Image.new("L", (4, 3))
        >>> page.save(file, "TIFF", save_all=True, append_images=[page])
        >>> is_stack(Image.open(file))
        True
    """
    first = _kind(image)
    try:
        image.seek(1)
        return _kind(image) == first and not _is_thumbnail(image)
    except (EOFError, OSError, SyntaxError, ValueError, TypeError, LookupError):
        return False
    except (struct.error, OverflowError, MemoryError, AttributeError):
        return False
    finally:
        image.seek(0)


def _kind(image):
    # Frames of an animation change their mode as they are drawn over each other.
    return image.size, image.mode if image.format == "TIFF" else ""


def _is_thumbnail(image):
    return image.format == "TIFF" and int(image.tag_v2.get(_SUBFILE, 0)) & 1
