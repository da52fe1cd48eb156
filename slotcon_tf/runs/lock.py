"""One work directory, one run: a lock that is free once its holder is dead.

The holder keeps `run.lock` in the work directory, which says who it is, and touches it
every 20 s. Three things tell whether a holder that left its file behind still lives:
the kernel's lock on the file (flock), which dies with the process; on the same machine
the process's number and its start; and for everybody else, since locks of the kernel do
not reach other hosts on every network disk, the age of the file by the disk's own
clock. Nothing is asked of the clocks of hosts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import threading
import time
from collections.abc import Iterator

from absl import logging

from slotcon_tf.errors import first_line
from slotcon_tf.runs.holder import Holder, read, read_path
from slotcon_tf.runs.places import LOCK
from slotcon_tf.runs.workdir import WorkdirError

try:
    import fcntl
except ImportError:  # Windows; the heartbeat alone decides there
    fcntl = None

BEAT_SECONDS = 20.0  # between two signs of life
# Without one so long a holder elsewhere is dead. A network disk may hide signs from
# others for up to a minute (attribute caches of NFS).
DEAD_SECONDS = 120.0
_LOOK_SECONDS = 1.0  # between looks at a file that may be touched
_LEAVING_SECONDS = 5.0  # until the kernel has ended a process that is killed
_SETTLE_SECONDS = 1.0  # until two that write at once see who was last
_CANNOT_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)
_MODE = 0o666  # less the umask: whoever may write the folder may hold it
_held: dict[str, _Lock] = {}  # of this process, by real path
_guard = threading.Lock()


class WorkdirBusy(WorkdirError):
    """Another run holds the work directory, or has taken it over.

    Example:
        >>> issubclass(WorkdirBusy, WorkdirError)
        True
    """


@contextlib.contextmanager
def held(workdir: str | os.PathLike[str], wanted: bool = True) -> Iterator[None]:
    """Context in which a work directory is this run's alone.

    It makes the folder where there is none, and removes it again if it stays empty. A
    folder that cannot be written needs no lock: nothing can be written there.

    Args:
        workdir: The work directory, on this machine or a network disk.
        wanted: False for the other hosts of a run, whose chief holds it for them.

    Raises:
        WorkdirBusy: If another run holds it, in this process or elsewhere.
        OSError: If the folder or the file cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with held(folder):
        ...         with held(folder):  # doctest: +ELLIPSIS
        ...             pass
        Traceback (most recent call last):
        slotcon_tf.runs.lock.WorkdirBusy: `workdir` must be one run's alone. ...
    """
    if not wanted:
        yield
        return
    folder = pathlib.Path(workdir)
    key = os.path.realpath(folder)
    with _guard:
        if key in _held:
            raise _busy(folder, _held[key].own)
        lock = _held[key] = _Lock(folder)
    made: list[pathlib.Path] = []
    try:
        made = _made(folder)
        lock.take()
        yield
    finally:
        lock.release()
        with _guard:
            _held.pop(key, None)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()  # only if nothing was written


def check_held(workdir: str | os.PathLike[str]) -> None:
    """Raises `WorkdirBusy` if this process held a work directory and has lost it.

    That is so after it was held up for minutes (a suspended machine), so that another
    run took it for dead. Nothing may be written then: what writes asks first, and the
    file itself is read, for the next sign of life may be some seconds off.

    Example:
        >>> check_held("runs/not_held_by_this_process")
    """
    lock = _held.get(os.path.realpath(workdir))
    if lock is not None and (taker := lock.taken()) is not None:
        raise _busy(pathlib.Path(workdir), taker)


def release_all() -> None:
    """Frees what this process holds, just before it ends without leaving contexts.

    Example:
        >>> release_all()
    """
    for lock in list(_held.values()):
        lock.release()


class _Lock:
    """The lock of one work directory."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        self.own = Holder.here()
        self.lost: Holder | None = None  # who has taken it
        self._file: int | None = None
        self._others = False  # whether the file is another user's, to be read only
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        try:
            kernels, holder, lives = self._looked()
        except OSError as error:
            if error.errno not in _CANNOT_WRITE:
                raise
            if self.path.exists() and os.access(self.folder, os.W_OK):
                raise _busy(self.folder, self._named()) from None
            logging.info("%s cannot be written: no lock is needed.", self.folder)
            return
        if lives or (kernels is False and lives is False):
            raise _busy(self.folder, holder)
        if holder and lives is None:
            try:
                self._watch(holder)
                still = self._is_own()
            except FileNotFoundError:
                still = False
            if not still:  # its run has just ended, or another one has taken it
                self.forget()
                self.take()
                return
        if kernels is False or self._others:
            # A server may keep a dead host's lock for long.
            try:
                self._replace()
            except PermissionError:  # in a folder where each has files of their own
                raise _busy(self.folder, holder) from None
        else:
            self._write()
        if kernels is None:
            time.sleep(_SETTLE_SECONDS)
            self._check_named()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _looked(self) -> tuple[bool | None, Holder | None, bool | None]:
        """Whether the kernel gave its lock (None: it has none), the holder, its life.

        A lock that is held by nobody who lives is on its way to somebody: a process
        that is killed frees it when its last thread is gone, and one that takes it
        writes its name.
        """
        end = time.monotonic() + _LEAVING_SECONDS
        while True:
            kernels = self._opened()
            assert self._file is not None
            holder = read(self._file)
            lives = holder.lives() if holder else False
            moving = kernels is False and lives is False
            if not moving or time.monotonic() > end:
                return kernels, holder, lives
            self.forget()
            time.sleep(_LEAVING_SECONDS / 100)

    def _opened(self) -> bool | None:
        """Opens the file, and asks for the kernel's lock: got, not, or None: none."""
        while True:
            self._file = self._open()
            got = _flock(self._file)
            with contextlib.suppress(FileNotFoundError):
                if self._is_own():
                    return got
            self.forget()  # its holder has just removed it

    def _open(self) -> int:
        """To write, or to read where it is another user's in a folder of several."""
        try:
            self._others = False
            return os.open(self.path, os.O_RDWR | os.O_CREAT, _MODE)
        except PermissionError:
            if not os.access(self.folder, os.W_OK):
                raise
            self._others = True
            return os.open(self.path, os.O_RDONLY)

    def _named(self) -> Holder | None:
        """Who the file names, if it can be read."""
        with contextlib.suppress(OSError):
            return read_path(self.path)
        return None

    def _is_own(self) -> bool:
        """Whether the open file is still that of the path."""
        assert self._file is not None
        return os.path.samestat(os.fstat(self._file), os.stat(self.path))

    def _watch(self, holder: Holder) -> None:
        """Waits until a holder that cannot be asked has given no sign for long."""
        first = self._age()
        if first >= DEAD_SECONDS:
            return
        logging.warning(
            "%s may be held by %s, whose last sign is %.0f s old: waiting for the "
            "next one, %.0f s at most.",
            self.folder,
            holder,
            first,
            DEAD_SECONDS - first,
        )
        end = time.monotonic() + DEAD_SECONDS - first
        before = self._touched()
        while time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            if self._touched() != before:
                raise _busy(self.folder, read_path(self.path) or holder)

    def _touched(self) -> tuple[float, str | None]:
        # Opened, not only asked for: network disks answer what they remember.
        with open(self.path, "rb") as file:
            holder = read(file.fileno())
            return os.fstat(file.fileno()).st_mtime, holder and holder.token

    def _age(self) -> float:
        """Seconds since the file was touched, by the clock of its disk."""
        probe = self.folder / f".clock-{self.own.token}"
        try:
            probe.touch()
            now = probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)
        return now - self._touched()[0]

    def _write(self) -> None:
        assert self._file is not None
        data = self.own.data()
        try:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, data)
            os.fsync(self._file)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # on a full disk the kernel's lock holds without a name

    def _replace(self) -> None:
        """Puts a new file, with a lock of its own, in the place of a dead host's."""
        aside = self.folder / f".{LOCK}-{self.own.token}"
        self.forget()
        self._file = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE)
        _flock(self._file)
        self._write()
        try:
            os.replace(aside, self.path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def _check_named(self) -> None:
        """Raises `WorkdirBusy` if the file names another run."""
        found = self._taker()
        if found is not None:
            raise _busy(self.folder, found)

    def _taker(self) -> Holder | None:
        """Another run that the file names, or None."""
        found = read_path(self.path)
        return None if found is None or found.token == self.own.token else found

    def taken(self) -> Holder | None:
        """Who has taken what this process held, as far as the disk tells."""
        if self.lost is None and self._file is not None:
            with contextlib.suppress(OSError):  # the disk is away, or it is tidied up
                self.lost = self._taker()
        return self.lost

    def _beat(self) -> None:
        wait = _SETTLE_SECONDS  # two on different hosts may have begun at once
        while not self._end.wait(wait):
            wait = BEAT_SECONDS
            try:
                found = self._taker()
                if found is not None:
                    self.lost = found
                    logging.error("%s", _busy(self.folder, found))
                    return
                os.utime(self.path)  # by the disk's clock
            except FileNotFoundError:
                self._again()
            except OSError as error:  # the disk is away
                logging.warning("%s: %s", self.path, first_line(error, 200))

    def _again(self) -> None:
        """Makes the file anew that somebody has removed, if its folder is there."""
        before = self._file
        assert before is not None
        with contextlib.suppress(OSError):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE)
            _flock(self._file)
            os.close(before)
            self._write()

    def release(self) -> None:
        self._end.set()
        if self._file is None:
            return
        if self._thread is not None:
            self._thread.join()
            if fcntl is None:
                self.forget()  # Windows removes no file that is open
            with contextlib.suppress(OSError):
                found = read_path(self.path) or self.own
                if found.token == self.own.token:
                    self.path.unlink()
        self.forget()

    def forget(self) -> None:
        """Closes the file, which frees the kernel's lock if nobody else has it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _made(folder: pathlib.Path) -> list[pathlib.Path]:
    """Makes a folder; returns those that were not there, the deepest first."""
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _flock(file: int) -> bool | None:
    """Whether the kernel gives the lock; None where it has none to give."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        return False if error.errno == errno.EACCES else None
    return True


def _busy(folder: pathlib.Path, holder: Holder | None) -> WorkdirBusy:
    return WorkdirBusy(
        f"`workdir` must be one run's alone. Received: {folder}, which is held by "
        f"{holder or 'another run'}. Wait for its end, or take another directory."
    )


def _after_fork() -> None:
    """A child shares open files, and would hold the lock beyond its parent's end."""
    for lock in _held.values():
        lock.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
