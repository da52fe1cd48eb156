"""Why a model could not be built from a file, in words that help."""

from __future__ import annotations

import os
import re

from slotcon_tf.interop.pickles import CheckpointFileError, one_line

_PACKAGE = __name__.partition(".")[0]
_LOST_CLASS = re.compile(r"Could not locate (?:class|function) '([^']{1,100})'")
_MOST_LETTERS = 700


def refusal(
    path: str | os.PathLike, error: BaseException, must: str, advice: str = ""
) -> CheckpointFileError:
    """The error that a user gets where a model could not be built from a file.

    Args:
        path: Of the file.
        error: What building it has raised.
        must: What must hold, said where `told` knows no better.
        advice: What to do then.

    Returns:
        A CheckpointFileError.

    Example:
        >>> error = ValueError("Layer conv1 has no weights.")
        >>> refusal("a.keras", error, "a.keras must be a whole file.")
        CheckpointFileError('a.keras must be a whole file. Received: Layer conv1 ...')
    """
    if reason := told(error):
        return CheckpointFileError(f"{path}: {reason}")
    return CheckpointFileError(f"{must} Received: {one_line(error)}{advice}")


def told(error: BaseException | None) -> str | None:
    """What an error, or one behind it, says that a user can act upon.

    Args:
        error: Of building a model from its configuration.

    Returns:
        Whole text of this project's own refusal, in one line; or what to do about a
        class that nobody has registered; or None for any other error.

    Example:
        >>> told(TypeError("Could not locate class 'MyEncoder'."))
        "Every class of a model must be known when it is loaded. Received: 'MyEnc..."
        >>> told(OSError("No space left on device")) is None
        True
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = " ".join(str(error).split())
        if isinstance(error, ValueError) and "Received: " in text and _is_ours(error):
            return text[:_MOST_LETTERS]
        if lost := _LOST_CLASS.search(text):
            return (
                "Every class of a model must be known when it is loaded. Received: "
                f"{lost[1]!r}, which is not. Import the script that defines it first, "
                "registered with keras.saving.register_keras_serializable."
            )
        error = error.__cause__ or error.__context__
    return None


def _is_ours(error):
    """Whether the project's own code has raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return module.partition(".")[0] == _PACKAGE
