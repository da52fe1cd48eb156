"""Finished batches of an extraction, kept beside its output until all are there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from slotcon_client.errors import ExtractionError
from slotcon_client.files import Files
from slotcon_client.lock import LOCK
from slotcon_client.table_files import header_of, load
from slotcon_client.tables import Column, Rows

ENDING = ".partial"
# Of a part, beside its rows: sha256 of each file's bytes (zeros of one that could not be
# read), of the settings that the rows were made with, and bytes of the largest file.
DIGEST, SETTINGS, LIMIT = "_digest", "_settings", "_limit"
NO_DIGEST = bytes(32)
_FILE = "settings.json"


def digest_of(settings: Mapping[str, Any]) -> str:
    """Of settings, in any order.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def check_same(
    there: Mapping[str, Any], here: Mapping[str, Any], where: str, cure: str
) -> None:
    """Refuses to go on with what was made with other settings, or of another version.

    Args:
        there: Settings of what is there.
        here: Of what is asked for.
        where: What it is called.
        cure: What to do.

    Raises:
        ExtractionError: It names what differs.

    Example:
        >>> check_same({"version": 3}, {"version": 4}, "a.partial", "Delete it.")
        Traceback (most recent call last):
        slotcon_client.errors.ExtractionError: a.partial must be of the same images and \
settings. Received other version: 3 there, 4 now. Delete it.
    """
    keys = sorted({*there, *here})
    differing = [k for k in keys if there.get(k) != here.get(k)]
    if not differing:
        return
    told = [_told(k, there.get(k), here.get(k)) for k in differing]
    raise ExtractionError(
        f"{where} must be of the same images and settings. Received other "
        f"{', '.join(told)}. {cure}"
    )


def check_made_by(model: Any, settings: Mapping[str, Any]) -> None:
    """Refuses a model that is not the one that rows are said to be of.

    Args:
        model: `FeatureClient`, `LocalModel`, or another with `settings` or none.
        settings: What the rows depend on.

    Raises:
        ExtractionError: If it is of another version, or of other settings.

    Example:
        >>> import types
        >>> model = types.SimpleNamespace(settings={"version": 4})
        >>> check_made_by(model, {"version": 3, "rows_per": "image"})
        Traceback (most recent call last):
        slotcon_client.errors.ExtractionError: The model must be of the same images and \
settings. Received other version: 3 there, 4 now. Ask for that version by its number.
    """
    found = getattr(model, "settings", {})
    found = json.loads(json.dumps(found() if callable(found) else found))
    there = json.loads(json.dumps({name: settings.get(name) for name in found}))
    cure = "Ask for that version by its number."
    check_same(there, found, "The model", cure)


def _told(name, there, here):
    short = len(f"{there}{here}") < 60
    return f"{name}: {there} there, {here} now" if short else name


class Parts:
    """Batches that are done, in a folder that one process holds.

    Args:
        folder: Of the parts; made where it is missing.
        settings: What the rows depend on; plain JSON.
        files: Where the folder lies.

    Raises:
        ExtractionError: If the folder has parts of other settings.

    Example:
        >>> from slotcon_client.files import LOCAL
        >>> parts = Parts("a.npz.partial", {"version": 1}, LOCAL)
        >>> rows = {"ok": np.array([True]), DIGEST: np.zeros((1, 32), np.uint8)}
        >>> parts.write(0, rows)
        >>> [sorted(part) for part in parts.each([0])]
        [['ok']]
    """

    def __init__(self, folder: str, settings: Mapping[str, Any], files: Files) -> None:
        self.folder, self.files = folder, files
        self.digest = digest_of(settings)
        self._guard, self._closed = threading.Lock(), False
        files.make(folder)
        files.sweep(folder)
        file = files.join(folder, _FILE)
        if files.exists(file):
            there = _read_settings(files.read_all(file))
            if "rows_per" in settings and "rows_per" not in there:
                raise ExtractionError(
                    f"{folder} must tell version and contents of what is done. "
                    "Received: one that an earlier release began, or that is damaged. "
                    "Delete it, and extract anew."
                )
            check_same(
                there,
                json.loads(json.dumps(settings)),
                folder,
                "Take another `output`, or delete it to start anew; a version that is "
                "still served can be asked by its number.",
            )
        else:
            files.write_text(file, json.dumps(settings))

    def path(self, start: int) -> str:
        """Of the batch that begins with an image."""
        return self.files.join(self.folder, f"{start:09d}.npz")

    def contents(self, start: int) -> Rows | None:
        """`ok`, `reason`, digests and limit of a batch; None where it is not done.

        A part that a disk cut short or damaged is not, nor is one of other settings.
        """
        names = ("ok", "reason", DIGEST, LIMIT)
        try:
            with self._open(start) as part:
                damaged = part.zip.testzip() is not None
                return None if damaged else {name: part[name] for name in names}
        except (OSError, ExtractionError):
            return None

    def columns(self, start: int) -> dict[str, Column]:
        """Those of a batch that is done."""
        found = {}
        with self._open(start) as part:
            for name in part.zip.namelist():
                if not name.startswith("_"):
                    with part.zip.open(name) as member:
                        found[name.removesuffix(".npy")] = header_of(member)[1]
        return found

    def write(self, start: int, rows: Rows) -> None:
        """Keeps a batch; with the digests of its files.

        Raises:
            ExtractionError: After `close`.
        """
        kept: dict[str, Any] = {**rows, SETTINGS: np.array(self.digest)}
        with self._guard:
            if self._closed:
                raise ExtractionError("Its extraction has ended: a batch is dropped.")
            self.files.write(self.path(start), lambda file: np.savez(file, **kept))

    def close(self) -> None:
        """From now on nothing is written: not by threads that a server holds up."""
        with self._guard:
            self._closed = True

    def each(self, starts: Sequence[int], names: Sequence[str] = ()) -> Iterator[Rows]:
        """The rows of one batch after the other; of some columns, or of all.

        A batch of failures only has no outputs.
        """
        for start in starts:
            with self._open(start) as part:
                known = [name for name in part.files if not name.startswith("_")]
                yield {n: part[n] for n in names or known if n in part.files}

    def digests(self, starts: Sequence[int]) -> np.ndarray:
        """uint8 (N, 32), of the images of batches."""
        found = [part[DIGEST] for part in self.each(starts, [DIGEST])]
        return np.concatenate(found) if found else np.zeros((0, 32), np.uint8)

    def remove(self, starts: Sequence[int]) -> None:
        """Of some batches, which are kept elsewhere now."""
        for start in starts:
            self.files.remove(self.path(start))

    def remove_all(self) -> None:
        """The folder, whose work is done."""
        remove_all(self.folder, self.files)

    @contextlib.contextmanager
    def _open(self, start: int) -> Iterator[Any]:
        """A part; each time it is looked at whether it is of these settings."""
        path = self.path(start)
        told = "no whole file"
        with self.files.open(path) as file:
            try:
                with load(file) as part:
                    if str(part[SETTINGS]) == self.digest:
                        yield part
                        return
                told = "one of others"
            except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
                pass
        raise ExtractionError(
            f"{path} must be of this extraction's settings. Received: {told}. Give "
            "the same command again, to one client: it is made anew."
        )


def remove_all(folder: str, files: Files) -> None:
    """Removes what a folder keeps, but for the lock in it, which its holder removes.

    Example:
        >>> from slotcon_client.files import LOCAL
        >>> LOCAL.make("b.npz.partial")
        >>> LOCAL.write_text("b.npz.partial/settings.json", "{}")
        >>> remove_all("b.npz.partial", LOCAL)
        >>> LOCAL.names("b.npz.partial")
        []
    """
    names = files.names(folder)
    if LOCK not in names:
        files.remove(folder)
        return
    for name in names:
        if name != LOCK:
            files.remove(files.join(folder, name))


def _read_settings(data):
    try:
        return dict(json.loads(data))
    except ValueError:
        return {}
