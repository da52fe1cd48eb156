"""The README's Keras examples run as they stand, on a folder of photographs."""

import pathlib
import re

import numpy as np
import pytest
from PIL import Image

README = pathlib.Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_keras_example_runs(tmp_path, monkeypatch):
    interop, code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    photos = tmp_path / "photos" / "holiday"
    photos.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(16):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((160, 120), Image.BICUBIC)
        picture.save(photos / f"{index}.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, str(README), "exec"), names)  # noqa: S102  our own README
    features = names["encoder"](np.zeros((1, 96, 96, 3), np.float32))
    assert features.shape == (1, 3, 3, 512)
    assert int(names["model"].step.numpy()) == 4
    names["model"].save_to_preset("runs/photos")
    exec(compile(interop, str(README), "exec"), names)  # noqa: S102  our own README
    assert names["segmenter"].backbone.pyramid_level_inputs
    assert names["detector"].backbone.count_params() == names["encoder"].count_params()
