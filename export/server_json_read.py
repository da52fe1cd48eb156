"""JSON of a request in TF Serving's REST, in rows or in columns, as arrays."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .server_errors import Refused, invalid
from .server_tensors import Limits, check

_LIST_BYTES, _OBJECT_BYTES, _VALUE_BYTES = 90, 240, 40  # that Python takes for each
_GROWTH = 10  # what may be taken when read, in multiples of the largest body
_SHOWN = 60  # letters of a value in an error
_WHOLE = {tf.uint8, tf.int8, tf.uint16, tf.int16, tf.int32, tf.uint32, tf.int64}
_WHOLE |= {tf.uint64}
_LOSSLESS = {tf.float32: 2**24, tf.float64: 2**53}


def parse(body: bytes, limit: int) -> dict[str, Any]:
    """The object of a request.

    Args:
        body: As it came.
        limit: Largest body.

    Raises:
        Refused: If it is no object, or would take much more memory than it has bytes.

    Example:
        >>> parse(b'{"inputs": [1]}', 100)
        {'inputs': [1]}
        >>> parse(b"[" + b"[]," * 2**20 + b"1]", 2**20)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        export.server_errors.Refused: The body must be of fewer values. ...
    """
    lists, objects, commas = (body.count(sign) for sign in (b"[", b"{", b","))
    taken = _LIST_BYTES * lists + _OBJECT_BYTES * objects + _VALUE_BYTES * commas
    if taken > _GROWTH * limit:
        raise invalid(
            f"The body must be of fewer values. Received: {lists} lists, {objects} "
            f'objects, {commas} commas. Send images as files: {{"b64": ...}}.'
        )
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise invalid(f"JSON Value: {_shown(request)} Is not object")
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_shown(request)} not formatted correctly. 'signature_name' "
            "key must be a string value."
        )
    return request


def read(
    request: Mapping[str, Any], definition: Any, limits: Limits
) -> tuple[dict[str, np.ndarray], bool]:
    """Inputs of a request, from its `instances` or `inputs`.

    Args:
        request: Of `parse`.
        definition: SignatureDef.
        limits: Of the server.

    Returns:
        Dict of name to array, and whether they came in rows.

    Raises:
        Refused: If they are not what the signature takes.

    Example:
        >>> from google.protobuf import text_format
        >>> from tensorflow.core.protobuf import meta_graph_pb2
        >>> definition = text_format.Parse(
        ...     "inputs { key: 'x' value { dtype: DT_FLOAT tensor_shape {"
        ...     " dim { size: -1 } } } }", meta_graph_pb2.SignatureDef())
        >>> read({"instances": [{"x": 1}, {"x": 2.5}]}, definition, Limits())
        ({'x': array([1. , 2.5], dtype=float32)}, True)
        >>> read({"inputs": [3]}, definition, Limits())
        ({'x': array([3.], dtype=float32)}, False)
    """
    if "instances" in request and "inputs" in request:
        raise invalid(
            f"JSON Value: {_shown(request)} Not formatted correctly expecting only one "
            "of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in request:
        rows = request["instances"]
        return _read(_columns(rows, list(definition.inputs)), definition, limits), True
    if "inputs" not in request:
        raise invalid("Missing 'inputs' or 'instances' key")
    values, names = request["inputs"], list(definition.inputs)
    if not isinstance(values, dict) or _is_b64(values):
        if len(names) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        values = dict.fromkeys(names, values)
    for name in names:
        if name not in values:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return _read({name: values[name] for name in names}, definition, limits), False


def _columns(rows: Any, names: list[str]) -> dict[str, list]:
    if not isinstance(rows, list):
        raise invalid("Excepting 'instances' to be an list/array")
    if not rows:
        raise invalid("No values in 'instances' array")
    named = [isinstance(row, dict) and not _is_b64(row) for row in rows]
    if not any(named):
        if len(names) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple "
                "input tensors required as per tensorinfo_map"
            )
        return dict.fromkeys(names, rows)
    for place, row in enumerate(rows):
        if not named[place]:
            raise invalid(
                f"Expecting object but got list at item {place} of input list"
            )
        if set(row) != set(names):
            raise invalid(
                f"Failed to process element: {place} of 'instances' list. JSON object: "
                f"{_shown(row)} keys must be equal to: {','.join(sorted(names))}"
            )
    return {name: [row[name] for row in rows] for name in names}


def _read(
    columns: Mapping[str, Any], definition: Any, limits: Limits
) -> dict[str, np.ndarray]:
    found = {}
    for name, values in columns.items():
        info = definition.inputs[name]
        shape = _shape(values)
        check(name, info.dtype, shape, info, limits)
        try:
            flat = _flat(values, shape)
            array = _array(flat, tf.as_dtype(info.dtype))
        except (ValueError, OverflowError) as error:
            raise invalid(f"input {name} cannot be read: {error}.") from None
        found[name] = array.reshape(shape)
    return found


def _shape(values: Any) -> list[int]:
    """As the first values have it, as in TF Serving."""
    shape = []
    while isinstance(values, list):
        shape.append(len(values))
        if not values:
            break
        values = values[0]
    return shape


def _flat(values: Any, shape: list[int]) -> list[Any]:
    flat = [values]
    for level, size in enumerate(shape):
        for part in flat:
            if not isinstance(part, list) or len(part) != size:
                got = len(part) if isinstance(part, list) else _shown(part)
                raise ValueError(
                    f"Encountered list at unexpected size: {got} at level: {level} "
                    f"expected size: {size}"
                )
        flat = list(itertools.chain.from_iterable(flat))
    return flat


def _array(flat: list[Any], dtype: tf.DType) -> np.ndarray:
    kinds = set(map(type, flat))
    if dtype == tf.string:
        found = np.empty(len(flat), object)
        found[:] = [_bytes(value) for value in flat]
        return found
    if dtype == tf.bool:
        allowed = {bool}
    elif dtype in _WHOLE:
        allowed = {int}
    elif dtype in _LOSSLESS:
        allowed = {int, float}
    else:
        raise Refused(
            "UNIMPLEMENTED", f"Conversion of JSON Value: to type: {type_name(dtype)}"
        )
    if kinds - allowed:
        wrong = next(value for value in flat if type(value) not in allowed)
        raise ValueError(
            f"JSON Value: {_shown(wrong)} Type: {_kind(wrong)} is not of expected "
            f"type: {type_name(dtype)}"
        )
    if dtype in _LOSSLESS and kinds:
        _check_lossless(flat, dtype, int in kinds)
    return np.array(flat, dtype.as_numpy_dtype)


def _check_lossless(flat: list[Any], dtype: tf.DType, whole: bool) -> None:
    most, largest = _LOSSLESS[dtype], float(dtype.max)
    exact = np.array(flat, np.float64)
    wrong = np.isfinite(exact) & (np.abs(exact) > largest)
    if whole:
        wrong |= [type(value) is int and abs(value) >= most for value in flat]
    if wrong.any():
        raise ValueError(
            f"Cannot convert JSON value: {_shown(flat[int(wrong.argmax())])} to "
            f"{type_name(dtype)} without loss of precision"
        )


def _is_b64(value: Any) -> bool:
    return (
        isinstance(value, dict) and set(value) == {"b64"} and type(value["b64"]) is str
    )


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if not _is_b64(value):
        raise ValueError(
            f"JSON Value: {_shown(value)} not formatted correctly for base64 data"
        )
    text = "".join(value["b64"].split())
    try:  # padding may be left out
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("Unable to base64 decode") from None


def _shown(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, list | dict) else str(value)[:99]
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _kind(value: Any) -> str:
    names = {type(None): "Null", bool: str(value), dict: "Object", str: "String"}
    return names.get(type(value), "Number")


def type_name(dtype: tf.DType) -> str:
    """Of a dtype, in TF Serving's words.

    Example:
        >>> type_name(tf.float32), type_name(tf.uint8)
        ('float', 'uint8')
    """
    names = {"float32": "float", "float64": "double", "float16": "half"}
    return names.get(dtype.name, dtype.name)
