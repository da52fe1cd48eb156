"""Sources of what is stored: files and records; and of nothing."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from slotcon_tf.data.bad_images import printable
from slotcon_tf.data.extensions import PassedOver
from slotcon_tf.data.identity import ImageSet
from slotcon_tf.data.known_files import files_of
from slotcon_tf.data.reading import Patience, largest_file, read_file
from slotcon_tf.data.records import RecordReader
from slotcon_tf.data.source import NumberedSource
from slotcon_tf.images.decoding import Decoded, decoded_of

_FAKE_IMAGES, _FAKE_SIZE = 1024, (96, 128)


class FileSource(NumberedSource):
    """Image files.

    Args:
        paths: Paths that tf.io.gfile reads.
        name: What to call the source in messages.
        root: Folder that the names of `identity` are relative to; None: their own.
        folders_known: Whether their folders were all there.
        passed_over: What was not taken of a folder.
        **limits: Of `ImageSource`: `max_pixels`, `max_bad_share`, `pixel_range`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = f"{tempfile.mkdtemp()}/a.png"
        >>> Image.new("RGB", (4, 3)).save(path)
        >>> FileSource([path], "one file").load(0).shape
        (3, 4, 3)
    """

    def __init__(
        self,
        paths: Sequence[str],
        name: str,
        *,
        root: str | os.PathLike[str] | None = None,
        folders_known: bool = True,
        passed_over: PassedOver | None = None,
        **limits: Any,
    ) -> None:
        super().__init__(name, len(paths), **limits)
        self.paths = paths
        self._root = root
        self.passed_over = passed_over or self.passed_over
        self.patience = Patience(folders_known=folders_known)
        self._max_bytes = largest_file(self.max_pixels)

    def identity(self) -> ImageSet:
        """By the files' names and sizes, and the ends of some; a question per file."""
        files = files_of(self.paths, self._root)
        return ImageSet(self.num_images, {"source": "files"}, **files)

    def label(self, number: int) -> str:
        return self.paths[number]

    def path(self, label: str) -> str:
        return label

    def caption(self, number: int) -> str:
        return os.path.basename(printable(self.paths[number]))

    def read(self, number: int) -> bytes:
        return read_file(self.paths[number], self._max_bytes)

    def read_patiently(self, number: int) -> bytes:
        """Bytes of a file, which is waited for if its disk is away."""
        read = functools.partial(self.read, number)
        return self.patience.read(read, self.paths[number])


class RecordSource(NumberedSource):
    """Images in the shards that `python -m trainers.prepare` writes.

    Args:
        folder: Of the shards.
        **limits: Of `ImageSource`.

    Example:
        >>> import tempfile
        >>> import tensorflow as tf
        >>> from slotcon_tf.data.records import shard_name, write_index, write_shard
        >>> folder = tempfile.mkdtemp()
        >>> data = tf.io.encode_png(tf.zeros([3, 4, 3], tf.uint8)).numpy()
        >>> place = write_shard(f"{folder}/{shard_name(0, 1)}", [("a.png", data)])
        >>> write_index(folder, [place])
        >>> RecordSource(folder).load(0).shape
        (3, 4, 3)
    """

    def __init__(self, folder: str | os.PathLike[str] | None, **limits: Any) -> None:
        self._reader = RecordReader(folder)
        super().__init__(f"records {folder}", self._reader.num_images, **limits)
        self._reader.max_bytes = largest_file(self.max_pixels)

    def identity(self) -> ImageSet:
        """By the index, and the shards' names, sizes and ends."""
        settings = {"source": "records", "index": self._reader.digest()}
        files = files_of(self._reader.shards, self._reader.folder)
        return ImageSet(self.num_images, settings, **files)

    def label(self, number: int) -> str:
        return self._reader.label(number)

    def path(self, label: str) -> str:
        return label.partition(" of ")[2]

    def caption(self, number: int) -> str:
        return self.label(number).partition(" of ")[0]

    def read(self, number: int) -> bytes:
        return self._reader.read(number)


class FakeSource(NumberedSource):
    """Coloured patches made from the image's number: no files, for smoke tests.

    Args:
        **limits: Of `ImageSource`.

    Example:
        >>> FakeSource().load(5).shape
        (96, 128, 3)
    """

    def __init__(self, **limits: Any) -> None:
        super().__init__("fake", _FAKE_IMAGES, **limits)

    def label(self, number: int) -> str:
        return f"fake {number}"

    def read(self, number: int) -> np.ndarray:
        patches = np.random.default_rng(number).integers(0, 256, (6, 8, 3))
        height, width = _FAKE_SIZE
        image = patches.astype(np.uint8).repeat(height // 6, 0).repeat(width // 8, 1)
        return np.ascontiguousarray(image)

    def decode(self, data: np.ndarray) -> Decoded:
        return decoded_of(data, None)
