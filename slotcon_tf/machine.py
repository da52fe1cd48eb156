"""Memory and disk: what a process may take here, and what it has taken."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import shutil
import subprocess
import sys

import tensorflow as tf

from slotcon_tf import processor

_UNLIMITED = 2**60  # bytes; cgroup v1 writes a number near 2**63 for "no limit"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of one device, or of the host.

    Args:
        name: "host", or of the device, such as "GPU:0".
        peak: Bytes that this process had at most; None where the system tells none.
        limit: Bytes that it may have; None where the system tells none.

    Example:
        >>> Memory("host", peak=3 * 2**30, limit=4 * 2**30).share
        0.75
    """

    name: str
    peak: int | None
    limit: int | None

    @property
    def share(self) -> float | None:
        """The peak as a share of the limit, or None."""
        if self.peak is None or not self.limit:
            return None
        return self.peak / self.limit

    def __str__(self) -> str:
        known = [n if n is None else size_text(n) for n in (self.peak, self.limit)]
        peak, limit = (text or "unknown" for text in known)
        share = "" if self.share is None else f" ({self.share:.0%})"
        return f"{self.name} {peak} of {limit}{share}"


def host_memory() -> Memory:
    """What this process has taken of the host's memory, and what it may.

    Example:
        >>> host_memory().name
        'host'
    """
    return Memory("host", _peak(), memory_limit())


def device_memory() -> list[Memory]:
    """The same of every GPU that TensorFlow uses, in TensorFlow's own account.

    Example:
        >>> len(device_memory()) == len(tf.config.list_logical_devices("GPU"))
        True
    """
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        return []
    limits = _gpu_limits()
    names = [gpu.name.removeprefix("/device:") for gpu in gpus]
    peaks = [tf.config.experimental.get_memory_info(name)["peak"] for name in names]
    return [
        Memory(n, int(peak), limits.get(n))
        for n, peak in zip(names, peaks, strict=True)
    ]


def _gpu_limits() -> dict[str, int]:
    """Bytes that TensorFlow allows itself of each GPU."""
    # Not public; nothing public tells it.
    from tensorflow.python.client import device_lib

    return {
        one.name.removeprefix("/device:"): int(one.memory_limit)
        for one in device_lib.list_local_devices()
        if one.device_type == "GPU"
    }


def _peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024  # Linux tells KiB


def memory_limit(root: str | os.PathLike[str] = "/") -> int | None:
    """Bytes of memory that this process may take: a container's limit or the machine's.

    Args:
        root: Where the system's `proc` and `sys` are.

    Returns:
        int; None where neither tells.

    Example:
        >>> limit = memory_limit()
        >>> limit is None or limit > 2**20
        True
    """
    root = pathlib.Path(root)
    found = [_of_machine(root)]
    for names in _groups(root, "memory", ["memory.max", "memory.limit_in_bytes"]):
        found += [int(text) for text in names if text.isdigit()]
    return min((n for n in found if n is not None and n < _UNLIMITED), default=None)


def _of_machine(root):
    """Bytes of the machine, or None."""
    for line in _text(root / "proc" / "meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    if sys.platform == "darwin" and root == pathlib.Path("/"):
        words = ["sysctl", "-n", "hw.memsize"]
        done = subprocess.run(words, capture_output=True, text=True)
        return int(done.stdout) if done.stdout.strip().isdigit() else None
    return None


def usable_cores(root: str | os.PathLike[str] = "/") -> int:
    """Cores whose time this process may use: a container's quota, rounded up.

    Args:
        root: Where the system's `proc` and `sys` are.

    Example:
        >>> 1 <= usable_cores() <= processor.cores()
        True
    """
    found = [float(processor.cores())]
    for quota, period, both in _groups(
        pathlib.Path(root), "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.max"]
    ):
        words = both.split() or [quota, period]
        if all(word.isdigit() for word in words) and int(words[1]):
            found.append(int(words[0]) / int(words[1]))
    return max(math.ceil(min(found)), 1)


def _groups(root, kind, names):
    """Texts of files of this process's control groups and of those above them."""
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, kinds, inside = line.split(":", 2)
        if kinds and kind not in kinds.split(","):
            continue
        # Version 2 has one tree for all kinds.
        top = root / "sys" / "fs" / "cgroup" / (kind if kinds else "")
        # In a container the group's own path may be hidden; its limit is at the top.
        own = top / inside.strip("/")
        for folder in [own, *own.parents]:
            if folder.is_relative_to(top):
                yield [_text(folder / name).strip() for name in names]


def _text(path):
    try:
        return path.read_text()
    except OSError:
        return ""


def free_disk(path: str | os.PathLike[str]) -> tuple[pathlib.Path, int]:
    """Where a path that may not be there yet would lie, and the bytes free there.

    Returns:
        Tuple of its nearest folder that exists, and a number of bytes.

    Example:
        >>> folder, free = free_disk("a/folder/that/is/not/there")
        >>> folder == pathlib.Path.cwd(), free > 0
        (True, True)
    """
    folder = pathlib.Path(path).absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder, shutil.disk_usage(folder).free


def size_text(size: float) -> str:
    """Bytes as people say them.

    Example:
        >>> size_text(715 * 2**20), size_text(3.5 * 2**30), size_text(12)
        ('715 MiB', '3.5 GiB', '12 B')
    """
    for unit in _UNITS:
        if abs(size) < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    digits = 1 if size < 100 and unit not in _UNITS[:2] else 0
    return f"{size:.{digits}f} {unit}"
