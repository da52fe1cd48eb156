"""A row per object instead of a row per image: what signatures find in `valid` slots."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import numpy as np

from slotcon_client.errors import ExtractionError
from slotcon_client.tables import Rows

VALID = "valid"
_OF_IMAGES = ("ok", "reason", VALID)


def images_path(path: str) -> str:
    """Where the table of images of a table of objects lies.

    Example:
        >>> images_path("objects.npz")
        'objects.images.npz'
    """
    stem, ending = os.path.splitext(path)
    return f"{stem}.images{ending}"


def object_rows(rows: Rows, names: Sequence[str], first: int = 0) -> Rows:
    """The objects of some images, one after the other.

    Args:
        rows: Of N images: `valid` bool (N, S), `ok` bool (N,), and outputs (N, S, ...);
            outputs of other shapes are the image's and are left out.
        names: Of the images.
        first: Number of the first image.

    Returns:
        Dict of `paths` and `image`, int64, the number of the image, and each output
        (R, ...) of the R objects.

    Raises:
        ExtractionError: If there is no `valid`.

    Example:
        >>> rows = {"valid": np.array([[True, False], [True, True]])}
        >>> rows |= {"ok": np.ones(2, bool), "area": np.array([[4, 0], [2, 1]])}
        >>> found = object_rows(rows, ["a.jpg", "b.jpg"])
        >>> found["paths"].tolist(), found["area"].tolist()
        (['a.jpg', 'b.jpg', 'b.jpg'], [4, 2, 1])
    """
    if VALID not in rows:
        if not rows["ok"].any():
            return _with_images(np.zeros(0, np.int64), names, first)
        raise ExtractionError(
            f"Objects are found by their output {VALID!r}. Received: "
            f"{sorted(rows)}. Ask for signature=objects or instances, and for all "
            "outputs."
        )
    valid = rows[VALID] & rows["ok"][:, None]
    images, slots = np.nonzero(valid)
    found = _with_images(images, names, first)
    for name, values in rows.items():
        if name not in _OF_IMAGES and values.shape[:2] == valid.shape:
            found[name] = values[images, slots]
    return found


def image_rows(rows: Rows, names: Sequence[str]) -> Rows:
    """What the table of objects cannot say of an image: whether it was looked at.

    Args:
        rows: As of `object_rows`.
        names: Of the images.

    Returns:
        Dict of `paths`, `objects` (their number), `ok` and `reason`.

    Example:
        >>> rows = {"ok": np.array([False]), "reason": np.array(["empty"])}
        >>> image_rows(rows, ["a.jpg"])["objects"].tolist()
        [0]
    """
    ok = rows["ok"]
    valid = rows.get(VALID, np.zeros((len(ok), 1), bool)) & ok[:, None]
    return {
        "paths": as_text(names),
        "objects": valid.sum(1, dtype=np.int64),
        "ok": ok,
        "reason": rows["reason"],
    }


def as_text(names: Collection[str]) -> np.ndarray:
    """Names as an array of texts.

    Example:
        >>> as_text(["a", "bc"]).dtype
        dtype('<U2')
    """
    return np.array(list(names), np.str_) if names else np.zeros(0, "<U1")


def _with_images(images, names, first):
    return {"paths": as_text(names)[images], "image": images.astype(np.int64) + first}
