"""When Python looks for garbage: not among what is there to stay.

Importing TensorFlow and Keras makes half a million objects, and tracing a graph many
more, nearly all of which stay. Looking for cycles among them took a fifth of the time
in which a command starts.
"""

import contextlib
import gc


@contextlib.contextmanager
def not_collected():
    """Context without collections, for imports; then it is as it was."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def collect_seldom():
    """What a process of this project does when all is imported.

    What is there is never looked at again, and the rest less often than Python would:
    after ten thousand new objects, which are some megabytes.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
