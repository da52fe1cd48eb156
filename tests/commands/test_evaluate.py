"""trainers.evaluate, and evaluation during training, as a user types them."""

import csv
import json
import shutil

import numpy as np
import pytest
from tensorflow.python.summary.summary_iterator import summary_iterator

from slotcon_tf.interop import save_encoder
from slotcon_tf.runs import EvaluateConfig, PretrainConfig, evaluate, evaluating_all
from slotcon_tf.runs.labelled_monitor import LabelledMonitor
from slotcon_tf.runs.loading import load_trained
from tests.support import labelled_case as case
from tests.support.checkpoint_case import save_at, store
from tests.support.command import TINY, modules
from tests.support.small_case import small_model
from trainers import evaluate as command

EVALUATE = "trainers.evaluate"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return case.folders(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, labelled):
    """Five epochs with groups evaluated in the second, fourth and last; and after.

    Returns:
        The work directory, and the ended processes by name.
    """
    workdir = tmp_path_factory.mktemp("run")
    nothing = tmp_path_factory.mktemp("nothing")
    lines = {
        "pretrain": [
            *("trainers.pretrain", *TINY, f"--workdir={workdir}", "--epochs=5"),
            *("--noexport", "--eval_every_epochs=2", "--eval_images=3"),
            f"--eval_data_dir={labelled}",
        ],
        "evaluate": [
            *(EVALUATE, f"--model={workdir}", f"--data_dir={labelled}"),
            "--task=groups,linear,retrieval",
            *("--resamples=20", "--steps=5", "--which=student"),
        ],
        "missing": [
            *("trainers.pretrain", *TINY, f"--workdir={nothing / 'run'}"),
            *("--eval_every_epochs=1", f"--eval_data_dir={nothing}"),
        ],
    }
    return workdir, dict(zip(lines, modules(*lines.values(), check=False), strict=True))


@pytest.mark.slow
def test_scores_on_the_way_are_in_progress_csv_and_tensorboard(run):
    workdir, done = run[0], run[1]["pretrain"]
    assert done.returncode == 0, done.stderr[-2000:]
    shown = [line for line in done.stderr.splitlines() if "val_nmi " in line]
    assert len(shown) == 3
    with (workdir / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [bool(row["val_nmi"]) for row in history] == [False, True, False, True, True]
    assert 0 <= float(history[1]["val_miou"]) <= 1
    assert not any(name.startswith("val_loss") for name in history[0])
    assert None not in history[0] and all(row["loss"] for row in history)
    pictures, scores = [], []
    for path in (workdir / "tensorboard").rglob("events.*"):
        for event in summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "labelled":
                    pictures.append(event.step)
                if value.tag == "epoch_nmi":
                    scores.append(event.step)
    assert sorted(pictures) == [2, 4, 5]
    assert sorted(scores) == [1, 3, 4]  # Keras counts epochs from 0


@pytest.mark.slow
def test_label_map_tasks(run):
    workdir, done = run[0], run[1]["evaluate"]
    assert done.returncode == 0, done.stderr[-2000:]
    for word in ("untrained", "trained", "difference", "nmi", "yellow", "map_classes"):
        assert word in done.stdout
    for task, metric in (("groups", "ari"), ("linear", "miou"), ("retrieval", "map")):
        path = workdir / "evaluation" / f"{task}_folders_val_student.json"
        found = json.loads(path.read_text())
        row = found["rows"][metric]
        for value, low, high in row.values():
            assert low <= value <= high or task != "linear"
        assert row["difference"][0] == pytest.approx(
            row["trained"][0] - row["untrained"][0]
        )
        assert set(found["classes"]) == {"red", "green", "blue", "yellow"}
        assert found["settings"]["which"] == "student"


@pytest.mark.slow
def test_classes_with_an_encoder_alone(run, tmp_path):
    workdir, _ = run
    model, _ = load_trained(workdir)
    weights = tmp_path / "encoder.safetensors"
    save_encoder(model.teacher.encoder, weights, "safetensors", batches_tracked=1)
    data = case.class_folders(tmp_path / "data", train=4, val=2)
    output = tmp_path / "deep" / "knn.json"
    flags = [f"--model={weights}", f"--data_dir={data}", "--crop_size=32"]
    knn = [*flags, "--task=knn", "--dataset=class_folders", f"--output={output}"]
    lines = [[EVALUATE, *knn], [EVALUATE, *flags, "--task=groups"]]
    done, refused = modules(*lines, check=False)
    assert done.returncode == 0 and "accuracy" in done.stdout, done.stderr[-2000:]
    rows = json.loads(output.read_text())["rows"]
    assert 0.5 <= rows["accuracy"]["trained"][0] <= 1  # three plain colours
    assert refused.returncode == 1 and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--task=group"], "--task must be one of groups, linear"),
        (["--task=linear", "--train_split="], "linear learns from --train_split"),
        (["--task=groups,linear", "--output=a"], "--output is for one task"),
    ],
)
def test_wrong_flags(flags, words, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["evaluate", "--model=a", "--data_dir=b", *flags])
    *_, last = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and words in last


@pytest.mark.slow
def test_a_missing_labelled_set_stops_before_training(run):
    done = run[1]["missing"]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "must hold val/ and valannot/" in done.stderr
    assert "Epoch" not in done.stdout


def test_neighbours_on_the_way(tmp_path):
    data = case.class_folders(tmp_path, train=4, val=2)
    monitor = LabelledMonitor(
        small_model(),
        *("knn", "class_folders", data, "val", "train"),
        **{"num_images": 6, "crop_size": 32},
    )
    scores = monitor()
    assert list(scores) == ["knn_accuracy"] and 0 <= scores["knn_accuracy"] <= 1


class Kept:
    """A run of the smallest model with checkpoints, each of other weights."""

    def __init__(self, workdir, labelled):
        self.workdir = workdir
        config = PretrainConfig(batch_size=4, epochs=5)  # total_steps=10: 2 each
        self.store = store(workdir / "checkpoints", config=config, keep=9)
        self.config = EvaluateConfig(
            model=workdir, data_dir=labelled, all=True, resamples=0, baseline=False
        )
        self.save(2, 4, 6)

    def save(self, *steps):
        prototypes = self.store.model.teacher.grouping.prototypes
        for step in steps:
            noise = np.random.default_rng(step).normal(size=prototypes.shape)
            prototypes.assign(noise)
            save_at(self.store, step)

    def path(self, step):
        return self.workdir / "checkpoints" / f"step_{step:09d}"

    @property
    def table(self):
        name = "groups_folders_val_teacher_checkpoints.csv"
        with (self.workdir / "evaluation" / name).open() as file:
            return list(csv.DictReader(file))

    @property
    def steps(self):
        return [int(row["step"]) for row in self.table]


@pytest.fixture
def kept(tmp_path, labelled):
    return Kept(tmp_path / "run", labelled)


@pytest.fixture
def measured(capsys):
    """Function of a configuration: the steps that are measured, and the results."""

    def measure(config):
        capsys.readouterr()
        found = evaluate(config)
        said = capsys.readouterr().out.splitlines()
        lines = [line.split(":")[0] for line in said if ", step " in line]
        return [int(x.split("step ")[1].split(",")[0]) for x in lines], found

    return measure


@pytest.mark.slow
def test_every_checkpoint_in_one_table_and_curve(kept, measured, labelled):
    config = kept.config.replace(baseline=True, resamples=5)
    steps, found = measured(config)
    assert steps == kept.steps == [one["step"] for one in found] == [2, 4, 6]
    assert [row["epoch"] for row in kept.table] == ["1", "2", "3"]
    curve = kept.workdir / "evaluation" / "groups_folders_val_teacher_checkpoints.png"
    assert curve.read_bytes().startswith(b"\x89PNG")
    # The numbers of each are those of the same checkpoint by its path.
    alone = config.replace(all=False, model=kept.path(4))
    (one,) = evaluate(alone)
    assert one["rows"] == found[1]["rows"] != found[2]["rows"] and one["step"] == 4
    row = kept.table[1]
    for name in ("", "_low", "_high"):
        place = ["", "_low", "_high"].index(name)
        expected = one["rows"]["nmi"]["trained"][place]
        assert float(row[f"nmi{name}"]) == pytest.approx(expected, abs=1e-5)
    difference = float(row["nmi"]) - float(row["nmi_untrained"])
    assert float(row["nmi_difference"]) == pytest.approx(difference, abs=1e-5)
    # It has its own folder: nothing of all, or of the run, is overwritten by it.
    assert (kept.workdir / "step_000000004" / "evaluation").is_dir()
    assert kept.steps == [2, 4, 6]


@pytest.mark.slow
def test_it_goes_on_with_what_is_new(kept, measured, caplog):
    assert measured(kept.config)[0] == [2, 4, 6]
    first = kept.table
    assert measured(kept.config)[0] == [] and kept.table == first
    assert measured(kept.config.replace(batch_size=1))[0] == []
    # A run that goes on: it saves, and drops what it does not keep.
    kept.save(8)
    shutil.rmtree(kept.path(2))
    steps, found = measured(kept.config)
    assert steps == [8] and [one["step"] for one in found] == [2, 4, 6, 8]
    # Others' settings are other numbers, and so are other weights.
    assert measured(kept.config.replace(max_images=3))[0] == [4, 6, 8]
    assert kept.steps == [4, 6, 8]
    shutil.rmtree(kept.path(4))
    save_at(kept.store, 4)
    assert measured(kept.config.replace(max_images=3))[0] == [4]
    # A stored result that is damaged is none.
    parts = kept.workdir / "evaluation" / "checkpoints" / "groups_folders_val_teacher"
    (parts / "step_000000006.json").write_text("{")
    assert measured(kept.config.replace(max_images=3))[0] == [6]
    assert "damaged" not in caplog.text and "Passed over" not in caplog.text


def test_a_kill_loses_one_at_most(kept, measured, monkeypatch):
    def die(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluating_all, "series_line", die)
        for done in ([2], [2, 4]):
            with pytest.raises(KeyboardInterrupt):
                evaluate(kept.config)
            assert kept.steps == done
    assert measured(kept.config)[0] == [6]


def test_damaged_and_vanished_ones_are_passed_over(kept, measured, monkeypatch, caplog):
    for step, share in ((2, 2), (4, 1)):
        file = next(kept.path(step).glob("state.data*"))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // share])
    kept.save(8)
    line = evaluating_all.series_line

    def meanwhile(result):
        shutil.rmtree(kept.path(6), ignore_errors=True)
        return line(result)

    monkeypatch.setattr(evaluating_all, "series_line", meanwhile)
    steps, found = measured(kept.config)
    assert steps == kept.steps == [4, 8] and len(found) == 2
    (told,) = [r for r in caplog.records if "Passed over" in r.getMessage()][:1]
    assert "step_000000002 must be a whole checkpoint" in told.getMessage()
    assert "step_000000006, which" not in told.getMessage()


def test_all_of_what_is_no_run(kept, tmp_path, capsys):
    flags = ["--all", f"--data_dir={kept.config.data_dir}"]
    for place in (kept.path(4), tmp_path, tmp_path / "none", tmp_path / "a.keras"):
        with pytest.raises(SystemExit) as end:
            command.main(["evaluate", f"--checkpoint={place}", *flags])
        *_, last = capsys.readouterr().err.splitlines()
        assert end.value.code == 2 and f"Received: --model={place}." in last
    for step in (2, 4, 6):
        (kept.path(step) / "state.index").write_bytes(b"")
    with pytest.raises(SystemExit) as end:
        command.main(["evaluate", f"--checkpoint={kept.workdir}", *flags])
    *_, last = capsys.readouterr().err.splitlines()
    assert end.value.code == 1 and "must be a whole checkpoint" in last
    assert not (kept.workdir / "evaluation").exists()
