"""Names of a room that are imported when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    room: str, places: Mapping[str, str | None]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose names cost nothing until used.

    Type checkers see the names by imports under TYPE_CHECKING.

    Args:
        room: `__name__` of the package.
        places: Public name to the module in it that has it; to None where the name is
            a module itself.

    Example:
        >>> asked, names = lazy_names("email", {"Message": "message", "charset": None})
        >>> asked("Message").__module__, "charset" in names()
        ('email.message', True)
    """

    def __getattr__(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        module = importlib.import_module(f"{room}.{places[name] or name}")
        return getattr(module, name) if places[name] else module

    def __dir__() -> list[str]:
        return sorted({*vars(importlib.import_module(room)), *places})

    return __getattr__, __dir__
