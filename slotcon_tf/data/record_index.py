"""Where each record of a folder of shards lies: the index, or the shards themselves."""

from __future__ import annotations

import functools
import io
import os
import re
import struct
import zipfile

import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.reading import is_remote, read_file, read_range
from slotcon_tf.extras import needed
from slotcon_tf.images.pixels import BadImage

INDEX = "index.npz"
# The TFRecord format: a length of 8 bytes and its checksum, the data and its checksum.
LENGTH_AND_CHECKSUM, CHECKSUM = 12, 4
_MASK = 0xA282EAD8  # added to checksums (tensorflow/core/lib/hash/crc32c.h)
_MAX_INDEX_BYTES = 2**31
_MAX_SHARDS = 100_000
_SHARD = re.compile(r"images-(\d{5,6})-of-(\d{5,6})\.tfrecord")


def shard_name(shard: int, num_shards: int) -> str:
    """The name of a shard's file.

    Example:
        >>> shard_name(0, 8)
        'images-00000-of-00008.tfrecord'
    """
    return f"images-{shard:05d}-of-{num_shards:05d}.tfrecord"


def masked_checksum(data: bytes) -> int:
    """The TFRecord format's checksum of some bytes.

    Example:
        >>> hex(masked_checksum(b"pixels"))  # doctest: +ELLIPSIS
        '0x...'
    """
    crc = _checksum()(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


@functools.cache
def _checksum():
    with needed("data"):
        import google_crc32c
    return google_crc32c.value


def checked_length(header: bytes) -> int | None:
    """The length that a record's first 12 bytes tell; None if they are damaged.

    Example:
        >>> length = struct.pack("<Q", 7)
        >>> checked_length(length + struct.pack("<I", masked_checksum(length)))
        7
    """
    if len(header) < LENGTH_AND_CHECKSUM:
        return None
    length, checksum = struct.unpack("<QI", header[:LENGTH_AND_CHECKSUM])
    return length if masked_checksum(header[:8]) == checksum else None


def open_index(folder: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Where the records lie.

    An index that is damaged is made anew of the shards, in memory, if these are whole.

    Args:
        folder: Of the shards.

    Returns:
        Tuple of int64 (N, 2), offset and length of each proto in its shard, int64 (N,),
        its shard's number, and the number of shards.

    Raises:
        FileNotFoundError: If there is no index.
        ValueError: If neither the index nor the shards tell.

    Example:
        >>> open_index("no folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        FileNotFoundError: Dataset 'records' needs no folder/index.npz. ...
    """
    path = os.path.join(folder, INDEX)
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(
            f"Dataset 'records' needs {path}. Received: no such file. Make it with "
            "slotcon-prepare."
        )
    try:
        place, shard, num_shards = _read(path)
    except (BadImage, _Damaged) as error:
        place, shard, num_shards = _of_shards(folder, error)
        logging.warning(
            "%s is damaged (%s); %d records were found in the shards. To have it "
            "whole, run slotcon-prepare into a new folder.",
            path,
            error,
            len(place),
        )
    if not len(place):
        raise ValueError(f"{folder} must hold images. Received: an index of none.")
    return place, shard, num_shards


def shard_sizes(folder: str, num_shards: int) -> np.ndarray:
    """int64 (num_shards,): bytes of each shard; 0 for one that is not there.

    Raises:
        FileNotFoundError: If none is.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> _ = pathlib.Path(folder, shard_name(0, 1)).write_bytes(b"a record")
        >>> shard_sizes(folder, 1)
        array([8])
    """
    sizes = np.zeros(num_shards, np.int64)
    for number in range(num_shards):
        path = os.path.join(folder, shard_name(number, num_shards))
        try:
            sizes[number] = _size(path)
        except (FileNotFoundError, tf.errors.NotFoundError):
            logging.warning("%s is not there: its images count as bad.", path)
    if not sizes.any():
        raise FileNotFoundError(
            f"{folder} must hold the shards that its {INDEX} tells of. Received: none "
            f"of {num_shards}, such as {shard_name(0, num_shards)}."
        )
    return sizes


class _Damaged(ValueError):
    """An index cannot be used; its text says why."""


def _read(path):
    data = read_file(path, _MAX_INDEX_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > _MAX_INDEX_BYTES:
            raise _Damaged(f"{size} bytes are more than an index has")
        index = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = [index[name] for name in ("place", "shard", "num_shards")]
    except Exception as error:  # noqa: BLE001  broken archives fail in any way
        raise _Damaged(str(error) or type(error).__name__) from None
    # Of a part that does not begin as an array NumPy gives the bytes.
    if not all(isinstance(a, np.ndarray) and a.dtype.kind in "iu" for a in arrays):
        raise _Damaged("its arrays are no index")
    place, shard, num_shards = arrays
    if shard.ndim != 1 or num_shards.shape or place.shape != (len(shard), 2):
        raise _Damaged("its arrays are no index")
    if not 0 < num_shards <= _MAX_SHARDS:
        raise _Damaged("its shards are none")
    if len(shard) and not 0 <= shard.min() <= shard.max() < num_shards:
        raise _Damaged("it names shards that there are not")
    return place.astype(np.int64), shard.astype(np.int64), int(num_shards)


def _of_shards(folder, why):
    """As `_read`, by walking through the shards."""
    found = [_SHARD.fullmatch(n) for n in tf.io.gfile.listdir(folder)]
    numbers = sorted((int(m[2]), int(m[1])) for m in found if m)
    num_shards = numbers[0][0] if numbers else 0
    if not numbers or numbers != [(num_shards, i) for i in range(num_shards)]:
        raise ValueError(
            f"{os.path.join(folder, INDEX)} is damaged ({why}), and the shards beside "
            f"it must be whole to do without. Received: {len(numbers)} shards of "
            f"{num_shards}. Make the folder anew with slotcon-prepare."
        )
    places = [
        _places(os.path.join(folder, shard_name(i, num_shards)), why)
        for i in range(num_shards)
    ]
    shards = [np.full(len(p), i, np.int64) for i, p in enumerate(places)]
    return np.concatenate(places), np.concatenate(shards), num_shards


def _places(path, why):
    places, offset, size = [], 0, _size(path)
    while offset < size:
        length = checked_length(read_range(path, offset, LENGTH_AND_CHECKSUM))
        end = offset + LENGTH_AND_CHECKSUM + (length or 0) + CHECKSUM
        if length is None or end > size:
            raise ValueError(
                f"{INDEX} is damaged ({why}), and the shards must be whole to do "
                f"without. Received: {path}, damaged from byte {offset} on. Make the "
                "folder anew with slotcon-prepare."
            )
        places.append((offset + LENGTH_AND_CHECKSUM, length))
        offset = end
    return np.asarray(places, np.int64).reshape(-1, 2)


def _size(path):
    return tf.io.gfile.stat(path).length if is_remote(path) else os.stat(path).st_size
