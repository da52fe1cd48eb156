"""How every command starts and ends: settings from its flags, errors in one line."""

from __future__ import annotations

import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from absl import flags, logging

from slotcon_tf import processor
from slotcon_tf.extras import MissingExtra
from slotcon_tf.runs import flag_files
from slotcon_tf.runs.settings import Config, Setting, SettingError

TRACEBACK = "SLOTCON_TRACEBACK"  # environment variable: 1 shows where an error is from
USAGE_STATUS, ERROR_STATUS = 2, 1  # of the process
# What users' files, settings and machines raise; all else is a fault of this project.
USER_ERRORS = (ValueError, OSError, MissingExtra)


class CommandError(RuntimeError):
    """Ends a command in one line, for what is neither a value nor a file.

    Attributes:
        status: Of the process.
        at_once: Whether the process ends at once: threads of an input pipeline still
            run Python, and an interpreter that takes itself apart may wait for them
            for ever.
    """

    status = 1
    at_once = False


class Command:
    """A main: `python -m trainers.pretrain`, and the console script of its name.

    Args:
        name: Of the command, as its errors begin.
        config: Class of its settings; each is a flag.
        run: Function of the configuration; a whole number that it returns is the exit
            status, which is 0 otherwise.
        doc: What `--help` begins with.
        positionals: Names of settings that arguments without a name stand for, in
            order.

    Call arguments:
        argv: Words of the command line, the program's name first; default: the
            process's.

    Raises:
        SystemExit: Always: with 0, the status that `run` returned, 1 after an error of
            the run, or 2 after one in the settings. Errors take one line on stderr.

    Example:
        >>> import dataclasses
        >>> from slotcon_tf.runs.settings import setting
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Sieve(Config):
        ...     size: int = setting(3, "Edge of the holes in mm.", low=1)
        >>> main = Command("sieve", Sieve, lambda config: print(config.size), "Sieves.")
        >>> main.config(["sieve", "--size=4"]).size
        4
    """

    def __init__(
        self,
        name: str,
        config: type[Config],
        run: Callable[[Any], Any],
        doc: str,
        positionals: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.config_class = config
        self.run = run
        self.doc = doc
        self.positionals = tuple(positionals)

    def __call__(self, argv: Sequence[str] | None = None) -> None:
        argv = sys.argv if argv is None else argv
        if any(word in ("--help", "-h", "--helpfull", "-help") for word in argv[1:]):
            print(self.help())
            sys.exit(0)
        try:
            config = self.config(argv)
        except (SettingError, flags.Error) as error:
            self._end(error, USAGE_STATUS)
        _prepare_logs()
        print(f"Processor: {processor.describe()}", file=sys.stderr, flush=True)
        try:
            status = self.run(config)
        except SettingError as error:
            self._end(error, USAGE_STATUS)
        except (*USER_ERRORS, CommandError) as error:
            self._end(error, getattr(error, "status", ERROR_STATUS))
        sys.exit(status if type(status) is int else 0)

    def config(self, argv: Sequence[str]) -> Any:
        """The configuration that a command line asks for.

        Args:
            argv: The program's name and its flags.

        Raises:
            SettingError, absl.flags.Error: If it cannot be read.
        """
        values = self._flag_values()
        words = flag_files.expand(argv[1:])
        # absl's own flags (--verbosity, --alsologtostderr) are for absl's logging.
        flags.FLAGS.set_gnu_getopt(True)
        rest = flags.FLAGS([argv[0], *words], known_only=True)
        named = values([argv[0], *rest[1:]])[1:]
        given = {name: values[name].value for name in self.config_class.settings()}
        for name, known in self.config_class.settings().items():
            for alias in known.aliases:
                if values[alias].present:
                    self._note(f"--{alias} is --{name} now; it goes on as before.")
        if len(named) > len(self.positionals):
            takes = ", ".join(f"`{name}`" for name in self.positionals)
            must = f"no arguments but {takes} and flags" if takes else "flags only"
            extra = " ".join(named[len(self.positionals) :])
            raise SettingError(f"The command takes {must}. Received: {extra}.")
        given.update(zip(self.positionals, named, strict=False))
        return self.config_class(**given)

    def help(self) -> str:
        """Text of `--help`: what the command does, and every flag."""
        lines = [self.doc.strip(), "", "Flags:"]
        for known in self.config_class.settings().values():
            lines += flag_help(known)
        return "\n".join([*lines, "", "--flagfile=FILE, --recipe=NAME: more flags."])

    def _flag_values(self) -> flags.FlagValues:
        values = flags.FlagValues()
        values.set_gnu_getopt(True)
        for known in self.config_class.settings().values():
            _define(known, values)
        return values

    def _note(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr)

    def _end(self, error: BaseException, status: int) -> None:
        if os.environ.get(TRACEBACK) == "1":
            raise error
        text = " ".join(str(error).split()) or type(error).__name__
        self._note(with_dashes(text, self.config_class))
        if getattr(error, "at_once", False):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        sys.exit(status)


def with_dashes(text: str, config: type[Config]) -> str:
    """A library's error as the command line says it: --name for `name` and name=."""
    names = "|".join(map(re.escape, (*config.settings(), "flagfile", "recipe")))
    text = re.sub(rf"`({names})`", r"--\1", text)
    return re.sub(rf"(?<![\w`\-.])({names})=", r"--\1=", text)


def flag_help(known: Setting) -> list[str]:
    """Lines of `--help` about one flag."""
    value = known.line(known.default) or "not set"
    told = "" if known.default in (None, "", ()) else f" (default: {value})"
    if known.choices:
        told = f" One of {', '.join(known.choices)}." + told
    return [f"  --{known.name}:", *textwrap.wrap(known.help + told, 80, **_INDENT)]


_INDENT: dict[str, Any] = {"initial_indent": "    ", "subsequent_indent": "    "}


def _define(known: Setting, values: flags.FlagValues) -> None:
    own = {"flag_values": values, "module_name": "command"}
    name, default, text = known.name, known.default, known.help
    bounds = {"lower_bound": known.low, "upper_bound": known.high}
    if known.choices:
        flags.DEFINE_enum(name, default, known.choices, text, **own)
    elif known.kind is bool:
        flags.DEFINE_bool(name, default, text, **own)
    elif known.kind is int:
        flags.DEFINE_integer(name, default, text, **bounds, **own)
    elif known.kind is float:
        flags.DEFINE_float(name, default, text, **bounds, **own)
    elif known.kind is tuple:
        words = None if default is None else list(default)
        flags.DEFINE_list(name, words, text, **own)
    else:
        flags.DEFINE_string(name, default, text, **own)
    for alias in known.aliases:
        flags.DEFINE_alias(alias, name, **own)


def _prepare_logs() -> None:
    tf.get_logger().setLevel("ERROR")
    # What is wrong with a file is said by its reason.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.use_absl_handler()
