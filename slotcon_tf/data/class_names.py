"""How the classes of two sets of images, or of a model and a set, differ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def class_difference(
    one: Sequence[str], other: Sequence[str], whose: tuple[str, str]
) -> str:
    """How classes differ, in words; empty where they are the same, in one order.

    Args:
        one, other: Names in the order of the classes.
        whose: What to call the owners of both.

    Example:
        >>> class_difference(("cat", "dog"), ("cat", "cow"), ("the model", "photos"))
        "'dog' of the model only, 'cow' of photos only"
        >>> class_difference(("cat", "dog"), ("dog", "cat"), ("the model", "photos"))
        "class 0 'cat' of the model and 'dog' of photos"
    """
    one, other = tuple(one), tuple(other)
    if one == other:
        return ""
    sides = ((one, other, whose[0]), (other, one, whose[1]))
    only = [([name for name in a if name not in b], owner) for a, b, owner in sides]
    parts = [f"{_listed(names)} of {owner} only" for names, owner in only if names]
    if parts:
        return ", ".join(parts)
    pairs = enumerate(itertools.zip_longest(one, other))
    place, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f"class {place} {a!r} of {whose[0]} and {b!r} of {whose[1]}"


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
