"""What an answer must be before anybody believes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from slotcon_client.errors import RequestError, WrongAnswer
from slotcon_client.reasons import EMPTY, OK, UNKNOWN

Shape = tuple[int | None, ...] | None  # None: of any rank
Outputs = Mapping[str, tuple[str, Shape]]
# A whole image, or one of its places, with only zeros in these has no features.
_NEVER_ZERO = ("pooled", "whitened", "map")
_READ = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")  # and WebP
_OTHERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\xff\x4f", b"\xff\x0a")
_BOXES = (b"ftyp", b"jP  ", b"JXL ")


class Served(NamedTuple):
    """The version that all answers are of.

    Attributes:
        model: Its name.
        version: Its number.
        signature: Dict of output to (dtype as TensorFlow names it, shape with None for
            axes of any size, or None for any shape).

    Example:
        >>> Served("slotcon", 3, {"pooled": ("float32", (None, 512))}).version
        3
    """

    model: str
    version: int
    signature: Outputs


def check_answer(
    found: Mapping[str, np.ndarray],
    served: Served,
    names: Sequence[str],
    content: Sequence[bytes],
) -> dict[str, np.ndarray]:
    """The outputs asked for, if they are what the signature says, for these files.

    Args:
        found: Outputs of an answer.
        served: What was promised.
        names: Outputs that were asked for.
        content: Files that were sent.

    Returns:
        Dict of arrays with a row per file; rows of numbers that are not `ok` are zeros.

    Raises:
        WrongAnswer: If outputs are missing, or of another dtype, shape or number of
            rows, or `ok` and `reason` cannot be of these files.
        RequestError: If the features of an image that is ok are no finite numbers, or
            zeros.

    Example:
        >>> served = Served("slotcon", 1, {"pooled": ("float32", (None, 2))})
        >>> check_answer({"pooled": np.ones((1, 3))}, served, ["pooled"], [b""])
        Traceback (most recent call last):
        slotcon_client.errors.WrongAnswer: pooled must be float32 of shape (1, 2). \
Received: float64 of shape (1, 3).
    """
    missing = sorted(set(names) - set(found))
    if missing:
        raise WrongAnswer(
            f"An answer must have the outputs asked for. Received: none of {missing}."
        )
    for name in names:
        _check_form(name, found[name], *served.signature[name], len(content))
    good = np.ones(len(content), bool)
    if "ok" in found and served.signature.get("ok", ("",))[0] == "bool":
        good = found["ok"]
        if "reason" in found:
            _check_reasons(good, found["reason"], content)
    return {name: _rows(name, found[name], good) for name in names}


def _check_form(
    name: str, array: np.ndarray, dtype: str, shape: Shape, count: int
) -> None:
    wanted = None if shape is None else (count, *shape[1:])
    same = {"string": "object", "bfloat16": "float32"}.get(dtype, dtype.lstrip("q"))
    fits = wanted is None or (
        array.ndim == len(wanted)
        and all(w in (None, s) for w, s in zip(wanted, array.shape, strict=True))
    )
    if array.dtype.name != same or not fits or array.shape[:1] != (count,):
        said = str(wanted).replace("None", "?")
        raise WrongAnswer(
            f"{name} must be {dtype} of shape {said}. Received: {array.dtype.name} of "
            f"shape {array.shape}."
        )


def _check_reasons(
    good: np.ndarray, reasons: np.ndarray, content: Sequence[bytes]
) -> None:
    for ok, reason, data in zip(good, reasons.tolist(), content, strict=True):
        known = data.startswith(_READ) or (data[:4], data[8:12]) == (b"RIFF", b"WEBP")
        other = data.startswith(_OTHERS) or data[4:8] in _BOXES
        wrong = (
            ok != (reason == OK)
            or reason < 0
            or (reason == EMPTY) != (not data)
            or (reason == UNKNOWN and known)
            or (ok and not (known or other))
        )
        if wrong:
            raise WrongAnswer(
                "`ok` and `reason` must be of the files that were sent, in their "
                f"order. Received: ok {bool(ok)} with reason {reason} for a file of "
                f"{len(data)} bytes that begins with {data[:4]!r}."
            )


def _rows(name: str, array: np.ndarray, good: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fc":
        return array
    flat = array[good].reshape(int(good.sum()), int(np.prod(array.shape[1:])))
    if not np.isfinite(flat).all():
        raise RequestError(f"{name} must be finite numbers. Received: NaN or infinite")
    if name in _NEVER_ZERO and flat.size and not flat.any(axis=1).all():
        raise RequestError(f"{name} must be features. Received: a row of zeros")
    if not good.all():
        array = array.copy()
        array[~good] = 0
    return array


def are_swapped(
    found: Mapping[str, np.ndarray], again: Mapping[str, np.ndarray], row: int
) -> bool:
    """Whether an image's answer, asked again, is another row's rather than its own.

    Args:
        found: Answer to a batch.
        again: Answer to one of its images, of one row.
        row: Its place in the batch.

    Example:
        >>> batch = {"pooled": np.float32([[1, 0], [0, 1]])}
        >>> are_swapped(batch, {"pooled": np.float32([[1, 0]])}, row=1)
        True
    """
    names = [name for name in found if name not in ("ok", "reason")]
    names = [n for n in names if found[n].dtype.kind in "fiu"]
    if any(found[name].shape[1:] != again[name].shape[1:] for name in names):
        return True

    def distance(other):
        return sum(_distance(found[n][other], again[n][0]) for n in names)

    own = distance(row)
    # Rounding differs by the size of a batch: near its own it may be, to a share.
    if own <= 1e-3:
        return False
    others = (i for i in range(len(found[names[0]])) if i != row)
    return any(2 * distance(other) < own for other in others)


def _distance(row: np.ndarray, one: np.ndarray) -> float:
    """In lengths of `one`."""
    row, one = row.astype(float), one.astype(float)
    return float(np.linalg.norm(row - one) / (np.linalg.norm(one) or 1.0))


def are_alike(
    found: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray] | None = None
) -> bool:
    """Whether all images have the same features, to the last bit.

    Only outputs count that say something of every image: where there are no objects,
    those of objects are alike.

    Args:
        found: Answer.
        other: Another, whose rows must be the same as well.

    Example:
        >>> are_alike({"pooled": np.float32([[1, 2], [1, 2]])})
        True
        >>> are_alike({"score": np.float32([[0, 0], [0, 0]])})
        False
    """
    names = [n for n in _NEVER_ZERO if n in found and found[n].dtype.kind == "f"]
    same = [
        found[n][:1].shape == rows[n][:1].shape and (rows[n] == found[n][:1]).all()
        for n in names
        for rows in (found, other or {})
        if n in rows
    ]
    return bool(same) and all(same)
