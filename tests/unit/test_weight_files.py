"""Damaged and hostile torch and safetensors files: one line, little memory and time."""

import json
import struct

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.mutations.checkpoints import small_checkpoints
from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.interop import CheckpointFileError, load_encoder
from slotcon_tf.interop.entries import is_beside_encoder, load_entries
from slotcon_tf.interop.names import (
    VECTOR,
    Entry,
    encoder_entries,
    with_batches_tracked,
)
from slotcon_tf.interop.torch_files import TorchFile, write_torch
from slotcon_tf.interop.weights import open_weights
from tests.support.file_case import torch_file
from tests.support.weight_case import refused


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small valid checkpoints by name."""
    return small_checkpoints(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def values():
    encoder = ResNet(block="bottleneck", stage_depths=(1, 1, 1, 1), width=4)
    return with_batches_tracked(encoder_entries(encoder), 3)


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
    path = tmp_path / "f.pth"
    path.write_bytes(files["slotcon.pth"])
    with TorchFile(path) as file:
        whole = {n: t.numpy().copy() for n, t in file.value["model"].items()}
        settings = {**file.value["args"], "teacher_temp": temperature}
    write_torch(path, {"args": settings, "model": whole})
    refused(path, "teacher_temp of the checkpoint's args must be a finite")


def with_extra(path, name, kind):
    """A safetensors file with one more tensor, of four one-byte numbers."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    place = [len(body), len(body) + 4]
    header[name] = {"dtype": kind, "shape": [4], "data_offsets": place}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body + bytes(4))


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_float8_in_safetensors(kind, values, tmp_path):
    """A weight of it is refused; a head, which is left out, may be anything."""
    path = write(tmp_path / "f.safetensors", values)
    with_extra(path, "head.weight", kind)
    load_encoder(path)
    write(path, {n: v for n, v in values.items() if n != "bn1.bias"})
    with_extra(path, "bn1.bias", kind)
    refused(path, "bn1.bias must hold float16.*float8")


def test_float8_in_torch_files(tmp_path):
    """As torch saves it: bytes, with the kind beside them."""
    body = (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v3\n("
        b"(X\x07\x00\x00\x00storagectorch\nUntypedStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpuK\x10tQK\x00K\x04\x85K\x01\x85\x89"
        b"ccollections\nOrderedDict\n)Rctorch\nfloat8_e4m3fn\ntRs."
    )
    entry = Entry(keras.Variable(np.zeros(4)), VECTOR)
    path = torch_file(tmp_path / "f.pth", body)
    with open_weights(path) as weights:
        assert weights.tensors["a"].shape == (4,)
        with pytest.raises(CheckpointFileError, match="such as float8"):
            load_entries({"a": entry}, weights.tensors, is_beside_encoder)


def test_weights_without_a_model(tmp_path):
    encoder = ResNet(block="basic", stage_depths=(1, 1, 1, 1), width=4)
    encoder.save_weights(tmp_path / "e.weights.h5")
    refused(tmp_path / "e.weights.h5", "without their model.*model.load_weights")
