"""What errors of libraries say, for messages of ours."""

from __future__ import annotations

import re


def first_line(error: BaseException, most: int | None = None) -> str:
    """The first line of an error's text, or its class where it has none.

    Args:
        error: Of any library.
        most: Letters that are kept.

    Example:
        >>> first_line(ValueError("no such layer\\n  in graph"))
        'no such layer'
        >>> first_line(KeyError())
        'KeyError'
    """
    text = re.sub(r"^\{\{.*?\}\} ", "", str(error).strip())  # TensorFlow's node
    return (text.splitlines() or [type(error).__name__])[0][:most]
