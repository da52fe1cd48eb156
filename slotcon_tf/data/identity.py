"""What a run is trained on, told from what it was trained on before.

An `ImageSet` is what is known of some images without reading them all: the names of
their files, in the order of the source, the files' sizes, and the contents of a few. An
`Identity` is one or more of them, with a digest of everything. Two data sets of the
same digest are the same wherever they lie, and whenever their files were touched.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.known_files import MISSING, UNKNOWN, digest_of, spread

_NAMED = 3  # files that are named of those that differ
Lists = Mapping[str, Mapping[str, Sequence[Any]]]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """What is known of some images.

    Attributes:
        num_images: Their number.
        settings: What they are, as short texts or numbers by name.
        names: Of their files, relative to the root of the data, in the source's order.
        sizes: Bytes of each file; `UNKNOWN` or `MISSING` where there are none.
        samples: Digests of the ends of evenly spaced files; None for one not read.
        classes: Names of the classes, of a labelled set.
        labels: Digest of what else says which pixel is of which class.

    Example:
        >>> ImageSet(2, {"dataset": "folder"}, ["a.png", "b.png"], [30, 40])
        2 images, 2 files, 70 bytes
    """

    num_images: int
    settings: Mapping[str, Any]
    names: Sequence[str] = ()
    sizes: Sequence[int] = ()
    samples: Sequence[str | None] = ()
    classes: Sequence[str] = ()
    labels: str = ""

    def __repr__(self) -> str:
        found = f"{self.num_images:,} images"
        if self.names:
            found += f", {len(self.names):,} files"
            size = self._bytes
            found += ", sizes unknown" if size is None else f", {size:,} bytes"
        return found

    @property
    def _bytes(self) -> int | None:
        """Bytes of all files; None if a size was not asked for."""
        sizes = np.asarray(self.sizes, np.int64)
        return None if (sizes == UNKNOWN).any() else int(sizes.clip(min=0).sum())

    def summary(self) -> dict[str, Any]:
        """All that JSON should keep of it, whatever its size; see `differences`."""
        sizes = np.asarray(self.sizes, "<i8")
        return {
            "num_images": self.num_images,
            "settings": dict(self.settings),
            "num_files": len(self.names),
            "bytes": self._bytes,
            "names": digest_of("\0".join(self.names)),
            "sizes": digest_of(sizes.tobytes()),
            "samples": list(self.samples),
            "classes": list(self.classes),
            "labels": self.labels,
        }

    def differences(
        self, old: Mapping[str, Any], files: Mapping[str, Sequence[Any]] | None
    ) -> list[str]:
        """What has changed, in words; empty if nothing has.

        Args:
            old: `summary()` of then.
            files: "names" and "sizes" of then; None if they are not known any more.

        Example:
            >>> then = ImageSet(2, {}, ["a.png", "b.png"], [30, 40])
            >>> now = ImageSet(2, {}, ["b.png", "c.png"], [41, 7])
            >>> files = {"names": then.names, "sizes": then.sizes}
            >>> for line in now.differences(then.summary(), files):
            ...     print(line)
            1 file fewer (a.png)
            1 file more (c.png)
            1 file of another size (b.png)
            >>> now.differences(then.summary(), None)
            ['other files (2 of 70 bytes then, 2 of 48 bytes now)']
        """
        now = self.summary()
        found = [
            f"{name}={was} (now {self.settings.get(name)})"
            for name, was in old["settings"].items()
            if self.settings.get(name) != was
        ]
        found += self._of_files(old, now, files)
        if not any(found) and old["num_images"] != self.num_images:
            found.append(f"{old['num_images']:,} images (now {self.num_images:,})")
        if list(old["classes"]) != now["classes"]:
            found.append(
                f"the classes {_first(old['classes'])} (now {_first(now['classes'])})"
            )
        elif old["labels"] != self.labels:
            found.append("other ids, or segments, of the classes")
        return found

    def _of_files(self, old, now, files):
        same_names = old["names"] == now["names"]
        same_sizes = old["sizes"] == now["sizes"]
        unknown = old["bytes"] is None or now["bytes"] is None
        if not same_names or not (same_sizes or unknown):
            if files is None:
                kept = {"files": now["num_files"], "bytes": now["bytes"]}
                return [
                    f"other files ({_count(old['num_files'], old['bytes'])} then, "
                    f"{_count(kept['files'], kept['bytes'])} now)"
                ]
            return _between(files, {"names": self.names, "sizes": self.sizes})
        places = spread(len(self.names))
        pairs = zip(places, old["samples"], self.samples, strict=False)
        other = [self.names[i] for i, was, is_ in pairs if was and is_ and was != is_]
        return _told(other, f"of {len(places)} looked into", "of other contents")


class Identity:
    """The data of a run: its image sets by name, and a digest of them.

    Args:
        **parts: `ImageSet`s.

    Attributes:
        digest: 32 characters; of two runs, or two hosts of one, the same only if they
            are fed the same.

    Example:
        >>> then = Identity(images=ImageSet(2, {}, ["a.png", "b.png"], [30, 40]))
        >>> then
        2 images, 2 files, 70 bytes (b7a79869)
        >>> now = Identity(images=ImageSet(1, {}, ["a.png"], [30]))
        >>> now.digest == then.digest, now.differences(then.summary(), then.lists())
        (False, ['1 file fewer (b.png)'])
    """

    def __init__(self, **parts: ImageSet) -> None:
        self.parts = parts

    @functools.cached_property
    def digest(self) -> str:
        return self.summary()["digest"]

    @functools.cached_property
    def _summary(self) -> dict[str, Any]:
        parts = {name: part.summary() for name, part in self.parts.items()}
        text = json.dumps(parts, sort_keys=True)
        return {"digest": digest_of(text), "parts": parts}

    def __repr__(self) -> str:
        several = len(self.parts) > 1
        told = (f"{n}: {p}" if several else repr(p) for n, p in self.parts.items())
        return f"{'; '.join(told)} ({self.digest[:8]})"

    def summary(self) -> dict[str, Any]:
        """What a checkpoint keeps of it as JSON: the digest, and each part."""
        return self._summary

    def lists(self) -> dict[str, dict[str, list[Any]]]:
        """Names and sizes of all files, by part, as JSON takes them."""
        return {
            name: {"names": list(part.names), "sizes": list(map(int, part.sizes))}
            for name, part in self.parts.items()
        }

    def differences(
        self, old: Mapping[str, Any], lists: Lists | None = None
    ) -> list[str]:
        """What has changed since, in words; empty if nothing has.

        Args:
            old: `summary()` of then.
            lists: `lists()` of then; None if they are not known any more.

        Raises:
            LookupError, TypeError: If `old` is no such summary.
        """
        if old["digest"] == self.digest:
            return []
        found = []
        for name, part in self.parts.items():
            files = (lists or {}).get(name)
            differ = part.differences(old["parts"][name], files)
            if differ and len(self.parts) > 1:
                differ[0] = f"{name}: {differ[0]}"
            found += differ
        return found


def _between(then, now):
    """What differs between two lists of names and sizes, in words."""
    before, after = (
        {
            name: size
            for name, size in zip(files["names"], files["sizes"], strict=True)
            if size != MISSING
        }
        for files in (then, now)
    )
    resized = [
        name
        for name, size in after.items()
        if before.get(name, size) != size and UNKNOWN not in (size, before[name])
    ]
    found = [
        *_told([n for n in before if n not in after], "fewer"),
        *_told([n for n in after if n not in before], "more"),
        *_told(resized, "of another size"),
    ]
    if not found:
        names = zip(then["names"], now["names"], strict=False)
        place = next((i for i, (a, b) in enumerate(names) if a != b), None)
        if place is not None:
            first = printable(now["names"][place])
            found.append(f"the same files in another order (from {first} on)")
        elif len(then["names"]) != len(now["names"]):
            found.append("another number of names of the same files")
    return found


def _told(names, *what):
    """Zero or one text: how many files, what about them, and the first names."""
    if not names:
        return []
    files = "1 file" if len(names) == 1 else f"{len(names):,} files"
    return [f"{files} {' '.join(what)} ({_first(names)})"]


def _first(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(map(printable, names[:_NAMED]))
    return f"{shown} ..." if len(names) > _NAMED else shown or "none"


def _count(files, size):
    return f"{files:,}" if size is None else f"{files:,} of {size:,} bytes"
