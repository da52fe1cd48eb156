"""trainers.finetune_segmentation as a user types it: layouts, resume, refusals."""

import csv
import json
import re
import signal
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from slotcon_tf import LARS, SlotCon, backbone
from slotcon_tf.interop import load_encoder, save_encoder
from slotcon_tf.runs import FinetuneConfig, PretrainConfig
from slotcon_tf.runs.checkpoints import Checkpoints
from slotcon_tf.runs.finetune_inputs import pretrained_encoder
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.model_config import write_model_config
from slotcon_tf.segmentation import Segmenter
from tests.support.command import difference, run, started, until

SMALL = ["--scale=64,40", "--crop_size=33", "--batch_size=4", "--num_pictures=2"]
# Several command lines in one process: imports take seconds.
IN_ONE = """
import contextlib, io, json, sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * 2)
from trainers.finetune_segmentation import main
for line in json.loads(sys.argv[1]):
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            main(['finetune', *line])
    except SystemExit as end:
        print('ENDED', end.code, *told.getvalue().splitlines()[-1:])
    sys.stderr.write(told.getvalue())
"""


def command(*flags):
    return [sys.executable, "-m", "trainers.finetune_segmentation", *flags]


def drawn(seed, ids):
    """An image of blobs, each of its class's grey, and their ids."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(40, 56)), 5)
    which = np.digitize(noise, np.quantile(noise, [0.3, 0.6, 0.9]))
    image = np.repeat((40 + 60 * which)[..., None], 3, axis=-1).astype(np.uint8)
    return Image.fromarray(image), Image.fromarray(np.array(ids, np.uint8)[which])


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six images in the layouts of VOC, Cityscapes and ADE20K."""
    root = tmp_path_factory.mktemp("data")
    voc, city, ade = root / "voc", root / "city", root / "ade"
    for number in range(6):
        name, split = f"image{number}", "train" if number < 4 else "val"
        image, labels = drawn(number, (0, 7, 15, 255))
        save(image, voc / "JPEGImages" / f"{name}.jpg")
        folder = "SegmentationClassAug" if number == 3 else "SegmentationClass"
        save(labels, voc / folder / f"{name}.png")
        lists = voc / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        with (lists / f"{'aug' if number == 3 else split}.txt").open("a") as file:
            file.write(f"{name}\n")
        image, labels = drawn(number, (7, 11, 26, 0))
        below = f"{split}/zurich/zurich_{number}"
        save(image, city / "leftImg8bit" / f"{below}_leftImg8bit.png")
        save(labels, city / "gtFine" / f"{below}_gtFine_labelIds.png")
        image, labels = drawn(number, (1, 3, 150, 0))
        folder = {"train": "training", "val": "validation"}[split]
        save(image, ade / "images" / folder / f"{name}.jpg")
        save(labels, ade / "annotations" / folder / f"{name}.png")
    return root


def tiny_encoder(**options):
    return backbone("resnet18", width=8, stage_depths=(1, 1, 1, 1), **options)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The work directory of a pretraining that has not ended."""
    folder = tmp_path_factory.mktemp("pretrained")
    keras.utils.set_random_seed(5)
    sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 8}
    model = SlotCon(tiny_encoder(), total_steps=10, **sizes)
    model.compile(optimizer=LARS(0.1))
    model.optimizer.build(model.trainable_variables)
    kernel = model.teacher.encoder.get_layer("conv1").kernel
    kernel.assign(kernel + 0.01)  # not the student's
    model.step.assign(3)
    write_model_config(folder, model)
    saver = Checkpoints(
        folder / "checkpoints", model, PretrainConfig(), steps_per_epoch=2, keep=1
    )
    saver.save()
    return folder


@pytest.fixture(scope="module")
def runs(data, pretrained, tmp_path_factory):
    """Each flagfile from another start, and what cannot be; in one process.

    Returns:
        The folder of the runs, the process, the refused flags by the words expected.
    """
    root = tmp_path_factory.mktemp("runs")
    save_encoder(tiny_encoder(), root / "encoder.safetensors", "safetensors")
    alien = root / "alien.keras"
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs)).save(alien)
    folders = root / "folders"
    for split, ids in (("train", (0, 1, 2, 255)), ("val", (0, 1, 2, 9))):
        image, labels = drawn(0, ids)
        save(image, folders / split / "a.png")
        save(labels, folders / f"{split}annot" / "a.png")
    drawing = root / "masks"
    for split in ("train", "val"):
        image, labels = drawn(0, (0, 255, 0, 255))
        save(image, drawing / split / "a.png")
        save(labels, drawing / f"{split}annot" / "a.png")
    deep = root / "deep"
    for split in ("train", "val"):
        image, labels = drawn(0, (0, 1, 2, 255))
        shares = np.asarray(image)[..., 0].astype(np.float32) / 255
        save(Image.fromarray(shares), deep / split / "a.tif")
        save(labels, deep / f"{split}annot" / "a.png")
    tiny_encoder(pixel_range=(0, 1)).save(root / "deep.keras")
    (root / "two.txt").write_text("0 ground\n1 object\n")
    (root / "pre").mkdir()
    (root / "pre" / "pretrain.flags").write_text("--seed=0\n")

    ade = ["--flagfile=ade20k_fcn.flags", *SMALL, f"--init_from={pretrained}"]
    ade += [f"--data_dir={data / 'ade'}", "--steps=40", "--eval_every_steps=20"]
    ade += ["--base_lr=0.02", "--checkpoint_steps=2", f"--workdir={root / 'ade'}"]
    voc = ["--flagfile=voc_fcn.flags", *SMALL, f"--data_dir={data / 'voc'}"]
    voc += ["--steps=2", "--eval_every_steps=0"]
    voc += [f"--init_from={root / 'encoder.safetensors'}"]
    # So small that the encoder is still to be known.
    voc += ["--base_lr=1e-12"]
    city = ["--flagfile=cityscapes_fcn.flags", *SMALL, f"--data_dir={data / 'city'}"]
    city += ["--steps=1", "--eval_every_steps=1", "--sliding_stride=20"]
    city += [f"--init_from={root / 'voc' / 'segmenter.keras'}", "--strategy=mirrored"]
    refused = {
        "Did you mean 'voc'": ["--dataset=vok"],
        "train.txt. Received: no such file": [f"--data_dir={data / 'ade'}"],
        "vall.txt. Received: no such file": ["--val_split=vall"],
        "divide by the 2 replicas.*Use 2": ["--strategy=mirrored", "--batch_size=3"],
        "must hold a slotcon_tf.ResNet": [f"--init_from={alien}"],
        "No pretrained model": [f"--init_from={root / 'none.pth'}"],
        "runs on one host": ["--strategy=multi_worker"],
        "must divide --steps.*Set --steps=10": ["--eval_every_steps=5", "--steps=12"],
        "two whole numbers": ["--fit_edges=513"],
        "be whole numbers, with commas": ["--scale=a,b"],
        "same classes.*'9' of the latter only": [
            *("--dataset=folders", "--train_split=train"),
            f"--data_dir={folders}",
        ],
        "It must be said what 255 is.*--label_ids=0,255": [
            *("--dataset=folders", "--train_split=train", f"--data_dir={drawing}"),
        ],
        "of two classes at least.*only 'ground' and void.*--label_ids": [
            *("--dataset=folders", "--train_split=train", f"--data_dir={drawing}"),
            f"--class_file={root / 'two.txt'}",
        ],
        "another configuration": [f"--workdir={root / 'voc'}", "--seed=8"],
        "which has pretrain.flags": [f"--workdir={root / 'pre'}"],
    }
    lines = [
        ade,
        [*voc, f"--workdir={root / 'voc'}"],
        [*city, f"--workdir={root / 'city'}"],
        # The same command again: everything is done already.
        [*voc, f"--workdir={root / 'voc'}"],
        # Numbers of 32 bits can be read in the encoder's range alone.
        [
            *(*voc, "--dataset=folders", "--train_split=train"),
            *(f"--data_dir={deep}", f"--init_from={root / 'deep.keras'}"),
            *("--steps=1", f"--workdir={root / 'of_deep'}"),
        ],
        *([*voc, f"--workdir={root / 'bad'}", *flags] for flags in refused.values()),
    ]
    return root, run(sys.executable, "-c", IN_ONE, json.dumps(lines)), refused


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(runs, tmp_path):
    """ADE20K's protocol: dropout, drawn crops, colours; a kill, then SIGTERM."""
    whole, parts = runs[0] / "ade", tmp_path / "parts"
    again = command(f"--flagfile={whole / 'finetune.flags'}", f"--workdir={parts}")
    for number, step, status in ((signal.SIGKILL, 2, -9), (signal.SIGTERM, 6, 143)):
        with started(*again) as process:
            written = parts / "checkpoints" / f"step_{step:09d}"
            until(written.exists, "a checkpoint", process)
            process.send_signal(number)
            _, log = process.communicate()
        assert process.returncode == status, log[-2000:]
    assert "Stopped by a signal after step" in log
    done = run(*again)
    assert "Resumed after step" in done.stderr and "miou" in done.stdout
    assert difference(whole, parts) == 0.0
    rows = []
    for folder in (whole, parts):
        with (folder / "history.csv").open() as file:
            found = list(csv.DictReader(file))
        rows.append([(r["loss"], r["pixel_accuracy"], r["val_miou"]) for r in found])
    assert rows[0] == rows[1] and len(rows[0]) == 2
    scores = [json.loads((f / "scores.json").read_text()) for f in (whole, parts)]
    assert scores[0] == scores[1] and scores[0]["step"] == 40
    assert scores[0]["classes"]["class 150"]["trained"] is not None
    assert scores[0]["classes"]["class 2"]["trained"] is None


@pytest.mark.slow
def test_each_protocol_from_another_start(runs, pretrained):
    root, done, refused = runs
    said = [w for w in done.stdout.splitlines() if w.startswith("ENDED")]
    assert all(text.startswith("ENDED 0") for text in said[:5]), said
    assert f"as {pretrained}: " in done.stderr
    assert "2 replica(s)" in done.stderr and "All 2 steps are done" in done.stderr
    for words, text in zip(refused, said[5:], strict=True):
        settings = words.startswith(("divide", "must", "runs on", "two", "be whole"))
        ending = f"ENDED {2 if settings else 1} finetune_segmentation: "
        assert text.startswith(ending) and re.search(words, text), (words, text)
    assert not (root / "bad").exists()

    model = keras.models.load_model(root / "voc" / "segmenter.keras")
    assert isinstance(model, Segmenter) and model.class_names[7] == "car"
    assert model.encoder.output_stride == 16 and model.encoder.contract_dilation
    encoder, _ = load_encoder(root / "encoder.safetensors")
    for found, expected in zip(
        model.encoder.trainable_variables, encoder.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    scores = json.loads((root / "city" / "scores.json").read_text())
    assert len(scores["classes"]) == 19 and "2 images" in scores["dataset"]
    for name in ("ade", "voc", "city"):
        assert (root / name / "masks.png").stat().st_size > 1000
        assert list((root / name / "tensorboard").rglob("events*"))


def test_the_teachers_encoder_is_taken(pretrained):
    model, _ = load_trained(pretrained)
    found = pretrained_encoder(pretrained).get_layer("conv1").kernel
    teacher, student = (
        model.network(which).encoder.get_layer("conv1").kernel.numpy()
        for which in ("teacher", "student")
    )
    np.testing.assert_array_equal(found, teacher)
    assert (teacher != student).all()


@pytest.mark.parametrize("name", ["voc_fcn", "cityscapes_fcn", "ade20k_fcn"])
def test_protocols(name):
    """What the paper says of them; the configurations for others are made of it."""
    config = FinetuneConfig.from_recipe(name, data_dir="data")
    d8 = name == "ade20k_fcn"
    assert config.batch_size == 16 and config.head == ("d8" if d8 else "d6")
    assert config.weight_decay == (5e-4 if d8 else 1e-4)
    assert config.schedule == ("poly" if d8 else "steps")
    assert (config.distort, config.cat_max_ratio) == (
        (True, 0.75) if d8 else (False, 1)
    )
    steps = {"voc_fcn": 30_000, "cityscapes_fcn": 90_000, "ade20k_fcn": 80_000}[name]
    assert config.steps == 10 * config.steps_between_evaluations == steps
