"""Callbacks that users bring: loggers and the like, as `module:factory` or as objects.

A factory is a function of the run's configuration that returns a Keras callback or a
list of them; a class of callbacks, or a function without arguments, will do as well.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from slotcon_tf.errors import first_line
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.settings import Config, SettingError

_LETTERS = 300  # of others' errors that are shown


def check_places(places: Sequence[str]) -> None:
    """Refuses what is not written as module:factory.

    Raises:
        SettingError: It names the first.

    Example:
        >>> check_places(["loggers:json_lines", "keras.callbacks:TerminateOnNaN"])
    """
    for place in places:
        names = place.split(":")
        words = [word for name in names for word in name.split(".")]
        if len(names) != 2 or not all(map(str.isidentifier, words)):
            raise SettingError(
                "`callbacks` must be module:factory each. Received: "
                f"callbacks={place}. Write callbacks=loggers:json_lines for the "
                "function json_lines of loggers.py."
            )


class UserCallbacks:
    """The callbacks that a user wants in a run.

    Modules are imported at once, so that a mistake shows before anything is written;
    factories, which may begin a record somewhere, are called by `made`.

    Args:
        config: Of the run, with `callbacks`, texts "module:factory". Modules may lie in
            the working directory.
        objects: Keras callbacks, beside those.
        used: Whether this process uses them: of several hosts one does.

    Raises:
        SettingError: If a module or a name in it is not there.
        TypeError: If an object is no Keras callback.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig
        >>> config = PretrainConfig(callbacks=["keras.callbacks:TerminateOnNaN"])
        >>> list(UserCallbacks(config).made())
        ['TerminateOnNaN']
    """

    def __init__(
        self,
        config: Any,
        objects: Sequence[keras.callbacks.Callback] = (),
        used: bool = True,
    ) -> None:
        for one in objects:
            if not isinstance(one, keras.callbacks.Callback):
                raise TypeError(
                    "callbacks must be keras.callbacks.Callback objects. Received: "
                    f"{one!r}."
                )
        self._config = config
        self._objects = list(objects) if used else []
        self._factories = [(p, _found(p)) for p in config.callbacks if used]

    def made(self) -> dict[str, keras.callbacks.Callback]:
        """The callbacks, new ones of each factory, by the names of their classes.

        Raises:
            CommandError: If a factory fails, or returns something else.
        """
        made = list(self._objects)
        for place, factory in self._factories:
            made += _made(place, factory, self._config)
        named: dict[str, keras.callbacks.Callback] = {}
        for one in made:
            name = type(one).__name__
            alike = sum(type(other).__name__ == name for other in named.values())
            named[f"{name} {alike + 1}" if alike else name] = one
        return named


def _found(place: str) -> Callable[..., Any]:
    """What `module:factory` names."""
    module, _, name = place.partition(":")
    found: Any = None
    try:
        with _working_directory_importable():
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
    except Exception as error:  # whatever a module of others does
        raise SettingError(
            "`callbacks` must name modules that can be imported, and functions in "
            f"them. Received: callbacks={place}: {_told(error)}."
        ) from error
    if not callable(found):
        raise SettingError(
            "`callbacks` must name functions or classes. Received: "
            f"callbacks={place}, {type(found).__name__}."
        )
    return found


def _made(
    place: str, factory: Callable[..., Any], config: Config
) -> list[keras.callbacks.Callback]:
    arguments = [config] if _takes_config(factory) else []
    try:
        with _working_directory_importable():  # factories import where they need it
            made = factory(*arguments)
    except Exception as error:
        raise CommandError(
            f"The factory {place} must return Keras callbacks. Received: "
            f"{_told(error)}. Training has not begun; run without it, or mend it."
        ) from error
    several = list(made) if isinstance(made, list | tuple) else [made]
    for one in several:
        if not isinstance(one, keras.callbacks.Callback):
            raise CommandError(
                f"The factory {place} must return a keras.callbacks.Callback, or a "
                f"list of them. Received: {type(one).__name__}."
            )
    return several


def _takes_config(factory: Callable[..., Any]) -> bool:
    if isinstance(factory, type) and issubclass(factory, keras.callbacks.Callback):
        return False  # its arguments are its own
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    parameters = inspect.signature(factory).parameters.values()
    return any(one.kind in kinds for one in parameters)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error, _LETTERS)}".rstrip(".")


@contextlib.contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Installed commands do not look there for modules, `python -m` does."""
    folder = os.getcwd()
    if {"", folder} & set(sys.path):
        yield
        return
    sys.path.append(folder)  # last: it takes nothing from what is installed
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
