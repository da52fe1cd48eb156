"""Flags as they are written down: on a command line, in flagfiles, in recipes."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence

from slotcon_tf import recipes
from slotcon_tf.runs.settings import Config, SettingError

_COMMENTS = ("#", "//")


def recipe_lines(name: str) -> list[str]:
    """Lines of the flagfile of a published recipe.

    Raises:
        SettingError: If there is none of this name.

    Example:
        >>> "--epochs=800" in recipe_lines("coco")
        True
    """
    known = recipes.names()
    if name not in known:
        raise SettingError(
            f"`recipe` must be one of {', '.join(known)}. Received: recipe={name}."
        )
    return recipes.lines(name)


def expand(arguments: Iterable[str], config: type[Config] | None = None) -> list[str]:
    """Arguments with what their flagfiles and recipes hold in their place.

    Args:
        arguments: Flags and words.
        config: Class of the settings that they are for.

    Raises:
        SettingError: If a flagfile or a recipe cannot be read, or a recipe is of
            another command.

    Example:
        >>> expand(["--seed=3", "--recipe=coco"])[:2]
        ['--seed=3', '--dataset=coco']
    """
    return _expand(list(arguments), (), config)


def _expand(
    arguments: Sequence[str], within: tuple[str, ...], config: type[Config] | None
) -> list[str]:
    found: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*found, argument, *rest]
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name not in ("flagfile", "recipe"):
            found.append(argument)
            continue
        if not equals:
            value = next(rest, "")
        if not value and name == "flagfile":
            continue  # as absl takes it
        source = f"--{name}={value}"
        if source in within:
            chain = " > ".join([*within, source])
            raise SettingError(f"`{name}` must not name itself. Received: {chain}.")
        lines = recipe_lines(value) if name == "recipe" else _file_lines(value)
        if name == "recipe" and config is not None:
            _check_fits(value, config)
        stripped = (line.strip() for line in lines)
        kept = [s for s in stripped if s and not s.startswith(_COMMENTS)]
        found += _expand(kept, (*within, source), config)
    return found


def _check_fits(name: str, config: type[Config]) -> None:
    known = {
        flag
        for one in config.settings().values()
        for flag in (one.flag, f"no{one.flag}", *one.aliases)
    }
    fitting = [one for one in recipes.names() if known.issuperset(recipes.values(one))]
    if name not in fitting:
        advice = f"Take one of {', '.join(fitting)}." if fitting else "It has none."
        raise SettingError(
            "`recipe` must be one of this command. Received: "
            f"recipe={name}, which is of another. {advice}"
        )


def _file_lines(path: str) -> list[str]:
    try:
        return pathlib.Path(path).expanduser().read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingError(
            f"`flagfile` must be a text file with a flag per line. Received: "
            f"flagfile={path}: {reason}. Recipes of the package go by their names: "
            f"recipe={pathlib.Path(path).stem}."
        ) from None
