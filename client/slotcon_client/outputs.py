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
from slotcon_client.files import Files
from slotcon_client.lock import held
from slotcon_client.objects import as_text, image_rows, object_rows
from slotcon_client.parts import DIGEST, ENDING, Parts, digest_of
from slotcon_client.progress import Progress
from slotcon_client.tables import Column, Rows, Table, joined, write
from slotcon_client.workers import each_done

if TYPE_CHECKING:
    from slotcon_client.extraction import Images

_LAST = ("ok", "reason")
_NOTHING = {"ok": Column(np.dtype(bool), ()), "reason": Column(np.dtype("<U2"), ())}


@dataclasses.dataclass(kw_only=True)
class Output:
    """An extraction that is to be written; `FileOutput` or `FolderOutput`.

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
        with contextlib.ExitStack() as stack:
            if self.files.is_local:
                stack.enter_context(held(path + ENDING, path))
                self.files.sweep(os.path.dirname(path) or ".", os.path.basename(path))
            parts = Parts(path + ENDING, self.header, self.files)
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
        outputs = {n: c for n, c in kinds.items() if n not in _LAST}
        kinds = {**outputs, **{name: kinds[name] for name in _LAST}}
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
        for start, part in zip(starts, parts.each(starts, _LAST), strict=True):
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
            if name not in (*_LAST, "valid") and kind.shape[:1] == slots:
                columns[name] = kind._replace(shape=kind.shape[1:])
        return Table(columns, count, rows, about)

    def _image_table(self, parts, starts, about):
        found = []
        read = [*_LAST, "valid"]
        for start, piece in zip(starts, parts.each(starts, read), strict=True):
            found.append(image_rows(piece, self._names(start, len(piece["ok"]))))
        nothing = {n: np.zeros(0, c.dtype) for n, c in _NOTHING.items()}
        found = found or [image_rows(nothing, [])]
        columns = {n: np.concatenate([f[n] for f in found]) for n in found[0]}
        return dataclasses.replace(Table.of(columns), about=about)

    def list_failed(self, failed: Mapping[str, str]) -> None:
        """Writes a line per image that failed beside the output."""
        path = self.path.rstrip("/") + ".failed.txt"
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
        stem, ending = os.path.splitext(self.path)
        for kind, table in reversed(self.tables(parts, self._starts).items()):
            write(f"{stem}.{kind}"[:-1] + ending, table, self.files)
        return self.failed(parts, self._starts)


@dataclasses.dataclass(kw_only=True)
class FolderOutput(Output):
    """A folder of shards, each of which is written when its batches are there.

    Attributes:
        shard_images: Images of a shard.
        before: Number of the folder's shards that come before these images.

    Example:
        >>> issubclass(FolderOutput, Output)
        True
    """

    shard_images: int
    before: int = 0

    def __post_init__(self) -> None:
        batches = -(-self.shard_images // self.batch_size)
        self.shard_images = batches * self.batch_size  # no batch is of two
        self._written: dict[int, dict[str, Any]] = {}

    @property
    def about(self) -> dict[str, Any]:
        return {**super().about, "shard_images": self.shard_images}

    @property
    def numbers(self) -> range:
        """Of the shards."""
        return range(-(-len(self.images.paths) // self.shard_images))

    @property
    def _made_with(self) -> str:
        return digest_of({**self.about, "written_by": None})

    def begin(self) -> None:
        """Makes the folder, or refuses what is there."""
        about = {k: v for k, v in self.about.items() if k != "written_by"}
        shards.begin(self.path, about, self.files)

    def fill(self, parts: Parts, concurrency: int, progress: Progress) -> int:
        self.begin()
        for number, found in each_done(self.whole, self.numbers, concurrency):
            if found is not None:
                self._written[number] = found
                progress.update(found["images"], asked=False)
        todo = [s for n in self.numbers if n not in self._written for s in self._of(n)]
        left = {number: len(self._of(number)) for number in self.numbers}
        redone = 0
        work = each_done(lambda s: self.batch(parts, s), todo, concurrency)
        for start, (count, asked, again) in work:
            progress.update(count, asked)
            redone += again
            number = start // self.shard_images
            left[number] -= 1
            if not left[number]:
                self._written[number] = self.put(number, parts)
                parts.remove(self._of(number))
                self._manifest(finished=False)
        return redone

    def shard(self, parts: Parts, concurrency: int) -> dict[str, Any]:
        """The only shard of these images, which is made if it is missing."""
        found = self.whole(0)
        if found is None:
            work = each_done(lambda s: self.batch(parts, s), self._of(0), concurrency)
            for _ in work:
                pass
            found = self.put(0, parts)
        return found

    def whole(self, number: int) -> dict[str, Any] | None:
        """A shard that is there and of what its images hold now, or None."""
        number_there = self.before + number
        found = shards.read_shard(self.path, number_there, self._made_with, self.files)
        if found is None or found["unanswered"]:
            return None
        names = ("reason", shards.DIGESTS)
        rows = {n: self._column(found["name"], n) for n in names}
        rows[DIGEST] = rows.pop(shards.DIGESTS)
        start = number * self.shard_images
        paths = self.images.paths[start : start + self.shard_images]
        return found if self.batches.is_current(paths, rows) else None

    def put(self, number: int, parts: Parts) -> dict[str, Any]:
        """Writes a shard whose batches are all there."""
        starts = self._of(number)
        tables = self.tables(parts, starts)
        images = list(tables)[-1]
        digests = parts.digests(starts)
        tables[images] = _with(tables[images], shards.DIGESTS, digests)
        about = {"made_with": self._made_with, "first": self.images.first + starts[0]}
        about |= {"images": len(digests)}
        counted = tables[""].about
        about |= {name: counted[name] for name in ("failed", "unanswered")}
        number += self.before
        return shards.write_shard(self.path, number, tables, about, self.files)

    def finish(self, parts: Parts) -> dict[str, str]:
        self._manifest(finished=True)
        return self.failed_images()

    def failed_images(self) -> dict[str, str]:
        """Name to reason, of what is written."""
        failed = {}
        manifest = shards.read_manifest(self.path, self.files)
        for number, shard in enumerate(manifest["shards"]):
            if not shard["failed"]:
                continue
            ok, reason = (self._column(shard["name"], column) for column in _LAST)
            for i in np.flatnonzero(~ok).tolist():
                place = number * self.shard_images + i
                failed[self.images.names[place]] = str(reason[i])
        return failed

    def manifest(self, written: Sequence[Mapping[str, Any]], finished: bool) -> None:
        """Writes the manifest of what `put` or `shard` returned."""
        finished &= not any(shard["unanswered"] for shard in written)
        shards.write_manifest(
            self.path, self.about, written, finished=finished, files=self.files
        )

    def _manifest(self, finished):
        known = [self._written[n] for n in self.numbers if n in self._written]
        self.manifest(known, finished)

    def _of(self, number):
        """Where the batches of a shard begin."""
        start = number * self.shard_images
        end = min(start + self.shard_images, len(self.images.paths))
        return range(start, end, self.batch_size)

    def _column(self, name, column):
        begins = shards.OF_IMAGES if self.per_object else ""
        return shards.column_of(self.path, name, begins + column, self.files)


def _with(table, name, values):
    """A table with one column more, of as many rows."""

    def pieces(wanted):
        if name not in wanted:
            yield from table.pieces(wanted)
            return
        at = 0
        rest = [other for other in wanted if other != name]
        for piece in table.pieces(rest or ["ok"]):
            count = len(next(iter(piece.values())))
            yield {**piece, name: values[at : at + count]}
            at += count

    columns = {**table.columns, name: Column.of(values)}
    return dataclasses.replace(table, columns=columns, pieces=pieces)
