"""Names of what lies in a work directory, where several parts of a run need them."""

from __future__ import annotations

import os
import pathlib

HISTORY = "history.csv"  # a row per epoch
LEDGER = "finished.json"  # what was made after the last step
LOCK = "run.lock"  # who holds it
SEGMENTER_FILE = "segmenter.keras"  # what a fine-tuning has made
DETECTOR_FILE = "detector.keras"  # ... for detection
RESULTS = "results.json"  # what a detector has found, in COCO's layout
DETECTIONS = "detections.png"  # ... in pictures
PREFIX = "step_"  # of a checkpoint's folder; the step follows


def checkpoint_paths(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Checkpoints in a folder, the newest first.

    Example:
        >>> checkpoint_paths("a/folder/that/is/not/there")
        []
    """
    found = pathlib.Path(folder).glob(f"{PREFIX}*")
    # A copy that somebody has named otherwise is theirs.
    found = [p for p in found if p.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: pathlib.Path) -> int:
    """The step after which a checkpoint's folder was written.

    Example:
        >>> step_of(pathlib.Path("checkpoints/step_000000042"))
        42
    """
    return int(path.name.removeprefix(PREFIX))
