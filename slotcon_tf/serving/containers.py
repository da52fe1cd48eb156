"""Walks through image files inside the graph that is served.

TensorFlow's decoders read whole files: every frame of an animation, every packed text.
A few kilobytes of those can take the memory of the machine, or end the process. So a
decoder is given a file that holds nothing but the first image, taken from the original
here, with sizes that have been looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from slotcon_tf.types import Tensor

_RUN = 1024  # equal chunks that are passed at once
_MOST_CHUNKS = 1000  # before the first image
_MOST_RUNS = 100_000  # of an image's own data
_LETTERS = [bytes([value]) for value in range(256)]


class File:
    """Bytes of a file, as string and as numbers.

    Args:
        content: string scalar, not empty.

    Example:
        >>> int(File(tf.constant(b"\\x01\\x02")).number(0, 2, big=True))
        258
    """

    def __init__(self, content: Tensor) -> None:
        self.content = content
        self.data = tf.io.decode_raw(content, tf.uint8)
        self.size = tf.size(self.data, tf.int64)
        self._padded = tf.pad(self.data, [[0, 8]])

    def number(self, place: Tensor, count: int, big: bool = False) -> Tensor:
        """int64: `count` bytes from a place on; 0 for those behind the end."""
        start = tf.minimum(tf.cast(place, tf.int64), self.size)
        values = tf.slice(self._padded, tf.reshape(start, [1]), [count])
        # 64 bits: three bytes of a canvas, times another, overflow 32.
        weights = [256**i for i in range(count)]
        weights = tf.constant(weights[::-1] if big else weights, tf.int64)
        return tf.reduce_sum(tf.cast(values, tf.int64) * weights)

    def shorts(self, places: Tensor, big: Tensor) -> Tensor:
        """int64 (N,): two bytes from each place on."""
        low, high = self._at(places), self._at(places + 1)
        low, high = tf.where(big, high, low), tf.where(big, low, high)
        return tf.cast(low, tf.int64) + 256 * tf.cast(high, tf.int64)

    def signed(self, place: Tensor) -> Tensor:
        """int64 of four bytes, the lowest first."""
        value = self.number(place, 4)
        return tf.where(value < 2**31, value, value - 2**32)

    def cut(self, place: Tensor, count: Tensor) -> Tensor:
        """string: so many bytes; an error where they are not all there."""
        place, count = tf.cast(place, tf.int64), tf.cast(count, tf.int64)
        return tf.strings.substr(self.content, place, count)

    def after_run(self, place: Tensor, stride: Tensor, width: int) -> Tensor:
        """Where a run of chunks ends: equal in length and in their first bytes.

        Args:
            place: int64, of the first of them.
            stride: int64, bytes from one to the next, at least `width`.
            width: Bytes that are compared.

        Returns:
            int64; behind the file's end where the first one is not all there.
        """
        starts = place + stride * tf.range(_RUN, dtype=tf.int64)
        heads = self._at(starts[:, None] + tf.range(width, dtype=tf.int64))
        same = tf.reduce_all(heads == heads[:1], axis=1)
        same &= starts + stride <= self.size
        same = tf.concat([same, [False]], 0)
        count = tf.argmin(tf.cast(same, tf.int32))
        return tf.where(count > 0, place + stride * count, self.size + 1)

    def _at(self, places):
        return tf.gather(self.data, tf.clip_by_value(places, 0, self.size - 1))


class Chunks(NamedTuple):
    """How the chunks of a container are laid out.

    Attributes:
        name: Bytes before a chunk's name.
        length: Bytes before the length of its body.
        big: Whether the highest byte of the length comes first.
        around: Bytes of a chunk that its length does not count.
        even: Whether an odd body has a byte behind it.

    Example:
        >>> file = File(tf.io.encode_png(tf.zeros([3, 4, 3], tf.uint8)))
        >>> bool(PNG.is_(file, PNG.find(file, 8, [b"IDAT"]), b"IDAT"))
        True
    """

    name: int
    length: int
    big: bool
    around: int
    even: bool

    def find(self, file: File, place: Tensor, names: list[bytes]) -> Tensor:
        """int64: the place of the first chunk of a name, or behind the file's end."""
        wanted = [int.from_bytes(name, "big") for name in names]

        def other(place):
            name = file.number(place + self.name, 4, big=True)
            return (place < file.size) & ~tf.reduce_any(name == wanted)

        (found,) = tf.while_loop(
            other,
            lambda place: [place + self.span(file, place)],
            [tf.cast(place, tf.int64)],
            maximum_iterations=_MOST_CHUNKS,
        )
        return tf.where(other(found), file.size, found)

    def span(self, file: File, place: Tensor) -> Tensor:
        """int64: bytes from a chunk to the next."""
        length = file.number(place + self.length, 4, self.big)
        return self.around + length + (length % 2 if self.even else 0)

    def is_(self, file: File, place: Tensor, name: bytes) -> Tensor:
        """Whether a chunk of this name is at a place."""
        found = file.number(place + self.name, 4, big=True)
        return (place < file.size) & (found == int.from_bytes(name, "big"))


PNG = Chunks(name=4, length=0, big=True, around=12, even=False)
RIFF = Chunks(name=0, length=4, big=False, around=8, even=True)
_END_OF_PNG = b"\0\0\0\0IEND\xae\x42\x60\x82"


def png_image(file: File) -> tuple[Tensor, Tensor]:
    """The image of a PNG.

    Returns:
        Tuple of a file's content with the header, the palette and the pixels, and the
        place of EXIF data, behind the end if there is none before the pixels. The
        content is empty where the file is not whole.

    Example:
        >>> png = tf.io.encode_png(tf.zeros([3, 4, 3], tf.uint8))
        >>> content, _ = png_image(File(png))
        >>> tf.io.decode_png(content).shape
        TensorShape([3, 4, 3])
    """
    first = PNG.find(file, 8, [b"IDAT"])

    def kept(name):
        place = PNG.find(file, 33, [name, b"IDAT"])
        length = tf.where(PNG.is_(file, place, name), PNG.span(file, place), 0)
        return file.cut(tf.where(length > 0, place, 0), length)

    (last,) = tf.while_loop(
        lambda place: PNG.is_(file, place, b"IDAT"),
        lambda place: [file.after_run(place, PNG.span(file, place), 8)],
        [first],
        maximum_iterations=_MOST_RUNS,
    )
    whole = PNG.is_(file, 8, b"IHDR") & (file.number(8, 4, big=True) == 13)
    whole &= (first < last) & (last <= file.size) & (first >= 33)
    content = tf.cond(
        whole & ~PNG.is_(file, last, b"IDAT"),
        lambda: tf.strings.join(
            [
                file.cut(0, 33),
                kept(b"PLTE"),
                kept(b"tRNS"),
                file.cut(first, last - first),
                _END_OF_PNG,
            ]
        ),
        lambda: tf.constant(b""),
    )
    exif = PNG.find(file, 8, [b"eXIf", b"IDAT"])
    there = PNG.is_(file, exif, b"eXIf")
    return content, tf.where(there, exif + 8, file.size)


class Placed(NamedTuple):
    """An image somewhere on its canvas.

    Attributes:
        content: Of a file with this image alone; empty where it is not whole.
        canvas: int64 (height, width).
        size: int64 (height, width) of the image.
        corner: int64 (top, left).
        exif: int64, the place of EXIF data; behind the file's end if there is none.

    Example: See `webp_image`.
        >>> Placed._fields
        ('content', 'canvas', 'size', 'corner', 'exif')
    """

    content: Tensor
    canvas: Tensor
    size: Tensor
    corner: Tensor
    exif: Tensor


def webp_image(file: File) -> Placed:
    """A WebP's image, or the first one of its animation.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> data = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(data, "WEBP")
        >>> webp_image(File(tf.constant(data.getvalue()))).canvas.numpy()
        array([3, 4])
    """
    kinds = [b"VP8 ", b"VP8L"]
    outer = RIFF.find(file, 12, [*kinds, b"ANMF"])
    moving = RIFF.is_(file, outer, b"ANMF")
    place = tf.cond(
        moving, lambda: RIFF.find(file, outer + 24, kinds), lambda: tf.identity(outer)
    )
    lossless = RIFF.is_(file, place, b"VP8L")
    packed = file.number(place + 9, 4)
    size = tf.where(
        lossless,
        tf.stack([packed // 2**14 % 2**14 + 1, packed % 2**14 + 1]),
        tf.stack(
            [file.number(place + 16, 2) % 2**14, file.number(place + 14, 2) % 2**14]
        ),
    )
    extended = RIFF.is_(file, 12, b"VP8X")
    canvas = tf.stack([file.number(27, 3) + 1, file.number(24, 3) + 1])
    canvas = tf.where(extended, canvas, size)
    corner = 2 * tf.stack([file.number(outer + 11, 3), file.number(outer + 8, 3)])
    frame = 1 + tf.stack([file.number(outer + 17, 3), file.number(outer + 14, 3)])
    corner = tf.where(moving, corner, 0)
    frame = tf.where(moving, frame, canvas)
    length = file.number(place + 4, 4)
    whole = (place + 8 + length <= file.size) & tf.reduce_all(size == frame)
    whole &= tf.reduce_all(corner + size <= canvas) & (extended | ~moving)
    outer_end = outer + RIFF.span(file, outer)
    whole &= ~moving | (place + 8 + length <= outer_end)
    content = tf.cond(
        whole,
        lambda: tf.strings.join(
            [
                b"RIFF",
                _four_bytes(12 + length + length % 2),
                b"WEBP",
                file.cut(place, 8 + length),
                b"\0",
            ]
        ),
        lambda: tf.constant(b""),
    )
    exif = RIFF.find(file, outer_end, [b"EXIF"])
    exif = tf.where(extended, exif + 8, file.size)
    return Placed(content, canvas, size, corner, exif)


def gif_image(file: File) -> tuple[Placed, Tensor]:
    """A GIF's first image.

    Returns:
        Tuple of `Placed`, and int64 (3,), the colour around the image.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> data = io.BytesIO()
        >>> Image.new("P", (4, 3)).save(data, "GIF")
        >>> gif_image(File(tf.constant(data.getvalue())))[0].canvas.numpy()
        array([3, 4])
    """
    flags = file.number(10, 1)
    palette = tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)
    place, around = tf.while_loop(
        lambda place, _: file.number(place, 1) == ord("!"),
        lambda place, around: [
            _blocks_end(file, place + 2),
            _clear_index(file, place, around),
        ],
        [tf.cast(13 + palette, tf.int64), tf.constant(0, tf.int64)],
        maximum_iterations=_MOST_CHUNKS,
    )
    corner = tf.stack([file.number(place + 3, 2), file.number(place + 1, 2)])
    size = tf.stack([file.number(place + 7, 2), file.number(place + 5, 2)])
    screen = tf.stack([file.number(8, 2), file.number(6, 2)])
    local = file.number(place + 9, 1)
    own = tf.where(local >= 128, 3 * 2 ** (local % 8 + 1), 0)
    end = _blocks_end(file, place + 11 + own)
    content = tf.cond(
        (file.number(place, 1) == ord(",")) & (end <= file.size),
        # No transparency: the colour below it counts, as in training.
        lambda: tf.strings.join(
            [
                b"GIF89a",
                file.cut(place + 5, 4),
                file.cut(10, 3 + palette),
                b",\0\0\0\0",
                file.cut(place + 5, end - place - 5),
                b";",
            ]
        ),
        lambda: tf.constant(b""),
    )
    colours = tf.where(own > 0, place + 10, 13) + 3 * around
    colour = tf.stack([file.number(colours + i, 1) for i in range(3)])
    canvas = tf.maximum(screen, corner + size)
    return Placed(content, canvas, size, corner, file.size), colour


def _clear_index(file, place, around):
    """The index of the transparent colour, if the extension at a place sets it."""
    control = file.number(place + 1, 1) == 0xF9
    control &= (file.number(place + 2, 1) >= 4) & (file.number(place + 3, 1) % 2 == 1)
    return tf.where(control, file.number(place + 6, 1), around)


def _blocks_end(file, place):
    """int64: behind a GIF's blocks, which end with one of length 0."""
    (last,) = tf.while_loop(
        lambda place: file.number(place, 1) > 0,
        lambda place: [file.after_run(place, 1 + file.number(place, 1), 1)],
        [place],
        maximum_iterations=_MOST_RUNS,
    )
    whole = (last < file.size) & (file.number(last, 1) == 0)
    return tf.where(whole, last + 1, file.size + 1)


def _four_bytes(value):
    """string of an int64, the lowest byte first."""
    digits = value // [1, 2**8, 2**16, 2**24] % 256
    return tf.strings.reduce_join(tf.gather(_LETTERS, digits))
