"""Folders of records, whole and damaged, to try the reader on.

for name, shard, index in mutated_records(np.random.default_rng(0), 100):
    write_folder(folder, shard, index)
    RecordReader(folder)   # FileNotFoundError and ValueError are answers
"""

import io
import pathlib
import struct
import tempfile

import numpy as np
from PIL import Image

from slotcon_tf.data.record_index import INDEX, masked_checksum, shard_name
from slotcon_tf.data.records import write_index, write_shard

_IMAGES = 4
_ODD_NUMBERS = (0, 1, 12, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**64 - 1)


def mutated_records(rng, count):
    """Yields `count` tuples of a name, the bytes of a shard and those of its index.

    Args:
        rng: np.random.Generator.
        count: Number of folders; the first one is whole.
    """
    shard, index = _whole(rng)
    yield "whole", shard, index
    kinds = (_flipped, _cut, _spliced, _length, _false_length, _places, _arrays)
    for _ in range(count - 1):
        kind = kinds[rng.integers(len(kinds))]
        yield kind.__name__.strip("_"), *kind(rng, shard, index)


def write_folder(folder, shard, index):
    """Writes a folder of one shard."""
    folder = pathlib.Path(folder)
    (folder / shard_name(0, 1)).write_bytes(shard)
    (folder / INDEX).write_bytes(index)


def _whole(rng):
    images = []
    for number in range(_IMAGES):
        encoded = io.BytesIO()
        pixels = rng.integers(0, 256, (12 + number, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(encoded, "PNG" if number % 2 else "JPEG")
        images.append((f"image {number}", encoded.getvalue()))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_index(folder, [write_shard(folder / shard_name(0, 1), images)])
        return (folder / shard_name(0, 1)).read_bytes(), (folder / INDEX).read_bytes()


def _either(rng, shard, index, change):
    """One of the two changed, or both."""
    which = rng.integers(1, 4)
    return change(shard) if which & 1 else shard, change(index) if which & 2 else index


def _flipped(rng, shard, index):
    """Some bytes of other values."""

    def change(data):
        data = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, len(data), rng.integers(1, 9))
        data[places] = rng.integers(0, 256, len(places))
        return data.tobytes()

    return _either(rng, shard, index, change)


def _cut(rng, shard, index):
    """The end is missing."""
    return _either(rng, shard, index, lambda data: data[: rng.integers(len(data))])


def _spliced(rng, shard, index):
    """A part is missing, or is there twice, or only zeros."""

    def change(data):
        start, end = np.sort(rng.integers(0, len(data), 2))
        part = data[start:end]
        return (
            data[:start]
            + (b"", part * 2, bytes(len(part)))[rng.integers(3)]
            + (data[end:])
        )

    return _either(rng, shard, index, change)


def _length(rng, shard, index):
    """A record that claims another length, with a right checksum or a wrong one."""
    with np.load(io.BytesIO(index)) as content:
        offset = int(content["place"][rng.integers(_IMAGES), 0]) - 12
    length = struct.pack("<Q", _ODD_NUMBERS[rng.integers(len(_ODD_NUMBERS))])
    checksum = struct.pack("<I", masked_checksum(length) ^ int(rng.integers(2)))
    return shard[:offset] + length + checksum + shard[offset + 12 :], index


def _false_length(rng, shard, index):
    """As `_length`, and the index is cut, so that the shard must tell."""
    shard, index = _length(rng, shard, index)
    return shard, index[: rng.integers(len(index))]


def _places(rng, shard, index):
    """An index in order whose numbers are odd."""
    with np.load(io.BytesIO(index)) as content:
        arrays = {name: content[name].astype(np.uint64) for name in content.files}
    values = arrays[("place", "shard", "num_shards")[rng.integers(3)]].reshape(-1)
    odd = _ODD_NUMBERS[rng.integers(len(_ODD_NUMBERS))]
    values[rng.integers(len(values))] = odd
    return shard, _packed(arrays)


def _arrays(rng, shard, index):
    """An index of other arrays."""
    with np.load(io.BytesIO(index)) as content:
        arrays = dict(content)
    name = list(arrays)[rng.integers(len(arrays))]
    changes = (
        lambda a: a.astype(float) * np.nan,
        lambda a: a.astype(str),
        lambda a: a.astype(object),
        lambda a: a[None],
        lambda a: a.reshape(-1)[:1],
        lambda a: a.reshape(-1)[:0],
        lambda a: np.broadcast_to(a, (3, *a.shape)),
    )
    arrays[name] = changes[rng.integers(len(changes))](arrays[name])
    if rng.integers(8) == 0:
        del arrays[name]
    return shard, _packed(arrays)


def _packed(arrays):
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()
