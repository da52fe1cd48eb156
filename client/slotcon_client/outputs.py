"""Where features go: one file, or a folder of shards; each goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slotcon_client import shards
from slotcon_client.batches import Batches, is_unanswered
from slotcon_client.errors import ExtractionError
from slotcon_client.files import Files
from slotcon_client.lock import held
from slotcon_client.objects import as_text, image_rows, images_path, object_rows
from slotcon_client.parts import DIGEST, ENDING, Parts, digest_of
from slotcon_client.progress import Progress
from slotcon_client.tables import Column, Rows, Table, joined, write
from slotcon_client.workers import each_done

if TYPE_CHECKING:
    from slotcon_client.extraction import Images

LAST = ("ok", "reason")
_FAILED = ".failed.txt"
_NOTHING = {"ok": Column(np.dtype(bool), ()), "reason": Column(np.dtype("<U2"), ())}


@dataclasses.dataclass(kw_only=True)
class Output:
    """An extraction that is to be written: a `FileOutput`, or a `FolderOutput`.

    Attributes:
        path: Of the output.
        images: `Images`.
        settings: What the rows depend on.
        batches: `Batches`, which makes them.
        batch_size: Images of a batch.
        files: Where the output lies.
        per_object: Whether a row is an object.

    Example:
        >>> Output.__subclasses__()[0].__name__
        'FileOutput'
    """

    path: str
    images: Images
    settings: dict[str, Any]
    batches: Batches
    batch_size: int
    files: Files
    per_object: bool = False

    def run(self, concurrency: int) -> dict[str, str]:
        """Extracts what is missing, and writes it all.

        Args:
            concurrency: Calls at once.

        Returns:
            Dict of name to reason of the images that failed.
        """
        path = self.path.rstrip("/")
        try:
            return self._run(path, concurrency)
        except FileNotFoundError as error:
            if self.files.is_local:
                raise
            raise ExtractionError(
                f"`output` must be one client's alone. Received: {path}, whose "
                f"unfinished work has gone ({error}): another client may have ended "
                "it. Give the command again, to one."
            ) from None

    def _run(self, path, concurrency):
        with contextlib.ExitStack() as stack:
            if self.files.is_local:
                stack.enter_context(held(path + ENDING, path))
                self._sweep(path)
            parts = Parts(path + ENDING, self.header, self.files)
            stack.callback(parts.close)  # before another may hold it
            with Progress(len(self.images.paths)) as progress:
                redone = self.fill(parts, concurrency, progress)
            if redone:
                print(
                    f"{redone} batches were made anew: their images have "
                    "changed, or had not been answered.",
                    file=sys.stderr,
                )
            failed = self.finish(parts)
            self.list_failed(failed)
            if not any(map(is_unanswered, failed.values())):
                parts.remove_all()
        return failed

    def _sweep(self, path):
        """Removes halves of files that a killed process left; it holds the lock."""
        for written in (path, images_path(path), path + _FAILED):
            self.files.sweep(*os.path.split(os.path.realpath(written)))

    @property
    def header(self) -> dict[str, Any]:
        """What parts must have in common."""
        images = self.images.about
        return {**images, "batch_size": self.batch_size, **self.settings}

    @property
    def about(self) -> dict[str, Any]:
        """What the output says of itself."""
        from slotcon_client import __version__

        by = f"slotcon_client {__version__}"
        return {
            "written_by": by,
            "settings": self.settings,
            "images": self.images.about,
        }

    def fill(self, parts: Parts, concurrency: int, progress: Progress) -> int:
        """Makes what is missing; returns how many batches there were of old contents."""
        raise NotImplementedError

    def finish(self, parts: Parts) -> dict[str, str]:
        """Writes what is done; returns the images that failed."""
        raise NotImplementedError

    def batch(self, parts: Parts, start: int) -> tuple[int, bool, bool]:
        """Makes a batch if it is missing.

        Returns:
            Tuple of its images, whether the model was asked, and whether there was one.
        """
        paths = self.images.paths[start : start + self.batch_size]
        there = parts.contents(start)
        if there is not None and self.batches.is_current(paths, there):
            self.batches.check(parts.columns(start))
            return len(paths), False, False
        parts.write(start, self.batches.rows(paths))
        return len(paths), True, there is not None

    def tables(self, parts: Parts, starts: Sequence[int]) -> dict[str, Table]:
        """Of batches: "" to the table of rows, and "images." to that of images."""
        kinds = joined(map(parts.columns, starts)) or _NOTHING
        outputs = {n: c for n, c in kinds.items() if n not in LAST}
        kinds = {**outputs, **{name: kinds[name] for name in LAST}}
        about = self._counted(parts, starts)
        if not self.per_object:
            return {"": self._table(kinds, parts, starts, about)}
        return {
            "": self._object_table(kinds, parts, starts, about),
            shards.OF_IMAGES: self._image_table(parts, starts, about),
        }

    def failed(self, parts: Parts, starts: Sequence[int]) -> dict[str, str]:
        """Name to reason of those of batches that failed."""
        found = {}
        for start, part in zip(starts, parts.each(starts, LAST), strict=True):
            for i in np.flatnonzero(~part["ok"]).tolist():
                found[self.images.names[start + i]] = str(part["reason"][i])
        return found

    def _counted(self, parts, starts):
        failed = self.failed(parts, starts)
        unanswered = sum(map(is_unanswered, failed.values()))
        return {**self.about, "failed": len(failed), "unanswered": unanswered}

    def _names(self, start, count):
        return self.images.names[start : start + count]

    def _texts(self, starts):
        if not starts:
            return as_text([])
        return as_text(self.images.names[starts[0] : starts[-1] + self.batch_size])

    def _table(self, kinds, parts, starts, about):
        names = self._texts(starts)

        def pieces(wanted: Sequence[str]) -> Iterator[Rows]:
            read = [name for name in {*wanted, "ok"} if name != "paths"]
            for start, piece in zip(starts, parts.each(starts, read), strict=True):
                at = start - starts[0]
                yield {**piece, "paths": names[at : at + len(piece["ok"])]}

        columns = {"paths": Column.of(names), **kinds}
        return Table(columns, len(names), pieces, about)

    def _object_table(self, kinds, parts, starts, about):
        def rows(wanted):
            read = [*wanted, "ok", "reason", "valid"]
            for start, piece in zip(starts, parts.each(starts, read), strict=True):
                names = self._names(start, len(piece["ok"]))
                yield object_rows(piece, names, self.images.first + start)

        count = sum(len(found["image"]) for found in rows([]))
        number = Column(np.dtype(np.int64), ())
        columns = {"paths": Column.of(self._texts(starts)), "image": number}
        slots = kinds["valid"].shape if "valid" in kinds else None
        for name, kind in kinds.items():
            if name not in (*LAST, "valid") and kind.shape[:1] == slots:
                columns[name] = kind._replace(shape=kind.shape[1:])
        return Table(columns, count, rows, about)

    def _image_table(self, parts, starts, about):
        found = []
        read = [*LAST, "valid"]
        for start, piece in zip(starts, parts.each(starts, read), strict=True):
            found.append(image_rows(piece, self._names(start, len(piece["ok"]))))
        nothing = {n: np.zeros(0, c.dtype) for n, c in _NOTHING.items()}
        found = found or [image_rows(nothing, [])]
        columns = {n: np.concatenate([f[n] for f in found]) for n in found[0]}
        return dataclasses.replace(Table.of(columns), about=about)

    def list_failed(self, failed: Mapping[str, str]) -> None:
        """Writes a line per image that failed beside the output."""
        path = self.path.rstrip("/") + _FAILED
        if failed:
            lines = [f"{name}\t{reason}\n" for name, reason in failed.items()]
            self.files.write_text(path, "".join(lines))
        else:
            self.files.remove(path)


@dataclasses.dataclass(kw_only=True)
class FileOutput(Output):
    """A .npz or .parquet file, of which all batches are kept until the last.

    Attributes:
        write: Function that writes something else; see `extract`.

    Example:
        >>> issubclass(FileOutput, Output)
        True
    """

    write: Callable[[pathlib.Path, Callable[[], Iterator[Rows]]], None] | None = None

    @property
    def _starts(self) -> range:
        return range(0, len(self.images.paths), self.batch_size)

    def fill(self, parts: Parts, concurrency: int, progress: Progress) -> int:
        redone = 0
        work = each_done(lambda s: self.batch(parts, s), self._starts, concurrency)
        for _, (count, asked, again) in work:
            progress.update(count, asked)
            redone += again
        return redone

    def finish(self, parts: Parts) -> dict[str, str]:
        if self.write is not None:
            self.write(pathlib.Path(self.path), lambda: parts.each(self._starts))
            return self.failed(parts, self._starts)
        for kind, table in reversed(self.tables(parts, self._starts).items()):
            write(images_path(self.path) if kind else self.path, table, self.files)
        return self.failed(parts, self._starts)
