"""Numba's compiler, whose results are kept on disk where that is possible."""

import numba


def compiled(**options):
    """Decorator: machine code, free of Python's global lock.

    It is kept beside the source, or in the user's cache folder, for the processes to
    come; where neither can be written, every process compiles anew. What is kept goes
    by the file that a function stands in, so a compiled function calls functions of
    its own file only.

    Args:
        **options: Of `numba.njit`.
    """

    def decorate(function):
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder for it
            return numba.njit(nogil=True, **options)(function)

    return decorate
