"""Files of stores that TensorFlow reads and writes: gs://, hdfs:// and the like."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import tensorflow as tf

from slotcon_client.files import LOCAL, Files, TooLarge
from slotcon_tf.data.reading import is_remote, reason_of, without_scheme

_READ_BYTES = 2**20  # that are fetched at once


class RemoteFiles(Files):
    """Files by tf.io.gfile; an object is there whole once it is written.

    Example:
        >>> files = RemoteFiles()
        >>> files.write_text("ram://store/a.txt", "whole")
        >>> files.names("ram://store"), files.read("ram://store/a.txt", limit=9)
        (['a.txt'], b'whole')
    """

    is_local = False

    def join(self, *parts: str) -> str:
        return posixpath.join(*parts)

    def read(self, path: str | os.PathLike, limit: int) -> bytes:
        if not is_remote(os.fspath(path)):  # a list may name both
            return super().read(path, limit)
        with _as_oserror(path), tf.io.gfile.GFile(os.fspath(path), "rb") as file:
            size = file.size()
            if size > limit:
                raise TooLarge(size)
            return file.read(size)

    def open(self, path: str) -> BinaryIO:
        return io.BufferedReader(_Object(path), _READ_BYTES)

    def write(self, path: str, write: Callable[[BinaryIO], Any]) -> None:
        # Archives need places in files to go back to.
        with tempfile.TemporaryFile() as whole:
            write(whole)  # pyright: ignore[reportArgumentType]
            whole.seek(0)
            if path.startswith("ram://"):  # which adds to a file that is there
                self.remove(path)
            with _as_oserror(path), tf.io.gfile.GFile(path, "wb") as file:
                shutil.copyfileobj(whole, file, 2**24)  # pyright: ignore[reportArgumentType]

    def make(self, folder: str) -> None:
        with _as_oserror(folder):
            tf.io.gfile.makedirs(folder)

    def exists(self, path: str) -> bool:
        with _as_oserror(path):
            return tf.io.gfile.exists(path)

    def names(self, folder: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError), _as_oserror(folder):
            # Some stores end the names of folders in a slash.
            return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))
        return []

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError), _as_oserror(path):
            if tf.io.gfile.isdir(path):
                tf.io.gfile.rmtree(path)
            else:
                tf.io.gfile.remove(path)

    def sweep(self, folder: str, name: str = "") -> None:
        """Nothing: a store has no halves of files."""


class _Object(io.RawIOBase):
    """A remote file, of which only what is read is fetched."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        with _as_oserror(path):
            self._file = tf.io.gfile.GFile(path, "rb")
            self._size = self._file.size()
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}
        self._at = max(0, start[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        with _as_oserror(self._path):
            self._file.seek(self._at)
            data = self._file.read(count) if count else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


REMOTE = RemoteFiles()


def files_of(path: str | os.PathLike) -> Files:
    """What reads and writes a path.

    Example:
        >>> files_of("/data/photos").is_local, files_of("gs://bucket/a").is_local
        (True, False)
    """
    return REMOTE if is_remote(without_scheme(os.fspath(path))) else LOCAL


@contextlib.contextmanager
def _as_oserror(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except tf.errors.NotFoundError as error:
        missing = FileNotFoundError(errno.ENOENT, _why(error), os.fspath(path))
        raise missing from None
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, _why(error), os.fspath(path)) from None


def _why(error: tf.errors.OpError) -> str:
    """Its own words, or its kind's: some stores have none."""
    if str(error).strip():
        return reason_of(error)
    return type(error).__name__.removesuffix("Error")
