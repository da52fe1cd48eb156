"""trainers.finetune_detection as a user types it: files, kills, PreciseBN, refusals."""

import csv
import json
import os
import pathlib
import signal
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from slotcon_tf import backbone
from slotcon_tf.runs import DetectionConfig, RunStopped, finetune_detection
from slotcon_tf.runs.detection_run import DetectionRun
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.training.normalization import BatchNormalization
from tests.support.command import difference, started, until
from tests.support.detector_case import SIZES
from tests.support.exact_detector import STOP, SignalledRun

TINY = {
    "dataset": "scenes",
    "max_train_images": 10,
    "val_split": "test",
    "max_val_images": 3,
    "train_short_edges": (64, 96),
    "short_edge": 96,
    "long_edge": 160,
    **SIZES,
    "batch_size": 2,
    "steps": 6,
    "eval_every_steps": 3,
    "warmup_steps": 2,
    "precise_batches": 2,
    "checkpoint_steps": 2,
    "num_pictures": 1,
    "precision": "float32",
}
SCORES = ("box_ap", "box_ap50", "mask_ap", "mask_ap50")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with encoders: one that was dilated as segmenters do, and another."""
    folder = tmp_path_factory.mktemp("detection")
    keras.utils.set_random_seed(3)
    sizes = {"width": 8, "output_stride": 16}
    backbone("resnet10", contract_dilation=True, **sizes).save(folder / "fine.keras")
    backbone("resnet10", **sizes).save(folder / "other.keras")
    return folder


def config_of(root, name, **changes):
    own = {"init_from": str(root / "fine.keras"), "workdir": str(root / name)}
    return DetectionConfig(**{**TINY, **own, **changes})


def state_of(folder):
    """Bytes of every file of a run but those of TensorBoard, by name."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in files
        if "tensorboard" not in p.parts
    }


def losses_of(folder):
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    timed = "images_per_second"
    return [{k: v for k, v in row.items() if k != timed} for row in rows]


@pytest.fixture(scope="module")
def whole(root):
    """An undisturbed run, in this process."""
    return finetune_detection(config_of(root, "whole"))


@pytest.mark.slow
def test_a_run_leaves_a_detector_and_its_scores(whole, root):
    folder = whole.workdir
    assert int(whole.model.step) == 6 and whole.model.class_names[0] == "tree"
    rows = losses_of(folder)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    for name in (*whole.model.loss_names, "loss", *(f"val_{n}" for n in SCORES)):
        assert all(np.isfinite(float(row[name])) for row in rows), name
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, [0.02, 0.0002], rtol=1e-5)
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["task"] == "detection" and scores["step"] == 6
    assert set(SCORES) <= set(whole.scores)
    assert scores["classes"]["tree"].keys() == {"box_ap", "mask_ap"}
    found = json.loads((folder / "results.json").read_text())
    assert found and {"image_id", "bbox", "score", "segmentation"} <= set(found[0])
    assert (folder / "detections.png").stat().st_size > 1000
    assert list((folder / "tensorboard").rglob("events*"))
    saved = keras.models.load_model(folder / "detector.keras")
    for old, new in zip(whole.model.variables, saved.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert saved.short_edge == 96 and saved.encoder.output_stride == 32
    # A detector goes on as an encoder of whatever takes one.
    encoder, _ = load_trained(folder)
    assert encoder.name == saved.encoder.name


@pytest.mark.slow
def test_the_last_statistics_are_not_those_of_training(whole):
    """Weights are the checkpoint's; moving statistics are of two batches after it."""
    from slotcon_tf.runs.loading import read_checkpoint

    trained = read_checkpoint(whole.workdir / "checkpoints" / "step_000000006")
    moving = {
        id(v)
        for layer in whole.model._flatten_layers()
        if isinstance(layer, BatchNormalization)
        for v in (layer.moving_mean, layer.moving_variance)
    }
    assert moving
    for ours, theirs in zip(whole.model.variables, trained.variables, strict=True):
        same = bool((ours.numpy() == theirs.numpy()).all())
        assert same == (id(ours) not in moving), ours.path


@pytest.mark.slow
def test_killed_and_stopped_it_ends_bit_for_bit(whole, root, monkeypatch):
    """SIGKILL in training; SIGTERM in a PreciseBN on the way, and before the last."""
    parts = config_of(root, "parts")
    flags = sorted(set(parts.lines()) - set(DetectionConfig().lines()))
    again = [sys.executable, "-m", "trainers.finetune_detection", *flags]
    with started(*again) as process:
        until((root / "parts/checkpoints/step_000000002").exists, "it", process)
        process.send_signal(signal.SIGKILL)

    monkeypatch.setenv(STOP, "statistics")
    with (
        pytest.raises(RunStopped, match="signal after step 3, which is") as stopped,
        SignalledRun.begun(parts) as run,
    ):
        run.to_the_end()
    assert stopped.value.status == 143

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.step) == 6:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunStopped, match="signal after step 6, which is") as stopped:
        finetune_detection(parts, [Stop()])
    assert stopped.value.status == 143
    assert not (root / "parts/detector.keras").exists()
    run = finetune_detection(parts)
    assert difference(root / "whole", root / "parts") == 0
    for name in ("scores.json", "results.json", "detections.png"):
        mine, theirs = (root / n / name for n in ("parts", "whole"))
        assert mine.read_bytes() == theirs.read_bytes(), name
    for old, new in zip(whole.model.variables, run.model.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert losses_of(root / "parts") == losses_of(root / "whole")


@pytest.mark.slow
def test_a_finished_run_changes_nothing(whole, root):
    before = state_of(whole.workdir)
    run = finetune_detection(whole.config)
    assert state_of(whole.workdir) == before
    # What it returns is the detector of the file, not the checkpoint's.
    for old, new in zip(whole.model.variables, run.model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_a_damaged_detector_is_made_anew(whole, caplog):
    """Its last statistics come out the same; what is there stays."""
    path = whole.workdir / "detector.keras"
    content, scores = path.read_bytes(), (whole.workdir / "scores.json").read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(len(content) - middle))
    run = finetune_detection(whole.config)
    assert "detector.keras cannot be read" in caplog.text
    for old, new in zip(whole.model.variables, run.model.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert (whole.workdir / "scores.json").read_bytes() == scores
    assert len(keras.models.load_model(path).variables) == len(run.model.variables)


def test_a_detector_of_boxes_and_a_frozen_encoder(root):
    config = config_of(root, "none", box_only=True, freeze_encoder=True, dry_run=True)
    with DetectionRun.begun(config) as run:
        assert run.model.mask_head is None and len(run.model.loss_names) == 4
        assert not run.model.encoder.trainable_variables
        assert run.model.pyramid.trainable_variables
        measured = {id(layer) for layer in run.statistics._precise.layers}
        encoder = run.model.encoder._flatten_layers()
        assert measured and not measured & {id(layer) for layer in encoder}
        # The weights of the pretrained encoder, in its strided twin.
        fine = keras.models.load_model(root / "fine.keras")
        for old, new in zip(fine.variables, run.model.encoder.variables, strict=True):
            np.testing.assert_array_equal(old, new)
    assert not pathlib.Path(config.workdir).exists()


def test_what_will_not_be_measured_or_reached_is_told(root, tmp_path, caplog):
    """COCO's files with masks to learn from alone; a warm-up beyond the first fall."""
    (tmp_path / "annotations").mkdir()
    for split, outlines in {"train": [[4, 4, 40, 4, 40, 30]], "val": []}.items():
        (tmp_path / f"{split}2017").mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / f"{split}2017" / "a.png")
        image = {"id": 1, "file_name": "a.png", "height": 64, "width": 64}
        thing = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 36, 26]}
        about = {
            "images": [image],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{**thing, "iscrowd": 0, "segmentation": outlines}],
        }
        path = tmp_path / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(about))
    data = {"dataset": "coco", "data_dir": str(tmp_path), "val_split": "val"}
    more = {"batch_size": 1, "warmup_steps": 4, "dry_run": True}
    with DetectionRun.begun(config_of(root, "none", **data, **more)) as run:
        assert "Masks are learned and not measured" in caplog.text
        run.log_start()
    assert "0.02 is never reached, 0.002 at most: the warm-up of 4" in caplog.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"init_from": "other.keras"}, "exact twin of output stride 32.*scenes_r18"),
        ({"batch_size": 3, "strategy": "mirrored"}, "divide by the 4 replicas"),
    ],
)
def test_what_cannot_be_is_refused(root, given, words):
    if "init_from" in given:
        given = {"init_from": str(root / given["init_from"])}
    with (
        pytest.raises(SettingError, match=words),
        DetectionRun.begun(config_of(root, "refused", **given)),
    ):
        pass
    assert not (root / "refused").exists()
