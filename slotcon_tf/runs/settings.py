"""What a setting is, said once: default, help, bounds, and whether it may change.

A configuration is a frozen dataclass whose fields are made by `setting`. Flags, the
file of flags that repeats a run, the comparison of two runs and the tables of the docs
are all derived from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Self

_KEY = "setting"
_ITEMS = {int: "whole numbers", float: "numbers", str: "words"}
_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class SettingError(ValueError):
    """A setting cannot be used as given: its name, what must hold, what came.

    Example:
        >>> Config.from_lines(["--size=3"])
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: A setting must be known. Received: size.
    """


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of one field of a configuration; see `setting`.

    Attributes:
        name: Of the field, and of its flag.
        kind: bool, int, float, str, or tuple for several values.
        item: int, float or str, of each of several values.
        optional: Whether None may stand for it.
        default: Its value unless another is given.

    Example:
        >>> from slotcon_tf.runs.label_settings import LabelSettings
        >>> LabelSettings.settings()["void_ids"].read("254,253")
        ('254', '253')
    """

    name: str
    kind: type
    item: type
    optional: bool
    default: Any
    help: str
    low: float | None
    high: float | None
    above: float | None
    choices: tuple[str, ...] | None
    free: bool
    addable: bool
    place: bool
    private: bool
    aliases: tuple[str, ...]

    @property
    def flag(self) -> str:
        """Name of its flag: its own, without the `_` that a keyword of Python needs."""
        return self.name.rstrip("_")

    @property
    def required(self) -> bool:
        """Whether it must be given: its default is None, which may not stand for it."""
        return self.default is None and not self.optional

    def check(self, value: Any) -> Any:
        """The value as its kind, or an error.

        Raises:
            SettingError: If it is of another kind, out of bounds, or no choice; if it
                is required and not given.
        """
        if self.required and value in (None, ""):
            raise SettingError(
                f"`{self.name}` must be given. Received: none. Set it: {self.help}"
            )
        if value is None:
            if self.optional:
                return None
            raise self._error("not be None", value)
        if self.kind is tuple:
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise self._error(f"be a sequence of {_ITEMS[self.item]}", value)
            return self._items(tuple(value))
        value = self._of_kind(value)
        self._check_bounds(value, value)
        return value

    def _items(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        shown = ",".join(map(str, values))
        try:
            found = tuple(self.item(value) for value in values)
        except (TypeError, ValueError, OverflowError):
            found = ()
        # int() cuts what is behind the point; words are texts, which it has read.
        cut = self.item is int and any(
            isinstance(value, bool) or (not isinstance(value, str) and value != item)
            for value, item in zip(values, found, strict=False)
        )
        if cut or len(found) != len(values):
            raise self._error(f"be {_ITEMS[self.item]}, with commas", shown)
        for item in found:
            self._check_bounds(item, shown)
        if self.choices and not found:
            raise self._error(f"be one of {', '.join(self.choices)} each", shown)
        return found

    def _check_bounds(self, value: Any, shown: Any) -> None:
        each = " each" if self.kind is tuple else ""
        if self.low is not None and value < self.low:
            raise self._error(f"be {self.low} or more{each}", shown)
        if self.high is not None and value > self.high:
            raise self._error(f"be {self.high} or less{each}", shown)
        if self.above is not None and value <= self.above:
            raise self._error(f"be above {self.above}{each}", shown)
        if self.choices and value not in self.choices:
            raise self._error(f"be one of {', '.join(self.choices)}{each}", shown)

    def _of_kind(self, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        number = number and math.isfinite(value)
        if self.kind is float and number:
            return float(value)
        if self.kind is int and number and value == int(value):
            return int(value)
        if self.kind is str and hasattr(value, "__fspath__"):
            return str(value)
        if self.kind in (bool, str) and isinstance(value, self.kind):
            return value
        words = {bool: "True or False", int: "a whole number", float: "a number"}
        raise self._error(f"be {words.get(self.kind, 'a text')}", value)

    def _error(self, must: str, value: Any) -> SettingError:
        return SettingError(
            f"`{self.name}` must {must}. Received: {self.name}={value}."
        )

    def line(self, value: Any) -> str | None:
        """The flag that sets it, as a flagfile has it; None where it is not set."""
        if value is None:
            return None
        if self.kind is bool:
            return f"--{'' if value else 'no'}{self.flag}"
        return f"--{self.flag}={as_text(value)}"

    def read(self, text: str) -> Any:
        """The value that the text of a flag stands for.

        Raises:
            SettingError: If it stands for none of this kind, or `check` refuses it.
        """
        value: Any = text
        if self.kind is tuple:
            value = [word.strip() for word in text.split(",") if word.strip()]
        elif self.kind is bool:
            value = _TRUTH.get(text.lower(), text)
        elif self.kind in (int, float):
            with contextlib.suppress(ValueError):
                value = self.kind(text)
        return self.check(value)


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: Iterable[str] | None = None,
    free: bool = False,
    addable: bool = False,
    place: bool = False,
    private: bool = False,
    aliases: Iterable[str] = (),
) -> Any:
    """A field of a `Config`.

    Args:
        default: Its value unless another is given. None makes it required, unless its
            annotation allows None.
        help: One or two short sentences, for `--help` and the docs.
        low, high: Bounds, included.
        above: Bound, not included.
        choices: All values that it may have.
        free: Whether it may change when a run goes on: it changes no number of it.
        addable: Whether a run that was begun without it (None) may go on with it.
        place: Whether it says where data lies. A run compares what lies there, and
            may go on with the same elsewhere.
        private: Whether it names what is of this machine, as places do: it is not
            published with a model.
        aliases: Names that its flag had once; they go on with a note.

    Example:
        >>> import dataclasses
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Sieve(Config):
        ...     size: int = setting(3, "Edge of the holes in mm.", low=1)
        >>> Sieve(size=4).lines()
        ['--size=4']
    """
    known = {
        "help": help,
        "low": low,
        "high": high,
        "above": above,
        "choices": tuple(choices) if choices else None,
        "free": free,
        "addable": addable,
        "place": place,
        "private": private or place,
        "aliases": tuple(aliases),
    }
    return dataclasses.field(default=default, metadata={_KEY: known})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one kind of work; subclasses are frozen dataclasses of `setting`s.

    Raises:
        SettingError: At construction, if a value is of the wrong kind, out of bounds or
            no choice.
    """

    def __post_init__(self) -> None:
        for name, known in self.settings().items():
            object.__setattr__(self, name, known.check(getattr(self, name)))

    @classmethod
    def settings(cls) -> dict[str, Setting]:
        """Every setting by its name, in the order in which they are declared."""
        return _settings(cls)

    def replace(self, **changes: Any) -> Self:
        """The same settings but for some."""
        return dataclasses.replace(self, **changes)

    def lines(self) -> list[str]:
        """The flags that repeat it, sorted: one per setting that is not None."""
        found = (s.line(getattr(self, n)) for n, s in self.settings().items())
        return sorted(line for line in found if line)

    @classmethod
    def from_lines(cls, lines: Iterable[str], **changes: Any) -> Self:
        """The configuration of flags as `lines` writes them; comments are passed over.

        Args:
            lines: What they do not name has its default.
            **changes: Settings that replace what the lines say.

        Raises:
            SettingError: If a flag is unknown, or a value cannot be used.

        Example:
            >>> Config.from_lines(["# nothing is set"]) == Config()
            True
        """
        found = dict(_named(cls, line) for line in lines if line.startswith("-"))
        values = {name: cls.settings()[name].read(text) for name, text in found.items()}
        return cls(**{**values, **changes})

    def changes_from(self, old: Config) -> dict[str, tuple[Any, Any]]:
        """Settings that make another run of it: name to old and new value.

        Places are none of them: what lies there is compared by itself.

        Args:
            old: Of the run that is to go on.
        """
        found = {}
        for name, known in self.settings().items():
            before, now = getattr(old, name), getattr(self, name)
            added = known.addable and before is None
            if known.free or known.place or before == now or added:
                continue
            found[name] = (before, now)
        return found


def check_left_out(config: Config, names: Iterable[str], what: str) -> None:
    """Refuses settings that would do nothing.

    Args:
        config: Of a command.
        names: Of those that must be at their default.
        what: When they do nothing, such as "for a detector".

    Raises:
        SettingError: If one is set; it names the first.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Look(Config):
        ...     size: int = setting(3, "Of it.")
        >>> check_left_out(Look(size=4), ("size",), "here")
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: `size` must be left out here. Received:
        size=4.
    """
    for name in names:
        value = getattr(config, name)
        if value != config.settings()[name].default:
            raise SettingError(
                f"`{name}` must be left out {what}. Received: {name}={as_text(value)}."
            )


def default_of(function: Callable[..., Any], name: str) -> Any:
    """What an argument of a function or class is unless it is given.

    Example:
        >>> default_of(setting, "free")
        False
    """
    return inspect.signature(function).parameters[name].default


def _named(cls: type[Config], line: str) -> tuple[str, str]:
    """Name of the setting, and text of its value, of a flag."""
    known = cls.settings()
    names = {alias: n for n, one in known.items() for alias in one.aliases}
    names |= {one.flag: name for name, one in known.items()}
    flag, equals, text = line.lstrip("-").partition("=")
    if flag in names:
        return names[flag], text if equals else "true"
    if not equals and flag.removeprefix("no") in names:
        return names[flag.removeprefix("no")], "false"
    near = difflib.get_close_matches(flag, names, 1)
    advice = f" Did you mean {near[0]}?" if near else ""
    raise SettingError(f"A setting must be known. Received: {flag}.{advice}")


@functools.cache
def _settings(cls: type[Config]) -> dict[str, Setting]:
    hints = typing.get_type_hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        about = _kind(hints[field.name])
        known = field.metadata[_KEY]
        found[field.name] = Setting(field.name, *about, field.default, **known)
    return found


def _kind(hint: Any) -> tuple[type, type, bool]:
    """The kind of an annotation, its items' kind, and whether it allows None."""
    parts = [hint]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        parts = list(typing.get_args(hint))
    (part,) = [part for part in parts if part is not types.NoneType]
    item, *_ = typing.get_args(part) or (str,)
    return typing.get_origin(part) or part, item, types.NoneType in parts


def as_text(value: Any) -> str:
    """A value as its flag has it.

    Example:
        >>> as_text((0.5, 1.0))
        '0.5,1'
    """
    if isinstance(value, tuple):
        return ",".join(as_text(v).removesuffix(".0") for v in value)
    return str(value)
