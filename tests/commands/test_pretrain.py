"""The trainer as a user types it: what it writes, resumes and refuses."""

import csv
import json
import pathlib
import re
import shutil
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.devices import best_precision
from slotcon_tf.evaluation.results import read_result
from slotcon_tf.runs import report
from slotcon_tf.runs.checkpoints import checkpoint_paths
from slotcon_tf.runs.pretraining import PretrainRun
from slotcon_tf.runs.workdir import WorkdirError
from tests.support.command import (
    TINY,
    TINY_RUN,
    difference,
    modules,
    pretrain,
    pretrain_command,
    run,
    started,
    until,
)
from trainers.pretrain import main


def refusal(capsys, *given, status=1):
    """What the trainer ends with, in this process; it must not come to train."""
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", *given])
    *_, said = capsys.readouterr().err.splitlines()
    assert caught.value.code == status and said.startswith("pretrain: "), said
    return said


@pytest.mark.slow
def test_a_stop_in_an_epoch_changes_nothing(tmp_path, capsys):
    """Two epochs in one go; and again with SIGTERM in the first, and a lost one."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = [*TINY, "--epochs=2", "--max_steps_per_epoch=8", "--noexport"]
    pretrain(*settings, f"--workdir={whole}")
    again = [f"--flagfile={whole / 'pretrain.flags'}", f"--workdir={parts}"]
    again.append("--checkpoint_steps=2")
    with started(*pretrain_command(*again)) as process:
        first = parts / "checkpoints" / "step_000000002"
        until(first.exists, "a checkpoint", process)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate()
    assert process.returncode == 143, log[-2000:]
    (said,) = re.findall(r"pretrain: Stopped by a signal after step (\d+)", log)
    newest = checkpoint_paths(parts / "checkpoints")[0]
    assert newest.name == f"step_{int(said):09d}" and int(said) < 16
    log = pretrain(*again).stderr
    assert f"Resumed after step {said}" in log
    # And from the end of the first epoch, with what came later damaged.
    assert difference(whole, parts) == 0.0
    for path in checkpoint_paths(parts / "checkpoints"):
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
    assert "another configuration: --seed=0 (now 3)" in refusal(
        capsys, *again, "--seed=3"
    )
    assert "fresh --workdir" in refusal(capsys, *again, "--resume=never")


@pytest.mark.slow
def test_bad_files_do_not_stop_training(tmp_path, shared_folder):
    """Photographs and every awkward file: the run ends, each bad one is named once."""
    photos = tmp_path / "photos"
    shutil.copytree(shared_folder / "data" / "nasty", photos)
    for path in sorted((shared_folder / "data" / "camvid" / "train").iterdir())[:30]:
        shutil.copy(path, photos)
    settings = [*TINY, "--dataset=folder", f"--data_dir={photos}", "--noexport"]
    settings += ["--max_steps_per_epoch=0", "--epochs=2"]
    line = ["trainers.pretrain", *settings]
    stopped, done = modules(
        [*line, f"--workdir={tmp_path / 'run'}"],
        [*line, f"--workdir={tmp_path / 'run2'}", "--max_bad_share=0.5"],
        check=False,
    )
    assert stopped.returncode == 1 and "At most 10% of the images" in stopped.stderr
    assert done.returncode == 0, done.stderr[-2000:]
    skipped = (tmp_path / "run2" / "skipped.txt").read_text().splitlines()
    names = [pathlib.Path(line.split("\t")[0]).name for line in skipped]
    assert "truncated_60pct.jpg" in names and "bomb_20000x20000.png" in names
    assert len(names) == len(set(names)) >= 14
    for name in names:
        assert done.stderr.count(f"/{name}:") == 1, name
    assert f"{len(names)} bad images were replaced" in done.stdout


def test_bad_input_is_refused_in_one_sentence(tmp_path, capsys):
    """In this process, since every refusal comes before training."""
    empty = tmp_path / "empty"
    empty.mkdir()
    few = tmp_path / "few"
    few.mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(few / "one.jpg")
    cases = [
        (["--dataset=folder", f"--data_dir={tmp_path / 'none'}"], "no such folder"),
        (["--dataset=folder", f"--data_dir={empty}"], "must hold images"),
        (["--dataset=folder"], "needs --data_dir"),
        (["--dataset=coco", f"--data_dir={few}"], "train2017"),
        (["--dataset=foldr"], "Did you mean 'folder'"),
        (["--dataset=fake", "--arch=resnet5"], "Did you mean resnet50"),
        # Refused late, and yet before the folder is this run's.
        ([*TINY, "--init_from=none.pth"], "No pretrained model: none.pth"),
        ([*TINY, "--eval_every_epochs=1", "--eval_data_dir=none"], "--eval_data_dir"),
    ]
    of_settings = [
        (["--dataset=folder", f"--data_dir={few}"], "no larger than the data set"),
        (["--dataset=fake", "--mean=9,9,9", "--std=1,1,1"], "as shares of 255"),
        (["--dataset=fake", "--mean=0.5,0.5,0.5"], "must be given together"),
        (["--dataset=fake", "--pixel_range=9,1"], "low < high"),
        (["--student_temperature=0"], "must be above 0.0. Received: --student_temp"),
        (["--num_prototypes=-1"], "must be 1 or more. Received: --num_prototypes=-1"),
        (["--recipe=coko"], "--recipe must be one of ade20k_fcn, .*coco"),
        (
            ["--recipe=voc_fcn"],
            "--recipe must be one of this command.*one of coco,",
        ),
        (
            ["--dataset=fake", "--strategy=mirrored", "--batch_size=6"],
            "--batch_size is global and must divide by the 4 replicas.*Use 4",
        ),
    ]
    general = [f"--workdir={tmp_path / 'run'}", "--batch_size=4"]
    for status, some in ((1, cases), (2, of_settings)):
        for given, words in some:
            said = refusal(capsys, *general, *given, status=status)
            assert re.search(words, said), (given, said)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_replicas_train_through_the_trainer(tmp_path):
    """--strategy=mirrored with logical CPUs, in a process of its own."""
    code = (
        "import sys, tensorflow as tf\n"
        "tf.config.set_logical_device_configuration("
        "tf.config.list_physical_devices('CPU')[0],"
        "[tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "from trainers.pretrain import main\n"
        "main()\n"
    )
    given = [*TINY, "--epochs=1", "--noexport", "--strategy=mirrored"]
    given += ["--augment_on=device", "--precision=auto"]
    given += [f"--workdir={tmp_path / 'run'}"]
    done = run(sys.executable, "-c", code, *given)
    assert "2 replica(s)" in done.stderr
    # What auto came to is written down, so that a repeated run computes alike.
    precision = best_precision()
    assert f"Precision {precision}, XLA False" in done.stderr
    repeats = (tmp_path / "run" / "pretrain.flags").read_text()
    assert f"--precision={precision}\n" in repeats


def test_a_range_may_be_added_to_a_run_and_defaults_may_be_typed(tmp_path, caplog):
    """What 16 bits mean has changed since the run may have begun: it is told."""
    photos = tmp_path / "photos"
    photos.mkdir()
    ramp = np.linspace(0, 4000, 1200).reshape(30, 40).astype(np.uint16)
    for number in range(4):
        Image.fromarray(ramp).save(photos / f"{number}.png")
    config = TINY_RUN.replace(
        dataset="folder", data_dir=str(photos), workdir=str(tmp_path / "run")
    )

    def begun(**more):
        caplog.clear()
        made = PretrainRun(config.replace(**more))
        pixels = [made.source.load(number) for number in range(4)]
        return made, pixels, caplog.text.count("goes on without a pixel range")

    made, _, warned = begun()
    made.model.step.assign(2)
    made.checkpoints.save()
    assert warned == 0
    _, pixels, warned = begun(vertical_flip=False, rotate90=False)
    assert warned == 1 and "pixel_range=0,65535" in caplog.text
    assert pixels[0].max() > 240
    made, pixels, warned = begun(pixel_range=(0, 65535))
    assert made.first_step == 2 and warned == 0
    assert abs(pixels[0].max() - 4000 // 257) <= 1  # as versions before divided
    kept = json.loads((tmp_path / "run" / "model.json").read_text())
    assert kept["pixel_range"] == [0, 65535]
    with pytest.raises(WorkdirError, match=r"pixel_range=0,65535 \(now None\)"):
        begun()
    with pytest.raises(WorkdirError, match="vertical_flip=False .now True"):
        begun(pixel_range=(0, 65535), vertical_flip=True)


@pytest.mark.slow
def test_a_run_of_one_step_on_too_many_bad_images_is_no_success(tmp_path):
    """Seven of thirty are missing; threads that read ahead of the only step see it."""
    for number in range(23):
        picture = np.full((40, 40, 3), 10 * number, np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    names = "\n".join(f"{number}.png" for number in range(30))
    (tmp_path / "list.txt").write_text(names)
    data = ["--dataset=list", f"--data_dir={tmp_path / 'list.txt'}"]
    settings = [*TINY, *data, "--epochs=1", "--max_steps_per_epoch=1", "--noexport"]
    line = ["trainers.pretrain", *settings, f"--workdir={tmp_path / 'run'}"]
    done, again = modules(line, [*line, "--max_bad_share=0.5"], check=False)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "pretrain: At most 10% of the images may be bad" in done.stderr
    # The step is not lost: with a larger share the run goes on, and ends.
    assert again.returncode == 0, again.stderr[-2000:]
    assert "All 1 epochs are done already" in again.stderr


def test_only_an_untrained_network_is_measured_as_such(tmp_path, monkeypatch):
    """A run that goes on without its scores.json has its own scores only."""
    monkeypatch.setattr(report, "HELD_OUT_SCENES", 2)
    config = TINY_RUN.replace(dataset="scenes", workdir=str(tmp_path / "run"))
    made = PretrainRun(config)
    scores = made.workdir / "scores.json"
    assert list(read_result(scores)["rows"]["nmi"]) == ["untrained"]
    made.model.step.assign(2)
    made.checkpoints.save()
    scores.unlink()
    again = PretrainRun(config)
    again.log_start()
    assert again.first_step == 2 and not scores.exists()
    again.scores.after()
    assert list(read_result(scores)["rows"]["nmi"]) == ["trained"]
