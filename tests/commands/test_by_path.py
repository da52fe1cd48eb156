"""A checkpoint kept for good, by its path: for every command, and to go on from."""

import importlib
import json
import shutil

import numpy as np
import pytest

from slotcon_tf import SlotCon
from slotcon_tf.interop import load_pretrained
from slotcon_tf.runs import (
    FinetuneConfig,
    PretrainConfig,
    evaluate,
    finetune,
    pretrain,
)
from slotcon_tf.runs.checkpoints import largest_difference
from slotcon_tf.runs.evaluate_config import EvaluateConfig
from slotcon_tf.runs.finetuning import FinetuneRun
from slotcon_tf.runs.loading import load_trained, results_folder
from slotcon_tf.runs.pretraining import PretrainRun
from tests.support import labelled_case
from tests.support.checkpoint_case import CONFIG, save_at, store
from tests.support.command import TINY_RUN

STEP = "step_000000004"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return labelled_case.folders(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four epochs of two steps, whose second and fourth are kept."""
    config = TINY_RUN.replace(
        workdir=tmp_path_factory.mktemp("runs") / "x",
        strategy="one_device",
        epochs=4,
        keep_every_epochs=2,
        keep_checkpoints=1,
        export=False,
    )
    return pretrain(config)


@pytest.fixture(scope="module")
def kept(run):
    return run.workdir / "checkpoints" / STEP


def command(name, *words):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(name).main([name, *map(str, words)])
    assert end.value.code == 0


def weights(model):
    return [v.numpy() for v in model.teacher.variables]


def assert_same(first, second):
    for one, other in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_every_command_takes_it(run, kept, labelled, tmp_path):
    flags = {"data_dir": labelled, "resamples": 0, "baseline": False}
    evaluate(EvaluateConfig(model=run.workdir, **flags))
    result = "evaluation/groups_folders_val_teacher.json"
    before = (run.workdir / result).read_bytes()
    model = f"--model={kept}"
    command(
        "trainers.evaluate", model, f"--data_dir={labelled}", "--nobaseline", "--seed=1"
    )
    # The checkpoint's results are its own, and outlive it.
    found = json.loads((run.workdir / STEP / result).read_text())
    assert found["step"] == 4 and (run.workdir / result).read_bytes() == before
    command("trainers.visualize", model, f"--data_dir={labelled / 'val'}")
    assert (run.workdir / STEP / "report.html").exists()
    assert not (run.workdir / "report.html").exists()
    command("trainers.convert", model, f"--output={tmp_path / 'a.keras'}")
    converted, _ = load_pretrained(tmp_path / "a.keras")
    assert int(converted.step) == 4
    assert_same(converted, load_trained(kept)[0])
    command(
        *("export.saved_model", model, f"--export_dir={tmp_path / 'e'}"),
        *("--batch_sizes=", "--image_size=32"),
    )
    assert (tmp_path / "e" / "1" / "saved_model.pb").exists()


@pytest.mark.slow
def test_a_new_run_begins_with_it(run, kept, labelled, tmp_path):
    config = run.config.replace(init_from=kept, workdir=tmp_path / "new")
    new = PretrainRun(config)
    assert new.first_step == 0 and int(new.model.step) == 0
    assert_same(new.model, load_trained(kept)[0])
    config = FinetuneConfig(
        **{"dataset": "folders", "data_dir": labelled, "strategy": "one_device"},
        **{"init_from": kept, "workdir": tmp_path / "fine", "batch_size": 2},
        **{"steps": 10, "crop_size": 32, "fit_edges": (64, 48), "num_pictures": 0},
    )
    tuned = finetune(config)
    # A fine-tuning's checkpoints go the same ways, as its encoder.
    (newest, *_) = tuned.checkpoints.paths()
    encoder, _ = load_trained(newest)
    for one, own in zip(encoder.weights, tuned.model.encoder.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), own.numpy())
    command(
        *("trainers.convert", f"--model={newest}", "--to=timm"),
        f"--output={tmp_path / 'a.pth'}",
    )
    again = FinetuneRun(config.replace(init_from=newest, workdir=tmp_path / "again"))
    kernel = "conv1"
    np.testing.assert_array_equal(
        again.model.encoder.get_layer(kernel).kernel.numpy(),
        encoder.get_layer(kernel).kernel.numpy(),
    )
    # The run itself, whose last file is damaged, is its newest checkpoint.
    (tuned.workdir / "segmenter.keras").write_bytes(b"PK\x03\x04")
    assert load_trained(tuned.workdir)[0].name == encoder.name


@pytest.mark.slow
def test_a_run_is_branched_from_it(run, kept, tmp_path):
    """Copied into another work directory, it goes on there, to the same end."""
    branch = tmp_path / "branch"
    shutil.copytree(kept, branch / "checkpoints" / STEP)
    config = PretrainConfig.from_lines(
        (kept / "pretrain.flags").read_text().splitlines(), workdir=branch
    )
    other = PretrainRun(config)
    assert other.first_step == 4
    other.to_the_end()
    last = f"checkpoints/step_{8:09d}"
    assert largest_difference(run.workdir / last, branch / last) == 0
    assert (branch / "history.csv").read_text().splitlines()[-1].startswith("3,")
    with pytest.raises(ValueError, match=r"seed=0 \(now 1\)"):
        PretrainRun(config.replace(seed=1))


def test_it_needs_nothing_beside_it(tmp_path):
    """Copied alone; and of earlier versions, whose description is the run's."""
    saved = store(tmp_path / "run" / "checkpoints")
    save_at(saved, 2)
    path = saved.latest()
    alone = tmp_path / "backup" / "best"
    shutil.copytree(path, alone)
    model, _ = load_trained(alone)
    assert isinstance(model, SlotCon) and int(model.step) == 2
    assert results_folder(alone) == alone
    assert results_folder(path) == tmp_path / "run" / "step_000000002"
    (path / "model.json").rename(tmp_path / "run" / "model.json")
    assert int(load_trained(path)[0].step) == 2
    (tmp_path / "run" / "model.json").unlink()
    with pytest.raises(ValueError, match="needs the model.json of its model"):
        load_trained(path)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_newest_that_is_whole_is_taken(tmp_path, caplog):
    saved = store(tmp_path / "checkpoints", keep=3)
    save_at(saved, 2, 4, 6)
    truncate(next(saved.latest().glob("state.data*")))
    assert int(load_trained(tmp_path)[0].step) == 4
    assert "step_000000006 must be a whole checkpoint" in caplog.text
    saved.model.save(tmp_path / "slotcon.keras")  # of step 6
    assert int(load_trained(tmp_path)[0].step) == 6
    truncate(tmp_path / "slotcon.keras")
    assert int(load_trained(tmp_path)[0].step) == 4
    assert "slotcon.keras is passed over: it cannot be read" in caplog.text
    for path in saved.paths():
        (path / "model.json").write_text("{")
    with pytest.raises(ValueError, match="must be a whole checkpoint"):
        load_trained(tmp_path)


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    (tmp_path / "pretrain.flags").write_text("\n".join(CONFIG.lines()))
    with pytest.raises(FileNotFoundError, match="must have a checkpoint to be read"):
        load_trained(tmp_path)
