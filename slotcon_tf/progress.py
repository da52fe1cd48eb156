"""How long work shows itself: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from absl import logging
from tqdm import tqdm

LINE_SECONDS = 20.0  # between two lines in a log file
_SHOWN = ("loss", "learning_rate")  # of the logs, on the way


class _Lines(tqdm):
    """A bar for files: what tqdm would draw over itself stands on lines."""

    def display(self, msg=None, pos=None):
        del pos
        print(msg or str(self), file=self.fp, flush=True)

    def close(self):
        if not self.disable and self.leave and self.last_print_n < self.n:
            self.display()
        self.disable = True


def bar(items: Iterable | None = None, **options: Any) -> tqdm:
    """tqdm's bar on a terminal; in a log file, lines of their own.

    There is one every 20 s and, unless `leave` is false, one at the end.

    Args:
        items: Iterable whose passing is counted, or None to call `update`.
        **options: Of `tqdm.tqdm`: total, desc, unit, initial ...

    Returns:
        A `tqdm.tqdm`.

    Example:
        >>> sum(bar(range(3), desc="count"))
        3
    """
    if (options.get("file") or sys.stderr).isatty():
        return tqdm(items, dynamic_ncols=True, **options)
    when = {"mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS, "miniters": 1}
    return _Lines(items, ncols=0, delay=LINE_SECONDS, **when, **options)


class Stopwatch:
    """Context that adds up the seconds spent inside it, in `seconds`.

    Example:
        >>> watch = Stopwatch()
        >>> with watch:
        ...     time.sleep(0.001)
        >>> watch.seconds > 0
        True
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *_):
        self.seconds += time.perf_counter() - self._start


class Progress(keras.callbacks.Callback):
    """Tells of training as it goes: step, losses, speed, time left, wait for data.

    On a terminal that is a bar, in a log file a line after the first step (which
    traces and compiles), every 20 s, and after every epoch. `close` ends the bar.

    Args:
        batch_size: Images per step, of all replicas.
        steps_per_epoch, epochs: Of the whole run.
        waiting: `Stopwatch` of the time spent waiting for data.
        terminal: Whether to draw a bar; by default, whether standard error is one.

    Example:
        >>> sizes = {"batch_size": 8, "steps_per_epoch": 2, "epochs": 3}
        >>> shown = Progress(**sizes, waiting=Stopwatch())
        >>> shown.total  # steps of model.fit(dataset, callbacks=[shown])
        6
        >>> shown.close()
    """

    def __init__(
        self,
        *,
        batch_size: int,
        steps_per_epoch: int,
        epochs: int,
        waiting: Stopwatch,
        terminal: bool | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs
        self.total = steps_per_epoch * epochs
        self.waiting = waiting
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self._bar: Any = None
        self._since: Any = None  # start of what speed and waiting are measured over

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        if self.terminal and self._bar is None:
            options = {"total": self.total, "unit": "step", "dynamic_ncols": True}
            self._bar = tqdm(initial=self._step(), **options)
            logging.get_absl_handler().addFilter(self._make_room)

    def on_train_batch_begin(
        self, batch: int, logs: Mapping[str, float] | None = None
    ) -> None:
        self._begin = time.perf_counter()

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, float] | None = None
    ) -> None:
        now = time.perf_counter()
        if self._since is None:
            # What came before is no measure of what follows.
            self._restart(now)
            if self._bar is None:
                seconds = now - self._begin
                logging.info("First step: traced and run in %.1f s", seconds)
        else:
            self._steps += 1
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._parts(logs, now)), refresh=False)
            self._bar.update()
        if now - self._since >= LINE_SECONDS:
            if self._bar is None:
                self._line(logs, now)
            self._restart(now)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        parts = [f"{name} {value:.4g}" for name, value in (logs or {}).items()]
        text = f"Epoch {epoch + 1} / {self.epochs}: {', '.join(parts)}"
        if self._bar is None:
            logging.info("%s", text)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Ends the bar, so that what is printed next has a line of its own."""
        if self._bar is not None:
            logging.get_absl_handler().removeFilter(self._make_room)
            self._bar.close()

    def _make_room(self, record):
        """Filter that lets every line of the log pass, where the bar stood."""
        self._bar.clear()
        return True

    def _step(self):
        return int(self.model.step.numpy())

    def _restart(self, now):
        self._since, self._waited, self._steps = now, self.waiting.seconds, 0

    def _line(self, logs, now):
        step = self._step()
        epoch = (step - 1) // self.steps_per_epoch + 1
        left = (self.total - step) * (now - self._since) / self._steps
        parts = [*self._parts(logs, now), f"{duration(left)} left"]
        where = f"Step {step} / {self.total}, epoch {epoch} / {self.epochs}"
        logging.info("%s: %s", where, ", ".join(parts))

    def _parts(self, logs, now):
        """Losses (means of the epoch so far), speed, share of time spent waiting."""
        shown = (i for i in (logs or {}).items() if i[0].endswith(_SHOWN))
        parts = [f"{name} {value:.4g}" for name, value in shown]
        seconds = now - self._since
        if self._steps:
            parts.append(f"{self._steps * self.batch_size / seconds:.1f} images/s")
            waited = (self.waiting.seconds - self._waited) / seconds
            parts.append(f"{waited:.0%} waiting for data")
        return parts


def duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> duration(59.6), duration(3725)
        ('1 min 00 s', '1 h 02 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
