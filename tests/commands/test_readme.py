"""What README and guide show works: every command is known, marked ones are run."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

from tests.support import labelled_case
from tests.support.command import ENVIRONMENT, ROOT, free_ports, until
from tests.support.fences import (
    PYTHON,
    SHELL,
    check,
    commands,
    fences,
    module_of,
    pages,
)

FENCES = [fence for page in pages() for fence in fences(page)]
SETUP = "python3.11 -m venv .venv && .venv/bin/pip install -q -r requirements.txt && "
# What makes the commands that are run short: the same words, with these behind them.
SHORT = {
    "trainers.pretrain": [
        "--dataset=folder",
        "--data_dir=photos",
        "--strategy=one_device",
        "--image_size=32",
        "--num_prototypes=4",
        "--hidden_dim=16",
        "--projection_dim=8",
        "--batch_size=4",
        "--epochs=1",
        "--max_steps_per_epoch=2",
    ],
    "trainers.evaluate": ["--steps=2", "--resamples=10", "--nobaseline"],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with photos/, labelled/ and the flagfiles, and the process in it."""
    photos = tmp_path / "photos" / "holiday"
    photos.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(16):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((160, 120), Image.BICUBIC)
        picture.save(photos / f"{index}.jpg")
    labelled_case.folders(tmp_path / "labelled")
    for path in ROOT.glob("*.flags"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_is_one_page_that_starts():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    picture = text.index("![")
    first = (
        f"{SETUP}.venv/bin/python -m trainers.pretrain --flagfile=quickstart.flags\n"
    )
    assert 0 < text.index(first) < text.index(f"{SETUP}.venv/bin/python -m pytest -q\n")
    assert text.count("```") == 2 * len(fences(ROOT / "README.md"))
    assert picture < text.index("## What it does for you")
    assert (ROOT / "docs/images/quickstart.png").stat().st_size < 300_000


def test_fences_say_what_they_are():
    for fence in FENCES:
        assert fence.mark in ("", "run") or fence.skipped, f"{fence}: {fence.mark}"
        assert fence.language, f"{fence}: no language"


@pytest.mark.parametrize(
    "fence",
    [f for f in FENCES if f.language in SHELL and not f.skipped],
    ids=str,
)
def test_commands_are_known(fence, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the flagfiles are
    for words in commands(fence.text):
        check(words)


@pytest.mark.slow
def test_marked_commands_run(place):
    """In the order of the guide, in one folder, as a reader would."""
    marked = [f for f in FENCES if f.language in SHELL and f.mark == "run"]
    assert {f.page.name for f in marked} >= {"data.md", "evaluation.md", "serving.md"}
    (port,) = free_ports(1)
    with contextlib.ExitStack() as stack:
        for fence in marked:
            for words in commands(fence.text.replace("8500", str(port))):
                module, flags = module_of(words)
                flags += SHORT.get(module, [])
                if module == "export.server":
                    stack.enter_context(_server(*flags, f"--port={port}"))
                    continue
                with pytest.raises(SystemExit) as ended:
                    import_module(module).main([module, *flags])
                assert not ended.value.code, f"{fence}: {words}"
    for written in ("runs/photos/report.html", "served/slotcon/1", "features.npz"):
        assert (place / written).exists()
    with np.load("features.npz") as served, np.load("local.npz") as local:
        assert served["ok"].all()
        np.testing.assert_allclose(served["pooled"], local["pooled"], rtol=1e-4)


@contextlib.contextmanager
def _server(*flags):
    """The local server in a process of its own, once it listens."""
    words = [sys.executable, "-m", "export.server", *flags]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])
    told = pathlib.Path("server.log")
    with told.open("w") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=log, env={**ENVIRONMENT, "PYTHONPATH": path}
        )
    try:
        until(lambda: "Serving" in told.read_text(), "the server", process)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_python_runs(page, place):
    """The blocks of a page, one after the other, on a folder of photographs."""
    shown = [f for f in fences(page) if f.language in PYTHON and not f.skipped]
    if not shown:
        pytest.skip("no Python there")
    if page.name == "transfer.md":
        _small_model().save_to_preset("runs/photos")
    names = {}
    for fence in shown:
        code = compile(fence.text, str(fence), "exec")
        exec(code, names)  # noqa: S102  our own page
    if page.name == "keras.md":
        features = names["encoder"](np.zeros((1, 96, 96, 3), np.float32))
        assert features.shape == (1, 3, 3, 512)
        assert int(names["model"].step.numpy()) == 4
    if page.name == "transfer.md":
        encoder = names["encoder"]
        assert names["segmenter"].backbone.pyramid_level_inputs
        assert names["detector"].backbone.count_params() == encoder.count_params()


def _small_model():
    from slotcon_tf import SlotCon, backbone

    return SlotCon(
        backbone("resnet10"),
        total_steps=1,
        num_prototypes=4,
        hidden_dim=16,
        projection_dim=8,
    )
