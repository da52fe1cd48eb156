"""What a message of protocol buffers would take, found before it is read.

A parser makes an object of many bytes from a field of two. Requests are therefore
looked through as they lie on the wire: how many fields they have, and how many numbers
of eight bytes those of one byte would become.
"""

# Protocol buffers make their classes when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import predict_pb2

from .server_errors import Refused, invalid

MAX_FIELDS = 100_000  # of a message, in all its parts
SMALL_BYTES = 2**20  # of a message that holds no tensors
# Fields by their numbers: of a PredictRequest and of an entry of its map ...
_INPUTS, _VALUE = 2, 2
# ... and of a TensorProto: dtype, shape, version, content and lists; whole numbers of
# 64 bits, which a byte can stand for; resources and variants are nobody's input.
_INT64_LISTS, _REFUSED_LISTS = (10, 17), (14, 15)
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


class _Looker:
    """Goes through fields, at most `MAX_FIELDS` of a message."""

    def __init__(self) -> None:
        self.left = MAX_FIELDS

    def fields(self, data: memoryview) -> Iterator[tuple[int, memoryview | None]]:
        """Yields (number, content) of each field; None for a number."""
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise invalid(
                    f"A message must have at most {MAX_FIELDS} fields. Received: more. "
                    "Send numbers as tensor_content, and fewer rows."
                )
            key, at = _varint(data, at)
            kind = key & 7
            if kind == _BYTES:
                size, at = _varint(data, at)
                if size > len(data) - at:
                    raise _broken()
                yield key >> 3, data[at : at + size]
                at += size
            elif kind == _VARINT:
                _, at = _varint(data, at)
                yield key >> 3, None
            elif kind in (_EIGHT, _FOUR):
                at += 8 if kind == _EIGHT else 4
                yield key >> 3, None
            else:
                raise _broken()
        if at > len(data):
            raise _broken()


def _broken() -> Refused:
    return invalid("The message is damaged: it must be one of TF Serving's calls.")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _broken()
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def read_predict(data: bytes, max_bytes: int) -> predict_pb2.PredictRequest:
    """A PredictRequest, if it takes no more memory than it should.

    Args:
        data: The message as it came.
        max_bytes: Largest tensor.

    Raises:
        Refused: If it is damaged, or too large once read.

    Example:
        >>> request = predict_pb2.PredictRequest(output_filter=["pooled"])
        >>> read_predict(request.SerializeToString(), 10).output_filter
        ['pooled']
        >>> read_predict(b"\\x1a\\x00" * 200_000, 2**20)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        export.server_errors.Refused: A message must have at most 100000 fields. ...
    """
    looker = _Looker()
    for number, entry in looker.fields(memoryview(data)):
        if number != _INPUTS or entry is None:
            continue
        for part, tensor in looker.fields(entry):
            if part == _VALUE and tensor is not None:
                _look_at_tensor(looker, tensor, max_bytes)
    try:
        return predict_pb2.PredictRequest.FromString(data)
    except DecodeError:
        raise _broken() from None


def _look_at_tensor(looker: _Looker, tensor: memoryview, max_bytes: int) -> None:
    numbers = 0
    for number, content in looker.fields(tensor):
        if number in _REFUSED_LISTS:
            raise invalid("A tensor must be of numbers or strings. Received: another.")
        if content is None:
            continue
        if number == 2:  # the shape: its axes count as fields
            for _ in looker.fields(content):
                pass
        elif number in _INT64_LISTS:
            ends = np.frombuffer(content, np.uint8) < 128
            numbers += int(np.count_nonzero(ends))
    if 8 * numbers > max_bytes:
        raise invalid(
            f"A tensor must have at most {max_bytes} bytes. Received: {numbers} "
            "numbers of 64 bits."
        )


def without_examples(data: bytes) -> bytes:
    """A request of Classify, Regress or MultiInference, of which only models are read.

    Its second field has the examples, which no model here takes.

    Example:
        >>> without_examples(b"\\x0a\\x01a\\x12\\x03bcd")
        b'\\n\\x01a'
    """
    kept = bytearray()
    for number, content in _Looker().fields(memoryview(data)):
        if number != 1 or content is None:
            continue
        if len(kept) + len(content) > SMALL_BYTES:
            raise _broken()
        size = len(content)
        kept.append(1 << 3 | _BYTES)
        while size > 127:
            kept.append(size & 127 | 128)
            size >>= 7
        kept.append(size)
        kept += content
    return bytes(kept)


def check_small(data: bytes) -> bytes:
    """A message that holds names alone.

    Raises:
        Refused: If it is longer than such a message is.

    Example:
        >>> check_small(b"")
        b''
    """
    if len(data) > SMALL_BYTES:
        raise invalid(
            f"A message without tensors must have at most {SMALL_BYTES} bytes. "
            f"Received: {len(data)}."
        )
    return data
