"""Checkpoint files from anywhere: read, or refused; never run, never endless."""

import collections
import datetime
import io
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import types
import zipfile
import zlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from slotcon_tf.interop import CheckpointFileError, UnsafePickleError
from slotcon_tf.interop.torch_files import TorchFile, write_torch
from slotcon_tf.interop.weights import open_weights
from tests.support.file_case import torch_file
from tests.support.golden_case import GOLDEN

CHECKPOINT = GOLDEN / "ckpt_tinyA.pth"


def read(path):
    """Everything in a file: the structure, and every tensor's data."""
    with open_weights(path) as weights:
        return {name: tensor.numpy() for name, tensor in weights.tensors.items()}


def reduced(module, name, *arguments):
    """A pickle that calls a function by name."""
    parts = b"".join(pickle.dumps(a, 2)[2:-1] for a in arguments)
    return b"\x80\x02c" + f"{module}\n{name}\n(".encode() + parts + b"tR."


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (reduced("os", "system", "touch /tmp/slotcon_tf_hostile"), "os.system"),
        (reduced("builtins", "eval", "1"), "builtins.eval"),
        (reduced("torch.hub", "load", "a"), "torch.hub.load"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01a\x85R.", "posix.system"),
        (b"\x80\x02(S'a'\nios\nsystem\n.", "the operation INST"),
        (b"\x80\x02cargparse\nNamespace\n(S'a'\no.", "the operation OBJ"),
        (b"\x80\x02\x82\x01.", "the operation EXT1"),
        (pickle.dumps(bytearray(b"a"), 5), "the operation BYTEARRAY8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_pickles_are_refused_and_named(body, named, tmp_path):
    path = torch_file(tmp_path / "hostile.pth", body)
    with pytest.raises(UnsafePickleError, match=named):
        read(path)
    assert not os.path.exists("/tmp/slotcon_tf_hostile")


def rebuilt(shape, stride, offset=0, count=16, key="0"):
    """A state dict of one tensor, as torch pickles it."""
    out = io.BytesIO()
    out.write(b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((")
    out.write(pickle.dumps("storage", 2)[2:-1] + b"ctorch\nFloatStorage\n")
    for value in (key, "cpu", count):
        out.write(pickle.dumps(value, 2)[2:-1])
    out.write(b"tQ")
    for value in (offset, shape, stride, False, ()):
        out.write(pickle.dumps(value, 2)[2:-1])
    out.write(b"tRs.")
    return out.getvalue()


@pytest.mark.parametrize(
    "tensor",
    [
        {"shape": (17,), "stride": (1,)},
        {"shape": (4,), "stride": (1,), "offset": 13},
        {"shape": (4, 4), "stride": (5, 1)},
        {"shape": (2,), "stride": (-1,)},
        {"shape": (-2,), "stride": (1,)},
        {"shape": (10**9, 10**9), "stride": (0, 0)},  # one number, ever so often
        {"shape": (2, 2), "stride": (1,)},
        {"shape": (1,) * 9, "stride": (1,) * 9},
        {"shape": (2.0,), "stride": (1,)},
        {"shape": (2**70,), "stride": (1,)},
        {"shape": (17,), "stride": (1,), "count": 17},
        {"shape": (4,), "stride": (1,), "key": "1"},
        {"shape": (4,), "stride": (1,), "key": "../data.pkl"},
    ],
    ids=str,
)
def test_tensors_must_lie_inside_their_data(tensor, tmp_path):
    path = torch_file(tmp_path / "bad.pth", rebuilt(**tensor))
    with pytest.raises(CheckpointFileError, match="damaged"):
        read(path)


@pytest.mark.parametrize(
    "beside",
    [
        pickle.dumps(np.arange(3.0), 2),
        pickle.dumps(np.float64(2.5), 2),
        pickle.dumps({"n": np.int64(3), "f": np.dtype("f4")}, 4),
        pickle.dumps(collections.defaultdict(list, a=[1]), 2),
        b"\x80\x02cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81"
        b"}X\x0b\x00\x00\x00_max_lengthK\x05sb.",
        b"\x80\x02cpytorch_lightning.utilities.parsing\nAttributeDict\n)\x81"
        b"X\x02\x00\x00\x00lrK\x01s.",
        pickle.dumps([{1, 2}, frozenset({3}), 1j, slice(2), range(2)], 4),
        pickle.dumps([{1, 2}, frozenset({3}), 1j, bytearray(b"a"), range(2)], 2),
        pickle.dumps([datetime.datetime(2026, 1, 2), datetime.timedelta(1)], 2),
        pickle.dumps([collections.deque([1], 3), types.SimpleNamespace(a=1)], 2),
        pickle.dumps([pathlib.PureWindowsPath("C:/a"), pathlib.PurePosixPath("b")], 2),
        b"\x80\x02ceasydict\nEasyDict\n)\x81X\x02\x00\x00\x00lrK\x01s.",
        b"\x80\x02comegaconf.dictconfig\nDictConfig\n)\x81"
        b"}X\x08\x00\x00\x00_contentcomegaconf.nodes\nAnyNode\n)\x81sb.",
    ],
    ids=[
        *("array", "number", "protocol 4", "defaultdict", "mmengine", "Lightning"),
        *("sets", "old sets", "dates", "deque", "paths", "EasyDict", "OmegaConf"),
    ],
)
def test_what_trainers_keep_beside_the_weights_is_passed_over(beside, tmp_path):
    start = 11 if beside[2:3] == b"\x95" else 2  # behind a frame's length
    log = b"X\x03\x00\x00\x00log" + beside[start:-1] + b"s"
    whole = b"\x80\x02}" + log + rebuilt((2,), (1,))[3:]
    found = read(torch_file(tmp_path / "f.pth", whole))
    assert list(found) == ["a"] and found["a"].shape == (2,)


def test_a_tensor_by_strides(tmp_path):
    data = np.arange(16, dtype=np.float32)
    body = rebuilt((3, 2), (1, 4), offset=2)
    path = torch_file(tmp_path / "good.pth", body, data.tobytes())
    np.testing.assert_array_equal(read(path)["a"], [[2, 6], [3, 7], [4, 8]])


def nested_tuples(depth):
    """A key whose hash takes 2 ** depth steps."""
    return b"\x80\x02})" + b"2\x86" * depth + b"K\x01s."


def doubled(depth=60):
    """A list of lists whose text would have 2 ** depth parts."""
    once = b"](h\x00h\x00eq\x000"  # made of the one in the memo, kept there, popped
    return b"]q\x000" + once * depth + b"h\x00"


def with_doubled(place):
    """A tensor with such a list in the place of its key, type, size or shape."""
    pieces = {
        "kind": b"ctorch\nFloatStorage\n",
        "key": b"X\x01\x00\x00\x000",
        "count": b"K\x10",
        "shape": b"K\x04\x85",
    }
    if place:
        pieces[place] = doubled()
    storage = b"(X\x07\x00\x00\x00storage" + pieces["kind"] + pieces["key"]
    storage += b"X\x03\x00\x00\x00cpu" + pieces["count"] + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00"
    tensor += pieces["shape"] + b"K\x01\x85\x89)tR"
    return b"\x80\x02}X\x01\x00\x00\x00a" + tensor + b"s."


def test_the_pieces_of_the_bombs_make_a_tensor(tmp_path):
    path = torch_file(tmp_path / "good.pth", with_doubled(None))
    np.testing.assert_array_equal(read(path)["a"], np.zeros(4))


@pytest.mark.parametrize(
    "body",
    [
        *(with_doubled(place) for place in ("shape", "key", "count", "kind")),
        nested_tuples(60),
        b"\x80\x02]" + b"2a" * 1000 + b".",  # a list that holds itself
        b"\x80\x02" + b"\x8a\xff" + b"\x7f" * 255 + b".",
        b"\x80\x02X" + struct.pack("<I", 2**31) + b"a.",
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",
        b"",
        b".",
        b"(((((.",
        b"\x80\x02" + b"(" * 10**6 + b"t" * 10**6 + b".",
        b"I" + b"9" * 10**5 + b"\n.",
    ],
    ids=range(15),
)
def test_bombs_end_soon(body, tmp_path):
    with pytest.raises(CheckpointFileError):
        read(torch_file(tmp_path / "bomb.pth", body))


def test_other_formats_say_what_to_do(tmp_path):
    cases = {
        pickle.dumps({"a": 1}): "legacy format, or a bare pickle.*torch.save",
        b"\0" * 257 + b"ustar" + b"\0" * 250: "legacy format",
        b"version https://git-lfs.github.com/spec/v1\n": "git LFS pointer.*lfs pull",
        b"<html>not found": "something else, beginning with b'<html>no'",
        b"": "0 bytes of something else",
        b"PK\x03\x04" + b"\0" * 100: "whole zip file",
        b"\xff" * 8 + b"{": "whole safetensors file",
        struct.pack("<Q", 2) + b"{}": "hold a state dict",
    }
    for content, message in cases.items():
        path = tmp_path / "file.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointFileError, match=message):
            read(path)
    with pytest.raises(FileNotFoundError, match="No file"):
        read(tmp_path / "none.pth")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(CheckpointFileError, match="the index of several.*together"):
        read(index)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    save_file({"a": np.zeros(1)}, shard)
    with pytest.raises(CheckpointFileError, match="one of several.*load_file of each"):
        read(shard)
    tuples = pickle.dumps({(1, 2): 3}, 2)
    with pytest.raises(UnsafePickleError, match="plain keys.* a tuple. Save its state"):
        read(torch_file(tmp_path / "t.pth", tuples))


def test_compressed_and_doubled_entries_are_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\x80\x02}." + b"\0" * 10**7)
    with pytest.raises(CheckpointFileError, match="compressed"):
        read(path)
    torch_file(path, b"\x80\x02}.", **{"byteorder": "big"})
    with pytest.raises(CheckpointFileError, match="little-endian"):
        read(path)


def test_what_is_written_is_read(tmp_path):
    """Every dtype, rank 0 to 4, empty and strided arrays, and values beside them."""
    rng = np.random.default_rng(0)
    arrays = {
        "scalar": np.asarray(7, np.int64),
        "matrix": rng.standard_normal((3, 4)).astype(np.float32).T,
        "kernel": rng.standard_normal((2, 3, 1, 5)),
        "half": rng.standard_normal(300).astype(np.float16),
        "none": np.zeros((0, 4), np.float32),
        "flags": np.array([True, False]),
    }
    settings = {"epochs": 200, "rate": 0.5, "large": 2**40, "name": "é", "none": None}
    write_torch(tmp_path / "a.pth", {"args": settings, "model": arrays})
    with TorchFile(tmp_path / "a.pth") as file:
        assert file.value["args"] == settings
        for name, array in arrays.items():
            found = file.value["model"][name]
            assert found.dtype == array.dtype and found.shape == array.shape
            np.testing.assert_array_equal(found.numpy(), array)


FUZZ = """
import encodings.cp437, pathlib, random, resource, sys
from tests.unit.test_pickles import damage, read
from slotcon_tf.interop import CheckpointFileError
def audit(event, arguments):
    if event in ("os.system", "subprocess.Popen", "os.exec", "exec", "compile"):
        print("RAN", event, arguments)
sys.addaudithook(audit)
whole = pathlib.Path(sys.argv[1]).read_bytes()
path = pathlib.Path(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
outcomes = {}
for seed in range(1000):
    path.write_bytes(damage(whole, random.Random(seed)))
    try:
        read(path)
        outcome = "read"
    except CheckpointFileError as error:
        outcome = type(error).__name__
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(outcomes, "grown", grown // 1024)
assert grown < 2**20, grown
"""


def damage(whole, dice):
    """A file cut, with bytes changed, or with a piece moved; mostly in its pickle."""
    data = bytearray(whole)
    kind = dice.randrange(4)
    if kind == 0:
        return bytes(data[: dice.randrange(len(data))])
    # The pickle is the first entry; the zip's directory is at the end.
    limit = 53_000 if kind < 3 else len(data)
    start = len(data) - 40_000 if kind == 2 else 0
    for _ in range(dice.choice([1, 3, 30])):
        place = dice.randrange(start, max(limit, start + 40_000)) % len(data)
        data[place] = dice.choice([0, 0xFF, dice.randrange(256), ord("("), ord("R")])
    return mend_sums(bytes(data))


def mend_sums(data):
    """With the zip's checksum of the pickle right again, so that it is looked at."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            info = file.getinfo("ckpt_tinyA/data.pkl")
    except Exception:  # whatever damage does to zipfile
        return data
    start = info.header_offset
    name, extra = struct.unpack("<HH", data[start + 26 : start + 30])
    begin = start + 30 + name + extra
    check = struct.pack("<I", zlib.crc32(data[begin : begin + info.file_size]))
    return data.replace(struct.pack("<I", info.CRC), check)


@pytest.mark.slow
def test_a_thousand_damaged_files(tmp_path):
    """None runs anything, hangs, takes a gigabyte or ends in another error."""
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(CHECKPOINT), str(tmp_path / "x.pth")],
        capture_output=True,
        text=True,
        cwd=GOLDEN.parents[1],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "RAN" not in done.stdout, done.stdout
    assert "CheckpointFileError" in done.stdout and "Unsafe" in done.stdout
