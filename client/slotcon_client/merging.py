"""Tables of the parts of a set of images, joined as if they had been extracted at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from slotcon_client import shards
from slotcon_client.errors import ExtractionError
from slotcon_client.extraction import is_file
from slotcon_client.files import LOCAL, Files
from slotcon_client.objects import images_path
from slotcon_client.table_files import open_table
from slotcon_client.tables import Rows, Table, joined, write

FilesOf = Callable[[str], Files]
_LAST = ("ok", "reason", shards.DIGESTS)


class NotMerged(ExtractionError):
    """Tables do not fit; nothing was written.

    Attributes:
        lines: A line per gap, version or setting that differs.

    Example:
        >>> NotMerged(["a.npz: version 3, and 4 in b.npz"]).lines
        ['a.npz: version 3, and 4 in b.npz']
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = list(lines)


@dataclasses.dataclass(frozen=True)
class _Input:
    """A table of a part, or a folder of them."""

    path: str
    about: dict[str, Any]
    finished: bool
    unanswered: int
    tables: list[dict[str, Table]]  # of a folder's shards, or of the one file

    @property
    def images(self) -> dict[str, Any]:
        return self.about.get("images", {})

    @property
    def problem(self) -> str | None:
        """Why its rows are not those that it should have."""
        of_images = shards.OF_IMAGES
        images = [table.get(of_images, table[""]) for table in self.tables]
        rows = sum(table.rows for table in images)
        number = self.images.get("number", self.images.get("count"))
        if rows != number:
            return f"it has {rows} of {number} images"
        objects = sum(
            int(piece["objects"].sum())
            for table, those in zip(self.tables, images, strict=True)
            if of_images in table
            for piece in those.pieces(["objects"])
        )
        rows = sum(table[""].rows for table in self.tables if of_images in table)
        return f"it has {rows} of {objects} objects" if rows != objects else None

    @property
    def part(self) -> tuple[int, int] | None:
        found = self.images.get("shard")
        return (int(found[0]), int(found[1])) if found else None


def merge(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    files_of: FilesOf = lambda path: LOCAL,
) -> int:
    """Joins what `extract` wrote of all parts of a set of images.

    Args:
        inputs: Paths of .npz or .parquet files, or of folders of shards, in any order;
            or one whole table, to write it in another form.
        output: Path of what is written, of any of these forms.
        files_of: Function of a path to the `Files` that read and write it.

    Returns:
        Number of rows.

    Raises:
        NotMerged: If a part is missing, there twice or not finished, if one has not a
            row for each of its images, or if they are of different versions, settings
            or images.
        ExtractionError: If one is no table of an extraction.
        OSError: If they cannot be read or written.

    Example:
        >>> import pathlib
        >>> from slotcon_client.extraction import Images, extract
        >>> for name in "ab":
        ...     _ = pathlib.Path(f"{name}.jpg").write_bytes(name.encode())
        >>> images, first = Images("", ("a.jpg", "b.jpg")), lambda files: {"x": files}
        >>> for i in range(2):
        ...     _ = extract(first, images.shard(i, 2), f"{i}.npz", settings={})
        >>> merge(["0.npz", "1.npz"], "all.npz")
        2
        >>> np.load("all.npz")["paths"].tolist()
        ['a.jpg', 'b.jpg']
    """
    paths = [os.fspath(path).rstrip("/") for path in inputs]
    if not paths:
        raise ExtractionError("Tables to merge must be given. Received: none.")
    found = [_opened(path, files_of(path)) for path in paths]
    lines = problems_of(found)
    if lines:
        raise NotMerged(lines)
    found.sort(key=lambda one: one.part or (0, 1))
    output = os.fspath(output).rstrip("/")
    images = {k: v for k, v in found[0].images.items() if k in ("images", "count")}
    about = {**found[0].about, "images": images, "unanswered": 0}
    about["failed"] = sum(int(one.about.get("failed", 0)) for one in found)
    tables = [table for one in found for table in one.tables]
    if is_file(output):
        return _write_file(output, tables, about, files_of(output))
    return _write_folder(output, tables, about, files_of(output))


def problems_of(found: Sequence[_Input]) -> list[str]:
    """A line for all that keeps tables from being one.

    Example:
        >>> problems_of([])
        []
    """
    lines = []
    for one in found:
        if not one.images:
            lines.append(f"{one.path}: it does not tell what it was extracted from")
        elif not one.finished:
            lines.append(f"{one.path}: it is not finished")
        elif one.unanswered:
            lines.append(f"{one.path}: {one.unanswered} images were not answered")
        elif one.problem is not None:
            lines.append(f"{one.path}: {one.problem}")
    known = [one for one in found if one.images]
    for one in known[1:]:
        lines += _differences(known[0], one)
    return lines + _gaps(known)


def _differences(first, one):
    a, b = first.about.get("settings", {}), one.about.get("settings", {})
    lines = [
        f"{one.path}: {name} {b.get(name)}, and {a.get(name)} in {first.path}"
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    ]
    if one.images.get("images") != first.images.get("images"):
        counts = f"{one.images['count']} listed, and {first.images['count']}"
        lines.append(f"{one.path}: other images ({counts}) than {first.path}")
    return lines


def _gaps(known):
    if len(known) == 1 and known[0].part is None:
        return []
    lines = [f"{o.path}: no part of a whole" for o in known if o.part is None]
    parts: dict[int, str] = {}
    counts = sorted({one.part[1] for one in known if one.part})
    if len(counts) > 1:
        told = " and ".join(map(str, counts))
        return [*lines, f"the tables are parts of {told}"]
    for one in known:
        if one.part is not None and one.part[0] in parts:
            same = f"part {one.part[0]}/{one.part[1]} as {parts[one.part[0]]} is"
            lines.append(f"{one.path}: {same}")
        elif one.part is not None:
            parts[one.part[0]] = one.path
    for count in counts:
        lines += [f"part {i}/{count} is missing" for i in range(count) if i not in parts]
    return lines


def _opened(path, files):
    if is_file(path):
        table = open_table(path, files)
        tables = {"": table}
        if table.about.get("settings", {}).get("rows_per") == "object":
            tables[shards.OF_IMAGES] = open_table(images_path(path), files)
        unanswered = int(table.about.get("unanswered", 0))
        return _Input(path, table.about, True, unanswered, [tables])
    manifest = shards.read_manifest(path, files)
    begins = shards.OF_IMAGES
    listed = manifest["shards"]
    tables = []
    for shard in listed:
        opened = {"": shards.open_shard(path, shard, files=files)}
        if any(column.startswith(begins) for column in shard["columns"]):
            of_images = shards.open_shard(path, shard, begins, files)
            opened[begins] = _renamed(of_images, len(begins))
        tables.append(opened)
    about = {k: manifest[k] for k in ("written_by", "settings", "images")}
    about["failed"] = sum(shard["failed"] for shard in listed)
    unanswered = sum(shard["unanswered"] for shard in listed)
    finished = manifest["finished"] or bool(unanswered)
    return _Input(path, about, finished, unanswered, tables)


def _renamed(table, cut):
    """A table whose columns' names lose their beginning."""
    begin = {name[cut:]: name for name in table.columns}

    def pieces(names):
        for piece in table.pieces([begin[name] for name in names]):
            yield {name[cut:]: values for name, values in piece.items()}

    columns = {name[cut:]: column for name, column in table.columns.items()}
    return dataclasses.replace(table, columns=columns, pieces=pieces)


def concatenated(tables: Sequence[Table], about: dict[str, Any]) -> Table:
    """Tables one below the other; zeros where one, of failures only, lacks a column.

    Raises:
        ExtractionError: If a column is of other kinds.

    Example:
        >>> both = concatenated([Table.of({"x": np.ones(2)})] * 2, {})
        >>> both.rows
        4
    """
    columns = joined(table.columns for table in tables)
    ends = [name for name in _LAST if name in columns]
    columns = {n: c for n, c in columns.items() if n not in ends} | {
        n: columns[n] for n in ends
    }

    def pieces(wanted: Sequence[str]) -> Iterator[Rows]:
        for table in tables:
            have = [name for name in wanted if name in table.columns]
            for piece in table.pieces(have or list(table.columns)[:1]):
                count = len(next(iter(piece.values()), ()))
                yield {
                    name: piece[name]
                    if name in piece
                    else np.zeros((count, *columns[name].shape), columns[name].dtype)
                    for name in wanted
                }

    return Table(columns, sum(table.rows for table in tables), pieces, about)


def _write_file(output, tables, about, files):
    rows = 0
    for kind in reversed(tables[0]):
        whole = concatenated([table[kind] for table in tables], about)
        whole.columns.pop(shards.DIGESTS, None)
        path = output if not kind else images_path(output)
        write(path, whole, files)
        rows = whole.rows
    return rows


def _write_folder(output, tables, about, files):
    kept = {k: v for k, v in about.items() if k not in ("failed", "unanswered")}
    kept["shard_images"] = None  # an extraction goes on in no merged folder
    shards.begin(output, {k: v for k, v in kept.items() if k != "written_by"}, files)
    shards.write_manifest(output, kept, [], finished=False, files=files)
    columns = {k: joined(t[k].columns for t in tables) for k in tables[0]}
    written, first = [], 0
    for number, opened in enumerate(tables):
        alike = {
            kind: concatenated([dataclasses.replace(table, columns=table.columns)], {})
            for kind, table in opened.items()
        }
        images = alike[shards.OF_IMAGES if shards.OF_IMAGES in alike else ""]
        failed = sum(int((~p["ok"]).sum()) for p in images.pieces(["ok"]))
        told = {"made_with": "", "first": first, "images": images.rows}
        told |= {"failed": failed, "unanswered": 0}
        for kind, table in alike.items():
            for name, column in columns[kind].items():
                table.columns.setdefault(name, column)
        written.append(shards.write_shard(output, number, alike, told, files))
        first += images.rows
    shards.write_manifest(output, kept, written, finished=True, files=files)
    return sum(shard["rows"] for shard in written)
