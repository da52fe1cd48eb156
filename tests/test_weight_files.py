"""Damaged and hostile files of weights: one line, little memory, little time."""

import gzip
import io
import json
import pathlib
import resource
import struct
import time
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.mutated_checkpoints import mutated, small_checkpoints
from slotcon_tf.backbones import ResNet
from slotcon_tf.interop import CheckpointFileError, load_encoder, load_pretrained
from slotcon_tf.interop.keras_files import load_keras
from slotcon_tf.interop.names import encoder_entries, with_batches_tracked
from slotcon_tf.interop.torch_files import write_torch
from tests.test_pickles import torch_file


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small valid checkpoints by name."""
    return small_checkpoints(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def values():
    encoder = ResNet(block="bottleneck", stage_depths=(1, 1, 1, 1), width=4)
    return with_batches_tracked(encoder_entries(encoder), 3)


def refused(path, match, megabytes=300, seconds=20, load=load_pretrained):
    """The one line that a file is refused with, in bounded memory and time."""
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointFileError, match=match) as caught:
        load(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < megabytes * 1024 and time.monotonic() - start < seconds
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    return message


def write(path, values):
    if path.suffix == ".safetensors":
        save_file(values, path)
    else:
        write_torch(path, {"state_dict": values})
    return path


ENDINGS = pytest.mark.parametrize("ending", ["pth", "safetensors"])
SPOILED = {
    "NaN": ("layer2.0.conv1.weight", np.nan, "hold finite .*NaN or infinity in 1 of"),
    "infinity": ("bn1.bias", np.inf, "bn1.bias must hold finite"),
    "negative variance": ("bn1.running_var", -0.5, r"variances from 0.*-0\.5"),
}


@ENDINGS
@pytest.mark.parametrize("name", SPOILED)
def test_numbers_that_spoil_every_output(name, ending, values, tmp_path):
    tensor, number, match = SPOILED[name]
    spoiled = {n: v.copy() for n, v in values.items()}
    spoiled[tensor].flat[0] = number
    path = write(tmp_path / f"f.{ending}", spoiled)
    refused(path, match)


def test_a_head_may_hold_anything(values, tmp_path):
    """Only what is taken is looked at."""
    spoiled = {**values, "fc.weight": np.full((2, 2), np.nan, np.float32)}
    load_encoder(write(tmp_path / "f.pth", spoiled))


@ENDINGS
def test_numbers_too_large_for_float32(ending, values, tmp_path):
    spoiled = {**values, "bn1.bias": np.full(4, 1e300)}
    refused(write(tmp_path / f"f.{ending}", spoiled), "bn1.bias must hold finite")


@ENDINGS
def test_whole_numbers_are_no_weights(ending, values, tmp_path):
    """Quantised weights without their scales would be taken as they are."""
    spoiled = {**values, "conv1.weight": np.ones((4, 3, 7, 7), np.int8)}
    refused(write(tmp_path / f"f.{ending}", spoiled), "conv1.weight .*Received: int8")


SHAPES = {
    "zero size": ("conv1.weight", (0, 3, 7, 7)),
    "zero planes": ("layer1.0.conv3.weight", (0, 4, 1, 1)),
    "zero groups": ("layer1.0.conv2.weight", (4, 0, 3, 3)),
    "few planes": ("layer1.0.conv3.weight", (3, 4, 1, 1)),
    "scalar": ("conv1.weight", ()),
    "vector": ("layer1.0.conv2.weight", (4,)),
    "other stem": ("conv1.weight", (7, 3, 7, 7)),
    "more inputs": ("layer3.0.conv1.weight", (16, 99, 1, 1)),
    "wide groups": ("layer1.0.conv2.weight", (4, 7, 3, 3)),
}


@ENDINGS
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_no_network(name, ending, values, tmp_path):
    tensor, shape = SHAPES[name]
    changed = {**values, tensor: np.zeros(shape, np.float32)}
    refused(write(tmp_path / f"f.{ending}", changed), "Received")


def test_a_small_file_that_asks_for_a_large_network(values, tmp_path):
    """A stem and a first block of 200,000 channels, 8 MB; the rest would be TBs."""
    wide = {**values, "conv1.weight": np.zeros((200_000, 1, 1, 1), np.float32)}
    wide["layer1.0.conv3.weight"] = np.zeros((800_000, 1, 1, 1), np.float32)
    wide["layer1.0.conv2.weight"] = np.zeros((200_000, 1, 1, 1), np.float32)
    path = write(tmp_path / "f.pth", wide)
    assert path.stat().st_size < 10**7
    refused(path, "must be|must have")


def test_a_model_of_many_blocks(values, tmp_path):
    deep = dict(values)
    for count, match in ((90, "whole ResNet"), (3000, "100 blocks at most")):
        for block in range(1, count):
            deep[f"layer1.{block}.conv1.weight"] = np.zeros((4, 16, 1, 1), np.float32)
        refused(write(tmp_path / "f.safetensors", deep), match, seconds=5)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"grouping_k.slot_embed.weight": np.zeros((0, 8), np.float32)},
        {"grouping_k.slot_embed.weight": np.zeros(8, np.float32)},
        {"projector_k.mlp.0.weight": None},
        {"encoder_k.bn1.num_batches_tracked": np.asarray(-4)},
        {"encoder_k.bn1.num_batches_tracked": np.asarray(np.nan)},
        {"center": np.full((1, 4), np.inf, np.float32)},
    ],
    ids=lambda value: next(iter(value)),
)
def test_spoiled_whole_models(spoiled, files, tmp_path):
    from slotcon_tf.interop.torch_files import TorchFile

    path = tmp_path / "f.pth"
    path.write_bytes(files["slotcon.pth"])
    with TorchFile(path) as file:
        whole = {n: t.numpy().copy() for n, t in file.value["model"].items()}
    changed = {f"module.{n}": v for n, v in spoiled.items()}
    whole = {n: v for n, v in {**whole, **changed}.items() if v is not None}
    write_torch(path, {"model": whole})
    refused(path, "Received")


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), -0.1])
def test_settings_that_are_no_numbers(temperature, files, tmp_path):
    from slotcon_tf.interop.torch_files import TorchFile

    path = tmp_path / "f.pth"
    path.write_bytes(files["slotcon.pth"])
    with TorchFile(path) as file:
        whole = {n: t.numpy().copy() for n, t in file.value["model"].items()}
        settings = {**file.value["args"], "teacher_temp": temperature}
    write_torch(path, {"args": settings, "model": whole})
    refused(path, "teacher_temp of the checkpoint's args must be a finite")


def safetensors_bytes(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_float8_in_safetensors(values, tmp_path):
    path = write(tmp_path / "f.safetensors", values)
    for kind in ("F8_E4M3", "F8_E5M2"):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
        whole = sum(np.prod(v["shape"]) for n, v in header.items() if n == "bn1.bias")
        start = len(body)
        header["other"] = {
            "dtype": kind,
            "shape": [int(whole)],
            "data_offsets": [start, start + int(whole)],
        }
        # A float8 head is left alone; a float8 weight is refused.
        name = tmp_path / "g.safetensors"
        header["head.weight"] = header.pop("other")
        name.write_bytes(safetensors_bytes(header, body + b"\0" * int(whole)))
        load_encoder(name)
        del header["fc.weight" if "fc.weight" in header else "head.weight"]
        values8 = {n: v for n, v in values.items() if n != "bn1.bias"}
        write(path, values8)
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
        header["bn1.bias"] = {
            "dtype": kind,
            "shape": [4],
            "data_offsets": [len(body), len(body) + 4],
        }
        name.write_bytes(safetensors_bytes(header, body + b"\0" * 4))
        refused(name, "bn1.bias must hold float16.*float8")
        write(path, values)


def test_float8_in_torch_files(tmp_path):
    """As torch saves it: bytes, with the kind beside them."""
    body = (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v3\n("
        b"(X\x07\x00\x00\x00storagectorch\nUntypedStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpuK\x10tQK\x00K\x04\x85K\x01\x85\x89"
        b"ccollections\nOrderedDict\n)Rctorch\nfloat8_e4m3fn\ntRs."
    )
    from slotcon_tf.interop.entries import _checked
    from slotcon_tf.interop.weights import open_weights

    path = torch_file(tmp_path / "f.pth", body)
    with open_weights(path) as weights:
        assert weights.tensors["a"].shape == (4,)
        with pytest.raises(CheckpointFileError, match="such as float8"):
            _checked("a", weights.tensors["a"])


@pytest.mark.parametrize("name", ["torchvision.pth", "encoder.keras", "slotcon.keras"])
def test_a_wrong_checksum(name, files, tmp_path):
    """A byte of the weights, changed behind the zip's back."""
    data = bytearray(files[name])
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        largest = max(file.infolist(), key=lambda info: info.file_size)
    data[largest.header_offset + 200 + largest.file_size // 2] ^= 0x10
    (tmp_path / name).write_bytes(data)
    refused(tmp_path / name, "CRC")


@pytest.mark.parametrize("depth", [200, 5_000, 1_000_000])
def test_json_nested_without_end(depth, files, tmp_path):
    nested = b"[" * depth + b"]" * depth
    path = tmp_path / "f.safetensors"
    path.write_bytes(safetensors_bytes(b'{"a":' + nested + b"}"))
    refused(path, "whole safetensors file")
    path = tmp_path / "f.keras"
    path.write_bytes(replaced(files["encoder.keras"], b'{"a":' + nested + b"}"))
    refused(path, "nested|unpacks")


def replaced(keras_file, config=None, weights=None, how=zipfile.ZIP_STORED):
    """A .keras file with other members."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(keras_file)) as old,
        zipfile.ZipFile(out, "w", how) as new,
    ):
        for name in old.namelist():
            content = {"config.json": config, "model.weights.h5": weights}.get(name)
            new.writestr(name, old.read(name) if content is None else content)
    return out.getvalue()


def config_of(keras_file):
    with zipfile.ZipFile(io.BytesIO(keras_file)) as file:
        return json.loads(file.read("config.json"))


def changed_config(keras_file, **settings):
    config = config_of(keras_file)
    config["config"].update(settings)
    return replaced(keras_file, json.dumps(config).encode())


def test_a_small_keras_file_that_asks_for_gigabytes(tmp_path):
    """238 kB that would take 10.6 GB: a dense layer of 51,500 by 51,500."""
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(
        tmp_path / "f.keras"
    )
    data = (tmp_path / "f.keras").read_bytes()
    text = json.dumps(config_of(data)).replace('"units": 3', '"units": 51500')
    text = text.replace("[null, 4]", "[null, 51500]")
    assert text.count("51500") >= 2
    (tmp_path / "f.keras").write_bytes(replaced(data, text.encode()))
    refused(tmp_path / "f.keras", r"weights that it describes.*10,60\d,\d+,\d+ bytes")


@pytest.mark.parametrize(
    "settings",
    [
        {"width": 20_000},
        {"stage_depths": [10**9, 1, 1, 1]},
        {"width": -1},
        {"width": "a"},
        {"groups": 2**63, "block": "bottleneck"},
        {"stage_depths": None},
        {"input_shape": [2**40, 2**40, 3]},
    ],
    ids=str,
)
def test_configurations_of_no_encoder(settings, files, tmp_path):
    path = tmp_path / "f.keras"
    path.write_bytes(changed_config(files["encoder.keras"], **settings))
    if "input_shape" in settings:  # nothing is computed
        load_keras(path)
    else:
        refused(path, "Received")


@pytest.mark.parametrize("name", ["num_prototypes", "hidden_dim", "projection_dim"])
def test_absurd_sizes_of_a_whole_model(name, files, tmp_path):
    path = tmp_path / "f.keras"
    path.write_bytes(changed_config(files["slotcon.keras"], **{name: 10**8}))
    refused(path, "weights that it describes")


def test_zip_bombs(files, tmp_path):
    path = tmp_path / "f.keras"
    zeros = bytes(200 << 20)
    whole = files["encoder.keras"]
    for member in ("config", "weights"):
        bomb = {member: zeros}
        path.write_bytes(replaced(whole, how=zipfile.ZIP_DEFLATED, **bomb))
        assert path.stat().st_size < 10**6
        refused(path, "unpacks to 2", megabytes=50)
    path.write_bytes(replaced(whole, how=zipfile.ZIP_DEFLATED))
    load_keras(path)  # somebody has zipped it again: that is no bomb


def hdf5(fill):
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        fill(file)
    return out.getvalue()


def _large(file):
    file.create_dataset("vars/0", (10**9,), "f4", chunks=(10**6,), compression="gzip")


def _soft(file):
    file["vars"] = h5py.SoftLink("/elsewhere")


def _external(file):
    file["vars"] = h5py.ExternalLink("/etc/hostname", "/")


def _in_another_file(file):
    file.create_dataset("a", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def _deep(file):
    file.create_group("/".join("a" * 500))


HDF5 = {
    "large": (_large, "arrays of 4,000,000,000 bytes"),
    "soft link": (_soft, "SoftLink to elsewhere"),
    "external link": (_external, "ExternalLink to elsewhere"),
    "external data": (_in_another_file, "numbers are in another file"),
    "deep": (_deep, "without end"),
}


@pytest.mark.parametrize("name", HDF5)
def test_hdf5_that_asks_for_too_much(name, files, tmp_path):
    fill, match = HDF5[name]
    path = tmp_path / "f.keras"
    path.write_bytes(replaced(files["encoder.keras"], weights=hdf5(fill)))
    refused(path, match)


def test_hdf5_that_ends_or_never_ends_its_reader(files, tmp_path, monkeypatch):
    """A reader that dies, and one that hangs, are one line each."""
    from slotcon_tf.interop import hdf5_look, keras_files

    path = tmp_path / "f.keras"
    path.write_bytes(files["encoder.keras"])
    program = tmp_path / "program.py"
    monkeypatch.setattr(hdf5_look, "__file__", str(program))
    program.write_text("import os; os.abort()")
    refused(path, "ended HDF5's reader .status -6")
    program.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(keras_files, "_MOST_SECONDS", 1)
    refused(path, "does not end")


def spoil(path, name, number):
    model = keras.models.load_model(path)
    variable = next(v for v in model.variables if v.path.endswith(name))
    variable.assign(np.full(variable.shape, number))
    model.save(path)


@pytest.mark.parametrize(
    ("name", "number"),
    [("kernel", np.nan), ("moving_mean", np.inf), ("moving_variance", -1.0)],
)
def test_keras_files_with_numbers_that_spoil(name, number, files, tmp_path):
    path = tmp_path / "f.keras"
    path.write_bytes(files["encoder.keras"])
    spoil(path, name, number)
    message = refused(path, "finite|variances from 0")
    assert str(path) in message


def test_a_keras_file_that_runs_something(files, tmp_path):
    """Keras's safe mode stays on."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "f.keras")
    refused(tmp_path / "f.keras", "whole .keras file")


def test_weights_without_a_model(tmp_path):
    encoder = ResNet(block="basic", stage_depths=(1, 1, 1, 1), width=4)
    encoder.save_weights(tmp_path / "e.weights.h5")
    refused(tmp_path / "e.weights.h5", "without their model.*model.load_weights")


def test_other_things_under_the_name(tmp_path):
    path = tmp_path / "f.keras"
    for content in (b"", b"<html>", gzip.compress(b"a" * 1000), b"PK\x03\x04"):
        path.write_bytes(content)
        refused(path, "whole .keras file")


def test_what_keras_saves_is_taken(tmp_path):
    """Float kinds, shared layers, layers without weights; no warning."""
    inputs = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(4, 3, padding="same", dtype="bfloat16")
    x = shared(keras.layers.Conv2D(3, 1)(shared(inputs)[..., :3]))
    x = keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(x))
    model = keras.Model(inputs, x)
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 4)), verbose=0)
    model.save(tmp_path / "f.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = load_keras(pathlib.Path(tmp_path / "f.keras"))
    for old, new in zip(model.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_mutated_files_are_refused_or_read(files, tmp_path):
    """A few of what the soak test makes by the thousand."""
    rng = np.random.default_rng(5)
    outcomes = {"refused": 0, "taken": 0}
    for _ in range(20):
        name, data = mutated(files, rng)
        path = tmp_path / name
        path.write_bytes(data)
        try:
            load_pretrained(path)
            outcomes["taken"] += 1
        except CheckpointFileError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0, outcomes
