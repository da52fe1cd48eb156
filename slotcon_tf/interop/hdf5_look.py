"""Looks through an HDF5 file before anybody else does: a program of its own.

HDF5's library ends the process, or never ends, on some damaged files. So this one reads
all of a file first, in little memory and time, and Keras reads what it has passed.

    python hdf5_look.py MODEL.keras model.weights.h5 BYTES

Prints one line of JSON: {"arrays": n}, or {"refused": why}. BYTES is the most that the
arrays may have together.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import zipfile

import h5py

try:
    import resource
except ImportError:  # Windows
    resource = None

_MOST_OBJECTS = 200_000
_MOST_DEPTH = 64
_ATTRIBUTE_BYTES = 1 << 20
_SPARE_BYTES = 1 << 30


class _Refused(Exception):
    """What the file must not have."""


def _limit(most):
    """Little memory, little time, and no core dump; where the system can."""
    if resource is None:
        return
    seconds = 30 + most // 10**7
    kinds = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_CORE: 0}
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        now = pages * resource.getpagesize()
        kinds[resource.RLIMIT_AS] = now + 4 * most + _SPARE_BYTES
    for kind, value in kinds.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


def _look(group, state, depth=0):
    """Reads all below a group; returns nothing, counts in the state."""
    if depth > _MOST_DEPTH:
        raise _Refused("groups in groups without end")
    _read_attributes(group)
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise _Refused(f"a {type(link).__name__} to elsewhere")
        state["objects"] += 1
        if state["objects"] > _MOST_OBJECTS:
            raise _Refused(f"more than {_MOST_OBJECTS:,} objects")
        inner = group[name]
        if isinstance(inner, h5py.Group):
            _look(inner, state, depth + 1)
        elif isinstance(inner, h5py.Dataset):
            _read(inner, state)
        else:
            raise _Refused(f"a {type(inner).__name__}")


def _read(dataset, state):
    if dataset.external or dataset.is_virtual:
        raise _Refused("an array whose numbers are in another file")
    state["arrays"] += 1
    if dataset.shape is not None:
        state["bytes"] += math.prod(dataset.shape) * dataset.dtype.itemsize
        if state["bytes"] > state["most"]:
            raise _Refused(
                f"arrays of {state['bytes']:,} bytes or more, where {state['most']:,} "
                "are the most that a file of its size may have"
            )
    _read_attributes(dataset)
    dataset[()]


def _read_attributes(item):
    for name in item.attrs:
        if item.attrs.get_id(name).get_storage_size() > _ATTRIBUTE_BYTES:
            raise _Refused("an attribute of more than 1 MiB")
        item.attrs[name]


def _main(path: str, member: str, most: int) -> None:
    _limit(most)
    state = {"objects": 0, "arrays": 0, "bytes": 0, "most": most}
    try:
        with zipfile.ZipFile(path) as archive:
            data = io.BytesIO(archive.read(member))
        with h5py.File(data, "r") as file:
            _look(file, state)
        found = {"arrays": state["arrays"]}
    # HDF5's damage comes as any of Python's errors. All of them mean the same.
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        found = {"refused": text or type(error).__name__}
    print(json.dumps(found), flush=True)
    os._exit(0)  # what is left of a damaged file is not tidied up


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
