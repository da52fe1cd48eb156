"""Runs whose data changes, and two runs in one work directory, as users meet them."""

import csv
import json
import shutil

import keras
import pytest
import tensorflow as tf

from slotcon_tf.runs import FinetuneConfig, RunStopped, pretrain
from slotcon_tf.runs.checkpoints import checkpoint_paths, step_of
from slotcon_tf.runs.finetuning import FinetuneRun
from slotcon_tf.runs.kept_data import ChangedData
from slotcon_tf.runs.places import LOCK
from slotcon_tf.runs.pretraining import PretrainRun
from tests.support import labelled_case
from tests.support.command import TINY_RUN, pretrain_command, started, until
from tests.support.disk_case import tree
from tests.support.photo_case import photos
from trainers.pretrain import main


def settings(tmp_path, **more):
    """Of a tiny run on photographs in tmp_path/photos."""
    own = {"dataset": "folder", "data_dir": str(tmp_path / "photos"), "export": False}
    return TINY_RUN.replace(**{**own, "workdir": str(tmp_path / "run"), **more})


def refusal(capsys, config, *more):
    """What the command ends with."""
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", *config.lines(), *more])
    *_, said = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1 and said.startswith("pretrain: "), said
    return said


def begun(run, step):
    """A run that was stopped after a step, without the seconds that steps take."""
    run.model.step.assign(step)
    run.checkpoints.save()


def test_other_data_is_refused_and_the_same_elsewhere_is_not(tmp_path, capsys):
    folder, config = photos(tmp_path / "photos", 8), settings(tmp_path)
    kept = shutil.copytree(folder, tmp_path / "kept")
    begun(PretrainRun(config), 2)
    (folder / "3.png").unlink()
    said = refusal(capsys, config)
    assert "trained on other data: 1 file fewer (3.png)" in said
    assert "set --allow_changed_data to go on" in said
    shutil.copy(kept / "0.png", folder / "3.png")
    shutil.copy(kept / "0.png", folder / "9.png")
    (folder / "7.png").rename(folder / "8.png")
    said = refusal(capsys, config)
    assert "1 file fewer (7.png); 2 files more (8.png, 9.png); 1 file of " in said
    assert "of another size (3.png)" in said
    # Flags are refused as ever, by name, and before the data.
    assert "other configuration: --seed=0 (now 7)" in refusal(
        capsys, config, "--seed=7"
    )
    # The same data elsewhere goes on.
    moved = PretrainRun(config.replace(data_dir=str(kept)))
    assert moved.first_step == 2
    allowed = config.replace(allow_changed_data=True)
    assert PretrainRun(allowed).first_step == 2
    flags = (tmp_path / "run" / "pretrain.flags").read_text()
    assert "--noallow_changed_data\n" in flags


def test_labelled_data_is_compared_too(tmp_path):
    root = labelled_case.folders(tmp_path / "data")
    config = FinetuneConfig(
        dataset="folders",
        data_dir=str(root),
        workdir=str(tmp_path / "run"),
        arch="resnet10",
        steps=10,
        batch_size=2,
        crop_size=32,
        fit_edges=(64, 48),
        precision="float32",
    )
    begun(FinetuneRun(config), 4)
    kept = shutil.copytree(root, tmp_path / "kept")
    shutil.move(root / "trainannot" / "1.png", root / "trainannot" / "0.png")
    shutil.copy(root / "trainannot" / "5.png", root / "trainannot" / "1.png")
    with pytest.raises(ChangedData, match=r"train: .* \(trainannot/0.png"):
        FinetuneRun(config)
    assert FinetuneRun(config.replace(data_dir=str(kept))).first_step == 4
    (kept / "classes.txt").write_text("0 red\n1 green\n2 sky\n3 yellow\n9 void\n")
    with pytest.raises(ChangedData, match=r"blue ... \(now red, green, sky"):
        FinetuneRun(config.replace(data_dir=str(kept)))


def test_data_that_has_grown_does_not_reopen_a_run(tmp_path, capsys, caplog):
    """Twice the images are twice the steps: the run would train on."""
    folder = photos(tmp_path / "photos", 8)
    config = settings(tmp_path, epochs=1, max_steps_per_epoch=0, warmup_epochs=0)
    begun(PretrainRun(config), 2)
    assert PretrainRun(config).done
    for number in range(8, 16):
        shutil.copy(folder / "1.png", folder / f"{number}.png")
    said = refusal(capsys, config)
    assert "other data: 8 files more (10.png, 11.png, 12.png ...)" in said
    assert "The run has ended, and other data does not reopen it" in said
    assert f"set --init_from={config.workdir} and another --workdir" in said
    caplog.set_level("INFO")
    again = PretrainRun(config.replace(allow_changed_data=True))
    again.train(lambda: False)
    assert int(again.model.step) == 2 and "are done already" in caplog.text
    # A run of its own on what there is now.
    own = config.replace(init_from=config.workdir, workdir=str(tmp_path / "more"))
    made = PretrainRun(own)
    assert made.first_step == 0 and made.steps_per_epoch == 4 and not made.done


def test_less_data_may_be_the_end_of_a_run_and_stays_so(tmp_path, capsys):
    """Fewer images are fewer steps; what was allowed once is not asked again."""
    folder = photos(tmp_path / "photos", 12)
    config = settings(tmp_path, epochs=2, max_steps_per_epoch=0, warmup_epochs=0)
    begun(PretrainRun(config), 5)
    for number in range(8, 12):
        (folder / f"{number}.png").unlink()
    assert "4 files fewer" in refusal(capsys, config)
    once = PretrainRun(config.replace(allow_changed_data=True))
    assert once.done and not once.checkpoints.ended
    once.train(lambda: False)
    again = PretrainRun(config)
    assert again.done and again.first_step == 5


@pytest.mark.slow
def test_one_work_directory_is_one_run(tmp_path, capsys):
    """The first is killed while it holds the lock; the second goes on at once."""
    photos(tmp_path / "photos", 8)
    config = settings(tmp_path, epochs=12)
    flags = [*config.lines(), "--checkpoint_steps=1"]
    with started(*pretrain_command(*flags)) as first:
        checkpoints = tmp_path / "run" / "checkpoints"
        until(lambda: checkpoint_paths(checkpoints), "a checkpoint", first)
        said = refusal(capsys, config)
        assert f"process {first.pid}, since 20" in said and "--workdir must be" in said
        first.kill()
        first.wait()
    assert (tmp_path / "run" / LOCK).exists()
    killed_at = step_of(checkpoint_paths(checkpoints)[0])
    assert killed_at < 24
    run = pretrain(config)
    assert run.first_step == killed_at and int(run.model.step) == 24
    assert not (tmp_path / "run" / LOCK).exists()


def test_grown_data_does_not_reopen_a_run_of_an_older_version(tmp_path, capsys):
    """Neither once it was allowed, nor after that."""
    folder = photos(tmp_path / "photos", 8)
    config = settings(tmp_path, epochs=1, max_steps_per_epoch=0, warmup_epochs=0)
    begun(PretrainRun(config), 2)
    for kept in (tmp_path / "run" / "checkpoints").rglob("data*"):
        kept.unlink()
    for number in range(8, 16):
        shutil.copy(folder / "1.png", folder / f"{number}.png")
    once = PretrainRun(config.replace(allow_changed_data=True))
    assert once.checkpoints.ended and once.done
    assert "The run has ended" in refusal(capsys, config)


class Stops(keras.callbacks.Callback):
    """Stops training after its first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.slow
def test_a_run_trains_on_with_data_that_has_grown(tmp_path, caplog):
    """Stopped after 3 steps of an epoch; with two images more an epoch has 4."""
    folder, run = photos(tmp_path / "photos", 6), tmp_path / "run"
    sizes = {"epochs": 2, "batch_size": 2, "max_steps_per_epoch": 0}
    config = settings(tmp_path, **sizes)
    tf.config.run_functions_eagerly(True)  # tracing takes longer
    try:
        with pytest.raises(RunStopped, match="after step 3"):
            pretrain(config, [Stops()])
        for number in (6, 7):
            shutil.copy(folder / "1.png", folder / f"{number}.png")
        on = pretrain(config.replace(allow_changed_data=True))
        assert on.first_step == 3 and int(on.model.step) == 8
        assert "An epoch has 4 steps now, and had 3" in caplog.text
        with (run / "history.csv").open() as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]
        made = json.loads((run / "finished.json").read_text())
        assert made["step"] == 8 and "slots.png" in made["made"]
        before = tree(run)
        assert pretrain(config).first_step == 8  # what was allowed is done
        assert tree(run) == before
    finally:
        tf.config.run_functions_eagerly(False)
