"""How every command starts and ends: settings from its flags, errors in one line."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from absl import flags

from slotcon_client.errors import MissingPackage
from slotcon_tf import __version__, garbage, processor
from slotcon_tf.data.bad_images import TooManyBadImages
from slotcon_tf.extras import MissingExtra
from slotcon_tf.runs import flag_files
from slotcon_tf.runs.messages import one_line, told_as, with_dashes
from slotcon_tf.runs.settings import Config, Setting, SettingError

TRACEBACK = "SLOTCON_TRACEBACK"  # environment variable: 1 shows where an error is from
USAGE_STATUS, ERROR_STATUS, INTERRUPTED_STATUS = 2, 1, 130  # of the process
TERMINATED_STATUS = 143  # 128 + SIGTERM


class CommandError(RuntimeError):
    """Ends a command in one line, for what is neither a value nor a file.

    Attributes:
        status: Of the process.
        at_once: Whether the process ends at once: threads of an input pipeline still
            run Python, and an interpreter that takes itself apart may wait for them
            for ever.

    Example:
        >>> CommandError("Two files are missing.").status
        1
    """

    status = 1
    at_once = False


class Terminated(BaseException):
    """SIGTERM, where nothing is trained: the command ends like after Ctrl-C.

    Example:
        >>> issubclass(Terminated, Exception)  # nothing may go on after it
        False
    """


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Context in which SIGTERM raises `Terminated`.

    Without a handler it does nothing to the first process of a container, and another
    one leaves its lock behind. Handlers that are there stay, and in a thread other than
    the main one all is left as it is.

    Example:
        >>> with ended_by_sigterm():
        ...     signal.raise_signal(signal.SIGTERM)
        Traceback (most recent call last):
        slotcon_tf.runs.command.Terminated: stopped by SIGTERM
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: types.FrameType | None) -> None:
    raise Terminated("stopped by SIGTERM")


# What users' files, settings and machines raise; all else is a fault of this project.
USER_ERRORS = (
    ValueError,
    OSError,
    CommandError,
    MissingExtra,
    MissingPackage,
    TooManyBadImages,
    # TensorFlow's of files, on this machine or elsewhere, and of too little memory.
    tf.errors.AlreadyExistsError,
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
)


class Command:
    """A main: `python -m trainers.pretrain`, and the console script of its name.

    Args:
        name: Of the command, as its errors begin.
        config: Class of its settings; each is a flag.
        run: Function of the configuration; a whole number that it returns is the exit
            status, which is 0 otherwise.
        doc: What `--help` begins with.
        positionals: Names of settings that arguments without a name stand for, in
            order; the last takes all that are left if it is of several values.

    Call arguments:
        argv: Words of the command line, the program's name first; default: the
            process's.

    Raises:
        SystemExit: Always: with 0, the status that `run` returned, 1 after an error of
            the run, 2 after one in the settings, 130 after Ctrl-C, or 143 after
            SIGTERM. Errors take one line on stderr.

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
        doc: str | None,
        positionals: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.config_class = config
        self.run = run
        self.doc = doc or ""
        self.positionals = tuple(positionals)

    def __call__(self, argv: Sequence[str] | None = None) -> None:
        if argv is None:
            garbage.collect_seldom()  # the process is this command's
            argv = sys.argv
        if any(word in ("--help", "-h", "--helpfull", "-help") for word in argv[1:]):
            print(as_called(self.help(), argv[0]))
            sys.exit(0)
        if "--version" in argv[1:] and "version" not in self.config_class.settings():
            print(f"slotcon_tf {__version__}")
            sys.exit(0)
        try:
            config = self.config(argv)
        except (SettingError, flags.Error) as error:
            self._end(error, USAGE_STATUS)
        print(f"Processor: {processor.describe()}", file=sys.stderr, flush=True)
        try:
            with ended_by_sigterm(), told_as(self.name, self.config_class):
                status = self.run(config)
        except SettingError as error:
            self._end(error, USAGE_STATUS)
        except USER_ERRORS as error:
            self._end(error, getattr(error, "status", ERROR_STATUS))
        except KeyboardInterrupt:
            self._note("Interrupted.")
            _exit_at_once(INTERRUPTED_STATUS)  # a thread may be held up for minutes
        except Terminated:
            self._note("Stopped by SIGTERM.")
            _exit_at_once(TERMINATED_STATUS)
        sys.exit(status if type(status) is int else 0)

    def config(self, argv: Sequence[str]) -> Any:
        """The configuration that a command line asks for.

        Args:
            argv: The program's name and its flags.

        Raises:
            SettingError, absl.flags.Error: If it cannot be read.
        """
        values = self._flag_values()
        words = flag_files.expand(argv[1:], self.config_class)
        flags.FLAGS.set_gnu_getopt(True)
        try:
            rest = values([argv[0], *words], known_only=True)
            # absl's own flags (--verbosity, --alsologtostderr) are for absl's logging.
            rest = flags.FLAGS(rest, known_only=True)
            named = values(rest)[1:]  # which refuses what neither knows
        except flags.IllegalFlagValueError as error:
            raise error.__context__ or error from None  # as the setting said it
        given = {}
        for name, known in self.config_class.settings().items():
            given[name] = values[known.flag].value
            for alias in known.aliases:
                if values[alias].present:
                    new = f"--{known.flag}"
                    self._note(f"--{alias} is {new} now; it goes on as before.")
        known = self.config_class.settings()
        last = self.positionals[-1:]
        if last and known[last[0]].kind is tuple and named:
            before = len(self.positionals) - 1  # it takes all that are left
            words = [word for text in named[before:] for word in text.split(",")]
            named = [*named[:before], words]
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
        known = self.config_class.settings().values()
        for one in sorted(known, key=lambda one: not one.required):
            lines += flag_help(one)
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
        text = with_dashes(one_line(error), self.config_class)
        if isinstance(error, flags.Error):
            text += " See --help for all flags."
        self._note(text)
        if getattr(error, "at_once", False):
            _exit_at_once(status)
        sys.exit(status)


def _exit_at_once(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def as_called(text: str, program: str) -> str:
    """A text that names commands as modules, as a console script's user types them.

    Args:
        text: With `python -m trainers.NAME` in it, which a checkout has.
        program: What was called.

    Example:
        >>> as_called("python -m trainers.pretrain --epochs=3", "trainers/pretrain.py")
        'python -m trainers.pretrain --epochs=3'
    """
    if not os.path.basename(program).startswith("slotcon-"):
        return text
    for script in importlib.metadata.entry_points(group="console_scripts"):
        module = script.value.partition(":")[0].removeprefix("slotcon_tf.")
        text = text.replace(f"python -m {module} ", f"{script.name} ")
    return text


def flag_help(known: Setting) -> list[str]:
    """Lines of `--help` about one flag.

    Example:
        >>> from slotcon_tf.runs.load_settings import LoadSettings
        >>> flag_help(LoadSettings.settings()["prefix"])[0]
        '  --prefix:'
    """
    told = "" if known.default in (None, "", ()) else known.line(known.default)
    told = f" (default: {told})" if told else " (needed)" if known.required else ""
    if known.choices:
        told = f" One of {', '.join(known.choices)}." + told
    return [f"  --{known.flag}:", *textwrap.wrap(known.help + told, 80, **_INDENT)]


_INDENT: dict[str, Any] = {"initial_indent": "    ", "subsequent_indent": "    "}


class _Parser(flags.ArgumentParser):
    """Reads a flag as its setting does."""

    def __init__(self, known: Setting) -> None:
        self._known = known

    def parse(self, argument: Any) -> Any:
        # absl hands over a default as it is.
        read = self._known.read if isinstance(argument, str) else self._known.check
        return read(argument)


def _define(known: Setting, values: flags.FlagValues) -> None:
    own = {"flag_values": values, "module_name": "command"}
    flag = flags.Flag(
        _Parser(known),
        None,
        known.flag,
        known.default,
        known.help,
        boolean=known.kind is bool,
    )
    flags.DEFINE_flag(flag, **own)
    for alias in known.aliases:
        flags.DEFINE_alias(alias, known.flag, **own)
