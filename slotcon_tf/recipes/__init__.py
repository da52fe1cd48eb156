"""The published recipes, and those of small data: a flagfile each, named as its stem.

Below everything else, so that whatever states a protocol takes its numbers from here.
"""

from __future__ import annotations

import importlib.resources
import pathlib


def names() -> list[str]:
    """Names of all recipes, as `--recipe=` takes them, sorted.

    Example:
        >>> "coco" in names()
        True
    """
    entries = (
        pathlib.PurePath(e.name) for e in importlib.resources.files(__name__).iterdir()
    )
    return sorted(entry.stem for entry in entries if entry.suffix == ".flags")


def lines(name: str) -> list[str]:
    """Lines of a recipe's flagfile, its header among them.

    Raises:
        FileNotFoundError: If there is none of this name.

    Example:
        >>> lines("coco")[0][:27]
        '# SlotCon on COCO train2017'
    """
    file = importlib.resources.files(__name__) / f"{name}.flags"
    return file.read_text().splitlines()


def values(name: str) -> dict[str, str]:
    """Texts of a recipe's flags by name; "true" of one without a value.

    Example:
        >>> values("coco")["epochs"]
        '800'
    """
    flags = (line.strip() for line in lines(name) if line.startswith("--"))
    parts = (flag.removeprefix("--").partition("=") for flag in flags)
    return {name: text if equals else "true" for name, equals, text in parts}
