"""What images are normalised with stays with the weights, where a format has room."""

import numpy as np
import pytest
from safetensors import safe_open

from slotcon_tf.images.statistics import IMAGENET, ImageStatistics
from slotcon_tf.interop import (
    CheckpointFileError,
    load_encoder,
    load_pretrained,
    load_slotcon,
    save_encoder,
    save_slotcon,
)
from slotcon_tf.interop.torch_files import TorchFile, write_torch
from tests.support.small_case import resnet, small_model

OWN = ImageStatistics((0.3, 0.2, 0.1), (0.1, 0.2, 0.3), (0, 4095))


def test_of_an_encoder(tmp_path):
    """Only in the metadata: its tensors are those of any other."""
    path = tmp_path / "e.safetensors"
    save_encoder(resnet(**OWN.config()), path, "safetensors")
    encoder, _ = load_encoder(path)
    assert encoder.statistics == OWN == load_pretrained(path)[0].statistics
    save_encoder(resnet(), tmp_path / "usual.safetensors", "safetensors")
    assert load_encoder(tmp_path / "usual.safetensors")[0].statistics == IMAGENET
    with safe_open(tmp_path / "usual.safetensors", "np") as file:
        assert set(file.metadata()) == {"format", "arch"}


def test_of_a_whole_model(tmp_path):
    path = tmp_path / "slotcon.pth"
    save_slotcon(small_model(resnet(), **OWN.config()), path)
    model, _ = load_slotcon(path)
    assert model.statistics == OWN == model.teacher.encoder.statistics
    assert load_slotcon(path, pixel_range=(0, 255))[0].pixel_range == (0, 255)
    teacher, _ = load_encoder(path, prefix="model.module.encoder_k")
    assert teacher.statistics == OWN


@pytest.mark.parametrize("text", ["[", "3", '{"mean": 3}', '{"a": 1}', 7, "[" * 10**5])
def test_damaged_ones(text, tmp_path):
    path = tmp_path / "slotcon.pth"
    save_slotcon(small_model(resnet()), path)
    with TorchFile(path) as file:
        values = {n: t.numpy() for n, t in file.value["model"].items()}
    write_torch(path, {"args": {"slotcon_tf_images": text}, "model": values})
    with pytest.raises(CheckpointFileError, match="slotcon_tf_images of .* must be"):
        load_slotcon(path)


def test_an_others_settings_are_not_asked(tmp_path):
    """`mean` may mean anything there."""
    path = tmp_path / "slotcon.pth"
    save_slotcon(small_model(resnet()), path)
    with TorchFile(path) as file:
        values = {n: t.numpy() for n, t in file.value["model"].items()}
    write_torch(path, {"args": {"mean": "imagenet", "std": 3}, "model": values})
    model, _ = load_slotcon(path)
    assert model.statistics == IMAGENET
    assert np.isfinite(model.get_weights()[0]).all()
