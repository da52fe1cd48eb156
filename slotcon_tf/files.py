"""Files that are there whole or not at all."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import BinaryIO


def write_whole(path: pathlib.Path, write: Callable[[BinaryIO], object]) -> None:
    """Gives a file open for writing bytes to `write`, and renames it into place after.

    Args:
        path: pathlib.Path.
        write: Function of the open file.

    Example:
        >>> write_whole(pathlib.Path("a.bin"), lambda file: file.write(b"whole"))
        >>> pathlib.Path("a.bin").read_bytes()
        b'whole'
    """
    aside = path.with_name(f".writing-{path.name}")
    with aside.open("wb") as file:
        write(file)
    aside.replace(path)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text, as UTF-8, whole or not at all.

    Example:
        >>> write_text(pathlib.Path("a.txt"), "grüß")
        >>> pathlib.Path("a.txt").read_text(encoding="utf-8")
        'grüß'
    """
    write_whole(path, lambda file: file.write(text.encode()))
