"""What every command has in common: its help, its flags, and how it ends on errors."""

import importlib
import os
import re
import signal
import threading

import keras
import numpy as np
import pytest
from PIL import Image

from slotcon_tf import backbone
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config
from tests.support.command import BENCHMARKS, COMMANDS, TINY, module, until


def main_of(name):
    return importlib.import_module(name).main


@pytest.fixture
def ends(capsys, tmp_path, monkeypatch):
    """Function: runs a command in this process, in an empty folder.

    It returns the exit status, and the line that the command ends with.
    """
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(name, *words):
        main = main_of(name)
        with pytest.raises(SystemExit) as end:
            main([name, *map(str, words)])
        told = capsys.readouterr().err
        assert "Traceback" not in told
        own = [line for line in told.splitlines() if line.startswith(f"{main.name}: ")]
        errors = [line for line in own if not re.search(r": warning: |% \d+/", line)]
        assert len(errors) == 1 and told.splitlines()[-1] == errors[0], told
        return end.value.code, errors[0]

    return run


@pytest.mark.parametrize("name", COMMANDS + BENCHMARKS)
def test_all_can_be_imported_and_asked_in_one_process(name, capsys):
    main = main_of(name)
    assert isinstance(main, Command) and issubclass(main.config_class, Config)
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and name in shown
    assert all(f"\n  --{one.flag}:" in shown for one in _settings(name).values())
    assert "``" not in shown and "`--" not in shown


def _settings(name):
    return main_of(name).config_class.settings()


def _needed(name):
    """Flags without which a command cannot be."""
    endings = {"output": "out.npz"}
    known = _settings(name)
    return [f"--{n}={endings.get(n, n)}" for n in known if known[n].required]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_arguments(name, ends):
    status, line = ends(name)
    assert status == 2 or not _needed(name)
    assert "Received: none" in line or "et --data_dir" in line


@pytest.mark.parametrize("name", COMMANDS + BENCHMARKS)
def test_flags_that_cannot_be(name, ends):
    known, needed = _settings(name), _needed(name)
    first = next(iter(known.values())).flag
    cases = {
        f"--{first}z=1": f"Unknown command line flag '{first}z'",
        "--flagfile=nowhere.flags": "Received: --flagfile=nowhere.flags: No such file",
        "--recipe=nothing": "Received: --recipe=nothing",
        f"--{first}": "",
    }
    for one in known.values():
        if one.kind in (int, float):
            cases[f"--{one.flag}=many"] = f"Received: --{one.flag}=many."
            if one.low is not None:
                below = f"--{one.flag}={one.low - 1}"
                cases[below] = f"--{one.flag} must be {one.low} or more. Received: "
            if one.high is not None:
                above = f"--{one.flag}={one.high + 1}"
                cases[above] = f"--{one.flag} must be {one.high} or less. Received: "
        if one.kind is bool:
            cases[f"--{one.flag}=maybe"] = f"--{one.flag} must be True or False"
        if one.choices:
            cases[f"--{one.flag}=none_such"] = f"--{one.flag} must be one of "
    for words, told in cases.items():
        status, line = ends(name, *needed, words)
        assert status == 2 and told in line, words
    count = len(main_of(name).positionals)
    status, line = ends(name, *needed, *"abc"[: count + 1])
    assert status == 2 and f"Received: {'abc'[count]}." in line


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """An encoder, photographs, label maps."""
    root = tmp_path_factory.mktemp("good")
    keras.utils.set_random_seed(0)
    encoder = backbone("resnet18", width=4, stage_depths=(1, 1, 1, 1))
    encoder.save(root / "encoder.keras")
    rng = np.random.default_rng(0)
    for folder in ("photos", "val", "valannot", "train", "trainannot"):
        (root / folder).mkdir()
        shape = (32, 32) if "annot" in folder else (32, 32, 3)
        for index in range(2):
            pixels = rng.integers(0, 2, shape, np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{index}.png")
    return root


def _none(root):
    return root / "none"


def _empty(root):
    (root / "empty").mkdir()
    return root / "empty"


def _photos(root):
    """A folder whose only image is damaged."""
    (root / "bad").mkdir()
    (root / "bad" / "a.jpg").write_bytes(b"\xff\xd8\xff broken")
    return root / "bad"


def _model(root):
    (root / "bad.keras").write_bytes(b"PK\x03\x04 broken")
    return root / "bad.keras"


def _export(root):
    (root / "1").mkdir()
    (root / "1" / "saved_model.pb").write_bytes(b"broken")
    return root


SMALL = [*TINY, "--noexport", "--strategy=one_device", "--epochs=1"]
NO_SERVER = ["--server=127.0.0.1:1", "--retry_minutes=0"]
SEGMENT, INT8 = ["--dataset=folders", "--strategy=one_device"], "--quantize=int8"
# Command, what a broken file is to it, and flags; {} is the place that is wrong.
PLACES = [
    ("trainers.pretrain", _photos, [*SMALL, "--dataset=folder", "--data_dir={}"]),
    ("trainers.pretrain", _model, [*SMALL, "--init_from={}"]),
    ("trainers.finetune_segmentation", _photos, [*SEGMENT, "--data_dir={}"]),
    (
        "trainers.finetune_segmentation",
        _model,
        [*SEGMENT, "--data_dir={good}", "--init_from={}"],
    ),
    ("trainers.evaluate", _model, ["--model={}", "--data_dir={good}"]),
    ("trainers.evaluate", _photos, ["--model={model}", "--data_dir={}"]),
    ("trainers.visualize", _model, ["--model={}", "--data_dir={good}/photos"]),
    ("trainers.visualize", _photos, ["--model={model}", "--data_dir={}"]),
    ("trainers.convert", _model, ["{}", "--output=out.keras"]),
    ("trainers.prepare", _photos, ["--data_dir={}", "--output=out"]),
    ("trainers.check_data", None, ["--data_dir={}"]),  # broken: in its report
    ("export.saved_model", _model, ["--model={}", "--export_dir=out"]),
    (
        "export.saved_model",
        _photos,
        ["--model={model}", "--export_dir=out", INT8, "--calibration_images={}"],
    ),
    ("export.extract", _export, ["{export}={}", "--images={good}", "--output=out.npz"]),
    ("export.client", _photos, ["--images={}", "--output=out.npz", *NO_SERVER]),
    ("export.compare", _export, ["{}", "{}", "--images={good}"]),
]


@pytest.mark.parametrize("make", [_none, _empty, "broken"])
@pytest.mark.parametrize(("name", "broken", "flags"), PLACES)
def test_places_that_cannot_be(name, broken, flags, make, good, ends, tmp_path):
    """A missing folder, an empty one, and a broken file: one line, nothing written."""
    make = broken if make == "broken" else make
    if make is None:
        pytest.skip("it tells of broken files in its report")
    place = make(tmp_path)
    known = {"good": good, "model": good / "encoder.keras", "export": "--export_dir"}
    status, line = ends(name, *(word.format(place, **known) for word in flags))
    assert status in (1, 2)
    assert len(line) < 700 and line.endswith(".")
    assert not [path for path in tmp_path.rglob("out*") if path.is_file()]


def test_a_server_needs_a_folder(ends):
    status, line = ends("export.server", "--export_dir=none")
    assert status == 1 and "--export_dir must be a folder" in line


@pytest.mark.parametrize("make", [_empty, _export])
def test_a_server_waits_for_a_version(make, tmp_path, caplog, capsys):
    """Both folders may get one while it serves; it says what it found so far."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def end():
        until(lambda: signal.getsignal(signal.SIGTERM) != before[0])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
    try:
        folder = make(tmp_path)
        words = ["server", f"--export_dir={folder}", "--port=0"]
        with pytest.raises(SystemExit) as ended:
            main_of("export.server")(words)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert ended.value.code == 0
    assert "Serving slotcon version(s) [] on 127.0.0.1:" in capsys.readouterr().out
    assert f"No version in {folder} yet" in caplog.text
    assert ("Version 1 of slotcon is damaged: " in caplog.text) == (make is _export)


@pytest.mark.parametrize("name", ["trainers.check_data", "export.extract"])
def test_as_a_process(name):
    """What a user sees: nothing of TensorFlow's, and the status."""
    done = module(name, "--no_such", check=False)
    *before, line = done.stderr.splitlines()
    # What TensorFlow says of itself cannot be kept from it.
    assert not [x for x in before if not x.startswith(("I0000", "WARNING: All log"))]
    assert done.returncode == 2 and line.startswith(f"{main_of(name).name}: Unknown")
