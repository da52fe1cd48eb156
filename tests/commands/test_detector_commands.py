"""trainers.evaluate and trainers.visualize of a detector, as a user types them."""

import csv
import json

import keras
import numpy as np
import pytest

from slotcon_tf import backbone
from slotcon_tf.data import scenes
from slotcon_tf.data.drawing import THINGS
from slotcon_tf.data.objects import open_objects
from slotcon_tf.detection import MaskRCNN, coco_scores
from slotcon_tf.runs import EvaluateConfig, FinetuneConfig, evaluate
from slotcon_tf.runs.checkpoints import Checkpoints
from slotcon_tf.training.optimizers import SGD
from tests.support.detector_case import SIZES
from tests.support.page_case import Page
from trainers import evaluate as evaluate_command
from trainers import visualize as visualize_command

LOSSES = [f"{name}_loss" for name in ("box", "class", "mask", "rpn_box", "rpn_class")]
HISTORY = {
    "epoch": (0, 1),
    **dict.fromkeys(LOSSES, (0.4, 0.3)),
    "learning_rate": (0.02, 0.002),
    "loss": (2, 1.5),
    "val_box_ap": ("", 0.125),
}


def detector(class_names=THINGS):
    keras.utils.set_random_seed(0)
    encoder = backbone("resnet10", width=8, output_stride=32)
    return MaskRCNN(encoder, class_names=class_names, short_edge=64, **SIZES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six scenes of `test`, which `val` is."""
    folder = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "NUM_TRAIN", 1)
        patch.setattr(scenes, "NUM_TEST", 6)
        scenes.scenes_builder(folder, scenes.SceneObjects)
        yield folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run's folder: detector, history, and two checkpoints."""
    workdir = tmp_path_factory.mktemp("run")
    model = detector()
    model.compile(optimizer=SGD(0.1, l2=0.0))
    model.optimizer.build(model.trainable_variables)
    kept = Checkpoints(
        workdir / "checkpoints", model, FinetuneConfig(), steps_per_epoch=2, keep=9
    )
    for step in (2, 4):
        model.step.assign(step)
        bias = model.box_head.logits.bias
        bias.assign(np.random.default_rng(step).normal(size=bias.shape))
        kept.save()
    model.save(workdir / "detector.keras")
    rows = [HISTORY, *zip(*HISTORY.values(), strict=True)]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (workdir / "history.csv").write_text(f"{text}\n")
    (workdir / "finetune_detection.flags").write_text("--val_short_edge=64\n")
    return workdir


def said(command, capsys, *flags, status=0):
    """What a command writes; of one that fails, its last line."""
    with pytest.raises(SystemExit) as end:
        command.main(["command", *map(str, flags)])
    out, err = capsys.readouterr()
    assert end.value.code == status, err[-2000:]
    assert "Traceback" not in err
    return err.splitlines()[-1] if status else out


@pytest.mark.slow
def test_scores_results_and_report(run, data, capsys):
    flags = [f"--model={run}", f"--data_dir={data}", "--dataset=scenes"]
    own = ["--task=detection", "--max_images=5"]
    out = said(evaluate_command, capsys, *flags, *own)
    path = run / "evaluation" / "detection_scenes_val.json"
    results = run / "evaluation" / "detections" / "detection_scenes_val.json"
    assert f"Written: {path}" in out and f"Written: {results}" in out
    for word in ("box_ap", "mask_apl", "balloon", "detection: scenes"):
        assert word in out
    found = json.loads(path.read_text())
    assert found["step"] == 4 and list(found["classes"]) == list(THINGS)
    settings = found["settings"]
    assert settings["short_edge"] == 64 and settings["max_images"] == 5
    # Whoever scores the results finds the same.
    images = open_objects("scenes", data, max_images=5)
    again = coco_scores(images.coco(), json.loads(results.read_text()), masks=True)
    for name, value in again.scores.items():
        kept = found["rows"][name]["trained"][0]
        assert kept == (None if np.isnan(value) else pytest.approx(value, abs=1e-12))
    assert {one["image_id"] for one in json.loads(results.read_text())} <= {*range(6)}

    out = said(visualize_command, capsys, *flags, "--num_images=3", "--split=test")
    page = Page(run / "report.html")
    assert page.sections == ["scores", "curves", "detections", "components"]
    assert len(page.images) == 3 * 2 + 3 * 3
    assert "Left the truth" in page.text and "--val_short_edge=64" in page.text
    assert "proposals: boxes" in page.text and "box AP" in page.text
    assert "no file of scores" not in page.text


@pytest.mark.slow
def test_every_checkpoint(run, data):
    config = EvaluateConfig(
        model=run,
        task=("detection",),
        dataset="scenes",
        data_dir=data,
        all=True,
        max_images=2,
    )
    found = evaluate(config)
    assert [one["step"] for one in found] == [2, 4]
    table = run / "evaluation" / "detection_scenes_val_checkpoints.csv"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"] and "box_ap50" in rows[0]
    assert table.with_suffix(".png").is_file()
    assert [one["weights"] for one in evaluate(config)] == [
        one["weights"] for one in found
    ]


def test_what_does_not_fit_is_told_in_one_line(run, data, tmp_path, capsys):
    backbone("resnet10", width=8).save(tmp_path / "encoder.keras")
    detector(("tree", "cat")).save(tmp_path / "other.keras")
    flags = [f"--data_dir={data}", "--dataset=scenes", "--task=detection"]

    def refused(status, model, *more):
        flags_of = [*flags, f"--model={model}", *more]
        return said(evaluate_command, capsys, *flags_of, status=status)

    line = refused(2, tmp_path / "encoder.keras")
    assert "needs a detector" in line and "slotcon-finetune-detection" in line
    line = refused(1, tmp_path / "other.keras")
    assert "Received: 'cat' of the detector only, 'house', 'car'" in line
    line = refused(2, run, "--long_edge=32")
    assert "no shorter than" in line and "=32 and --short_edge=64" in line
    line = refused(2, "a", "--which=student")
    assert "--which must be left out with --task=detection" in line
    for flag in ("--scale=2", "--batch_size=4", "--resamples=9", "--baseline=false"):
        assert "must be left out" in refused(2, "a", flag)
    assert "must be left out" in refused(2, "a", "--task=knn", "--short_edge=64")
    assert "detection is measured alone" in refused(2, "a", "--task=detection,knn")
    assert "must be one of coco, scenes" in refused(1, run, "--dataset=voc")
    flags = [f"--data_dir={data}", f"--model={run}", "--split=mine"]
    line = said(visualize_command, capsys, *flags, "--dataset=scenes", status=1)
    assert "mine" in line and "val" not in line, line
    line = said(visualize_command, capsys, *flags, "--dataset=fake", status=2)
    assert "--split must be left out but for a detector and images with" in line
    flags = [f"--data_dir={data}", "--dataset=scenes", "--task=detection"]
    assert "Groups need a whole SlotCon" in refused(1, run, "--task=groups")
