"""A run that is to be disturbed: its places, its processes, and how they ended."""

import contextlib
import csv
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from slotcon_tf.runs.places import HISTORY, checkpoint_paths, step_of

FIRST, LAST = "first", "last"  # files of notes: the step a process began at, the newest
PATIENCE = 240  # seconds for a process to begin, or to see that it cannot go on


class Broken(Exception):
    """Something that must hold did not."""


@dataclasses.dataclass
class Course:
    """A run: where it writes, what it reads, and where its processes leave notes."""

    config: Any
    notes: pathlib.Path
    workdir: pathlib.Path
    images: pathlib.Path
    on_small_disk: bool = False

    def newest(self):
        """The newest checkpoint, or None."""
        return next(iter(checkpoint_paths(self.workdir / "checkpoints")), None)

    def newest_step(self):
        newest = self.newest()
        return step_of(newest) if newest else 0

    def check_history(self, epochs):
        """Every epoch has one row."""
        with (self.workdir / HISTORY).open(newline="") as file:
            found = [int(row["epoch"]) for row in csv.DictReader(file)]
        if found != list(range(epochs)):
            raise Broken(f"history.csv of {self.workdir.name} has the epochs {found}")


class Started:
    """A process of a course.

    Args:
        course: What it runs.
        notes: Name of its notes, where several run at once.
        environment: Variables beside this process's.
        **changes: Settings of `EnduranceConfig` that differ.
    """

    def __init__(
        self,
        course: Course,
        notes: str = "",
        environment: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> None:
        self.notes = course.notes / notes
        shutil.rmtree(self.notes, ignore_errors=True)
        self.notes.mkdir(parents=True)
        places = {"watched": course.workdir, "notes": self.notes, "data": course.images}
        settings = {name: str(path) for name, path in places.items()}
        config = course.config.replace(**{**settings, **changes})
        self.at, self.newest_before = time.time(), course.newest_step()
        with (self.notes / "stderr").open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.endurance", *config.lines()],
                stdout=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, **(environment or {})},
            )

    @property
    def status(self):
        """Exit status; None while it runs."""
        return self._process.poll()

    def wait(self, seconds):
        """Its exit status, or None if it still runs after so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.status

    def until(self, condition):
        """Waits for what it is to do; whether it did before its end."""
        end = time.monotonic() + PATIENCE
        while self.status is None and time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.02)
        return False

    def trains(self):
        """Waits for its first step; whether it came before the process's end."""
        return self.until(lambda: self.step(LAST))

    def step(self, name):
        """A step that it has noted; 0 before."""
        path = self.notes / name
        text = path.read_text() if path.exists() else ""
        return int(text or 0)

    def check_first(self):
        """It has begun where the newest checkpoint was."""
        if (self.notes / FIRST).exists() and self.step(FIRST) < self.newest_before:
            raise Broken(
                f"it began at step {self.step(FIRST)}, before the checkpoint "
                f"{self.newest_before}"
            )

    def send(self, number):
        self._process.send_signal(number)

    def kill(self):
        """Ends it; whether it was running."""
        was = self.status is None
        self._process.kill()
        self._process.wait()
        return was

    def said(self):
        """The lines in which it says why it ended."""
        text = (self.notes / "stderr").read_text(errors="replace")
        own = [line for line in text.splitlines() if line.startswith("endurance: ")]
        ends = [
            one for one in own if ": warning: " not in one and ": error: " not in one
        ]
        if "Traceback (most recent call last)" in text:
            ends.append(f"a traceback: {text.splitlines()[-1]}")
        return ends

    def must_end(self, why, seconds=PATIENCE):
        """Waits for its end in one line that it is to blame itself for.

        Returns:
            The line.
        """
        status = self.wait(seconds)
        ends = self.said()
        if status is None:
            self.kill()
            raise Broken(f"{why}: it still ran after {seconds} s")
        if status <= 0 or len(ends) != 1:
            raise Broken(f"{why}: status {status}, {ends or 'no line'}")
        return ends[0]
