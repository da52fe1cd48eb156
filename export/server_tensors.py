"""Tensors of a Predict request and of its answer, checked against a signature."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .server_versions import InvalidRequest

_POINTER = 8  # bytes of a string's place in an array


def read_inputs(
    given: Mapping[str, Any], definition: Any, max_bytes: int
) -> dict[str, tf.Tensor]:
    """The request's tensors as TensorFlow's.

    Args:
        given: Map of name to TensorProto.
        definition: SignatureDef.
        max_bytes: Largest tensor. A message can name a shape without its numbers, and
            would take any amount of memory.

    Returns:
        Dict of name to tf.Tensor.

    Raises:
        InvalidRequest: If names, dtypes or shapes are not the signature's, or the
            numbers not as many as the shape.

    Example:
        >>> from tensorflow.core.protobuf import meta_graph_pb2
        >>> definition = meta_graph_pb2.SignatureDef()
        >>> read_inputs({"x": None}, definition, 10)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        export.server_versions.InvalidRequest: input must be exactly []. ...
    """
    expected = definition.inputs
    if set(given) != set(expected):
        raise InvalidRequest(
            f"input must be exactly {sorted(expected)}. Received: {sorted(given)}."
        )
    return {
        name: tf.constant(_read(name, given[name], info, max_bytes))
        for name, info in expected.items()
    }


def _read(name, proto, info, max_bytes):
    dtype, shape = tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
    dims = [dim.size for dim in proto.tensor_shape.dim]
    known = not proto.tensor_shape.unknown_rank and all(size >= 0 for size in dims)
    if proto.dtype != info.dtype or not known or not shape.is_compatible_with(dims):
        raise InvalidRequest(
            f"input {name} must be {dtype.name} of shape {shape}. Received: "
            f"{_dtype_name(proto.dtype)} of shape {dims if known else 'unknown'}."
        )
    size = math.prod(dims) * (_POINTER if dtype == tf.string else dtype.size)
    if size > max_bytes:
        raise InvalidRequest(
            f"input {name} must have at most {max_bytes} bytes. Received: shape {dims} "
            f"of {dtype.name}, {size} bytes."
        )
    try:
        if proto.tensor_content and dtype != tf.string:
            # As they came, without a copy.
            flat = np.frombuffer(proto.tensor_content, dtype.as_numpy_dtype)
            return flat.reshape(dims)
        return tf.make_ndarray(proto)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"input {name} is no whole tensor: {error}.") from None


def _dtype_name(number):
    try:
        return tf.as_dtype(number).name
    except TypeError:
        return f"dtype {number}"


def output_names(output_filter: Iterable[str], definition: Any) -> list[str]:
    """The outputs that a request asks for; all, if it names none.

    Raises:
        InvalidRequest: If one is unknown or named twice.

    Example:
        >>> from tensorflow.core.protobuf import meta_graph_pb2
        >>> definition = meta_graph_pb2.SignatureDef()
        >>> definition.outputs["pooled"].name = "Mean:0"
        >>> output_names([], definition)
        ['pooled']
    """
    names = list(output_filter) or list(definition.outputs)
    if set(names) - set(definition.outputs) or len(set(names)) != len(names):
        raise InvalidRequest(
            f"output tensor alias must be among {sorted(definition.outputs)}, each "
            f"once. Received: {names}."
        )
    return names


def write_tensor(tensor: tf.Tensor, proto: Any) -> None:
    """Puts a tf.Tensor into a TensorProto: numbers as bytes, strings as a list.

    Example:
        >>> from tensorflow.core.framework import tensor_pb2
        >>> proto = tensor_pb2.TensorProto()
        >>> write_tensor(tf.constant([1.0, 2.0]), proto)
        >>> tf.make_ndarray(proto).tolist()
        [1.0, 2.0]
    """
    if tensor.dtype == tf.string:
        proto.CopyFrom(tf.make_tensor_proto(tensor.numpy()))
        return
    proto.dtype = tensor.dtype.as_datatype_enum
    # A message that is set counts: a scalar has a shape of no axes.
    proto.tensor_shape.SetInParent()
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    # The array is a view: this is the only copy before the message is packed.
    proto.tensor_content = np.asarray(tensor).tobytes()
