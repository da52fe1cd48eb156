"""The trainer as a user types it: what it writes, resumes and refuses."""

import csv
import pathlib
import re
import shutil
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.devices import best_precision
from tests.command import (
    TINY,
    difference,
    pretrain,
    pretrain_command,
    run,
    started,
    until,
)


def test_a_stop_in_an_epoch_changes_nothing(tmp_path):
    """Two epochs in one go; and again with SIGTERM in the first, and a lost one."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = [*TINY, "--epochs=2", "--max_steps_per_epoch=8", "--noexport"]
    pretrain(*flags, f"--workdir={whole}")
    again = [f"--flagfile={whole / 'pretrain.flags'}", f"--workdir={parts}"]
    again.append("--checkpoint_steps=2")
    with started(*pretrain_command(*again)) as process:
        first = parts / "checkpoints" / "step_000000002"
        until(first.exists, "a checkpoint", process)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate()
    assert process.returncode == 143, log[-2000:]
    (said,) = re.findall(r"pretrain: Stopped by a signal after step (\d+)", log)
    newest = max((parts / "checkpoints").iterdir())
    assert newest.name == f"step_{int(said):09d}" and int(said) < 16
    log = pretrain(*again).stderr
    assert f"Resumed after step {said}" in log
    # And from the end of the first epoch, with what came later damaged.
    assert difference(whole, parts) == 0.0
    for path in (parts / "checkpoints").iterdir():
        if path.name > "step_000000012":
            (path / "state.index").unlink()
    assert "is damaged" in pretrain(*again).stderr
    assert difference(whole, parts) == 0.0
    with (parts / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (whole / "history.csv").open() as file:
        for row, expected in zip(rows, csv.DictReader(file), strict=True):
            for name in ("epoch", "loss", "feature_std"):
                np.testing.assert_allclose(float(row[name]), float(expected[name]))
    assert (parts / "slots.png").stat().st_size > 1000
    assert list((parts / "tensorboard").rglob("events*"))
    # The same folder with another configuration is refused, and named.
    done = pretrain(*again, "--seed=3", check=False)
    assert done.returncode == 1
    assert "another configuration: seed=0 (now 3)" in done.stderr
    done = pretrain(*again, "--resume=never", check=False)
    assert "fresh --workdir" in done.stderr


def test_bad_files_do_not_stop_training(tmp_path, shared_folder):
    """Photographs and every awkward file: the run ends, each bad one is named once."""
    photos = tmp_path / "photos"
    shutil.copytree(shared_folder / "data" / "nasty", photos)
    for path in sorted((shared_folder / "data" / "camvid" / "train").iterdir())[:30]:
        shutil.copy(path, photos)
    flags = [*TINY, "--dataset=folder", f"--data_dir={photos}", "--noexport"]
    flags += ["--max_steps_per_epoch=0", "--epochs=2", f"--workdir={tmp_path / 'run'}"]
    done = pretrain(*flags, check=False)
    assert done.returncode == 1 and "At most 10% of the images" in done.stderr
    flags[-1] += "2"
    done = pretrain(*flags, "--max_bad_share=0.5")
    skipped = (tmp_path / "run2" / "skipped.txt").read_text().splitlines()
    names = [pathlib.Path(line.split("\t")[0]).name for line in skipped]
    assert "truncated_60pct.jpg" in names and "bomb_20000x20000.png" in names
    assert len(names) == len(set(names)) >= 14
    for name in names:
        assert done.stderr.count(f"/{name}:") == 1, name
    assert f"{len(names)} bad images were replaced" in done.stdout


def test_bad_input_is_refused_in_one_sentence(tmp_path, monkeypatch):
    """In this process, since every refusal comes before training."""
    from absl import flags
    from absl.testing import flagsaver

    from trainers import pretrain as trainer

    empty = tmp_path / "empty"
    empty.mkdir()
    few = tmp_path / "few"
    few.mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(few / "one.jpg")
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["pretrain"])
    cases = [
        ({"dataset": "folder", "data_dir": str(tmp_path / "none")}, "no such folder"),
        ({"dataset": "folder", "data_dir": str(empty)}, "must hold images"),
        ({"dataset": "folder", "data_dir": None}, "Set --data_dir"),
        ({"dataset": "folder", "data_dir": str(few)}, "no larger than the data set"),
        ({"dataset": "coco", "data_dir": str(few)}, "train2017"),
        ({"dataset": "foldr"}, "Did you mean 'folder'"),
        ({"dataset": "fake", "arch": "resnet5"}, "Did you mean resnet50"),
        (
            {"dataset": "fake", "strategy": "mirrored", "batch_size": 6},
            "must divide by the 4 replicas.*Use 4",
        ),
    ]
    for values, words in cases:
        values = {"workdir": str(tmp_path / "run"), "batch_size": 4, **values}
        with flagsaver.flagsaver(**values), pytest.raises(SystemExit, match=words):
            trainer.main(["pretrain"])
    assert not (tmp_path / "run").exists()


def test_two_replicas_train_through_the_trainer(tmp_path):
    """--strategy=mirrored with logical CPUs, in a process of its own."""
    code = (
        "import sys, tensorflow as tf\n"
        "tf.config.set_logical_device_configuration("
        "tf.config.list_physical_devices('CPU')[0],"
        "[tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "from absl import app\n"
        "from trainers import pretrain\n"
        "app.run(pretrain.main, argv=sys.argv)\n"
    )
    flags = [*TINY, "--epochs=1", "--noexport", "--strategy=mirrored"]
    flags += ["--augment_on=device", "--precision=auto"]
    done = run(sys.executable, "-c", code, *flags, f"--workdir={tmp_path / 'run'}")
    assert "2 replica(s)" in done.stderr
    # What auto came to is written down, so that a repeated run computes alike.
    precision = best_precision()
    assert f"Precision {precision}, XLA False" in done.stderr
    repeats = (tmp_path / "run" / "pretrain.flags").read_text()
    assert f"--precision={precision}\n" in repeats
