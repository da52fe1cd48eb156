"""Features as a folder of shards, each written when its batches are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slotcon_client import shards
from slotcon_client.batches import is_unanswered
from slotcon_client.outputs import LAST, Output
from slotcon_client.errors import ExtractionError
from slotcon_client.parts import DIGEST, LIMIT, Parts, digest_of
from slotcon_client.progress import Progress
from slotcon_client.tables import Column, Table
from slotcon_client.workers import each_done


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
        self.files.sweep(self.path)

    def fill(self, parts: Parts, concurrency: int, progress: Progress) -> int:
        self.begin()
        for number, found in each_done(self.whole, self.numbers, concurrency):
            if found is not None:
                self._written[number] = found
                progress.update(found["images"], asked=False)
        todo = [s for n in self.numbers if n not in self._written for s in self._of(n)]
        if todo:  # nobody may take the folder for whole while shards are made anew
            self._manifest(finished=False)
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
                if not self._written[number]["unanswered"]:  # those are asked again
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
        try:
            for begins in {"", self._begins}:
                shards.open_shard(self.path, found, begins, self.files)
            reasons = self._column(found["name"], "reason")
            digests = self._column(found["name"], shards.DIGESTS)
        except (OSError, ExtractionError):  # an array is missing, or cut short
            return None
        rows = {"reason": reasons, DIGEST: digests, LIMIT: np.array(found["limit"])}
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
        about |= {"images": len(digests), "limit": self.batches.limit}
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
            ok, reason = (self._column(shard["name"], column) for column in LAST)
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
        return shards.column_of(self.path, name, self._begins + column, self.files)

    @property
    def _begins(self):
        """The names of columns with a row per image."""
        return shards.OF_IMAGES if self.per_object else ""


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
