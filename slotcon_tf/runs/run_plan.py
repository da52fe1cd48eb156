"""A plan of a run before the wait: what ten of its steps tell of the rest."""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from slotcon_tf.machine import Memory, size_text
from slotcon_tf.progress import duration
from slotcon_tf.runs.advice import Change

_WIDTH = 88  # columns of the table
_FOLLOWS = ("steps_left", "images_per_second", "epoch_seconds", "seconds_left", "end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """What a run will write.

    Attributes:
        folder: Nearest folder to the work directory that is there.
        writable: Whether this process may write into it.
        checkpoint: Bytes of one checkpoint.
        checkpoints: Checkpoints that lie there at once, at most.
        models: Bytes of the models that are written at the end.
        there: Bytes of checkpoints that lie in the work directory already.
        free: Bytes free on its disk.

    Example:
        >>> disk = Disk(folder="/data", writable=True, checkpoint=700, checkpoints=4,
        ...             models=900, there=700, free=2500)
        >>> disk.needed, disk.fits
        (3000, False)
    """

    folder: str
    writable: bool
    checkpoint: int
    checkpoints: int
    models: int
    there: int
    free: int

    @property
    def needed(self) -> int:
        """Bytes beside what is there."""
        whole = self.checkpoint * self.checkpoints + self.models
        return max(whole - self.there, 0)

    @property
    def fits(self) -> bool:
        """Whether it is enough, if nobody else writes."""
        return self.needed < self.free


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be expected of a run; `str` is a table for people.

    Attributes:
        workdir: Of the run.
        images: The data set, in words.
        num_images: In it.
        batch_size: Images per step, of all replicas.
        replicas: Devices that share a batch.
        device: "CPU", "GPU" or "TPU": where the steps run.
        gpus: That TensorFlow sees on this host.
        cores: Of the processor, that this process may use.
        best_precision: The faster one here.
        first_step: The step that the run goes on from; 0 at the start.
        done: Whether it has ended, though its data may have grown since.
        steps_per_epoch, epochs: Of the whole run.
        steps_taken: Steps that were tried; fewer than ten where fewer are left.
        first_seconds: Of the first one, which opens the data, traces and compiles.
        step_seconds: Of a later one; None if none was taken.
        waiting_share: Of its time, spent waiting for data.
        evaluation_seconds: Of one evaluation on the way; None without.
        evaluation_epochs: Epochs between evaluations.
        memory: Of the host, and of each GPU.
        disk: What is written.
        now: When the plan was made.
        changes: What would be better, the most urgent first.

    Example:
        ```python
        found = slotcon_tf.runs.plan(config)
        json.dumps(found.to_dict())  # for machines
        ```
        >>> [field.name for field in dataclasses.fields(Plan)][-3:]
        ['disk', 'now', 'changes']
    """

    workdir: str
    images: str
    num_images: int
    batch_size: int
    replicas: int
    device: str
    gpus: int
    cores: int
    best_precision: str
    first_step: int
    done: bool = False
    steps_per_epoch: int
    epochs: int
    steps_taken: int
    first_seconds: float | None
    step_seconds: float | None
    waiting_share: float | None
    evaluation_seconds: float | None
    evaluation_epochs: int
    memory: tuple[Memory, ...]
    disk: Disk
    now: datetime.datetime
    changes: tuple[Change, ...] = ()

    @property
    def steps_left(self) -> int:
        """Steps from `first_step` to the end."""
        if self.done:
            return 0
        return max(self.steps_per_epoch * self.epochs - self.first_step, 0)

    @property
    def images_per_second(self) -> float | None:
        """Images of a step by its seconds."""
        return self.batch_size / self.step_seconds if self.step_seconds else None

    @property
    def epoch_seconds(self) -> float | None:
        """Of an epoch, with its share of evaluations, without checkpoints."""
        if self.step_seconds is None:
            return None
        evaluation = (self.evaluation_seconds or 0.0) / self.evaluation_epochs
        return self.steps_per_epoch * self.step_seconds + evaluation

    @property
    def seconds_left(self) -> float | None:
        """Of the whole run, from now on; None where no step could be timed."""
        if self.steps_left <= 1:
            return (self.first_seconds or 0.0) * self.steps_left
        if self.epoch_seconds is None or self.first_seconds is None:
            return None
        epochs = (self.steps_left - 1) / self.steps_per_epoch
        return self.first_seconds + epochs * self.epoch_seconds

    @property
    def end(self) -> datetime.datetime | None:
        """When the run will have ended if it begins now."""
        if self.seconds_left is None:
            return None
        return self.now + datetime.timedelta(seconds=self.seconds_left)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON takes it: seconds, bytes, shares, ISO dates."""
        found = {**dataclasses.asdict(self), **{n: getattr(self, n) for n in _FOLLOWS}}
        found["disk"] |= {"needed": self.disk.needed, "fits": self.disk.fits}
        for known, change in zip(found["changes"], self.changes, strict=True):
            known["flag"] = change.flag
        return json.loads(json.dumps(found, default=_plain))

    def __str__(self) -> str:
        text = io.StringIO()
        console = Console(file=text, width=_WIDTH, markup=False, highlight=False)
        console.print(
            f"Plan of {self.workdir}: {self.steps_taken} steps were taken, "
            "nothing was written.",
            soft_wrap=True,
        )
        console.print(_table(self._facts()))
        if self.changes:
            console.print("What would be better:")
            console.print(_table([(c.what, c.reason) for c in self.changes]))
        else:
            console.print("Nothing is to be changed.")
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def _facts(self) -> list[tuple[str, str]]:
        """Rows of the table: what, and how much."""
        whole = self.steps_per_epoch * self.epochs
        facts = [
            ("images", self.images),
            (
                "steps",
                f"{self.steps_left:,} left of {whole:,}: {self.epochs:,} epochs of "
                f"{self.steps_per_epoch:,} steps, batch {self.batch_size:,} on "
                f"{self.replicas} replica(s)",
            ),
        ]
        if self.first_seconds is not None:
            told = f"{self.first_seconds:.1f} s: opens the data, traces, compiles"
            facts.append(("first step", told))
        if self.step_seconds is not None:
            told = (
                f"{_seconds(self.step_seconds)}, {self.images_per_second:.1f} images/s"
            )
            if self.waiting_share is not None:
                told += f", {self.waiting_share:.0%} of the time waiting for data"
            facts.append(("later steps", told))
        if self.evaluation_seconds is not None:
            told = f"{_seconds(self.evaluation_seconds)} each"
            facts.append(("evaluations", told))
        if self.epoch_seconds is not None:
            more = "" if self.evaluation_seconds is None else " with evaluations"
            told = f"{_seconds(self.epoch_seconds)}{more}, without checkpoints"
            facts.append(("an epoch", told))
        if self.steps_left:
            facts.append(("the end", self._end()))
        else:
            facts.append(("the end", "all steps are done already"))
        facts += [("memory", str(one)) for one in self.memory]
        disk = self.disk
        facts.append(
            (
                "disk",
                f"{size_text(disk.needed)} more at most, of {size_text(disk.free)} "
                f"free in {disk.folder}: {disk.checkpoints} checkpoint(s) of "
                f"{size_text(disk.checkpoint)} at once, models of "
                f"{size_text(disk.models)}, less what is there",
            )
        )
        return facts

    def _end(self) -> str:
        if self.end is None or self.seconds_left is None:
            return "unknown"
        return f"{self.end:%Y-%m-%d %H:%M %Z}, in {_seconds(self.seconds_left)}"


def _table(rows: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, text in rows:
        table.add_row(f"  {what}", text)
    return table


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 10 else duration(seconds)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)
