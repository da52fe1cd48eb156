"""Bytes of files, local or remote, that cannot hang a run, and waiting for them.

Only regular files are read, of a bounded size. Those of a disk that is away for some
seconds are waited for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import printable
from slotcon_tf.images.decoding import MAX_PIXELS
from slotcon_tf.images.pixels import BadImage

_SMALLEST_LIMIT = 2**26  # bytes; a file of few pixels may carry much beside them
_BYTES_PER_PIXEL = 8  # of 16-bit RGBA without compression
_START = 16  # bytes, of which no image format has only zeros
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
# What a network disk answers while it is away.
_AWAY = {
    *(errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENODEV),
    *(errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOLINK),
    *(errno.ESHUTDOWN, errno.EPROTO, errno.ECOMM, errno.ENXIO),
}
_REMOTELY_AWAY = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.ResourceExhaustedError,
)
WAITS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between tries
ALONE_SECONDS = 3.0  # for one file, while others are read


def is_remote(path: str) -> bool:
    """Whether a path needs tf.io.gfile.

    Example:
        >>> is_remote("gs://bucket/a.jpg"), is_remote("/data/a.jpg")
        (True, False)
    """
    return _SCHEME.match(path) is not None


def without_scheme(path: str) -> str:
    """A path on this machine that is written as file:///path, as one; else itself.

    Example:
        >>> without_scheme("file:///data/a.jpg")
        '/data/a.jpg'
    """
    return path[7:] if path[:8].lower() == "file:///" else path


def reason_of(error: BaseException) -> str:
    """Why something could not be read, as one line.

    Example:
        >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.jpg"))
        'No such file or directory'
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


@contextlib.contextmanager
def remote_errors(what: str) -> Iterator[None]:
    """Context, or decorator, that gives errors of remote files as OSError.

    What opens files raises for both kinds of them what commands tell in one line.

    Args:
        what: That is opened, in messages.

    Raises:
        OSError: Instead of tf.errors.OpError.

    Example:
        >>> with remote_errors("A list"):  # doctest: +ELLIPSIS
        ...     raise tf.errors.UnimplementedError(None, None, "no file system")
        Traceback (most recent call last):
            ...
        OSError: A list must be readable. Received: no file system. ...
    """
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(
            f"{what} must be readable. Received: {reason_of(error)}. Check the path; "
            "files that TensorFlow has no file system for must be copied first."
        ) from None


def largest_file(max_pixels: int = MAX_PIXELS) -> int:
    """Bytes that a file of so many pixels may have.

    Example:
        >>> largest_file(100_000_000)
        800000000
    """
    return max(_SMALLEST_LIMIT, _BYTES_PER_PIXEL * max_pixels)


def read_file(path: str | os.PathLike[str], max_bytes: int | None = None) -> bytes:
    """Bytes of a file, local or remote.

    Args:
        path: Of the file.
        max_bytes: Larger files are refused before they are read; None for
            `largest_file()`.

    Raises:
        BadImage: If it is no regular file, too large, or begins with zeros.
        OSError, tf.errors.OpError: If it cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.jpg")
        >>> _ = path.write_bytes(b"pixels")
        >>> read_file(path)
        b'pixels'
    """
    limit = largest_file() if max_bytes is None else max_bytes
    path = os.fspath(path)
    if is_remote(path):
        with tf.io.gfile.GFile(path, "rb") as file:
            size = file.size()
            _check_size(size, limit)
            return file.read(size)
    with open(_regular(path, limit), "rb") as file:
        # Not to the end: some files have none, and some grow.
        size = os.fstat(file.fileno()).st_size
        _check_size(size, limit)
        start = file.read(min(size, _START))
        if len(start) == _START and not any(start):
            raise BadImage("it begins with zeros: a file that was never written whole")
        return start + file.read(size - len(start))


def read_range(path: str, offset: int, length: int) -> bytes:
    """`length` bytes of a file from `offset` on; fewer where it ends.

    Raises:
        BadImage: If it is no regular file.
        OSError, tf.errors.OpError: If it cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.tfrecord")
        >>> _ = path.write_bytes(b"0123456789")
        >>> read_range(str(path), 3, 4)
        b'3456'
    """
    if is_remote(path):
        # One open file per read: threads share no position.
        with tf.io.gfile.GFile(path, "rb") as file:
            file.seek(offset)
            return file.read(length)
    with open(_regular(path), "rb", buffering=0) as file:
        return os.pread(file.fileno(), length, offset)


def _regular(path, max_bytes=None):
    """A descriptor of a regular file. Others are never opened: that alone may hang."""
    try:
        found = os.stat(path)
    except ValueError as error:  # a byte of 0, or what no name can hold
        raise BadImage(f"no file can have this name: {error}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "of an unknown kind")
        raise BadImage(f"{kind}, not a file")
    if max_bytes is not None:
        _check_size(found.st_size, max_bytes)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _check_size(size, limit):
    if size > limit:
        raise BadImage(f"{size} bytes are more than the {limit} allowed")


class Patience:
    """Tries again to read what is away for some seconds.

    A file alone is waited for some 3 s; while nothing else can be read either, some
    30 s. After that nothing is waited for until something was read again, so that a
    disk that is gone ends a run. A folder that is gone is waited for once, until a file
    of it was read again: a removed class does not cost seconds for each of its files.

    Args:
        waits: Seconds between the tries.
        folders_known: Whether every folder of the files was there once. If not, only
            those are waited for that a file was read of.

    Example:
        >>> Patience(waits=(0.01,)).read(lambda: b"pixels", "a.jpg")
        b'pixels'
    """

    def __init__(
        self, waits: Sequence[float] = WAITS, folders_known: bool = True
    ) -> None:
        self.waits = waits
        self._folders: set[str] | None = None if folders_known else set()
        self._reads = 0
        self._given_up = False
        self._gone: frozenset[str] = frozenset()  # folders that were waited for

    def read(self, read: Callable[[], Any], path: str | None = None) -> Any:
        """What `read()` returns.

        Args:
            read: Function without arguments.
            path: Of its file, if it has one; None: it is gone where it is not found.

        Raises:
            OSError, tf.errors.OpError: What `read` raised at last.
        """
        waited, reads = 0.0, self._reads
        for wait in (*self.waits, None):
            try:
                data = read()
            except (OSError, tf.errors.OpError) as error:
                if self._given_up or not self._is_away(error, path):
                    raise
                alone = waited >= ALONE_SECONDS and self._reads > reads
                if alone or wait is None:
                    self._given_up = not alone
                    self._give_up_folder(error, path)
                    raise
                if not waited:
                    logging.warning(
                        "Waiting for %s: %s", printable(path), reason_of(error)
                    )
                time.sleep(wait)
                waited += wait
            else:
                self._reads += 1
                self._given_up = False
                if path is not None and (self._gone or self._folders is not None):
                    self._note(path)
                return data

    def _note(self, path):
        self._gone = frozenset(f for f in self._gone if not _is_below(path, f))
        if self._folders is not None:
            self._folders.add(os.path.dirname(path))

    def _give_up_folder(self, error, path):
        if getattr(error, "errno", None) == errno.ENOENT and path is not None:
            self._gone |= {_highest_missing(os.path.dirname(path))}

    def _is_away(self, error, path):
        if isinstance(error, _REMOTELY_AWAY):
            return True
        number = getattr(error, "errno", None)
        if number in _AWAY:
            return True
        if number != errno.ENOENT or path is None:
            return False
        # A file that is gone leaves its folder; a disk that is gone leaves no folder,
        # or the empty one that it was mounted at.
        folder = os.path.dirname(path) or "."
        if any(_is_below(path, gone) for gone in self._gone):
            return False
        if self._folders is not None and folder not in self._folders:
            return False
        try:
            with os.scandir(folder) as entries:
                return next(entries, None) is None
        except OSError:
            return True


def _is_below(path, folder):
    return path.startswith(os.path.join(folder, ""))


def _highest_missing(folder):
    """The highest folder above a missing one, and itself, that is not there."""
    above = os.path.dirname(folder)
    while above != folder and above and not os.path.isdir(above):
        folder, above = above, os.path.dirname(above)
    return folder
