"""Files and folders that are there whole or not at all.

Everything that is written is written beside its place, under a name that tells who
writes it, and renamed when it is whole: a process that is killed, a full disk and a
second writer leave what was there before. What killed writers left is removed by the
next process that writes into the same folder: at once what is of the same machine, and
after a day what is of another, or of another container.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import pathlib
import re
import shutil
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

# Of a writer that may live on another machine, or in another container, nothing is
# known but when it wrote last.
ABANDONED_SECONDS = 24 * 3600.0
_ASIDE = re.compile(r"\.writing-(?P<place>[0-9a-f]{8})-(?P<process>\d+)-\d+-")
_NUMBERS = itertools.count()
_OWN: set[str] = set()  # what this process is writing
_KEPT_LETTERS = 50  # of a name, its ending among them: file systems take 255 bytes
# A disk's, however a library words its error.
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path beside another, to write a file or a folder to; removed at the end.

    Two writers of one path never share it, and it has the path's ending. The folder is
    made where it is missing, and rid of what killed writers left there.

    Args:
        path: What it will be, once it is renamed.

    Yields:
        pathlib.Path of nothing yet.

    Raises:
        OSError: Of a disk that is full or read-only, whatever the library that wrote
            to it raised; it names `path`.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with written_aside(folder / "new") as aside:
        ...     aside.mkdir()
        ...     target = aside.rename(folder / "1")
        >>> [path.name for path in folder.iterdir()]
        ['1']
    """
    path = pathlib.Path(path)
    with _told_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(os.path.realpath(path.parent), os.getpid())
        mark = f".writing-{_place()}-{os.getpid()}-{next(_NUMBERS)}-"
        aside = path.with_name(mark + path.name[-_KEPT_LETTERS:])
        _OWN.add(aside.name)
        try:
            yield aside
        finally:
            _remove(aside)
            _OWN.discard(aside.name)


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """`written_aside`, whose path takes its place at the end, unless there is an error.

    What is renamed is on the disk by then. A link is followed; a device or a pipe is
    written to itself.

    Args:
        path: Of a file, or of a folder that is missing or empty.

    Yields:
        pathlib.Path to write to.

    Raises:
        OSError: As `written_aside`.

    Example:
        >>> with written_whole("a.txt") as aside:
        ...     _ = aside.write_text("whole")
        >>> pathlib.Path("a.txt").read_text()
        'whole'
    """
    path = pathlib.Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        with _told_of(path):
            yield path
        return
    if path.is_symlink():
        path = pathlib.Path(os.path.realpath(path))
    with written_aside(path) as aside:
        yield aside
        to_disk(aside)
        aside.replace(path)


def write_whole(
    path: str | os.PathLike[str], write: Callable[[BinaryIO], object]
) -> None:
    """Gives a file open for writing bytes to a function; whole or not at all.

    Args:
        path: Of the file.
        write: Function of the open file.

    Raises:
        OSError: As `written_aside`.

    Example:
        >>> write_whole("a.bin", lambda file: file.write(b"whole"))
        >>> pathlib.Path("a.bin").read_bytes()
        b'whole'
    """
    with written_whole(path) as aside, aside.open("wb") as file:
        write(file)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text, as UTF-8, whole or not at all; what is the same is left untouched.

    Args:
        path: Of the file.
        text: All of it.

    Raises:
        OSError: As `written_aside`.

    Example:
        >>> write_text("a.txt", "grüß")
        >>> pathlib.Path("a.txt").read_text(encoding="utf-8")
        'grüß'
    """
    content = text.encode()
    with contextlib.suppress(OSError):
        path = pathlib.Path(path)
        if path.is_file() and path.read_bytes() == content:
            return
    write_whole(path, lambda file: file.write(content))


def to_disk(path: str | os.PathLike[str]) -> None:
    """Waits until a file, or all files of a folder, are on the disk.

    A disk may say only then that it is full.

    Raises:
        OSError: If they cannot be written.

    Example:
        >>> write_text("a.txt", "text")
        >>> to_disk("a.txt")
    """
    path = pathlib.Path(path)
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())


@contextlib.contextmanager
def _told_of(path: pathlib.Path) -> Iterator[None]:
    """Errors of the disk become an OSError that names the path."""
    try:
        yield
    except Exception as error:
        code = _code_of_disk(error)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), os.fspath(path)) from error


def _code_of_disk(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno:
        # What was read on the way has a name of its own.
        own = error.filename is None or ".writing-" in os.fsdecode(error.filename)
        return error.errno if own else None
    text = str(error)
    return next((code for code in _OF_DISKS if os.strerror(code) in text), None)


@functools.cache
def _clear(folder: str, process: int) -> None:
    """Removes what killed writers left in a folder; once in a process."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (found := _ASIDE.match(entry.name)) and not _lives(entry, found):
                _remove(pathlib.Path(entry.path))


def _lives(entry: os.DirEntry, found: re.Match[str]) -> bool:
    # On Windows there is no asking whether a process lives.
    if found["place"] != _place() or os.name == "nt":
        return time.time() - entry.stat().st_mtime < ABANDONED_SECONDS
    process = int(found["process"])
    if process == os.getpid():
        return entry.name in _OWN
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another user's
    return True


def machine() -> str | None:
    """What this process shares with those that it may ask about by their numbers.

    That is a boot of a system, and a namespace of numbers (of a container).

    Returns:
        Text; None where the system does not tell.

    Example:
        >>> machine() == machine()
        True
    """
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None  # neither Linux nor like it


@functools.cache
def _place() -> str:
    """`machine` in a file's name; elsewhere the host's name must do."""
    return f"{zlib.crc32((machine() or socket.gethostname()).encode()):08x}"


def _remove(path: pathlib.Path) -> None:
    """Removes a file or a folder, if it can be."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
