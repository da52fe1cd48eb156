"""What is sent to a served model: files that it reads as training does, or PNGs."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from slotcon_tf.images.decoding import BadImage, decode_pixels, open_image
from slotcon_tf.images.orientation import orientation_of
from slotcon_tf.serving.formats import (
    DAMAGED,
    EXIF_SEARCHED,
    NOT_SERVED,
    UNKNOWN,
    jpeg_orientation,
)

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

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(file, "TIFF")
        >>> served_form(file.getvalue())[:4]
        b'\\x89PNG'
    """
    if isinstance(data, Sendable):
        return data
    return Sendable(data if not data or _is_read_alike(data) else _png(data))


def ask(
    call: Callable[[list[bytes]], dict[str, Any]], content: Sequence[bytes]
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
    found = call([_or_itself(served_form, data) for data in content])
    if "reason" not in found or any(len(v) != len(content) for v in found.values()):
        return found
    places = [i for i, code in enumerate(found["reason"]) if code in _SECOND_CHANCE]
    again = {i: _or_itself(_png, content[i]) for i in places}
    places = [i for i in places if again[i] is not content[i]]
    if not places:
        return found
    second = call([again[i] for i in places])
    if len(places) == len(content):
        return second  # where images keep their size, there is one, and now another
    found = {name: np.array(values) for name, values in found.items()}
    for name, values in second.items():
        found[name][places] = values
    return found


def _or_itself(form, data):
    try:
        return form(data)
    except BadImage:
        return data


def _png(data):
    decoded = decode_pixels(data)
    values = decoded.values
    if values.dtype == np.uint16:  # in whose range, the model knows
        values = values.reshape(*values.shape[:2], -1)
        return tf.io.encode_png(values, _COMPRESSION).numpy()
    file = io.BytesIO()
    Image.fromarray(decoded.rgb).save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def _is_read_alike(data):
    """Whether the graph gives `decode_image`'s pixels, or its reason why not."""
    jpeg, png = data.startswith(b"\xff\xd8\xff"), data.startswith(b"\x89PNG")
    if not (jpeg or png) and (data[:4], data[8:12]) != (b"RIFF", b"WEBP"):
        return False
    try:
        image = open_image(data)
        if jpeg and image.mode not in ("RGB", "L"):
            return False
        if not jpeg and getattr(image, "is_animated", False):
            return False
        orientation = orientation_of(image, data)
    except Exception:  # noqa: BLE001  what is broken, the graph says
        return True
    return orientation == (_found_by_graph(data) if jpeg else 1)


def _found_by_graph(data):
    """The orientation that the served graph finds in a JPEG."""
    if b"Exif\0\0" not in data[:EXIF_SEARCHED]:
        return 1
    return int(_graph()(tf.constant(data)))


@functools.cache
def _graph():
    return tf.function(jpeg_orientation, [tf.TensorSpec([], tf.string)])
