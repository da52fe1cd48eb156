"""Who holds a work directory: what a lock file says, and whether that process lives."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import socket
import uuid
from typing import Self

from slotcon_tf.files import machine

_MOST_BYTES = 4096  # of a lock file


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process that holds a work directory.

    Attributes:
        host: Name of its host.
        pid: Its number there.
        since: When it took the directory, by its own clock; for people.
        token: Of this taking alone.
        machine: What processes share whose numbers mean the same: a boot of a system,
            and a namespace of numbers (of a container); None where it is not known.
        started: When the process was started, by its machine; None if not known.

    Example:
        >>> holder = Holder.here()
        >>> holder.pid == os.getpid(), Holder.of(holder.data()) == holder
        (True, True)
    """

    host: str
    pid: int
    since: str
    token: str
    machine: str | None
    started: str | None

    @classmethod
    def here(cls) -> Self:
        """This process, from now on."""
        now = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            since=now.replace("+00:00", " UTC"),
            token=uuid.uuid4().hex,
            machine=machine(),
            started=start_of(os.getpid()),
        )

    @classmethod
    def of(cls, data: bytes) -> Self | None:
        """The holder that a file names; None if it names none."""
        try:
            known = json.loads(data)
            return cls(**known) if type(known.get("pid")) is int else None
        except (ValueError, TypeError, AttributeError):
            return None

    def data(self) -> bytes:
        """What its file says."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @property
    def is_here(self) -> bool:
        """Whether it is this process."""
        own = machine()
        return own is not None and (self.pid, self.machine) == (os.getpid(), own)

    def lives(self) -> bool | None:
        """Whether the process lives; None where it cannot be asked.

        What this process holds, it knows itself: a file that names it is left over.
        """
        own = machine()
        if own != self.machine:
            return None
        if own is None:
            here = self.host == socket.gethostname()
            return False if here and not _is_number(self.pid) else None
        started = start_of(self.pid)
        return not self.is_here and started is not None and started == self.started

    def __str__(self) -> str:
        told = f"host {self.host}, process {self.pid}, since {self.since}"
        return f"{told} (this process)" if self.is_here else told


def _is_number(pid):
    """Whether it is any process's number, as far as this system tells."""
    if os.name != "posix":
        return True  # Windows ends a process that is asked so
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def read(file: int) -> Holder | None:
    """Who an open lock file says holds it; None if it says nothing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryFile() as file:
        ...     read(file.fileno()) is None
        True
    """
    os.lseek(file, 0, os.SEEK_SET)
    return Holder.of(os.read(file, _MOST_BYTES))


def read_path(path: pathlib.Path) -> Holder | None:
    """As `read`, of a path: opened, since network disks remember what files were.

    Raises:
        OSError: If it cannot be read.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "run.lock")
        >>> _ = path.write_bytes(Holder.here().data())
        >>> read_path(path).pid == os.getpid()
        True
    """
    with path.open("rb") as file:
        return read(file.fileno())


def start_of(pid: int) -> str | None:
    """When a process was started, in ticks of its machine; None if there is none.

    A number is given to another process one day, but not at the same tick.

    Example:
        >>> start_of(os.getpid()) == start_of(os.getpid())
        True
    """
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # Behind the name, which may hold anything: the state, then the 20th is the start.
    state, *rest = status.rpartition(")")[2].split()
    return None if state in ("Z", "X") else rest[18]
