"""The work directory of a run: whose it is."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

from slotcon_tf.files import write_text
from slotcon_tf.runs import kept_files
from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.settings import SettingError, as_text

# Of every kind of run, to tell them from each other.
FLAGFILES = ("pretrain.flags", "finetune.flags", "finetune_detection.flags")


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
        kept_files.KeptFileError: If its files are not what the run has written.

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
    kept_files.check_kinds(workdir, config.flagfile)
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
        lines = kept_files.read_flags(path, type(config))
        check_same(workdir, lines, config)


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
    write_text(path, "\n".join([*header, *kept_lines(config)]) + "\n")


def kept_lines(config: RunSettings) -> list[str]:
    """The flags that repeat a run; what was allowed once is not allowed for good.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig
        >>> lines = kept_lines(PretrainConfig(allow_changed_data=True))
        >>> "--noallow_changed_data" in lines
        True
    """
    return config.replace(allow_changed_data=False).lines()


def check_same(
    path: pathlib.Path, lines: Iterable[str], config: RunSettings
) -> RunSettings:
    """Refuses what another configuration has written.

    Args:
        path: Named in the error.
        lines: The flags that were written with it. Settings that it does not name are
            younger than it, and their defaults are what was done then.
        config: Of the run that is to go on.

    Returns:
        The settings of then.

    Raises:
        WorkdirError: If a setting that changes the run's numbers differs; it names
            them.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig
        >>> config = PretrainConfig(weight_decay=1e-5, remat=True)
        >>> old = check_same(pathlib.Path("run"), ["--weight_decay=0.00001"], config)
        >>> old.remat
        False
    """
    old = None
    try:
        old = type(config).from_lines(lines)
        changed = config.changes_from(old)
        was = ", ".join(
            f"{name}={as_text(old)} (now {as_text(new)})"
            for name, (old, new) in changed.items()
        )
    except SettingError as error:
        was = str(error)
    if old is None or was:
        raise WorkdirError(
            f"{path} holds a run of another configuration: {was}. "
            "Take another `workdir`, or the old settings to continue."
        )
    return old
