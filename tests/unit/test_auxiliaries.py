"""Everything beside training fails, one by one: the run ends, and names what did."""

import csv
import json
import logging
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf.data import scenes
from slotcon_tf.data.bad_images import BadImages
from slotcon_tf.evaluation.results import read_result
from slotcon_tf.runs import RunUnfinished, pretrain, pretraining, report
from slotcon_tf.runs.checkpoints import CheckpointError, checkpoint_paths, step_of
from slotcon_tf.runs.labelled_monitor import LabelledMonitor
from slotcon_tf.runs.places import LEDGER
from slotcon_tf.runs.pretraining import PretrainRun
from slotcon_tf.runs.products import Products, is_finished
from slotcon_tf.training.auxiliaries import Auxiliary, Troubles
from slotcon_tf.training.callbacks import (
    CollapseWarning,
    Interrupted,
    NonFiniteError,
)
from slotcon_tf.training.monitoring import CsvHistory
from tests.support.command import TINY_RUN
from tests.support.disk_case import fill, small_disk, tree


def fails(*_, **__):
    raise ValueError("it broke")


class Fails(keras.callbacks.Callback):
    """Raises in every hook."""

    def __getattribute__(self, name):
        own = name.startswith("on_") or name in ("set_model", "set_params")
        return fails if own else super().__getattribute__(name)


def test_a_guarded_callback_may_fail_anywhere(caplog):
    """Once in an epoch it is said; what it does otherwise is done."""
    troubles, seen = Troubles(), []
    counts = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    callbacks = [Auxiliary("bad", Fails(), troubles), Auxiliary("x", counts, troubles)]
    ones = np.ones((4, 1))
    model.fit(ones, ones, batch_size=1, epochs=3, callbacks=callbacks, verbose=0)
    assert seen == 3 * [0, 1, 2, 3]
    assert troubles.summary() == "bad (epochs 1-3)"
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "bad failed: ValueError: it broke.",
        *(
            f"bad failed in epoch {n}: ValueError: it broke. Training goes on."
            for n in (1, 2, 3)
        ),
    ]


@pytest.mark.parametrize(
    "error", [Interrupted, NonFiniteError, CheckpointError, KeyboardInterrupt]
)
def test_what_ends_a_run_is_let_through(error):
    troubles = Troubles(fatal=(CheckpointError,))
    with pytest.raises(error), troubles.of("evaluation", 0):
        raise error("stop")
    assert not troubles.summary()


def test_a_history_has_every_row_once_whatever_was_lost(tmp_path):
    """Half a row, rows to come again, a row that only the checkpoint has."""
    path, kept = tmp_path / "history.csv", tmp_path / "kept.csv"
    path.write_text("epoch,loss,val_nmi\n0,3,0.5\n1,2,\n3,0.5,\n4,0.4\n")
    kept.write_text("epoch,loss\n0,3\n1,2\n2,1\n")
    history = CsvHistory(path, 3, kept)
    history.write()
    assert path.read_text() == "epoch,loss,val_nmi\n0,3,0.5\n1,2,\n2,1,\n"
    history.note(3, {"loss": 0.25})
    assert "3,0.25" in history.text() and "3,0.25" not in path.read_text()
    history.on_epoch_end(3, {"loss": 0.25, "val_nmi": 0.75})
    assert path.read_text().splitlines()[-1] == "3,0.25,0.75"
    path.write_bytes(b"\xff\x00 damaged")
    CsvHistory(path, 3, kept).write()
    assert path.read_text() == kept.read_text()


@pytest.fixture
def config(tmp_path):
    """Of a run of two steps; they are not traced, which takes longer than they do."""
    tf.config.run_functions_eagerly(True)
    yield TINY_RUN.replace(
        workdir=str(tmp_path / "run"), epochs=2, max_steps_per_epoch=1, batch_size=2
    )
    tf.config.run_functions_eagerly(False)


def rows(config):
    with (pathlib.Path(config.workdir) / "history.csv").open() as file:
        return list(csv.DictReader(file))


def steps(config):
    found = checkpoint_paths(pathlib.Path(config.workdir) / "checkpoints")
    return sorted(step_of(path) for path in found)


@pytest.mark.slow
def test_all_that_writes_beside_training_fails(config, monkeypatch, caplog):
    """Folders where files should be, a file where TensorBoard's folder should be."""
    folder = pathlib.Path(config.workdir)
    config = config.replace(
        export=False, eval_every_epochs=1, eval_data_dir="x", picture_epochs=1
    )
    monkeypatch.setattr(pretraining, "LabelledMonitor", lambda *_, **__: Evaluates())
    monkeypatch.setattr(CollapseWarning, "_look", fails)
    run = PretrainRun(config, [Fails()])
    # Put there once the run has begun, which would refuse them.
    (folder / "history.csv").mkdir()
    (folder / "tensorboard").write_text("")
    (folder / "slots.png").mkdir()
    (folder / "slots.png" / "in_the_way").touch()
    run.to_the_end()
    assert int(run.model.step) == 2 and steps(config) == [1, 2]
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    *each, last = told
    for epoch in (1, 2):
        for name in (
            "the look for a collapse",
            "evaluation",
            "the picture of the evaluation",
            "Fails",
            "history",
            "TensorBoard",
            "the picture of the groups",
        ):
            found = [line for line in each if line.startswith(f"{name} failed")]
            assert any(f"in epoch {epoch}: " in line for line in found), (name, told)
    assert any(line.startswith("slots.png failed: ") for line in each)
    assert not any("\n" in line for line in told)
    assert last.startswith("Auxiliaries that failed in this run: ")
    assert "evaluation (epochs 1-2)" in last and "slots.png" in last
    # Once nothing is in the way the same command makes what is missing.
    (folder / "history.csv").rmdir()
    (folder / "slots.png" / "in_the_way").unlink()
    (folder / "slots.png").rmdir()
    (folder / "tensorboard").unlink()
    monkeypatch.setattr(Evaluates, "__call__", lambda _: {"nmi": 0.5})
    before = tree(folder)
    pretrain(config)
    assert [row["epoch"] for row in rows(config)] == ["0", "1"]
    assert [row["val_nmi"] for row in rows(config)] == ["", "0.5"]
    new = {name for name, file in tree(folder).items() if file != before.get(name)}
    assert new == {"history.csv", "slots.png", "finished.json"}


@pytest.mark.slow
def test_all_that_is_made_of_scenes_fails(config, tmp_path, monkeypatch, caplog):
    """The scores before training and after it, and the record of what was made."""
    monkeypatch.setattr(scenes, "NUM_TRAIN", 4)
    monkeypatch.setattr(scenes, "NUM_TEST", 2)
    monkeypatch.setattr(report, "HELD_OUT_SCENES", 2)
    measure, asked = LabelledMonitor.measure, []

    def fails_twice(monitor):
        asked.append(monitor)
        return fails() if len(asked) <= 2 else measure(monitor)

    monkeypatch.setattr(LabelledMonitor, "measure", fails_twice)
    folder, data = pathlib.Path(config.workdir), str(tmp_path / "data")
    config = config.replace(dataset="scenes", data_dir=data, export=False)
    blocks = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: (folder / LEDGER / str(epoch)).mkdir(
            parents=True
        )
    )
    PretrainRun(config, [blocks]).to_the_end()
    assert steps(config) == [1, 2] and len(rows(config)) == 2
    for name in ("the evaluation before training", "scores.json", LEDGER):
        assert f"{name} failed: " in caplog.text
    summary = f"the evaluation before training, scores.json, {LEDGER}."
    assert f"Auxiliaries that failed in this run: {summary}" in caplog.text
    assert (folder / "slots.png").exists() and not (folder / "scores.json").exists()
    shutil.rmtree(folder / LEDGER)
    before = tree(folder)
    pretrain(config)
    after = tree(folder)
    new = {name for name in after if after[name] != before.get(name)}
    assert new - {"slots.png"} == {"scores.json", LEDGER}
    rows_of = read_result(folder / "scores.json")["rows"]
    assert all(list(stages) == ["trained"] for stages in rows_of.values())
    pretrain(config)
    assert tree(folder) == after


class Evaluates:
    """A monitor whose labelled images are gone."""

    def __call__(self):
        raise FileNotFoundError(2, "No such file or directory", "labels/a.png")

    picture = staticmethod(fails)


@pytest.mark.slow
def test_an_epochs_checkpoint_comes_first(config, monkeypatch):
    """An evaluation that takes the process with it: the epoch is not lost."""

    class Dies(BaseException):
        pass

    def dies(_):
        assert steps(config)[-1] == 1
        raise Dies

    monkeypatch.setattr(pretraining, "LabelledMonitor", lambda *_, **__: Evaluates())
    monkeypatch.setattr(Evaluates, "__call__", dies)
    config = config.replace(export=False)
    watched = config.replace(
        eval_every_epochs=1, eval_data_dir="x", eval_task="knn", serving_size=32
    )
    with pytest.raises(Dies):
        pretrain(watched)
    assert not (pathlib.Path(config.workdir) / "history.csv").exists()
    pretrain(config.replace(serving_size=32))
    found = rows(config)
    assert [row["epoch"] for row in found] == ["0", "1"]
    assert all(float(row["loss"]) > 0 for row in found)


@pytest.mark.slow
def test_an_export_that_fails_is_the_end_of_a_run_that_is_saved(
    config, monkeypatch, caplog
):
    """And the same call writes it, only it; after that, nothing at all."""
    folder = pathlib.Path(config.workdir)
    run = PretrainRun(config)
    (folder / "export").write_text("in the way")
    with pytest.raises(
        RunUnfinished, match="Training is done and saved in .*000002, "
    ) as caught:
        run.to_the_end()
    assert "and export could not be written" in str(caught.value)
    assert "The same command writes what is missing." in str(caught.value)
    assert caught.value.status == 1
    assert "export failed: " in caplog.text
    assert steps(config) == [1, 2] and (folder / "slots.png").exists()
    assert not is_finished(folder)
    (folder / "export").unlink()
    before = tree(folder)
    pretrain(config)
    after = tree(folder)
    new = {name.split("/")[0] for name in after if after[name] != before.get(name)}
    assert new == {"export", "finished.json"} and is_finished(folder)
    pretrain(config)
    assert tree(folder) == after
    # What the export is made of has changed.

    def exports(model, folder, **served):
        (folder / "2").mkdir()
        return folder / "2"

    monkeypatch.setattr(pretraining, "export_model", exports)
    pretrain(config.replace(serving_size=48))
    made = json.loads((folder / "finished.json").read_text())["made"]
    assert made["export"]["path"] == "export/2"
    assert made["export"]["of"] == {"serving_size": 48}


def test_products_are_made_once_and_whole(tmp_path):
    made = []

    def make(text):
        made.append(text)
        (tmp_path / "a.txt").write_text(text)
        return tmp_path / "a.txt"

    def run(text, step=7, **options):
        products = Products(tmp_path, step, Troubles())
        products.make("a.txt", lambda: make(text), **options)
        return products

    for _ in range(2):
        run("one")
    (tmp_path / "a.txt").write_text("o")  # cut short
    run("two")
    run("three", of={"serving_size": 32})
    run("three", of={"serving_size": 32})
    run("four", step=8)
    run("four", step=8).forget()
    run("five", step=8)
    (tmp_path / LEDGER).write_text('{"step": 8, "made": 3')
    assert run("six", step=8).missing == []
    assert made == ["one", "two", "three", "four", "five", "six"]
    products = Products(tmp_path, 8, Troubles())

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        products.make("b.txt", killed)
    assert products.make("b.txt", fails, needed=True) is None
    assert products.missing == ["b.txt"]


def test_a_list_of_bad_images_that_cannot_be_written_ends_nothing(tmp_path, caplog):
    bad = BadImages(num_images=10, max_share=1.0)
    path = tmp_path / "skipped.txt"
    path.write_text("a.jpg\tempty\nb.j")
    bad.write_to(path)
    bad.add("b.jpg", "empty")
    assert path.read_text() == "a.jpg\tempty\nb.jpg\tempty\n"
    path.unlink()
    path.mkdir()
    bad.add("c.jpg", "empty")
    bad.add("d.jpg", "empty")
    assert list(bad.reasons) == ["b.jpg", "c.jpg", "d.jpg"]
    assert caplog.text.count("cannot be written") == 1


@pytest.mark.slow
def test_the_board_may_fill_up_in_the_middle(config, tmp_path, caplog):
    """TensorBoard's writer is open by then, and writes in a thread of its own."""
    board = pathlib.Path(config.workdir) / "tensorboard"
    with small_disk(board, 0.25):
        full = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: epoch == 1 and fill(board)
        )
        config = config.replace(export=False, epochs=3, picture_epochs=1)
        PretrainRun(config, [full]).to_the_end()
    assert steps(config) == [1, 2, 3] and len(rows(config)) == 3
    for epoch in (2, 3):
        assert f"the picture of the groups failed in epoch {epoch}: " in caplog.text
    assert "events.out.tfevents" in caplog.text and "No space left" in caplog.text
