"""A folder of .npy shards with a manifest, for more features than memory holds.

    features/
        manifest.json       what the features are of, their columns, all shards, whether
                            it is finished
        00000.paths.npy     names of the images, in their order
        00000.pooled.npy    their features, and so on; `np.load(..., mmap_mode="r")`
        00000.ok.npy        whether an image has features; its row is zeros otherwise
        00000.reason.npy    why not
        00000.digest.npy    uint8 (N, 32), sha256 of the file that was looked at
        00000.json          written last: the shard is whole

Of objects, `paths`, `image` and the outputs have a row per object, and
`00000.images.*.npy` a row per image: paths, objects, ok, reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from slotcon_client.errors import ExtractionError
from slotcon_client.files import LOCAL, Files
from slotcon_client.parts import check_same
from slotcon_client.table_files import header_of, load, of_arrays
from slotcon_client.tables import Table, write_npy

MANIFEST = "manifest.json"
FORMAT = "slotcon features"
DIGESTS = "digest"  # of the images' files
OF_IMAGES = "images."  # begins the columns of images where rows are objects


def shard_name(number: int) -> str:
    """Of a shard's files, before what they hold.

    Example:
        >>> shard_name(3)
        '00003'
    """
    return f"{number:05d}"


def begin(folder: str, about: Mapping[str, Any], files: Files = LOCAL) -> None:
    """Makes a folder of features that is not finished, or finds one of the same.

    Args:
        folder: Of the features.
        about: What they are of: `settings`, `images`, `rows_per` ...
        files: Where it lies.

    Raises:
        ExtractionError: If it holds other features, or something else.

    Example:
        >>> begin("found", {"settings": {"version": 3}})
        >>> begin("found", {"settings": {"version": 4}})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_client.errors.ExtractionError: found must be of the same images and ...
    """
    path = files.join(folder, MANIFEST)
    if files.exists(path):
        there = read_manifest(folder, files)
        kept = {name: there.get(name) for name in about}
        cure = "Take another `output`, or delete it to start anew."
        check_same(_flat(kept), _flat(json.loads(json.dumps(about))), folder, cure)
        return
    others = [name for name in files.names(folder) if not name.startswith(".")]
    if others:
        raise ExtractionError(
            f"`output` must be a new folder, or one of features. Received: {folder}, "
            f"which holds something else ({others[0]}). Take another."
        )
    files.make(folder)
    write_manifest(folder, about, [], finished=False, files=files)


def _flat(about):
    flat = {k: v for k, v in about.items() if not isinstance(v, dict)}
    for value in about.values():
        flat |= value if isinstance(value, dict) else {}
    return flat


def read_manifest(folder: str | os.PathLike, files: Files = LOCAL) -> dict[str, Any]:
    """What a folder's manifest says.

    Raises:
        ExtractionError: If it says nothing of features.
        OSError: If there is none.

    Example:
        >>> begin("new", {"settings": {}})
        >>> read_manifest("new")["finished"]
        False
    """
    path = files.join(os.fspath(folder), MANIFEST)
    try:
        found = dict(json.loads(files.read_all(path)))
    except ValueError:
        found = {}
    if found.get("format") != FORMAT:
        raise ExtractionError(
            f"{path} must be of features. Received: another file. Extract anew."
        )
    return found


def write_manifest(
    folder: str,
    about: Mapping[str, Any],
    shards: Sequence[Mapping[str, Any]],
    *,
    finished: bool,
    files: Files = LOCAL,
) -> None:
    """Writes the manifest of the shards that are there.

    Args:
        folder: Of the features.
        about: As of `begin`.
        shards: What `write_shard` returned of each.
        finished: Whether they are all, and every image was answered.
        files: Where it lies.

    Example:
        >>> begin("done", {"settings": {}})
        >>> write_manifest("done", {"settings": {}}, [], finished=True)
        >>> read_manifest("done")["shards"]
        []
    """
    columns = {}
    for shard in shards:
        columns.update(shard["columns"])
    listed = [{**shard, "columns": sorted(shard["columns"])} for shard in shards]
    found = {"format": FORMAT, "format_version": 1, "finished": finished, **about}
    found |= {"rows": sum(shard["rows"] for shard in shards)}
    found |= {"columns": columns, "shards": listed}
    path = files.join(folder, MANIFEST)
    files.write_text(path, json.dumps(found, indent=1) + "\n")


def write_shard(
    folder: str,
    number: int,
    tables: Mapping[str, Table],
    about: Mapping[str, Any],
    files: Files = LOCAL,
) -> dict[str, Any]:
    """Writes the arrays of a shard, and at last what says that it is whole.

    Args:
        folder: Of the features.
        number: Of the shard.
        tables: Dict of what names of columns begin with to `Table`; that of "" has the
            rows.
        about: What the shard's description says besides: images, failed ...
        files: Where it lies.

    Returns:
        The description.

    Example:
        >>> begin("one", {"settings": {}})
        >>> write_shard("one", 0, {"": Table.of({"x": np.ones(2)})}, {})["rows"]
        2
        >>> np.load("one/00000.x.npy", mmap_mode="r").shape
        (2,)
    """
    name = shard_name(number)
    last = files.join(folder, f"{name}.json")
    files.remove(last)  # until all is written anew
    columns = {}
    for begins, table in tables.items():
        for column, kind in table.columns.items():
            path = files.join(folder, f"{name}.{begins}{column}.npy")
            files.write(path, lambda f, t=table, c=column: write_npy(f, c, t))
            dtype = "text" if kind.dtype.kind == "U" else kind.dtype.name
            columns[begins + column] = {"dtype": dtype, "shape": list(kind.shape)}
    found = {"name": name, "rows": tables[""].rows, **about, "columns": columns}
    files.write_text(last, json.dumps(found))
    return found


def read_shard(
    folder: str, number: int, settings: str, files: Files = LOCAL
) -> dict[str, Any] | None:
    """A shard's description; None where it is not whole, or of other settings.

    Args:
        folder: Of the features.
        number: Of the shard.
        settings: Digest of what the shard must be made with.
        files: Where it lies.

    Example:
        >>> read_shard("nowhere", 0, "") is None
        True
    """
    with contextlib.suppress(OSError, ValueError):
        data = files.read_all(files.join(folder, f"{shard_name(number)}.json"))
        found = dict(json.loads(data))
        return found if found.get("made_with") == settings else None
    return None


def column_of(folder: str, name: str, column: str, files: Files = LOCAL) -> np.ndarray:
    """A column of a shard, in memory.

    Example:
        >>> begin("two", {"settings": {}})
        >>> _ = write_shard("two", 0, {"": Table.of({"x": np.ones(2)})}, {})
        >>> column_of("two", "00000", "x").tolist()
        [1.0, 1.0]
    """
    with files.open(files.join(folder, f"{name}.{column}.npy")) as file:
        return load(file)


def features_in(
    folder: str | os.PathLike, columns: Sequence[str] = ()
) -> Iterator[dict[str, np.ndarray]]:
    """The shards of a finished folder, mapped into memory and not read.

    Args:
        folder: That an extraction wrote.
        columns: Their names; () for all.

    Yields:
        Dict of name to array, of one shard after the other; without the outputs where
        no image of a shard has any.

    Raises:
        ExtractionError: If it is not finished, has no such column, or has lost a file
            or a part of one.
        OSError: If it cannot be read.

    Example:
        >>> begin("three", {"settings": {}})
        >>> shard = write_shard("three", 0, {"": Table.of({"x": np.ones(2)})}, {})
        >>> write_manifest("three", {"settings": {}}, [shard], finished=True)
        >>> [float(rows["x"].sum()) for rows in features_in("three")]
        [2.0]
    """
    manifest = read_manifest(folder)
    if not manifest["finished"]:
        raise ExtractionError(
            f"{folder} must be finished. Received: {len(manifest['shards'])} shards of "
            "more. Give the command again that writes it."
        )
    known = manifest["columns"]
    unknown = [name for name in columns if known and name not in known]
    if unknown:
        raise ExtractionError(
            f"`columns` must be of those in {folder}: {sorted(known)}. Received: "
            f"{unknown}."
        )
    for shard in manifest["shards"]:
        for begins in ("", OF_IMAGES):
            open_shard(os.fspath(folder), shard, begins)
        yield {
            name: load(
                pathlib.Path(folder, f"{shard['name']}.{name}.npy"), mmap_mode="r"
            )
            for name in columns or known
            if name in shard["columns"]
        }


def open_shard(
    folder: str, shard: Mapping[str, Any], begins: str = "", files: Files = LOCAL
) -> Table:
    """A shard's columns as a `Table`.

    Args:
        folder: Of the features.
        shard: Its description, of `write_shard` or of a manifest.
        begins: What names of the columns begin with: "" for those of the rows, "images."
            for those of the images of objects.
        files: Where it lies.

    Raises:
        ExtractionError: If one is missing, or is not of as many rows as it was.

    Example:
        >>> begin("four", {"settings": {}})
        >>> shard = write_shard("four", 0, {"": Table.of({"x": np.ones(2)})}, {})
        >>> open_shard("four", shard).rows
        2
    """
    of_images = [c for c in shard["columns"] if c.startswith(OF_IMAGES)]
    columns = [c for c in shard["columns"] if c not in of_images]
    rows = shard["rows"]
    if begins:
        columns, rows = of_images, shard.get("images", shard["rows"])
    paths = {c: files.join(folder, f"{shard['name']}.{c}.npy") for c in columns}
    headers = {}
    for column, path in paths.items():
        try:
            with files.open(path) as file:
                headers[column] = header_of(file)
                number, kind = headers[column]
                size = number * kind.row_bytes
                size += file.tell() - file.seek(0, os.SEEK_END)
        except (FileNotFoundError, ValueError, EOFError):
            number = size = None
        if number != rows or size:
            received = "none" if number is None else f"{number} rows, or a part of them"
            raise ExtractionError(
                f"{path} must be an array of {rows} rows. Received: {received}. Give "
                "the command again that wrote the folder: the shard is made anew."
            )

    @contextlib.contextmanager
    def opened(wanted):
        with contextlib.ExitStack() as stack:
            yield {c: stack.enter_context(files.open(paths[c])) for c in wanted}

    return of_arrays(headers, opened, {})
