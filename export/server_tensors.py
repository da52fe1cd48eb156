"""Tensors of a Predict request and of its answer, checked against a signature.

In: `tensor_content`, of strings too, or the list of the dtype (`float_val`, ...), where
one number stands for all of a shape. Out: numbers as `tensor_content`, strings as
`string_val`; whoever reads both reads TF Serving, too, which answers in lists.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .server_errors import invalid

_POINTER = 8  # bytes of a string's place in an array


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        max_bytes: Of a tensor. A message can name a shape without its numbers, and
            would take any amount of memory.
        max_batch: Rows, since an answer has a map for each, an empty file's too.

    Example:
        >>> Limits().max_batch
        1024
    """

    max_bytes: int = 64 * 2**20
    max_batch: int = 1024


UNLIMITED = Limits(2**62, 2**62)


def check(
    name: str, dtype: Any, dims: Sequence[int], info: Any, limits: Limits
) -> None:
    """Whether a tensor is what a signature takes, and no larger than it may be.

    Args:
        name: Of the input.
        dtype: Number of its dtype in messages.
        dims: Its shape.
        info: TensorInfo of the signature.
        limits: Of the server.

    Raises:
        Refused: If it is not.

    Example:
        >>> from tensorflow.core.protobuf import meta_graph_pb2
        >>> info = meta_graph_pb2.TensorInfo(dtype=1)
        >>> info.tensor_shape.unknown_rank = True
        >>> check("x", 1, [2000, 3], info, Limits())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        export.server_errors.Refused: input x must have at most 1024 rows. ...
    """
    wanted, shape = tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
    if dtype != info.dtype or not shape.is_compatible_with(dims):
        raise invalid(
            f"input {name} must be {wanted.name} of shape {shape}. Received: "
            f"{dtype_name(dtype)} of shape {list(dims)}."
        )
    if dims and dims[0] > limits.max_batch:
        raise invalid(
            f"input {name} must have at most {limits.max_batch} rows. Received: "
            f"{dims[0]}. Send fewer at once, or serve with a larger --max_batch."
        )
    size = math.prod(dims) * (_POINTER if wanted == tf.string else wanted.size)
    if size > limits.max_bytes:
        raise invalid(
            f"input {name} must have at most {limits.max_bytes} bytes. Received: shape "
            f"{list(dims)} of {wanted.name}, {size} bytes."
        )


def check_names(given: Iterable[str], definition: Any) -> None:
    """Whether inputs have a signature's names; those with defaults may be left out.

    Raises:
        Refused: If not, in TF Serving's words.

    Example:
        >>> from tensorflow.core.protobuf import meta_graph_pb2
        >>> check_names(["x"], meta_graph_pb2.SignatureDef())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        export.server_errors.Refused: input size does not match signature: 1!=0 ...
    """
    given, known = set(given), set(definition.inputs)
    missing = known - given - set(definition.defaults)
    if not given - known and not missing:
        return
    raise invalid(
        f"input size does not match signature: {len(given)}!={len(known)} "
        f"len({_set(given)}) != len({_set(known)}). Sent extra: {_set(given - known)}. "
        f"Missing but required: {_set(missing)}."
    )


def _set(names: set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def read_inputs(
    given: Mapping[str, Any], definition: Any, limits: Limits
) -> dict[str, np.ndarray]:
    """The request's tensors as arrays.

    Args:
        given: Map of name to TensorProto.
        definition: SignatureDef.
        limits: Of the server.

    Returns:
        Dict of name to array.

    Raises:
        Refused: If names, dtypes or shapes are not the signature's, or the numbers not
            as many as the shape.

    Example:
        >>> from tensorflow.core.protobuf import meta_graph_pb2
        >>> definition = meta_graph_pb2.SignatureDef()
        >>> definition.inputs["x"].dtype = 1
        >>> definition.inputs["x"].tensor_shape.dim.add(size=-1)
        size: -1
        <BLANKLINE>
        >>> half = tf.make_tensor_proto([0.5, 0.25])
        >>> read_inputs({"x": half}, definition, Limits())
        {'x': array([0.5 , 0.25], dtype=float32)}
    """
    check_names(given, definition)
    return {
        name: read_tensor(
            name,
            given[name] if name in given else definition.defaults[name],
            info,
            limits,
        )
        for name, info in definition.inputs.items()
    }


def read_tensor(name: str, proto: Any, info: Any, limits: Limits) -> np.ndarray:
    """A TensorProto as the array that a signature takes; see `read_inputs`.

    Example:
        >>> from tensorflow.core.protobuf import meta_graph_pb2
        >>> info = meta_graph_pb2.TensorInfo(dtype=3)
        >>> info.tensor_shape.unknown_rank = True
        >>> read_tensor("x", tf.make_tensor_proto([7]), info, Limits()).tolist()
        [7]
    """
    dims = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in dims):
        raise invalid(f"input {name} must have a shape. Received: of shape unknown.")
    check(name, proto.dtype, dims, info, limits)
    dtype = tf.as_dtype(info.dtype)
    try:
        if not proto.tensor_content:
            return tf.make_ndarray(proto)
        if dtype == tf.string:
            return _strings(proto.tensor_content, dims)
        # As they came, without a copy.
        return np.frombuffer(proto.tensor_content, dtype.as_numpy_dtype).reshape(dims)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise invalid(f"tensor parsing error: {name}: {error}.") from None


def _strings(content: bytes, dims: Sequence[int]) -> np.ndarray:
    """All lengths, seven bits a byte, the lowest first; then all strings."""
    count, at, lengths = math.prod(dims), 0, []
    while len(lengths) < count:
        length = shift = 0
        while content[at] & 128:
            length |= (content[at] & 127) << shift
            at, shift = at + 1, shift + 7
        lengths.append(length | content[at] << shift)
        at += 1
    if sum(lengths) != len(content) - at:
        raise ValueError(f"{sum(lengths)} letters must follow, not {len(content) - at}")
    found = np.empty(count, object)
    for i, length in enumerate(lengths):
        found[i], at = content[at : at + length], at + length
    return found.reshape(dims)


def dtype_name(number: int) -> str:
    """Of a dtype in a message.

    Example:
        >>> dtype_name(1), dtype_name(999)
        ('float32', 'dtype 999')
    """
    try:
        return tf.as_dtype(number).name
    except TypeError:
        return f"dtype {number}"


def output_names(output_filter: Iterable[str], definition: Any) -> list[str]:
    """The outputs that a request asks for; all, if it names none.

    Raises:
        Refused: If one is unknown or named twice.

    Example:
        >>> from tensorflow.core.protobuf import meta_graph_pb2
        >>> definition = meta_graph_pb2.SignatureDef()
        >>> definition.outputs["pooled"].name = "Mean:0"
        >>> output_names([], definition)
        ['pooled']
    """
    names, known = list(output_filter), set(definition.outputs)
    for place, name in enumerate(names):
        if name not in known:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected "
                f"to be in the set {_set(known)}."
            )
        if name in names[:place]:
            raise invalid(f"duplicate output tensor alias: {name}")
    return names or list(definition.outputs)


def write_tensor(array: np.ndarray, proto: Any) -> None:
    """Puts an array into a TensorProto: numbers as bytes, strings as a list.

    Example:
        >>> from tensorflow.core.framework import tensor_pb2
        >>> proto = tensor_pb2.TensorProto()
        >>> write_tensor(np.float32([1, 2]), proto)
        >>> tf.make_ndarray(proto).tolist()
        [1.0, 2.0]
    """
    # A message that is set counts: a scalar has a shape of no axes.
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        proto.dtype = tf.string.as_datatype_enum
        proto.string_val.extend(array.ravel().tolist())
        return
    proto.dtype = tf.as_dtype(array.dtype).as_datatype_enum
    # The only copy before the message is packed.
    proto.tensor_content = array.tobytes()
