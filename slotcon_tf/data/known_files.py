"""What is known of files without reading them: names, sizes, and the ends of a few."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import stat
import unicodedata
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from slotcon_tf.data.reading import is_remote, read_range
from slotcon_tf.images.pixels import BadImage

UNKNOWN, MISSING = -1, -2  # instead of sizes: not asked for; no file is there
_SAMPLES, _ENDS = 64, 4096  # files whose ends are read; bytes of each end
_THREADS, _CHUNK = 16, 1000  # that ask a disk for sizes, which may answer slowly


def digest_of(*parts: str | bytes) -> str:
    """A digest of texts or bytes, 32 characters.

    Example:
        >>> digest_of("a", b"b") == digest_of("ab")
        False
    """
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogateescape")
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()


def files_of(
    paths: Sequence[str | os.PathLike[str]], root: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """What an `ImageSet` says of files: its names, sizes and samples.

    Files elsewhere (gs://) give their names only: each question is a call there.

    Args:
        paths: Of the files.
        root: Folder that names are relative to; what is not below it is named from
            the folder that all such files share.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.png").write_bytes(b"pixels")
        >>> found = files_of([folder / "a.png", folder / "b.png"], folder)
        >>> found["names"], found["sizes"]
        (['a.png', 'b.png'], [6, -2])
    """
    texts = [os.fspath(path) for path in paths]
    sizes = _sizes(texts)
    return {
        "names": relative_names(texts, root),
        "sizes": sizes,
        "samples": [_sample(texts[i], sizes[i]) for i in spread(len(texts))],
    }


def relative_names(
    paths: Sequence[str], root: str | os.PathLike[str] | None
) -> list[str]:
    """Names of files that do not say where their folder lies, parted by /, in NFC.

    Example:
        >>> relative_names(["/data/a/1.jpg", "/more/b/2.jpg", "/more/c.jpg"], "/data")
        ['a/1.jpg', 'b/2.jpg', 'c.jpg']
    """
    start = os.path.join(os.fspath(root), "") if root else ""
    if start:
        outside = [path for path in paths if not path.startswith(start)]
    else:  # names of a list that lies where the command was given are below it
        outside = [path for path in paths if os.path.isabs(path) or is_remote(path)]
    shared = ""
    if outside:
        shared = os.path.commonprefix([min(outside), max(outside)])
        shared = shared[: max(shared.rfind("/"), shared.rfind(os.sep)) + 1]
    start, shared = len(start), len(shared)
    elsewhere = set(outside)
    return [_name(p[shared:] if p in elsewhere else p[start:]) for p in paths]


def _name(name):
    if os.sep != "/":
        name = name.replace(os.sep, "/")
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spread(count: int) -> list[int]:
    """Numbers of the files that are looked into, of so many.

    Example:
        >>> spread(3), len(spread(1000))
        ([0, 1, 2], 64)
    """
    most = min(count, _SAMPLES)
    return [i * count // most for i in range(most)]


def _sizes(paths):
    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(lambda some: [_size(path) for path in some], chunks)
        return [size for some in found for size in some]


def _size(path):
    if is_remote(path):
        return UNKNOWN
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return MISSING
    return found.st_size if stat.S_ISREG(found.st_mode) else MISSING


def _sample(path, size):
    """Digest of a file's first and last bytes; None if they cannot be read."""
    if size < 0:
        return None
    try:
        ends = [read_range(path, i, _ENDS) for i in (0, max(0, size - _ENDS))]
    except (OSError, BadImage, tf.errors.OpError):
        return None
    return digest_of(*ends)
