"""Small file systems of their own, for tests of full and of read-only disks."""

import contextlib
import errno
import os
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """A tmpfs in a folder; skips where this process may not mount.

    Yields:
        The folder, empty, with a file system of so many MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={int(megabytes * 1024)}k"
    words = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, leave=0):
    """Fills a disk, but for so many bytes."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(b"x" * (1 << 16)):
                pass
        with contextlib.suppress(OSError):
            while file.write(b"x" * 512):
                pass
    os.truncate(path, path.stat().st_size - leave)
    return path


@contextlib.contextmanager
def read_only(folder):
    """A mounted folder is read-only meanwhile; its files must be closed."""

    def remounted(mode):
        words = ["mount", "-o", f"remount,{mode}", str(folder)]
        subprocess.run(words, check=True, capture_output=True)

    remounted("ro")
    try:
        yield
    finally:
        remounted("rw")


def tree(folder):
    """Bytes and time of change of every file below a folder, by path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): (
            path.read_bytes(),
            path.stat().st_mtime_ns,
        )
        for path in files
    }


def is_full(error):
    """Whether an error is of a disk without space."""
    return isinstance(error, OSError) and error.errno == errno.ENOSPC
