"""Python functions that data sets call, and the end of the process.

A pipeline reads ahead in threads of its own, and they need the interpreter for every
call. One that asks for it while the interpreter ends gets no answer, and whoever takes
the pipeline apart waits for it for ever: a script whose last iterator still lives would
not end.
"""

from __future__ import annotations

import atexit
import functools
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

_QUIET_SECONDS = 0.1  # without a call: what reads ahead has met the end
_MOST_SECONDS = 10.0  # that an end waits for a call


class _Calls:
    """Those that are running, and whether the process ends."""

    def __init__(self) -> None:
        self.change = threading.Lock()
        self.running = 0
        self.newest = 0.0  # end of the newest one
        self.ending = False

    def end(self) -> None:
        """Waits until no thread is in a call, or about to be."""
        self.ending = True
        limit = time.monotonic() + _MOST_SECONDS
        while (now := time.monotonic()) < limit:
            if not self.running and now - self.newest > _QUIET_SECONDS:
                return
            time.sleep(_QUIET_SECONDS / 5)


_calls = _Calls()
atexit.register(_calls.end)


def ended_at_exit(function: _Function) -> _Function:
    """A function that says that there is no more once the process ends.

    Args:
        function: For tf.numpy_function or the like in a data set.

    Returns:
        The function, which raises StopIteration then.

    Example:
        >>> ended_at_exit(len)("abc")
        3
    """

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        with _calls.change:
            _calls.running += 1
        try:
            if _calls.ending:
                raise StopIteration
            return function(*args)
        finally:
            with _calls.change:
                _calls.running -= 1
                _calls.newest = time.monotonic()

    return call  # type: ignore[return-value]
