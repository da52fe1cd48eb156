"""What stands between a user and features."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class ExtractionError(ValueError):
    """Nothing can be extracted as asked.

    Example:
        >>> raise ExtractionError("`batch_size` was another one.")
        Traceback (most recent call last):
        slotcon_client.errors.ExtractionError: `batch_size` was another one.
    """


class RequestError(RuntimeError):
    """A batch is refused for what is in it; another may be answered.

    Example:
        >>> issubclass(RequestError, ExtractionError)
        False
    """


class Unavailable(ExtractionError):
    """The model has not answered for too long; what is done is kept.

    Example:
        >>> issubclass(Unavailable, ExtractionError)  # the same call goes on from there
        True
    """


class WrongAnswer(ExtractionError):
    """A server answers what the served signature cannot: no row of it is kept.

    Example:
        >>> issubclass(WrongAnswer, ExtractionError)
        True
    """


class MissingPackage(ImportError):
    """A package of one of the extras is not installed.

    Example:
        >>> try:
        ...     with needed("images"):
        ...         import no_such_package
        ... except MissingPackage as error:
        ...     print(error.name)
        no_such_package
    """


@contextlib.contextmanager
def needed(extra: str) -> Iterator[None]:
    """Around imports of packages that an extra brings, where they are first used.

    Args:
        extra: "images" or "parquet".

    Raises:
        MissingPackage: If one of the packages is not there; it says what to install.

    Example:
        >>> with needed("images"):
        ...     import no_such_package
        Traceback (most recent call last):
        ...
        slotcon_client.errors.MissingPackage: The package no_such_package must be \
installed for this. Received: no such package. Run: pip install "slotcon-client[images]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        if package == "slotcon_client":
            raise
        raise MissingPackage(
            f"The package {package} must be installed for this. Received: no such "
            f'package. Run: pip install "slotcon-client[{extra}]"',
            name=error.name,
        ) from None
