"""JSON of an answer in TF Serving's REST, of arrays."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from .server_errors import invalid
from .server_json_read import type_name

_LONGEST_PIECE = 2**16  # numbers that are written at once
_COMPACT = (",", ":")
_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def write(outputs: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """An answer: `predictions` of a request in rows, else `outputs`.

    Args:
        outputs: Dict of name to array. A single one is written without its name;
            strings as text, those whose name ends with `_bytes` as `{"b64": ...}`.
        rows: Whether the request was in rows.

    Raises:
        Refused: If there is no JSON for a dtype, or outputs have no rows.

    Example:
        >>> write({"x": np.float32([0.1, np.nan])}, rows=True)
        b'{"predictions":[0.1,NaN]}'
        >>> write({"x": np.int32([[1]]), "y_bytes": np.array([b"a"], object)}, False)
        b'{"outputs":{"x":[[1]],"y_bytes":[{"b64":"YQ=="}]}}'
    """
    if not rows:
        texts = {name: _text(name, array) for name, array in outputs.items()}
        return f'{{"outputs":{_object(texts)}}}'.encode()
    count = 0
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if not len(array):
            raise invalid(f"Tensor name: {name} has invalid batch size: 0")
        if count and len(array) != count:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} "
                f"expecting: {count}"
            )
        count = len(array)
    found = (
        _object({name: _text(name, array[i, ...]) for name, array in outputs.items()})
        for i in range(count)
    )
    return f'{{"predictions":[{",".join(found)}]}}'.encode()


def _object(texts: Mapping[str, str]) -> str:
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in texts.items()) + "}"


def _text(name: str, array: np.ndarray) -> str:
    if array.dtype.kind in "biu" or array.dtype == np.float64:
        return json.dumps(array.tolist(), separators=_COMPACT)
    if array.dtype == object:
        write = _written_bytes if name.endswith("_bytes") else _written_text
        return _nested([write(text) for text in array.ravel().tolist()], array.shape)
    if array.dtype != np.float32:
        raise invalid(
            f"Failed to write JSON value for tensor type: "
            f"{type_name(tf.as_dtype(array.dtype))}"
        )
    if array.size > _LONGEST_PIECE and len(array) > 1:
        return "[" + ",".join(_text(name, part) for part in array) + "]"
    # The shortest digits that give the number back: a double's would be twice as many.
    texts = map(str, array.ravel())
    if not np.isfinite(array).all():
        texts = (_SPECIAL.get(text, text) for text in texts)
    return _nested(texts, array.shape)


def _written_bytes(value: bytes) -> str:
    return f'{{"b64":"{base64.b64encode(value).decode()}"}}'


def _written_text(value: bytes) -> str:
    return json.dumps(value.decode(errors="replace"))


def _nested(texts: Iterable[str], shape: tuple[int, ...]) -> str:
    if not np.prod(shape):
        return json.dumps(np.empty(shape).tolist(), separators=_COMPACT)
    parts = list(texts)
    for size in reversed(shape):
        parts = [
            "[" + ",".join(parts[i : i + size]) + "]"
            for i in range(0, len(parts), size)
        ]
    return parts[0]
