"""trainers.evaluate, and evaluation during training, as a user types them."""

import csv
import json

import pytest
from tensorflow.python.summary.summary_iterator import summary_iterator

from slotcon_tf.interop import save_encoder
from slotcon_tf.runs.labelled_monitor import LabelledMonitor
from slotcon_tf.runs.loading import load_trained
from tests.support import labelled_case as case
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
