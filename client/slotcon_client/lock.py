"""One output, one client: a lock of the kernel's, which dies with its process."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from slotcon_client.errors import ExtractionError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = "lock"  # in the folder that is held
_MOST_BYTES = 4096  # of its file


@contextlib.contextmanager
def held(folder: str | os.PathLike[str], output: str | os.PathLike[str]) -> Iterator:
    """Context in which a folder is this process's alone; it is made where missing.

    A lock that a killed process left behind is free. Where the disk has no locks (some
    network disks), the file's own word on process, start and host decides.

    Args:
        folder: Where unfinished work is kept.
        output: What it becomes, for the message.

    Raises:
        ExtractionError: If another process, or another call in this one, holds it.
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with held(folder, "a.npz"):
        ...         with held(folder, "a.npz"):  # doctest: +ELLIPSIS
        ...             pass
        Traceback (most recent call last):
        slotcon_client.errors.ExtractionError: `output` must be one client's alone. ...
    """
    path = pathlib.Path(folder, LOCK)
    file = _locked(path, output)
    try:
        yield
    finally:
        # First away, then free: nobody locks a file that has no name any more. What
        # has that name now may be another's.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file), path.stat()):
                path.unlink()
                path.parent.rmdir()  # only if nothing is left in it
        os.close(file)


def _locked(path, output):
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its holder has just removed the folder
            continue
        try:
            got = _lock(file)
            holder = _read(file)
            if got is False or (got is None and _may_live(holder)):
                raise _busy(output, holder, None if got is False else path)
            # Its holder may have removed it since it was opened.
            if not path.exists() or not os.path.samestat(os.fstat(file), path.stat()):
                os.close(file)
                continue
            _write(file)
            return file
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(file)
            raise


def _lock(file):
    """Whether the kernel gives its lock; None where it has none to give."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(file, _MOST_BYTES, os.SEEK_SET)  # behind what it says
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _read(file):
    os.lseek(file, 0, os.SEEK_SET)
    try:
        return dict(json.loads(os.read(file, _MOST_BYTES)))
    except ValueError:
        return {}


def _write(file):
    now = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
    about = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": _start_of(os.getpid()),
        "since": now.replace("+00:00", " UTC"),
    }
    with contextlib.suppress(OSError):  # on a full disk it holds without a name
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, json.dumps(about).encode())


def _may_live(holder):
    if not holder:
        return False
    if holder.get("host") != socket.gethostname():
        return True
    started = _start_of(holder.get("process"))
    return started is not None and started == holder.get("started")


def _start_of(process):
    """When a process was started, in ticks of its machine; None if there is none."""
    try:
        status = pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    # Behind the name, which may hold anything: the state, then the 20th is the start.
    state, *rest = status.rpartition(")")[2].split()
    return None if state in ("Z", "X") else rest[18]


def _busy(output, holder, path):
    by = "another process"
    if holder:
        by = "host {host}, process {process}, since {since}".format_map(
            {"host": "?", "process": "?", "since": "?", **holder}
        )
    cure = "Wait for its end, or take another `output`."
    if path is not None:  # the disk has no locks that die with their holder
        cure = f"Wait for its end, or, if it has ended, delete {path}."
    return ExtractionError(
        f"`output` must be one client's alone. Received: {output}, which is being "
        f"written by {by}. {cure}"
    )
