"""Files of label maps to class ids, or an error that says what is wrong with them."""

import io

import numpy as np
from PIL import Image

VOID = 255  # label of pixels that count nowhere
MAX_CLASSES = 255
_ID_MODES = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L"}


class LabelError(ValueError):
    """A label map, or a set of them, cannot be used; its text says why."""


def decode_ids(data, path):
    """Bytes of a label file to the ids that it holds.

    Palette images give their indices, not their colours.

    Args:
        data: Bytes of a PNG (or any lossless format that Pillow reads).
        path: Named in errors.

    Returns:
        int32 (height, width).

    Raises:
        LabelError: If it is no image of one id per pixel.
    """
    image = _open(data, path)
    if image.mode not in _ID_MODES:
        raise LabelError(
            "A label map must have one channel of class ids, as 8- or 16-bit grey or "
            f"with a palette. Received: {path} of mode {image.mode}. If its colours "
            "stand for classes, save their indices instead."
        )
    if image.format == "JPEG":
        raise LabelError(
            f"A label map must be stored without loss. Received: {path}, a JPEG, whose "
            "ids are blurred at every edge. Save it as PNG."
        )
    return np.asarray(image).astype(np.int32)


def decode_panoptic_ids(data, path):
    """Segment ids of a COCO panoptic PNG: red + 256 green + 256^2 blue.

    Returns:
        int32 (height, width).
    """
    image = _open(data, path)
    if image.mode not in ("RGB", "RGBA"):
        raise LabelError(
            "A panoptic label map must be an RGB PNG. "
            f"Received: {path} of mode {image.mode}."
        )
    pixels = np.asarray(image)[..., :3].astype(np.int32)
    return pixels @ np.array([1, 256, 65536], np.int32)  # (height, width)


def _open(data, path):
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # noqa: BLE001  broken files fail in any way
        raise LabelError(
            f"A label map must be a readable image. Received: {path} ({error}). "
            "Write it again, or leave the image out."
        ) from None
    return image


def check_size(labels, image, path):
    """Raises `LabelError` unless a label map is as large as its image."""
    if labels.shape[:2] != image.shape[:2]:
        got, need = labels.shape[1::-1], image.shape[1::-1]
        raise LabelError(
            "A label map must be as large as its image. Received: "
            f"{path}, {got[0]}x{got[1]}, for an image of {need[0]}x{need[1]}. Resize "
            "one of them (labels by nearest neighbour)."
        )


def check_same_classes(train, data):
    """Raises `LabelError` unless two labelled sets have the same classes in order."""
    if train.class_names != data.class_names:
        strange = set(train.class_names) ^ set(data.class_names)
        extra = sorted(set(data.class_names) - set(train.class_names))[:5]
        more = f", {', '.join(extra)} only in the latter" if extra else ""
        raise LabelError(
            "Both splits must have the same classes, in the same order. Received: "
            f"{train!r} and {data!r}, which differ in "
            f"{', '.join(sorted(strange)[:5]) or 'their order'}{more}. For folders and "
            "lists give --class_file."
        )


class ClassTable:
    """From the ids in label files to classes 0 .. C - 1, and their names.

    Args:
        ids: Dict of id to name, in the order of the classes. 255 is void by itself.
        void: Other ids that count nowhere.
        merged: Dict of id to class, if several ids are one class; `ids` then holds a
            key per class that is only a number.
    """

    def __init__(self, ids, void=(), merged=None):
        self.names = tuple(ids.values())
        if not 0 < len(self.names) < MAX_CLASSES:
            raise LabelError(
                f"There must be between 1 and {MAX_CLASSES - 1} classes. "
                f"Received: {len(self.names)}."
            )
        classes = merged or {number: index for index, number in enumerate(ids)}
        # An id 255 that somebody has named is a class.
        known = {**dict.fromkeys((*void, VOID), VOID), **classes}
        self._known = np.array(sorted(known), np.int64)
        self._class = np.array([known[i] for i in self._known.tolist()], np.uint8)

    def classes(self, ids, path):
        """Classes of ids.

        Args:
            ids: Integers (height, width).
            path: Named in the error.

        Returns:
            uint8 (height, width), `VOID` where void.

        Raises:
            LabelError: If an id is neither a class nor void.
        """
        place = np.searchsorted(self._known, ids).clip(max=len(self._known) - 1)
        strange = self._known[place] != ids
        if strange.any():
            found = np.unique(ids[strange])
            raise LabelError(
                f"Ids of {path} must be those of the {len(self.names)} classes or "
                f"void. Received: {', '.join(map(str, found[:5].tolist()))} in "
                f"{strange.mean():.1%} of its pixels. Name them in classes.txt, or "
                "call them void (--void_ids)."
            )
        return self._class[place]
