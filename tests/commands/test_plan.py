"""`--dry_run` as a user types it: what it tells, and that it leaves no trace."""

import json

import pytest
import tensorflow as tf

from slotcon_tf.runs import FinetuneConfig, finetune, plan, pretrain
from slotcon_tf.runs.plan_steps import STEPS
from slotcon_tf.runs.pretraining import PretrainRun
from tests.support import labelled_case
from tests.support.command import TINY, TINY_RUN
from trainers.pretrain import main

RUN = TINY_RUN.replace(epochs=4, max_steps_per_epoch=4, export=False)
FINETUNE = FinetuneConfig(
    dataset="folders",
    arch="resnet10",
    fit_edges=(64, 48),
    crop_size=32,
    batch_size=2,
    steps=20,
    eval_every_steps=10,
    precision="float32",
    num_pictures=0,
)


def snapshot(folder):
    """Name, size, time and content of everything in a folder."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.slow
def test_the_command_tells_a_plan_and_makes_nothing(tmp_path, capsys):
    workdir = tmp_path / "runs" / "new"
    more = ["--epochs=4", "--max_steps_per_epoch=4", "--warmup_epochs=4"]
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", *TINY, *more, f"--workdir={workdir}", "--dry_run"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert f"Plan of {workdir}: {STEPS} steps were taken, nothing was written" in told
    for text in ("16 left of 16", "first step", "images/s", "waiting for data", "host"):
        assert text in told
    assert "--warmup_epochs=0.4" in told and "as long as the run of 4" in told
    assert f"free in {tmp_path}" in " ".join(told.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_plan_of_a_run_that_has_begun_is_of_what_is_left(tmp_path):
    config = RUN.replace(workdir=str(tmp_path / "run"), keep_every_epochs=1)
    begun = PretrainRun(config)
    begun.model.step.assign(10)
    (saved,) = [begun.checkpoints.save()]
    damaged = saved.with_name("step_000000012")
    damaged.mkdir()
    before = snapshot(tmp_path)
    found = plan(config)
    assert snapshot(tmp_path) == before
    assert (found.first_step, found.steps_left, found.steps_taken) == (10, 6, 6)
    disk = found.disk
    size = sum(path.stat().st_size for path in saved.iterdir())
    assert disk.checkpoint == pytest.approx(size, rel=0.02)
    # Four at once, and one for good of every epoch, less the one that is there, and
    # the names of its data, which lie beside it.
    there = sum(path.stat().st_size for path in saved.parent.glob("**/*.*"))
    assert (disk.checkpoints, disk.there) == (8, there)
    assert size < there < size + 1000
    assert disk.needed == 8 * disk.checkpoint - there
    json.dumps(found.to_dict())


def test_a_plan_of_a_finished_run_has_nothing_left(tmp_path):
    config = RUN.replace(workdir=str(tmp_path / "run"))
    begun = PretrainRun(config)
    begun.model.step.assign(16)
    begun.checkpoints.save()
    found = plan(config)
    assert (found.steps_taken, found.steps_left, found.seconds_left) == (0, 0, 0)
    assert "all steps are done already" in str(found)


def test_a_run_that_another_has_is_refused_as_the_run_would_be(tmp_path):
    config = RUN.replace(workdir=str(tmp_path / "run"))
    PretrainRun(config)
    with pytest.raises(ValueError, match="another configuration: seed=0"):
        plan(config.replace(seed=1))


@pytest.mark.slow
def test_finetuning_has_a_plan_and_its_evaluations(tmp_path, capsys):
    labelled_case.folders(tmp_path / "data")
    config = FINETUNE.replace(
        data_dir=str(tmp_path / "data"), workdir=str(tmp_path / "run"), dry_run=True
    )
    finetune(config)
    told = capsys.readouterr().out
    assert "20 left of 20" in told and "evaluations" in told
    assert not (tmp_path / "run").exists()


class TooLarge(PretrainRun):
    """Its step asks for more memory than any machine has."""

    def build_model(self):
        model = super().build_model()

        def step(batch):
            # Of a size that is known at the step only: the graph is not folded.
            count = tf.reduce_sum(tf.cast(batch["view_a"] > -99, tf.int64))
            return {"loss": tf.reduce_sum(tf.fill([count * 2**40], 1.0))}

        model.train_step = step
        return model


@pytest.mark.slow
def test_too_little_memory_is_one_line_with_what_helps(tmp_path):
    config = RUN.replace(workdir=str(tmp_path / "run"), dry_run=True)
    with pytest.raises(RuntimeError) as caught:
        TooLarge(config).plan()
    assert str(caught.value) == (
        "A step must fit into memory. Received: no memory is left for batch_size=4. "
        "Try remat=True or accumulate_steps=2 or batch_size=2."
    )


@pytest.mark.slow
def test_disk_and_time_are_those_of_the_run(tmp_path):
    """Export included; of time only that both are times of the same work."""
    config = RUN.replace(workdir=str(tmp_path / "run"), export=True)
    found = plan(config)
    done = pretrain(config)
    (size, *_) = [
        sum(path.stat().st_size for path in folder.iterdir())
        for folder in done.checkpoints.paths()
    ]
    assert found.disk.checkpoint == pytest.approx(size, rel=0.01)
    whole = sum(path.stat().st_size for path in done.workdir.rglob("*.*"))
    assert found.disk.needed > whole - 10 * 2**20
    assert found.disk.needed < 1.5 * whole
    assert 0 < found.step_seconds < found.seconds_left
