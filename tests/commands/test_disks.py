"""Commands on disks that are full or read-only: one line, and what was there stays."""

import os

import keras
import numpy as np
import pytest
from PIL import Image

from export.extraction import Images, extract
from slotcon_tf import backbone
from slotcon_tf.runs import RunStopped, RunUnfinished, pretrain
from slotcon_tf.runs.checkpoints import checkpoint_paths
from slotcon_tf.runs.finetuning import FinetuneRun
from slotcon_tf.runs.pretraining import PretrainRun
from tests.support.command import TINY, TINY_RUN
from tests.support.disk_case import fill, read_only, small_disk, tree

FULL, READ_ONLY = "No space left on device", "Read-only file system"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """An encoder, photographs, label maps of two classes."""
    root = tmp_path_factory.mktemp("good")
    keras.utils.set_random_seed(0)
    encoder = backbone("resnet18", width=8, stage_depths=(1, 1, 1, 1))
    encoder.save(root / "encoder.keras")
    rng = np.random.default_rng(0)
    for folder in ("photos", "val", "valannot", "train", "trainannot"):
        (root / folder).mkdir()
        shape = (64, 64) if "annot" in folder else (64, 64, 3)
        for index in range(2):
            high = 2 if "annot" in folder else 256
            pixels = rng.integers(0, high, shape, np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{index}.png")
    # More of them, so that the records do not fit beside a filled disk.
    for index in range(40):
        pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"more{index}.png")
    return root


# Command, what it writes, and its flags; {good} and {disk} are folders.
WRITERS = [
    ("trainers.convert", "old.pth", ["{good}/encoder.keras", "--to=timm"]),
    ("trainers.convert", "old.keras", ["{good}/encoder.keras", "--to=keras"]),
    (
        "trainers.convert",
        "old.safetensors",
        ["{good}/encoder.keras", "--to=safetensors"],
    ),
    (
        "trainers.visualize",
        "old.html",
        ["--model={good}/encoder.keras", "--num_images=2"],
    ),
    ("trainers.prepare", "records", ["--shards=1"]),
    (
        "trainers.check_data",
        "old.txt",
        ["--bad_list={disk}/old.txt", "--max_pixels=100"],
    ),
    ("trainers.evaluate", "old.json", ["--task=linear", "--steps=1", "--nobaseline"]),
    pytest.param("export.saved_model", "export", [], marks=pytest.mark.slow),
]


def words_of(name, good, disk, what, flags):
    if name in ("trainers.visualize", "trainers.prepare", "trainers.check_data"):
        flags = [*flags, "--data_dir={good}/photos"]
    if name == "trainers.evaluate":
        flags = [*flags, "--model={good}/encoder.keras", "--data_dir={good}"]
        flags = [*flags, "--resamples=0", "--output={disk}/" + what]
    elif name == "export.saved_model":
        flags = ["--model={good}/encoder.keras", "--export_dir={disk}/" + what]
        flags = [*flags, "--batch_sizes="]
    elif name != "trainers.check_data":
        flags = [*flags, "--output={disk}/" + what]
    return [word.format(good=good, disk=disk) for word in flags]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    with small_disk(tmp_path_factory.mktemp("mounted"), 4) as folder:
        yield folder


@pytest.mark.parametrize(("name", "what", "flags"), WRITERS)
def test_a_full_disk_ends_in_one_line(name, what, flags, good, disk, tells):
    """What was there stays whole, and nothing half-written is left."""
    if "." in what:
        (disk / what).write_text("old")
    before = tree(disk)
    filler = fill(disk)
    try:
        status, line, _ = tells(name, *words_of(name, good, disk, what, flags))
        assert status == 1 and FULL in line and str(disk / what) in line
        filler.unlink()
        assert tree(disk) == before
        assert not list(disk.rglob(".writing-*"))
    finally:
        filler.unlink(missing_ok=True)


def test_features_go_on_once_there_is_space(disk, good):
    """What was extracted before the disk was full is not extracted again."""
    paths = tuple(sorted((good / "photos").iterdir()))  # 42, in 11 batches
    asked = []

    def predict(files):
        asked.append(len(files))
        if len(asked) == 4:
            fill(disk)
        return {"map": np.ones((len(files), 5_000), np.float32)}

    output = disk / "features.npz"
    images = Images(good / "photos", paths)
    options = {"settings": {}, "batch_size": 4, "concurrency": 1}
    with pytest.raises(OSError, match=FULL):
        extract(predict, images, output, **options)
    kept = sorted((disk / "features.npz.partial").glob("*.npz"))
    assert not output.exists() and not list(disk.rglob(".writing-*"))
    assert len(kept) == 3
    (disk / "filler").unlink()
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # cut short, by another program
    asked[:] = [0] * 4
    assert extract(predict, images, output, **options) == {}
    assert len(asked) == 4 + 11 - 2
    assert np.load(output)["map"].shape == (42, 5_000)
    assert not (disk / "features.npz.partial").exists()
    output.unlink()


@pytest.mark.slow
def test_a_read_only_disk_ends_in_one_line(good, disk, tells):
    (disk / "old.pth").write_text("old")
    with read_only(disk):
        before = tree(disk)
        for name, what, flags in WRITERS[:-1]:
            status, line, _ = tells(name, *words_of(name, good, disk, what, flags))
            assert status == 1 and READ_ONLY in line, line
            assert str(disk / what) in line, line
        flags = [*TINY, "--epochs=1", f"--workdir={disk / 'run'}"]
        status, line, _ = tells("trainers.pretrain", *flags)
        assert status == 1 and READ_ONLY in line and str(disk / "run") in line, line
        assert tree(disk) == before


@pytest.mark.slow
def test_a_pretraining_on_a_full_disk_goes_on_where_it_was(tmp_path, untraced, caplog):
    """Full at the second checkpoint, and with more space at the export.

    In this process, where the command would end it at once.
    """
    with small_disk(tmp_path / "disk", 400) as disk:
        run = disk / "run"
        config = TINY_RUN.replace(
            epochs=2, max_steps_per_epoch=1, batch_size=2, workdir=str(run)
        )
        filler = fill(disk, leave=100 << 20)
        with pytest.raises(RunStopped, match="checkpoint of step 2 must be") as error:
            pretrain(config)
        assert FULL in str(error.value) and "goes on from" in str(error.value)
        (kept,) = checkpoint_paths(run / "checkpoints")
        assert kept.name.endswith("1") and not list(run.rglob(".writing*"))
        os.truncate(filler, filler.stat().st_size - (50 << 20))
        with (
            pytest.raises(RunUnfinished, match="Training is done and saved in") as e,
            PretrainRun.begun(config) as going_on,
        ):
            # The beginning would refuse it; told at once, without tracing.
            (run / "export").write_text("in the way")
            going_on.to_the_end()
        assert "and slotcon.keras and export could not be written" in str(e.value)
        assert "Resumed after step 1 from" in caplog.text
        assert f"slotcon.keras failed: {run / 'slotcon.keras'}: {FULL}" in caplog.text
        assert len((run / "history.csv").read_text().splitlines()) == 3
        assert not (run / "slotcon.keras").exists() and (run / "slots.png").exists()
        assert not list(run.rglob(".writing*"))


@pytest.mark.slow
def test_a_fine_tuning_on_a_full_disk_is_trained_all_the_same(
    tmp_path, good, tells, untraced, monkeypatch
):
    def blocks(run):  # once it has begun, which would refuse them
        for name in ("masks.png", "scores.json"):
            (run.workdir / name / "in_the_way").mkdir(parents=True)

    with small_disk(tmp_path / "disk", 40) as disk:
        run = disk / "run"
        flags = [f"--init_from={good}/encoder.keras", "--dataset=folders"]
        flags += [f"--data_dir={good}", f"--workdir={run}", "--steps=2"]
        flags += ["--fit_edges=64,64", "--crop_size=33", "--batch_size=2"]
        flags += ["--eval_every_steps=1", "--strategy=one_device", "--num_pictures=1"]
        flags += ["--keep_checkpoints=1"]
        with monkeypatch.context() as patched:
            patched.setattr(FinetuneRun, "begin", blocks)
            status, line, told = tells("trainers.finetune_segmentation", *flags)
        assert status == 1 and "and scores.json could not be written" in line
        for epoch in (1, 2):
            assert f"warning: evaluation failed in epoch {epoch}: " in told
        assert "warning: masks.png failed: " in told
        assert (run / "segmenter.keras").exists()
        for name in ("masks.png", "scores.json"):
            (run / name / "in_the_way").rmdir()
            (run / name).rmdir()
        before = tree(run)
        status, _, _ = tells("trainers.finetune_segmentation", *flags)
        after = tree(run)
        new = {name for name in after if after[name] != before.get(name)}
        assert status == 0
        assert new == {"masks.png", "scores.json", "history.csv", "finished.json"}
        assert tells("trainers.finetune_segmentation", *flags)[0] == 0
        assert tree(run) == after
