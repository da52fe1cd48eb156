"""What numbers a method's settings may be: said in its constructor's annotations."""

from __future__ import annotations

import functools
import inspect
import operator
import typing
from collections.abc import Callable
from typing import Annotated, Any

_WHOLE, _POSITIVE, _SHARE = "a whole number above 0", "above 0", "from 0 to 1"
_LIMITS = {_WHOLE: {"low": 1}, _POSITIVE: {"above": 0.0}}
_LIMITS |= {_SHARE: {"low": 0.0, "high": 1.0}}
Whole = Annotated[int, _WHOLE]
Positive = Annotated[float, _POSITIVE]
Share = Annotated[float, _SHARE]


def settings_of(function: Callable[..., Any]) -> list[str]:
    """Names of a function's keyword-only arguments.

    Example:
        >>> def grind(grain, *, size: Whole = 3, heat: Share = 0.5): ...
        >>> settings_of(grind)
        ['size', 'heat']
    """
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def check_arguments(function: Callable[..., Any], values: dict[str, Any]) -> None:
    """Checks arguments by the bounds that a function's annotations say.

    Args:
        function: Its arguments are annotated `Whole`, `Positive` or `Share`, or that
            or None.
        values: Dict of name to value; names without bounds are passed over.

    Raises:
        ValueError: If one is out of bounds; it names it.

    Example:
        >>> def grind(grain, *, size: Whole = 3, heat: Share = 0.5): ...
        >>> check_arguments(grind, {"size": 4, "heat": 2})
        Traceback (most recent call last):
        ...
        ValueError: `heat` must lie between 0 and 1. Received: heat=2.
    """
    for name, (bounds, optional) in _bounds(function).items():
        if name in values and not (optional and values[name] is None):
            _check(name, values[name], bounds)


def limits_of(function: Callable[..., Any], name: str) -> dict[str, float]:
    """The bounds of an argument: low and high, which it may be, or above.

    Example:
        >>> def grind(grain, *, size: Whole = 3, heat: Positive = 0.5): ...
        >>> limits_of(grind, "size"), limits_of(grind, "heat")
        ({'low': 1}, {'above': 0.0})
    """
    bounds, _ = _bounds(function).get(name, ("", False))
    return _LIMITS.get(bounds, {})


@functools.cache
def _bounds(function: Callable[..., Any]) -> dict[str, tuple[str, bool]]:
    """Name of each bounded argument to its bounds, and whether it may be None."""
    found = {}
    for name, hint in typing.get_type_hints(function, include_extras=True).items():
        parts = typing.get_args(hint)
        for part in (hint, *parts):
            if getattr(part, "__metadata__", None):
                found[name] = (part.__metadata__[0], type(None) in parts)
    return found


def _check(name: str, value: Any, bounds: str) -> None:
    if bounds == _WHOLE and not _is(operator.index, value):
        raise ValueError(
            f"`{name}` must be a whole number. Received: {name}={value!r}."
        )
    if isinstance(value, str) or not _is(float, value):
        raise ValueError(f"`{name}` must be a number. Received: {name}={value!r}.")
    if bounds == _SHARE:
        if not 0 <= value <= 1:
            raise ValueError(
                f"`{name}` must lie between 0 and 1. Received: {name}={value}."
            )
    elif not value > 0:
        raise ValueError(f"`{name}` must be positive. Received: {name}={value}.")


def _is(kind: Callable[[Any], Any], value: Any) -> bool:
    try:
        kind(value)
    except (TypeError, ValueError):
        return False
    return True
