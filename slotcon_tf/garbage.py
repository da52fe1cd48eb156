"""When Python looks for garbage: not among what is there to stay.

Importing TensorFlow and Keras makes half a million objects, and tracing a graph many
more, nearly all of which stay. Looking for cycles among them took a fifth of the time
in which a command starts.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def not_collected() -> Iterator[None]:
    """Context without collections, for imports; then it is as it was.

    Example:
        >>> with not_collected():
        ...     gc.isenabled()
        False
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def collect_seldom() -> None:
    """What a command's process does when all is imported.

    What is there is never looked at again, and the rest less often than Python would:
    after ten thousand new objects, which are some megabytes.

    Example:
        >>> collect_seldom()
        >>> gc.get_threshold()[0]
        10000
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
