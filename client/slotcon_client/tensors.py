"""Tensors as they travel, and as NumPy has them."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from slotcon_client.protocol import message


class Kind(NamedTuple):
    """A dtype of TensorFlow.

    Attributes:
        name: As TensorFlow has it.
        stored: dtype of NumPy that its bytes are read as.
        values: Field that holds numbers one by one.
        rest: Its name in JSON.

    Example:
        >>> KINDS[19].name, KINDS[19].values
        ('float16', 'half_val')
    """

    name: str
    stored: str
    values: str
    rest: str


KINDS = {
    1: Kind("float32", "<f4", "float_val", "DT_FLOAT"),
    2: Kind("float64", "<f8", "double_val", "DT_DOUBLE"),
    3: Kind("int32", "<i4", "int_val", "DT_INT32"),
    4: Kind("uint8", "<u1", "int_val", "DT_UINT8"),
    5: Kind("int16", "<i2", "int_val", "DT_INT16"),
    6: Kind("int8", "<i1", "int_val", "DT_INT8"),
    7: Kind("string", "O", "string_val", "DT_STRING"),
    8: Kind("complex64", "<c8", "scomplex_val", "DT_COMPLEX64"),
    9: Kind("int64", "<i8", "int64_val", "DT_INT64"),
    10: Kind("bool", "?", "bool_val", "DT_BOOL"),
    11: Kind("qint8", "<i1", "int_val", "DT_QINT8"),
    12: Kind("quint8", "<u1", "int_val", "DT_QUINT8"),
    13: Kind("qint32", "<i4", "int_val", "DT_QINT32"),
    14: Kind("bfloat16", "<u2", "half_val", "DT_BFLOAT16"),
    15: Kind("qint16", "<i2", "int_val", "DT_QINT16"),
    16: Kind("quint16", "<u2", "int_val", "DT_QUINT16"),
    17: Kind("uint16", "<u2", "int_val", "DT_UINT16"),
    18: Kind("complex128", "<c16", "dcomplex_val", "DT_COMPLEX128"),
    19: Kind("float16", "<f2", "half_val", "DT_HALF"),
    22: Kind("uint32", "<u4", "uint32_val", "DT_UINT32"),
    23: Kind("uint64", "<u8", "uint64_val", "DT_UINT64"),
}
NUMBERS = {kind.name: number for number, kind in KINDS.items()}
_POINTER = 8  # bytes of a string's place in an array
# What a list of JSON may hold, by the kind of its array, for each kind of dtype.
_FROM_JSON = {"f": "fiu", "i": "iu", "u": "iu", "b": "b", "O": "U"}


def kind_of(number: int) -> Kind:
    """The dtype of a number in a message.

    Raises:
        ValueError: If it is none that travels.

    Example:
        >>> kind_of(1).name
        'float32'
    """
    if number not in KINDS:
        raise ValueError(f"dtype {number}, which is none that travels")
    return KINDS[number]


def read_tensor(tensor: Any, max_bytes: int) -> np.ndarray:
    """A `Tensor` as an array. Every number must be there.

    bfloat16, which NumPy has not, becomes float32, without loss.

    Args:
        tensor: Message, with `tensor_content` or the list of its dtype.
        max_bytes: Largest array. A message may name a shape without its numbers.

    Raises:
        ValueError: If it is no whole tensor of at most so many bytes.

    Example:
        >>> tensor = message("Tensor")(dtype=1, float_val=[1, 2])
        >>> tensor.tensor_shape.dim.add(size=2).size
        2
        >>> read_tensor(tensor, max_bytes=8)
        array([1., 2.], dtype=float32)
    """
    kind = kind_of(tensor.dtype)
    stored = np.dtype(kind.stored)
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"a shape that is not known: {shape}")
    count = math.prod(shape)
    size = count * (_POINTER if kind.name == "string" else stored.itemsize)
    if size > max_bytes:
        raise ValueError(f"shape {shape} of {kind.name}, {size} bytes")
    if tensor.tensor_content and kind.name != "string":
        if len(tensor.tensor_content) != size:
            raise ValueError(f"{len(tensor.tensor_content)} bytes for shape {shape}")
        flat = np.frombuffer(tensor.tensor_content, stored).copy()
    else:
        flat = _listed(getattr(tensor, kind.values), kind, stored)
        if flat.size != count:
            raise ValueError(f"{flat.size} values for shape {shape}")
    if kind.name == "bfloat16":
        flat = (flat.astype("<u4") << 16).view("<f4")
    return flat.reshape(shape)


def _listed(values: Any, kind: Kind, stored: np.dtype) -> np.ndarray:
    if kind.name == "string":
        flat = np.empty(len(values), object)
        flat[:] = list(values)
        return flat
    if kind.values == "half_val":  # the bits
        return np.array(values, np.int64).astype("<u2").view(stored)
    if stored.kind == "c":
        parts = np.array(values, f"<f{stored.itemsize // 2}")
        return parts[: len(parts) // 2 * 2].view(stored)
    wide = np.array(values, stored if kind.values != "int_val" else np.int64)
    flat = wide.astype(stored)
    if (flat != wide).any() and stored.kind in "iu":
        raise ValueError(f"a value that {kind.name} does not hold")
    return flat


def write_tensor(array: Any) -> Any:
    """A `Tensor`: numbers as bytes, texts as a list.

    Args:
        array: Of numbers, bool, bytes or str.

    Raises:
        ValueError: If it is of another dtype.

    Example:
        >>> read_tensor(write_tensor([b"a", b"bc"]), max_bytes=100)
        array([b'a', b'bc'], dtype=object)
    """
    array = np.asarray(array)
    name = "string" if array.dtype.kind in "SUO" else array.dtype.name
    if name not in NUMBERS:
        raise ValueError(f"A tensor must hold numbers or texts. Received: {name}.")
    tensor = message("Tensor")(dtype=NUMBERS[name])
    tensor.tensor_shape.SetInParent()  # a scalar has a shape of no axes
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if name == "string":
        texts = (x if isinstance(x, bytes) else str(x).encode() for x in array.flat)
        tensor.string_val.extend(texts)
    else:
        tensor.tensor_content = array.astype(KINDS[NUMBERS[name]].stored).tobytes()
    return tensor


def write_files(content: Sequence[bytes]) -> Any:
    """A `Tensor` of files, exactly as they are; an array would drop zeros at the end.

    Example:
        >>> write_files([b"\\0"]).string_val[0]
        b'\\x00'
    """
    tensor = message("Tensor")(dtype=NUMBERS["string"], string_val=content)
    tensor.tensor_shape.dim.add(size=len(content))
    return tensor


def read_json(values: Any, name: str, shape: Sequence[int | None] | None) -> np.ndarray:
    """Lists of JSON as an array, as `read_tensor` gives it.

    Args:
        values: Lists in lists, texts as str or {"b64": ...}.
        name: Of the dtype, as the signature has it.
        shape: Of the signature, whose axes a list of nothing cannot tell.

    Raises:
        ValueError: If they are not of the dtype, or not of one shape.

    Example:
        >>> read_json([[1, 2.5]], "float32", (None, 2))
        array([[1. , 2.5]], dtype=float32)
    """
    try:
        found = np.asarray(_decoded(values) if name == "string" else values)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    if not found.size and shape:
        return np.zeros([size or 0 for size in (0, *shape[1:])], _numpy(name))
    wanted = _numpy(name)
    if name == "string":
        if found.dtype.kind != "O" or not all(type(x) is bytes for x in found.flat):
            raise ValueError("no texts of one shape")
        return found
    if found.dtype.kind not in _FROM_JSON.get(wanted.kind, ""):
        raise ValueError(f"no {name}, but {_said(found)}")
    with np.errstate(over="ignore"):  # too large a number is told as infinite
        cast = found.astype(wanted)
    if wanted.kind in "iu" and (cast != found).any():
        raise ValueError(f"a value that {name} does not hold")
    return cast


def _numpy(name: str) -> np.dtype:
    return np.dtype("<f4" if name == "bfloat16" else KINDS[NUMBERS[name]].stored)


def _said(found: np.ndarray) -> str:
    kinds = {"O": "mixed values", "U": "texts", "b": "truth values"}
    return kinds.get(found.dtype.kind, found.dtype.name)


def _decoded(values: Any) -> Any:
    """Texts as bytes, in an array of objects of the lists' shape."""
    if isinstance(values, list):
        parts = [_decoded(value) for value in values]
        found = np.empty((len(parts), *np.shape(parts[0])) if parts else 0, object)
        for place, part in enumerate(parts):
            if np.shape(part) != found.shape[1:]:
                raise ValueError("lists of other lengths")
            found[place] = part
        return found
    if isinstance(values, dict) and set(values) == {"b64"}:
        return base64.b64decode(str(values["b64"]), validate=True)
    if isinstance(values, str):
        return values.encode()
    raise ValueError("no texts")
