"""Why the local server refuses a call, in the codes that gRPC and TF Serving share."""

from __future__ import annotations

import grpc
import tensorflow as tf
from absl import logging

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# What TF Serving's REST answers for a code; all others are 500.
HTTP_STATUS = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_GRAPH = "Graph execution error:\n\n"  # what a session in Python puts before it


class Refused(Exception):
    """A call that is not answered.

    Args:
        code: Name of a gRPC status code.
        text: What the caller is told.

    Example:
        >>> Refused("NOT_FOUND", "no such model").http_status
        404
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code

    @property
    def http_status(self) -> int:
        """Of the same over REST."""
        return HTTP_STATUS.get(self.code, 500)


def invalid(text: str) -> Refused:
    """A request that cannot be answered as it is.

    Example:
        >>> invalid("no input").code
        'INVALID_ARGUMENT'
    """
    return Refused("INVALID_ARGUMENT", text)


def refusal(error: Exception, call: str) -> Refused:
    """What a caller is told of an error, whatever it is.

    Args:
        error: What the call raised.
        call: Its name, for the log: what is not the caller's fault is written there.

    Example:
        >>> error = tf.errors.ResourceExhaustedError(None, None, "too large")
        >>> refusal(error, "Predict").code
        'RESOURCE_EXHAUSTED'
    """
    if isinstance(error, Refused):
        return error
    if isinstance(error, tf.errors.OpError):
        code, text = getattr(error, "error_code", None), getattr(error, "message", "")
        return Refused(_NAMES.get(code, "UNKNOWN"), str(text).removeprefix(_GRAPH))
    logging.error("%s failed", call, exc_info=error)
    if isinstance(error, MemoryError):
        return Refused("RESOURCE_EXHAUSTED", "The server has no memory for this.")
    return Refused("INTERNAL", f"{type(error).__name__}: {error}")
