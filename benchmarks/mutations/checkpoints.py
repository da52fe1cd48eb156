"""Checkpoint files as accidents and attackers make them, for the soak test.

rng = np.random.default_rng(0)
files = small_checkpoints(folder)
name, data = mutated(files, rng)
"""

import io
import json
import struct
import zipfile

from slotcon_tf import ResNet, SlotCon
from slotcon_tf.interop import save_encoder, save_slotcon

_FOREIGN = ("torchvision", "mmsegmentation", "safetensors")
# What a reader may take for a size, a count or an offset.
_NUMBERS = (0, -1, 1, 3, 2**16, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**64, 10**30)
_VALUES = (*_NUMBERS, 0.5, 1e308, float("nan"), "", "a" * 5000, None, True, [], {})
_BYTES = (0, 1, 0x7F, 0x80, 0xFF, ord("("), ord("R"), ord("{"))


def small_checkpoints(folder):
    """Small files that every reader of this project takes.

    Args:
        folder: pathlib.Path of an empty folder, which is filled.

    Returns:
        Dict of file name to bytes: .pth of an encoder and of a whole model,
        .safetensors, and .keras of both.
    """
    encoder = ResNet(block="basic", stage_depths=(1, 1, 1, 1), width=4)
    sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 8}
    model = SlotCon(encoder, total_steps=4, **sizes)
    for target in _FOREIGN:
        ending = "safetensors" if target == "safetensors" else "pth"
        save_encoder(encoder, folder / f"{target}.{ending}", target)
    save_slotcon(model, folder / "slotcon.pth")
    encoder.save(folder / "encoder.keras")
    model.save(folder / "slotcon.keras")
    names = [path for path in sorted(folder.iterdir()) if path.suffix != ".py"]
    return {path.name: path.read_bytes() for path in names}


def mutated(files, rng):
    """One of the files, mutated.

    Args:
        files: Of `small_checkpoints`.
        rng: `numpy.random.Generator`.

    Returns:
        Tuple of the file's name, whose ending says its format, and its new bytes.
    """
    name = str(rng.choice(sorted(files)))
    data = files[name]
    if name.endswith(".safetensors"):
        ways = [_bytes, _header]
    else:
        ways = [_bytes, _member, _member]
    return name, ways[rng.integers(len(ways))](data, rng)


def _bytes(data, rng):
    """Cut, overwritten, with a piece moved, doubled, or put in."""
    data = bytearray(data)
    if not data:
        return b""
    kind = rng.integers(5)
    start, end = sorted(int(i) for i in rng.integers(0, len(data) + 1, 2))
    if kind == 0:
        return bytes(data[:start])
    if kind == 1:
        return bytes(data[:start] + data[start:end] * 2 + data[end:])
    if kind == 2:
        piece = data[start : min(end, start + 64)]
        del data[start : start + len(piece)]
        place = int(rng.integers(len(data) + 1))
        return bytes(data[:place] + piece + data[place:])
    if kind == 3:
        number = int(_NUMBERS[rng.integers(len(_NUMBERS))]) % 2**64
        packed = struct.pack("<Q", number)[: int(rng.choice([2, 4, 8]))]
        data[start : start + len(packed)] = packed
        return bytes(data)
    for _ in range(int(rng.choice([1, 3, 30]))):
        values = [*_BYTES, int(rng.integers(256))]
        data[int(rng.integers(len(data)))] = values[rng.integers(len(values))]
    return bytes(data)


def _member(data, rng):
    """A zip file with one of its files mutated, under a checksum that is right."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    chosen = str(rng.choice(sorted(members)))
    if rng.random() < 0.5:  # where most of what a reader believes stands
        known = ("data.pkl", "config.json", "model.weights.h5")
        chosen = next(n for n in members if n.rpartition("/")[2] in known)
    if chosen.endswith(".json") and rng.random() < 0.7:
        members[chosen] = _json(members[chosen], rng)
    elif chosen.endswith(".h5"):
        members[chosen] = _hdf5(members[chosen], rng)
    else:
        members[chosen] = _bytes(members[chosen], rng)
    if rng.random() < 0.1:
        del members[str(rng.choice(sorted(members)))]
    out = io.BytesIO()
    how = zipfile.ZIP_STORED if rng.random() < 0.9 else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(out, "w", how) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def _hdf5(data, rng):
    """Mutated near one of HDF5's own signatures, where its structures are."""
    marks = (b"TREE", b"HEAP", b"SNOD", b"\x89HDF", b"GCOL", b"OHDR")
    places = [i for mark in marks if (i := _find(data, mark, rng)) >= 0]
    if not places or rng.random() < 0.3:
        return _bytes(data, rng)
    start = int(rng.choice(places))
    end = min(len(data), start + 600)
    piece = bytearray(data[start:end])
    for _ in range(int(rng.choice([1, 2, 8]))):
        place = int(rng.integers(len(piece)))
        piece[place] = _BYTES[rng.integers(5)]
    return data[:start] + bytes(piece) + data[end:]


def _find(data, mark, rng):
    start = int(rng.integers(len(data)))
    found = data.find(mark, start)
    return found if found >= 0 else data.find(mark)


def _header(data, rng):
    """A safetensors file with one value of its header replaced."""
    size = struct.unpack("<Q", data[:8])[0]
    header = _json(data[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def _json(text, rng):
    """JSON with one value replaced, doubled or nested without end."""
    value = json.loads(text)
    parents = [value]
    for parent in parents:
        inner = parent.values() if isinstance(parent, dict) else parent
        parents += [child for child in inner if isinstance(child, dict | list)]
    parents = [parent for parent in parents if parent]
    parent = parents[rng.integers(len(parents))]
    keys = list(parent) if isinstance(parent, dict) else range(len(parent))
    key = list(keys)[rng.integers(len(keys))]
    if rng.random() < 0.1:
        nested = "[" * 50_000 + "]" * 50_000
        parent[key] = "nested-here"
        return json.dumps(value).replace('"nested-here"', nested).encode()
    if rng.random() < 0.2:
        parent[key] = parents[rng.integers(len(parents))]
    else:
        parent[key] = _VALUES[rng.integers(len(_VALUES))]
    try:
        return json.dumps(value).encode()
    except ValueError:  # a value that now holds itself
        return text
