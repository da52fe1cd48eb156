"""The work directory of a run: its flags and its history."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterable

from slotcon_tf.files import write_text
from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.settings import SettingError, as_text

# Of every kind of run, to tell them from each other.
FLAGFILES = ("pretrain.flags", "finetune.flags")


class WorkdirError(ValueError):
    """The work directory belongs to another run.

    Example:
        >>> raise WorkdirError("runs/mine holds a run of another configuration.")
        Traceback (most recent call last):
        slotcon_tf.runs.workdir.WorkdirError: runs/mine holds a run of another ...
    """


def check(config: RunSettings, chief: bool = True) -> None:
    """Refuses a work directory that another run has; writes nothing.

    Args:
        config: Of the run; `resume` "auto" continues a run of the same settings,
            "never" insists on a fresh directory.
        chief: Whether this process is the one that will write.

    Raises:
        WorkdirError: If another configuration's run, another kind's, or any run with
            "never", is there.

    Example:
        >>> import tempfile
        >>> from slotcon_tf.runs import PretrainConfig
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     claim(PretrainConfig(workdir=folder))
        ...     check(PretrainConfig(workdir=folder, seed=3))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.runs.workdir.WorkdirError: ...: seed=0 (now 3)...
    """
    workdir = pathlib.Path(config.workdir)
    path = workdir / config.flagfile
    for other in set(FLAGFILES) - {config.flagfile}:
        if (workdir / other).exists():
            raise WorkdirError(
                f"`workdir` must be empty, or hold a run of {config.command}. "
                f"Received: {workdir}, which has {other}. Take another directory."
            )
    if path.exists():
        if config.resume == "never" and chief:
            raise WorkdirError(
                f"resume=never needs a fresh `workdir`. Received: {workdir}, which "
                "holds a run. Take another directory, or resume=auto to continue."
            )
        check_same(workdir, path.read_text().splitlines(), config)


def claim(config: RunSettings) -> None:
    """Makes the work directory this run's: creates it, and writes the settings.

    Once `check` has let it pass, and everything that may be refused is there: a
    command with a mistake leaves nothing that the mended one would meet.

    Args:
        config: Of the run.

    Raises:
        OSError: If the directory cannot be written.

    Example:
        >>> import tempfile
        >>> from slotcon_tf.runs import PretrainConfig
        >>> config = PretrainConfig(dataset="fake", workdir=tempfile.mkdtemp())
        >>> claim(config)
        >>> sorted(path.name for path in pathlib.Path(config.workdir).iterdir())
        ['pretrain.flags']
    """
    workdir = pathlib.Path(config.workdir)
    path = workdir / config.flagfile
    workdir.mkdir(parents=True, exist_ok=True)
    header = [
        "# Every flag of this run. Repeat it with:",
        f"#   {config.command} --flagfile={path} --workdir=NEW_FOLDER",
    ]
    write_text(path, "\n".join([*header, *config.lines()]) + "\n")


def check_same(path: pathlib.Path, lines: Iterable[str], config: RunSettings) -> None:
    """Refuses what another configuration has written.

    Args:
        path: Named in the error.
        lines: The flags that were written with it. Settings that it does not name are
            younger than it, and their defaults are what was done then.
        config: Of the run that is to go on.

    Raises:
        WorkdirError: If a setting that changes the run's numbers differs; it names
            them.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig
        >>> config = PretrainConfig(weight_decay=1e-5, remat=True)
        >>> check_same(pathlib.Path("run"), ["--weight_decay=0.00001"], config)
    """
    try:
        changed = config.changes_from(type(config).from_lines(lines))
        was = ", ".join(
            f"{name}={as_text(old)} (now {as_text(new)})"
            for name, (old, new) in changed.items()
        )
    except SettingError as error:
        was = str(error)
    if was:
        raise WorkdirError(
            f"{path} holds a run of another configuration: {was}. "
            "Take another `workdir`, or the old settings to continue."
        )


def trim_history(path: pathlib.Path, epochs_done: int) -> None:
    """Drops the rows of epochs that will run again from the CSV, and half a row.

    Example:
        >>> trim_history(pathlib.Path("history.csv"), 3)  # none is there yet
    """
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    whole = [r for r in rows[1:] if r and len(r) == len(rows[0]) and r[0].isdigit()]
    kept = [r for r in whole if int(r[0]) < epochs_done]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([*rows[:1], *kept])
    write_text(path, text.getvalue())
