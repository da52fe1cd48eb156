"""What is sent to a served model: files that it reads as training does, or PNGs."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from slotcon_client.errors import MissingPackage, needed
from slotcon_client.images.pixels import BadImage
from slotcon_client.plain_files import is_plain_file, jpeg_orientation
from slotcon_client.reasons import DAMAGED, NOT_SERVED, UNKNOWN

_SECOND_CHANCE = (UNKNOWN, DAMAGED, NOT_SERVED)
_COMPRESSION = 3  # of 9: a third of the time of 6, a few per cent larger


class Sendable(bytes):
    """A file in its `served_form`, which is not looked for again.

    Example:
        >>> served_form(Sendable(b"as it is"))
        b'as it is'
    """


def served_form(data: bytes) -> Sendable:
    """A file as it is sent.

    JPEGs, PNGs and still WebPs that the graph reads as training does stay what they
    are, as does what is damaged, for the graph says so. All others (TIFF, AVIF, HEIC
    where pillow-heif is installed, CMYK, animations, ...) become a PNG without loss.

    Args:
        data: Bytes of a file.

    Returns:
        `Sendable`.

    Raises:
        BadImage: If training cannot read it either; its text is the reason.
        MissingPackage: Without Pillow, of all but plain JPEGs, PNGs and WebPs.

    Example:
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(file, "TIFF")
        >>> served_form(file.getvalue())[:4]
        b'\\x89PNG'
    """
    if isinstance(data, Sendable):
        return data
    return Sendable(data if not data or _is_read_alike(data) else png_of(data))


Answer = dict[str, Any]  # arrays of outputs, with as many rows as files were sent


def ask(
    call: Callable[[list[bytes]], Answer], content: Sequence[bytes]
) -> dict[str, Any]:
    """Outputs for a batch, each file in its `served_form`.

    What the graph finds damaged, but training reads, is sent again as a PNG.

    Args:
        call: Function of a list of files' bytes to a dict of arrays with as many rows.
        content: List of files' bytes.

    Returns:
        Dict of arrays.

    Example:
        >>> ask(lambda files: {"size": [len(file) for file in files]}, [b"", b"\\xff"])
        {'size': [0, 1]}
    """
    asking = asked(content)
    files = next(asking)
    while True:
        try:
            files = asking.send(call(files))
        except StopIteration as end:
            return end.value


def asked(content: Sequence[bytes]) -> Generator[list[bytes], Answer, Answer]:
    """`ask` step by step: it gives what is to be sent, and takes the answers.

    Args:
        content: List of files' bytes.

    Returns:
        Generator whose value, at its end, is the dict of arrays.

    Example:
        >>> next(asked([b""]))
        [b'']
    """
    found = yield [_or_itself(served_form, data) for data in content]
    if "reason" not in found or any(len(v) != len(content) for v in found.values()):
        return found
    places = [i for i, code in enumerate(found["reason"]) if code in _SECOND_CHANCE]
    try:
        again = {i: _or_itself(png_of, content[i]) for i in places}
    except MissingPackage:  # then it is as the graph says
        return found
    places = [i for i in places if again[i] is not content[i]]
    if not places:
        return found
    second = yield [again[i] for i in places]
    if len(places) == len(content):
        return second  # where images keep their size, there is one, and now another
    found = {name: np.array(values) for name, values in found.items()}
    for name, values in second.items():
        found[name][places] = values
    return found


def _or_itself(form: Callable[[bytes], bytes], data: bytes) -> bytes:
    try:
        return form(data)
    except BadImage:
        return data


def png_of(data: bytes) -> bytes:
    """A file's pixels, as training reads them, as a PNG.

    Args:
        data: Bytes of a file.

    Raises:
        BadImage: If training cannot read it either.
        MissingPackage: Without Pillow.

    Example:
        >>> png_of(b"<html>")
        Traceback (most recent call last):
        slotcon_client.images.pixels.BadImage: a text file
    """
    with needed("images"):
        from PIL import Image

        from slotcon_client.images.decoding import decode_pixels
        from slotcon_client.images.deep_png import write_deep_png
    decoded = decode_pixels(data)
    if decoded.values.dtype == np.uint16:  # in whose range, the model knows
        return write_deep_png(decoded.values)
    file = io.BytesIO()
    Image.fromarray(decoded.rgb).save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def _is_read_alike(data: bytes) -> bool:
    """Whether the graph gives `decode_image`'s pixels, or its reason why not."""
    jpeg, png = data.startswith(b"\xff\xd8\xff"), data.startswith(b"\x89PNG")
    if not (jpeg or png) and (data[:4], data[8:12]) != (b"RIFF", b"WEBP"):
        return False
    try:
        from slotcon_client.images.decoding import open_image
        from slotcon_client.images.orientation import orientation_of
    except ModuleNotFoundError:  # no Pillow: what is not plain is said to need it
        return is_plain_file(data)
    try:
        image = open_image(data)
        if jpeg and image.mode not in ("RGB", "L"):
            return False
        if not jpeg and getattr(image, "is_animated", False):
            return False
        orientation = orientation_of(image, data)
    except Exception:  # noqa: BLE001  what is broken, the graph says
        return True
    return orientation == (jpeg_orientation(data) if jpeg else 1)
