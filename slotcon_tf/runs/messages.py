"""What commands say on stderr: one line each, with flags where settings are named."""

from __future__ import annotations

import contextlib
import errno
import logging as python_logging
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from slotcon_tf.runs.settings import Config


def with_dashes(text: str, config: type[Config]) -> str:
    """A library's text as the command line says it: --name for `name` and name=.

    Example:
        >>> import dataclasses
        >>> from slotcon_tf.runs.settings import setting
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Sieve(Config):
        ...     size: int = setting(3, "Edge of the holes in mm.", low=1)
        >>> with_dashes("`size` must be odd. Received: size=4.", Sieve)
        '--size must be odd. Received: --size=4.'
    """
    flags = {name: known.flag for name, known in config.settings().items()}
    flags |= {"flagfile": "flagfile", "recipe": "recipe"}
    names = "|".join(map(re.escape, flags))

    def named(found: re.Match[str]) -> str:
        return f"--{flags[found[1]]}{found[2]}"

    text = re.sub(rf"`({names})(=[^`]*|)`", named, text)
    return re.sub(rf"(?<![\w`\-./\\])({names})(=)", named, text)


def one_line(error: BaseException) -> str:
    """The text of an error that a user caused.

    Example:
        >>> one_line(ValueError("No class   has pixels"))
        'No class has pixels.'
    """
    if isinstance(error, OSError) and error.filename and error.strerror:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                "Disks must have space for what is written. Received: "
                f"{error.filename}: {error.strerror}. Free some, or take another path."
            )
        return (
            "Files and folders must be there and be allowed to be used. Received: "
            f"{error.filename}: {error.strerror}. Check the path."
        )
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "?", "!")) else f"{text}."


@contextlib.contextmanager
def told_as(name: str, config: type[Config]) -> Iterator[None]:
    """Warnings and logged errors are lines as errors are: "NAME: warning: ...".

    Example:
        >>> with contextlib.redirect_stderr(sys.stdout), told_as("train", Config):
        ...     warnings.warn("3 images are bad.", stacklevel=1)
        train: warning: 3 images are bad.
    """
    tf.get_logger().setLevel("ERROR")
    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    lines = handler.python_handler
    old = lines.formatter, lines.stream
    lines.formatter, lines.stream = _Lines(name, config, old[0]), sys.stderr
    with warnings.catch_warnings():
        # What is wrong with a file is said by its reason.
        warnings.filterwarnings("ignore", module=r"PIL\.")

        def show(message: Any, *_: Any, **__: Any) -> None:
            print(_line(name, "warning", str(message), config), file=sys.stderr)

        warnings.showwarning = show
        try:
            yield
        finally:
            lines.formatter, lines.stream = old


class _Lines(python_logging.Formatter):
    """Records from warnings on are lines of a command; others look as absl's."""

    def __init__(self, name: str, config: type[Config], other: Any) -> None:
        super().__init__()
        self._name, self._config, self._other = name, config, other

    def format(self, record: python_logging.LogRecord) -> str:
        if record.levelno < python_logging.WARNING:
            return self._other.format(record)
        level = record.levelname.lower()
        line = _line(self._name, level, record.getMessage(), self._config)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _line(name: str, level: str, text: str, config: type[Config]) -> str:
    return f"{name}: {level}: {with_dashes(' '.join(text.split()), config)}"
