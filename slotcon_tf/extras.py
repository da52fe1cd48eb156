"""Packages that not everybody needs, and the line that says how to get them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class MissingExtra(ImportError):
    """A package of one of this library's extras is not installed.

    Example:
        >>> try:
        ...     with needed("interop"):
        ...         import no_such_package
        ... except MissingExtra as error:
        ...     print(error.name)
        no_such_package
    """


@contextlib.contextmanager
def needed(extra: str) -> Iterator[None]:
    """Around imports of packages that an extra brings, where they are first used.

    Args:
        extra: Name of a group of `project.optional-dependencies` in pyproject.toml.

    Raises:
        MissingExtra: If one of the packages is not there; one line with its name and
            the extra's.

    Example:
        >>> with needed("interop"):
        ...     import no_such_package
        Traceback (most recent call last):
        ...
        slotcon_tf.extras.MissingExtra: The package no_such_package must be installed \
for this. Received: no such package. Run: pip install "slotcon_tf[interop]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        if package == "slotcon_tf":
            raise
        raise MissingExtra(
            f"The package {package} must be installed for this. Received: no such "
            f'package. Run: pip install "slotcon_tf[{extra}]"',
            name=error.name,
        ) from None
