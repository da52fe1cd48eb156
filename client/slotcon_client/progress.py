"""How far an extraction is: a line on a terminal, or lines in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

LINE_SECONDS = 20.0  # between two lines in a log
_TERMINAL_SECONDS = 0.2
_MEASURED = 30.0  # seconds that the speed is taken over


class Progress:
    """Context that tells of images done, images/s and the time left.

    Args:
        total: Images.
        file: Where it is told; standard error by default. On a terminal one line is
            drawn again and again; elsewhere there is one every 20 s, and the last.

    Example:
        >>> with Progress(total=3, file=sys.stdout) as progress:
        ...     progress.update(3)  # doctest: +ELLIPSIS
        3 / 3 images, ... images/s, 0 s left
    """

    def __init__(self, total: int, file: TextIO | None = None) -> None:
        self.total = total
        self.file = file or sys.stderr
        self.done = 0
        self._asked = 0  # of them, those that took the time they take
        self._terminal = self.file.isatty()
        self._pause = _TERMINAL_SECONDS if self._terminal else LINE_SECONDS

    def __enter__(self) -> Progress:
        self._start = self._shown = time.monotonic()
        self._marks = [(self._start, 0)]
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._show("\n")
        elif self.done and (self._shown > self._start or self.done == self.total):
            self._show("")

    def update(self, count: int, asked: bool = True) -> None:
        """Counts images.

        Args:
            count: Of those that are done now.
            asked: Whether the model was asked; what was there before says nothing of
                the time that the rest takes.
        """
        self.done += count
        self._asked += count if asked else 0
        now = time.monotonic()
        if now - self._shown >= self._pause:
            self._show("")
            self._shown = now
            self._marks.append((now, self._asked))
            while len(self._marks) > 2 and now - self._marks[1][0] > _MEASURED:
                del self._marks[0]

    def text(self) -> str:
        """What is shown now."""
        since, before = self._marks[0]
        speed = (self._asked - before) / max(time.monotonic() - since, 1e-9)
        told = f"{self.done} / {self.total} images"
        if not speed:
            return told
        left = duration((self.total - self.done) / speed)
        return f"{told}, {speed:.1f} images/s, {left} left"

    def _show(self, end):
        start, rest = ("\r", "\x1b[K") if self._terminal else ("", "\n")
        print(f"{start}{self.text()}{rest}", end=end, file=self.file, flush=True)


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
