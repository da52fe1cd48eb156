"""The work directory of a run: its flags, its checkpoints, its logs."""

import csv
import pathlib

import tensorflow as tf
from absl import flags

FLAGFILE = "pretrain.flags"
# Flags that may differ when a run goes on: they change no number of it.
_FREE = {
    "workdir",
    "resume",
    "strategy",
    "tpu",
    "jit_compile",
    "checkpoint_epochs",
    "keep_checkpoints",
    "picture_epochs",
    "augment_on",
    "export",
}


class WorkdirError(ValueError):
    """The work directory belongs to another run."""


def flag_lines(flag_values: flags.FlagValues, module: str) -> list[str]:
    """Every flag that a module defines, as `--name=value` lines, sorted."""
    own = flag_values.get_flags_for_module(module)
    lines = [flag.serialize() for flag in own if flag.value is not None]
    return sorted(line for text in lines for line in text.splitlines() if line)


def claim(workdir: pathlib.Path, lines: list[str], resume: str) -> None:
    """Makes the work directory this run's, or refuses it.

    Args:
        workdir: Created if it does not exist.
        lines: Of `flag_lines`.
        resume: "auto" continues a run with the same flags; "never" insists on a fresh
            directory.

    Raises:
        WorkdirError: If another configuration's run, or any run with "never", is there.
    """
    path = workdir / FLAGFILE
    if path.exists():
        if resume == "never":
            raise WorkdirError(
                f"--resume=never needs a fresh --workdir. Received: {workdir}, which "
                "holds a run. Take another directory, or --resume=auto to continue."
            )
        old, new = _values(path.read_text().splitlines()), _values(lines)
        names = sorted((old.keys() | new.keys()) - _FREE)
        changed = [n for n in names if old.get(n) != new.get(n)]
        if changed:
            was = ", ".join(f"{n}={old.get(n)} (now {new.get(n)})" for n in changed)
            raise WorkdirError(
                f"--workdir={workdir} holds a run of another configuration: {was}. "
                "Take another directory, or the old flags to continue."
            )
    workdir.mkdir(parents=True, exist_ok=True)
    header = [
        "# Every flag of this run. Repeat it with:",
        f"#   python -m trainers.pretrain --flagfile={path} --workdir=NEW_FOLDER",
    ]
    path.write_text("\n".join([*header, *lines]) + "\n")


def _values(lines):
    """Flag name to value; booleans stand as --name and --noname."""
    values = {}
    for line in lines:
        if line.startswith("--"):
            name, _, value = line[2:].partition("=")
            if not value and name.startswith("no"):
                name, value = name[2:], "false"
            values[name] = value or "true"
    return values


def checkpoint_manager(workdir, model, optimizer, keep):
    """CheckpointManager of model, teacher, center, optimizer and epoch."""
    checkpoint = tf.train.Checkpoint(
        model=model, optimizer=optimizer, epoch=tf.Variable(0, dtype=tf.int64)
    )
    return tf.train.CheckpointManager(
        checkpoint, str(workdir / "checkpoints"), max_to_keep=keep
    )


def restore(manager) -> int:
    """Restores the newest checkpoint, if any; returns the number of epochs done."""
    if manager.latest_checkpoint is None:
        return 0
    status = manager.checkpoint.restore(manager.latest_checkpoint)
    status.assert_existing_objects_matched()
    return int(manager.checkpoint.epoch.numpy())


def trim_history(path: pathlib.Path, epochs_done: int) -> None:
    """Drops the rows of epochs that will run again from the CSV."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [r for r in rows[1:] if r and int(r[0]) < epochs_done]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([*rows[:1], *kept])
