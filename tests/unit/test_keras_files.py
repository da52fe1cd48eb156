"""Damaged and hostile .keras files: one line, little memory, little time."""

import gzip
import io
import json
import pathlib
import struct
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest

from benchmarks.mutations.checkpoints import mutated, small_checkpoints
from slotcon_tf.interop import (
    CheckpointFileError,
    hdf5_look,
    keras_files,
    load_pretrained,
)
from slotcon_tf.interop.keras_files import load_keras
from tests.support.file_case import config_of, replaced
from tests.support.weight_case import refused


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small valid checkpoints by name."""
    return small_checkpoints(tmp_path_factory.mktemp("small"))


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
    text = b'{"a":' + nested + b"}"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    refused(path, "whole safetensors file")
    path = tmp_path / "f.keras"
    path.write_bytes(replaced(files["encoder.keras"], b'{"a":' + nested + b"}"))
    refused(path, "nested|unpacks")


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
    for _ in range(12):
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


@keras.saving.register_keras_serializable(package="tests")
class Halves(keras.initializers.Initializer):
    """An initializer that runs in eager mode only."""

    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype).numpy() / 2


@pytest.mark.parametrize(
    "initializer",
    [
        keras.initializers.GlorotUniform(seed=keras.random.SeedGenerator(1)),
        Halves(),
    ],
    ids=["state", "eager"],
)
def test_initializers_that_no_graph_can_hold(initializer, tmp_path):
    """A good file is read, and one that asks for too much is refused before."""
    layers = [keras.Input((4,)), keras.layers.Dense(3, kernel_initializer=initializer)]
    model = keras.Sequential(layers)
    path = tmp_path / "f.keras"
    model.save(path)
    np.testing.assert_array_equal(load_keras(path).get_weights()[0], model.weights[0])
    if not isinstance(initializer, Halves):
        data = path.read_bytes()
        text = json.dumps(config_of(data)).replace('"units": 3', '"units": 51500')
        text = text.replace("[null, 4]", "[null, 51500]")
        path.write_bytes(replaced(data, text.encode()))
        refused(path, "weights that it describes")
