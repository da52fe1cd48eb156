"""The files of a run that goes on, as they are found: whole, damaged, or edited."""

from __future__ import annotations

import csv
import pathlib

from absl import logging

from slotcon_tf.evaluation.results import SCORES, read_result
from slotcon_tf.interop.pretrained import MODEL_FILE
from slotcon_tf.runs.model_config import MODEL_CONFIG
from slotcon_tf.runs.places import (
    DETECTIONS,
    DETECTOR_FILE,
    HISTORY,
    LEDGER,
    LOCK,
    RESULTS,
    SEGMENTER_FILE,
    checkpoint_paths,
)
from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.settings import SettingError, as_text

_FILES = (
    *(HISTORY, SCORES, MODEL_CONFIG, MODEL_FILE, SEGMENTER_FILE, LEDGER),
    *(DETECTOR_FILE, RESULTS, DETECTIONS),
    *(LOCK, "skipped.txt", "slots.png", "masks.png"),
)
_FOLDERS = ("checkpoints", "tensorboard", "export")


class KeptFileError(ValueError):
    """A file of the run is not what the run has written.

    Example:
        >>> raise KeptFileError("runs/mine/pretrain.flags must be ...")
        Traceback (most recent call last):
        slotcon_tf.runs.kept_files.KeptFileError: runs/mine/pretrain.flags must be ...
    """


def check_kinds(workdir: pathlib.Path, flagfile: str) -> None:
    """Refuses a folder where the run will write a file, and the reverse.

    Args:
        workdir: Of the run; it need not be there.
        flagfile: Name of the file of its settings.

    Raises:
        KeptFileError: At the first one; it says what to do.

    Example:
        >>> check_kinds(pathlib.Path("runs/mine"), "pretrain.flags")
    """
    for path in (workdir, *(workdir / name for name in _FOLDERS)):
        if path.exists() and not path.is_dir():
            raise KeptFileError(
                f"{path} must be a folder of the run's. Received: a file. Move it "
                "away, or take another `workdir`."
            )
    for path in (workdir / name for name in (flagfile, *_FILES)):
        if path.is_dir():
            raise KeptFileError(
                f"{path} must be a file of the run's. Received: a folder. Move it "
                "away, or take another `workdir`."
            )


def read_flags(path: pathlib.Path, kind: type[RunSettings]) -> list[str]:
    """The flags that a run has kept, unless they are no longer what it wrote.

    Args:
        path: Of the file in the work directory, whose checkpoints have the same.
        kind: Class of its settings.

    Raises:
        KeptFileError: If the file is empty, no text, holds what is no flag of the run,
            or other settings than the newest checkpoint; it says how to mend it.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig
        >>> path = pathlib.Path("pretrain.flags")
        >>> _ = path.write_text("--seed=3\\n--epochs=4\\n")
        >>> read_flags(path, PretrainConfig)
        ['--seed=3', '--epochs=4']
    """
    lines, wrong = _read(path, kind)
    checkpoints = checkpoint_paths(path.parent / "checkpoints")
    kept = (folder / path.name for folder in checkpoints)
    # Of the newest checkpoint that has some.
    sound = next((file for file in kept if not _read(file, kind)[1]), None)
    if not wrong and sound:
        now = kind.from_lines(lines)
        changed = now.changes_from(kind.from_lines(_read(sound, kind)[0]))
        wrong = ", ".join(
            f"{name}={as_text(new)}, where the run has {as_text(old)}"
            for name, (old, new) in changed.items()
        )
    if wrong:
        advice = "Delete it: the run begins anew, as it has no checkpoint."
        if sound:
            advice = f"Copy {sound} over it, and give the same command again."
        elif checkpoints:
            advice = "Take another `workdir`, or the version that wrote it."
        raise KeptFileError(
            f"{path} must have the flags that the run was begun with, one a line. "
            f"Received: {wrong.rstrip('.')}. {advice}"
        )
    return lines


def _read(path: pathlib.Path, kind: type[RunSettings]) -> tuple[list[str], str]:
    """Lines of a file of flags, and what is wrong with them, if anything."""
    try:
        lines = [x.strip() for x in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        return [], error.strerror or str(error)
    except UnicodeDecodeError:
        return [], "a file that is no text"
    flags = [line for line in lines if line and not line.startswith("#")]
    if not flags:
        return [], "an empty file"
    strange = [line for line in flags if not line.startswith("-")]
    if strange:
        return [], f"the line {strange[0][:60]!r}"
    try:
        kind.from_lines(flags)
    except SettingError as error:
        return [], str(error).partition("Received: ")[2] or str(error)
    return lines, ""


def set_aside_damaged(workdir: pathlib.Path) -> None:
    """Renames a history and scores that cannot be gone on with; warns of each.

    Nothing that a run needs is in them, and a scheduler that starts it again cannot
    mend them.

    Args:
        workdir: Of the run.

    Example:
        >>> _ = pathlib.Path("history.csv").write_bytes(b"\\xff\\xfe")
        >>> set_aside_damaged(pathlib.Path())
        >>> pathlib.Path("damaged_history.csv").exists()
        True
    """
    for name, check in ((HISTORY, _check_history), (SCORES, _check_scores)):
        path = workdir / name
        if not path.exists():
            continue
        try:
            check(path)
        except (ValueError, TypeError, AttributeError, csv.Error) as error:
            aside = path.with_name(f"damaged_{name}")
            path.replace(aside)
            logging.warning(
                "%s cannot be gone on with (%s): it is %s now, and begins anew.",
                *(path, str(error)[:100], aside.name),
            )


def _check_history(path: pathlib.Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if rows and rows[0][:1] != ["epoch"]:
        raise ValueError("its first column is not epoch")


def _check_scores(path: pathlib.Path) -> None:
    for row in read_result(path)["rows"].values():
        if not all(isinstance(score, list) and score for score in row.values()):
            raise ValueError("a score is no list")
