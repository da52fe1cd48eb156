"""What a file's bytes tell without Pillow: whether a served model reads it surely."""

from __future__ import annotations

EXIF_SEARCHED = 4096  # bytes of a JPEG that the served graph looks at; EXIF comes first
_PIXELS_BEHIND = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC))
_IN_PNG = (b"acTL", b"eXIf", b"exif", b"xmp")  # frames, and what may turn it
_IN_WEBP = 0x02 | 0x04 | 0x08  # VP8X: frames, XMP, EXIF


def is_plain_file(data: bytes) -> bool:
    """Whether a file is read alike everywhere: a still JPEG, PNG or WebP.

    Of no inks, and with no orientation but one that the served graph finds itself.

    Args:
        data: Bytes of the file.

    Example:
        >>> is_plain_file(b"II*\\0 and so on")
        False
    """
    if data.startswith(b"\xff\xd8\xff"):
        exif = data.find(b"Exif\0\0")
        seen = exif < EXIF_SEARCHED and b"tiff:Orientation" not in data
        return seen and _channels_of_jpeg(data) in (1, 3)
    if data.startswith(b"\x89PNG"):
        return not any(mark in data for mark in _IN_PNG)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        extended = data[12:16] == b"VP8X" and len(data) > 20
        return not (extended and data[20] & _IN_WEBP)
    return False


def _channels_of_jpeg(data: bytes) -> int:
    """As its frame header says; 0 if there is none."""
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _PIXELS_BEHIND:
            return data[place + 9]
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0


def jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation that the served graph finds in a JPEG.

    Its own rule is `slotcon_tf.serving.formats.jpeg_orientation`; a test compares them.

    Args:
        data: Bytes of the file.

    Returns:
        A number from 1 to 8; 1 where there is none, or a broken one.

    Example:
        >>> jpeg_orientation(b"\\xff\\xd8\\xff\\xd9")
        1
    """
    head = data[:EXIF_SEARCHED]
    tiff = head.find(b"Exif\0\0") + 6
    if tiff < 6:
        return 1
    order = "big" if head[tiff : tiff + 1] == b"M" else "little"

    def number(place: int, count: int) -> int:
        return int.from_bytes(head[place : place + count].ljust(count, b"\0"), order)

    def short(place: int) -> int:  # the last byte again behind the end
        last = len(head) - 1
        return int.from_bytes([head[min(place + i, last)] for i in (0, 1)], order)

    if number(tiff, 4) != (0x4D4D002A if order == "big" else 0x002A4949):
        return 1
    directory = tiff + number(tiff + 4, 4)
    places = (directory + 2 + 12 * i for i in range(min(number(directory, 2), 64)))
    value = max((short(p + 8) for p in places if short(p) == 0x0112), default=0)
    return value if 1 <= value <= 8 else 1
