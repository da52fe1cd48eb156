"""Files of label maps to ids, or an error that says what is wrong with them."""

from __future__ import annotations

import os
import re

import numpy as np

from slotcon_client.images import tiff
from slotcon_tf.data.reading import Patience, read_file
from slotcon_tf.images.decoding import LOSSLESS, decode_pixels, open_image
from slotcon_tf.images.orientation import load_as_stored, orientation_of, upright
from slotcon_tf.images.pixels import BadImage, PixelWatch
from slotcon_tf.images.statistics import PixelRange

VOID = 255  # label of pixels that count nowhere
MAX_CLASSES = 255
MAX_ID = 2**31 - 1
_ID_MODES = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L"}
_GREY_MODES = {"RGB", "RGBA", "LA", "PA"}  # if all channels agree and nothing shines
_MAX_BYTES = 2**30  # of a file; a label map of 89 megapixels with 32 bits has a third
_patience = Patience()  # of all sets: they are on one disk mostly


class LabelError(ValueError):
    """A label map, or a set of them, cannot be used; its text says why.

    Example:
        >>> decode_ids(b"no image", "a.png")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        slotcon_tf.data.labelled.decoding.LabelError: A label map must be ...
    """


class UprightImage:
    """An image of a labelled set.

    Args:
        data: Bytes of the file.
        path: Named in errors.
        watch, pixel_range: See `decode_labelled`.

    Attributes:
        pixels: uint8 (height, width, 3), upright.
        orientation: By which they were turned, 1 to 8.

    Raises:
        LabelError: If it cannot be decoded.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(file, "PNG")
        >>> UprightImage(file.getvalue(), "a.png").orientation
        1
    """

    def __init__(
        self,
        data: bytes,
        path: object,
        watch: PixelWatch | None = None,
        pixel_range: PixelRange | None = None,
    ) -> None:
        self.pixels = decode_labelled(data, path, watch, pixel_range)
        self.path = path
        self.orientation = orientation_of(open_image(data), data)


class LabelMap:
    """Ids of a file.

    Attributes:
        ids: int32 (height, width), as they are stored.
        orientation: What the file's EXIF says of them, 1 to 8.
        path: Named in errors.
        palette: Bytes (number of colours, 3), or None.

    Example: See `decode_ids`.
        >>> LabelMap(np.zeros((3, 4), np.int32), 1, "a.png").ids.shape
        (3, 4)
    """

    def __init__(
        self,
        ids: np.ndarray,
        orientation: int,
        path: object,
        palette: np.ndarray | None = None,
    ) -> None:
        self.ids, self.orientation, self.path = ids, orientation, path
        self.palette = palette

    def beside(self, image: UprightImage) -> np.ndarray:
        """Ids turned as an `UprightImage` is: int32 (height, width).

        Raises:
            LabelError: If the sizes do not fit, or fit in several ways.
        """
        size = image.pixels.shape[:2]
        fitting = _fitting(self.ids.shape, self.orientation, size, image.orientation)
        if not fitting:
            got, need = self.ids.shape[1::-1], size[::-1]
            raise LabelError(
                "A label map must be as large as its image. Received: "
                f"{self.path}, {got[0]}x{got[1]}, for an image of {need[0]}x{need[1]} "
                f"({image.path}). Resize one of them (labels by nearest neighbour)."
            )
        if len(fitting) > 1:
            raise LabelError(
                "It must be plain how a label map lies on its image. Received: "
                f"{image.path} with EXIF orientation {image.orientation} and "
                f"{self.path} with {self.orientation}, whose sizes fit turned and "
                "unturned. Save both upright, without EXIF orientation."
            )
        return np.ascontiguousarray(upright(self.ids, fitting[0]))


def _fitting(stored, own, upright, of_image):
    """Orientations by which a label map lies on its upright image.

    Sizes decide, and what the label map's own EXIF says if the image's said the same.

    Args:
        stored: Height and width of the label map in its file.
        own: Its orientation.
        upright: Height and width of the image.
        of_image: The image's orientation, by which it was turned.

    Returns:
        List of numbers: empty if no size fits, several if it stays open.
    """
    candidates = sorted({1, own, of_image})
    found = [n for n in candidates if (stored[::-1] if n > 4 else stored) == upright]
    return [own] if own == of_image and own in found else found


def decode_ids(data: bytes, path: object) -> LabelMap:
    """Bytes of a label file to the ids that it holds.

    Palette images give their indices, not their colours; colour images whose channels
    are equal, without transparency, give a channel.

    Args:
        data: Bytes of a PNG (or any lossless format that Pillow reads).
        path: Named in errors.

    Returns:
        `LabelMap`.

    Raises:
        LabelError: If it is no image of one id per pixel.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (4, 3), 7).save(file, "PNG")
        >>> decode_ids(file.getvalue(), "a.png").ids[0]
        array([7, 7, 7, 7], dtype=int32)
    """
    image, turn, step = _open(data, path)
    ids = None
    if image.mode in _ID_MODES:
        ids = np.asarray(image).astype(np.int32) // step
    elif image.mode in _GREY_MODES:
        ids = _one_channel(np.asarray(image), image.mode)
    if ids is None:
        raise LabelError(
            "A label map must have one channel of class ids, as 8- or 16-bit grey or "
            f"with a palette. Received: {path} of mode {image.mode}. If its colours "
            "stand for classes, save their indices instead."
        )
    palette = None
    if image.mode == "P":
        palette = np.reshape(image.getpalette("RGB") or (), (-1, 3))
    return LabelMap(ids, turn, path, palette)


class Palettes:
    """Looks whether label maps with palettes give each id one colour.

    Programs that make a palette of the colours of each file by itself, in any order,
    leave indices that say nothing.

    Example:
        >>> palettes, red = Palettes(), np.array([[255, 0, 0]])
        >>> palettes.look(LabelMap(np.zeros((3, 4), np.int32), 1, "a.png", red))
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple] = {}

    def look(self, label_map: LabelMap) -> None:
        """Looks at a `LabelMap`.

        Raises:
            LabelError: If an id has another colour than in an earlier one.
        """
        if label_map.palette is None:
            return
        for number in np.unique(label_map.ids).tolist():
            color = tuple(label_map.palette[number : number + 1].ravel().tolist())
            before, path = self._seen.setdefault(number, (color, label_map.path))
            if color and before and color != before:
                raise LabelError(
                    "A label map's palette must give an id the same colour in every "
                    f"file. Received: id {number} is {before} in {path} and {color} "
                    f"in {label_map.path}. If the colours are the classes, save all "
                    "with one palette; if the ids are, name them in `class_file`."
                )


def decode_panoptic_ids(data: bytes, path: object) -> LabelMap:
    """Segment ids of a COCO panoptic PNG: red + 256 green + 256^2 blue.

    Returns:
        `LabelMap`.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3), (7, 1, 0)).save(file, "PNG")
        >>> int(decode_panoptic_ids(file.getvalue(), "a.png").ids[0, 0])
        263
    """
    image, turn, _ = _open(data, path)
    if image.mode not in ("RGB", "RGBA"):
        raise LabelError(
            "A panoptic label map must be an RGB PNG. "
            f"Received: {path} of mode {image.mode}."
        )
    pixels = np.asarray(image)[..., :3].astype(np.int32)
    return LabelMap(pixels @ np.array([1, 256, 65536], np.int32), turn, path)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Bytes of a file of a labelled set; a disk that is away for seconds is waited for.

    Raises:
        LabelError: If they cannot be read, or are too many for an image.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.png")
        >>> _ = path.write_bytes(b"pixels")
        >>> read_bytes(path)
        b'pixels'
    """
    try:
        return _patience.read(lambda: read_file(path, _MAX_BYTES), os.fspath(path))
    except (BadImage, OSError) as error:
        raise _unreadable(path, error) from None


def decode_labelled(
    data: bytes,
    path: object,
    watch: PixelWatch | None = None,
    pixel_range: PixelRange | None = None,
) -> np.ndarray:
    """An image of a labelled set, which must be readable: uint8 (height, width, 3).

    Training replaces what cannot be decoded; a score must be that of the whole set.

    Args:
        data: Bytes of the file.
        path: Named in errors.
        watch: `PixelWatch` that warns of few grey levels.
        pixel_range: (low, high) that images of more than 8 bits are read in, the
            model's; see `slotcon_tf.images.decode_image`.

    Raises:
        LabelError: If it is not.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(file, "PNG")
        >>> decode_labelled(file.getvalue(), "a.png").shape
        (3, 4, 3)
    """
    try:
        decoded = decode_pixels(data, pixel_range=pixel_range)
    except BadImage as error:
        raise _unreadable(path, error) from None
    if watch:
        watch.look(path, decoded)
    return decoded.rgb


def _unreadable(path, error):
    return LabelError(
        f"Every image of a labelled set must be readable. Received: {path} ({error}). "
        "Mend it, or leave it out."
    )


def _open(data, path):
    """The image as it is stored, its EXIF orientation, and `_step`."""
    try:
        # A small file may be a large flat area.
        image = open_image(data, flat=True)
        if _is_lossy(image, data):
            raise LabelError(
                "A label map must be stored without loss. Received: "
                f"{path}, a {image.format}, whose ids are blurred at every edge, if it "
                "has any. Save it as PNG."
            )
        if tiff.is_stack(image):
            raise LabelError(
                "A label map must be one image. Received: "
                f"{path}, several of one size. Save the right one by itself."
            )
        step = _step(image)
        if not step:
            raise LabelError(
                "A label map must keep its ids while it is read: grey of 1, 2, 4, 8 or "
                f"16 bits, a palette, or colours of 8 bits. Received: {path}, "
                f"{image.format} of other depth. Save it as 8- or 16-bit grey PNG."
            )
        if _is_inverted(image):
            raise LabelError(
                "It must be plain which ids a label map holds. Received: "
                f"{path}, a TIFF whose 0 is white (PhotometricInterpretation 0), which "
                "some programs read as stored and others inverted. Save it as PNG."
            )
        return *load_as_stored(image, data), step
    except LabelError:
        raise
    except Exception as error:  # noqa: BLE001  broken files fail in any way
        raise LabelError(
            f"A label map must be a readable image. Received: {path} ({error}). "
            "Write it again, or leave the image out."
        ) from None


def _is_lossy(image, data):
    if image.format == "WEBP":
        return b"VP8L" not in data
    compression = image.info.get("compression", "")
    return image.format not in LOSSLESS or "jp" in str(compression)


def _step(image):
    """What an id is multiplied by in the pixels that Pillow gives; 0 if not by one.

    Grey of 2 and 4 bits is spread over 0 .. 255, and so is PGM of other ranges; of
    colours with 16 bits the upper 8 are left.
    """
    for tile in image.tile:
        of_codec = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if tile.codec_name.startswith("ppm") and of_codec[-1] not in (255, 65535):
            return 0
        raw = str(of_codec[0]) if of_codec else ""
        if raw.startswith(("L;2", "L;4")):
            return 85 if raw[2] == "2" else 17
        if ";16" in raw and not image.mode.startswith("I"):
            return 0
    return 1


def _is_inverted(image):
    """Whether Pillow inverts grey: a TIFF's ids, or what its writer has inverted.

    Of one bit it is the usual form of fax, which writers invert and readers back.
    """
    raw = (str(tile.args[0]) for tile in image.tile if isinstance(tile.args, tuple))
    return image.mode == "L" and any(re.search(";[248]?I", name) for name in raw)


def _one_channel(pixels, mode):
    """Ids where all channels say the same and no pixel is transparent; else None."""
    colors = pixels
    if mode in ("RGBA", "LA", "PA"):
        if (pixels[..., -1] != 255).any():
            return None
        colors = pixels[..., :-1]
    if (colors != colors[..., :1]).any():
        return None
    return colors[..., 0].astype(np.int32)
