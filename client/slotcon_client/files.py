"""Files that are there whole or not at all; on other stores by a class derived here."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import stat
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # of lines and columns
_KEPT_LETTERS = 50  # of a name, its ending among them: file systems take 255 bytes
_NUMBERS = itertools.count()
_ASIDE = re.compile(r"\.writing-\d+-\d+-(?P<name>.*)")
# A disk's, however a library words its error.
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class TooLarge(ValueError):
    """A file has more bytes than are read.

    Attributes:
        size: How many.

    Example:
        >>> TooLarge(3 * 2**20).size
        3145728
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


def printable(path: object) -> str:
    """A path as text, in one line, that every terminal and file takes.

    Example:
        >>> printable(b"caf\\xe9.jpg".decode("utf-8", "surrogateescape"))
        'caf\\\\udce9.jpg'
    """
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return _BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Files:
    """Files of this machine; another store overrides all methods but `read_all`.

    What is written is written beside its place and renamed: a process that is killed,
    and a full disk, leave what was there before.

    Example:
        >>> import tempfile
        >>> files, folder = Files(), tempfile.mkdtemp()
        >>> files.write(files.join(folder, "a.txt"), lambda file: file.write(b"whole"))
        >>> files.names(folder), files.read_all(files.join(folder, "a.txt"))
        (['a.txt'], b'whole')
    """

    is_local = True  # has locks, renaming, and arrays that are mapped into memory

    def join(self, *parts: str) -> str:
        """A path of its parts."""
        return os.path.join(*parts)

    def read(self, path: str | os.PathLike, limit: int) -> bytes:
        """Bytes of a regular file.

        Raises:
            TooLarge: If it has more than `limit`; nothing is read then.
            OSError: If it cannot be read.
        """
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("no regular file")
        if status.st_size > limit:
            raise TooLarge(status.st_size)
        with open(path, "rb") as file:
            data = file.read(limit + 1)  # it may grow meanwhile
        if len(data) > limit:
            raise TooLarge(len(data))
        return data

    def read_all(self, path: str) -> bytes:
        """Bytes of a file, whatever its size."""
        with self.open(path) as file:
            return file.read()

    def open(self, path: str) -> BinaryIO:
        """A file open for reading, at any place of it.

        Raises:
            OSError: If it cannot be opened; FileNotFoundError if it is not there.
        """
        return open(path, "rb")

    def write(self, path: str, write: Callable[[BinaryIO], Any]) -> None:
        """Gives a file open for writing bytes to a function; whole or not at all.

        Raises:
            OSError: Of the disk; it names `path`.
        """
        real = os.path.realpath(path)
        folder, name = os.path.split(real)
        aside = f".writing-{os.getpid()}-{next(_NUMBERS)}-{_short(name)}"
        aside = os.path.join(folder, aside)
        try:
            if os.path.exists(real) and not os.path.isfile(real):  # a pipe, a device
                with open(real, "wb") as file:
                    write(file)
                return
            with open(aside, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, real)
        except Exception as error:
            code = _code_of_disk(error)
            if code is None:
                raise
            raise OSError(code, os.strerror(code), path) from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(aside)

    def make(self, folder: str) -> None:
        """Makes a folder, and those above it, where they are missing."""
        os.makedirs(folder, exist_ok=True)

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return os.path.exists(path)

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(folder))
        return []

    def remove(self, path: str) -> None:
        """Removes a file, or a folder and all in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    def sweep(self, folder: str, name: str = "") -> None:
        """Removes what a killed process had not written whole, by one who may.

        Args:
            folder: Where it lies.
            name: Of the file that was written; "" for all in the folder.
        """
        for found in map(_ASIDE.fullmatch, self.names(folder)):
            if found and (not name or found["name"] == _short(name)):
                self.remove(self.join(folder, found[0]))

    def write_text(self, path: str, text: str) -> None:
        """Writes text, as UTF-8."""
        self.write(path, lambda file: file.write(text.encode()))


LOCAL = Files()


def _short(name: str) -> str:
    """A name that a few letters may be put before, and that is no other's."""
    if len(name) <= _KEPT_LETTERS:
        return name
    digest = zlib.crc32(os.fsencode(name))
    return f"{digest:08x}-{name[-_KEPT_LETTERS:]}"


def _code_of_disk(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno:
        # What was read on the way has a name of its own.
        own = error.filename is None or ".writing-" in os.fsdecode(error.filename)
        return error.errno if own else None
    text = str(error)
    return next((code for code in _OF_DISKS if os.strerror(code) in text), None)
