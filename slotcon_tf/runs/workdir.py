"""The work directory of a run: its flags and its history."""

import csv
import io
import pathlib

from absl import flags

from slotcon_tf.files import write_text

FLAGFILE = "pretrain.flags"
FINETUNE_FLAGFILE = "finetune.flags"
# Flags that may differ when a run goes on: they change no number of it.
_FREE = {
    "workdir",
    "resume",
    "strategy",
    "tpu",
    "jit_compile",
    "checkpoint_epochs",
    "checkpoint_minutes",
    "checkpoint_steps",
    "keep_checkpoints",
    "keep_every_epochs",
    "remat",
    "picture_epochs",
    "num_pictures",
    "augment_on",
    "allow_remote_paths",
    "max_bad_share",
    "export",
    "eval_every_epochs",
    "eval_task",
    "eval_dataset",
    "eval_data_dir",
    "eval_split",
    "eval_train_split",
    "eval_images",
    "eval_crop_size",
    "eval_class_file",
    "eval_void_ids",
    "eval_label_ids",
}
# What an absent flag means.
_UNSET = {"vertical_flip": "false", "rotate90": "false"}


class WorkdirError(ValueError):
    """The work directory belongs to another run."""


def flag_lines(flag_values: flags.FlagValues, module: str) -> list[str]:
    """Every flag that a module defines, as `--name=value` lines, sorted."""
    own = flag_values.get_flags_for_module(module)
    lines = [flag.serialize() for flag in own if flag.value is not None]
    return sorted(line for text in lines for line in text.splitlines() if line)


def claim(
    workdir: pathlib.Path,
    lines: list[str],
    resume: str,
    chief: bool = True,
    *,
    flagfile: str = FLAGFILE,
    module: str = "trainers.pretrain",
) -> None:
    """Makes the work directory this run's, or refuses it.

    Args:
        workdir: Created if it does not exist.
        lines: Of `flag_lines`.
        resume: "auto" continues a run with the same flags; "never" insists on a fresh
            directory.
        chief: Whether this process writes; the others only look.
        flagfile: Name of the file that keeps the lines, one per kind of run.
        module: What `python -m` runs.

    Raises:
        WorkdirError: If another configuration's run, another kind's, or any run with
            "never", is there.
    """
    path = workdir / flagfile
    for other in {FLAGFILE, FINETUNE_FLAGFILE} - {flagfile}:
        if (workdir / other).exists():
            raise WorkdirError(
                f"--workdir must be empty, or hold a run of {module}. Received: "
                f"{workdir}, which has {other}. Take another directory."
            )
    if path.exists():
        if resume == "never" and chief:
            raise WorkdirError(
                f"--resume=never needs a fresh --workdir. Received: {workdir}, which "
                "holds a run. Take another directory, or --resume=auto to continue."
            )
        check_same(workdir, path.read_text().splitlines(), lines)
    if not chief:
        return
    workdir.mkdir(parents=True, exist_ok=True)
    header = [
        "# Every flag of this run. Repeat it with:",
        f"#   python -m {module} --flagfile={path} --workdir=NEW_FOLDER",
    ]
    write_text(path, "\n".join([*header, *lines]) + "\n")


def check_same(path, old_lines, new_lines):
    """Refuses what another configuration has written.

    Args:
        path: Named in the error.
        old_lines, new_lines: Of `flag_lines`. A pixel range may be added: without one,
            versions differ in what they make of images of more than 8 bits.

    Raises:
        WorkdirError: If a flag that changes the run's numbers differs; it names them.
    """
    old, new = _values(old_lines), _values(new_lines)
    names = (old.keys() | new.keys()) - _FREE
    if "pixel_range" not in old:
        names.discard("pixel_range")
    old, new = {**_UNSET, **old}, {**_UNSET, **new}
    changed = [n for n in sorted(names) if old.get(n) != new.get(n)]
    if changed:
        was = ", ".join(f"{n}={old.get(n)} (now {new.get(n)})" for n in changed)
        raise WorkdirError(
            f"{path} holds a run of another configuration: {was}. "
            "Take another --workdir, or the old flags to continue."
        )


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


def trim_history(path: pathlib.Path, epochs_done: int) -> None:
    """Drops the rows of epochs that will run again from the CSV, and half a row."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    whole = [r for r in rows[1:] if r and len(r) == len(rows[0]) and r[0].isdigit()]
    kept = [r for r in whole if int(r[0]) < epochs_done]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([*rows[:1], *kept])
    write_text(path, text.getvalue())
