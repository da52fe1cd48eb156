"""Files of a run that somebody or something has damaged: one line, and what to do."""

import json
import pathlib
import shutil

import pytest

from slotcon_tf.runs import FinetuneConfig, pretrain
from slotcon_tf.runs.kept_files import KeptFileError, set_aside_damaged
from slotcon_tf.runs.workdir import WorkdirError, check, claim
from tests.support.checkpoint_case import CONFIG, save_at, store
from tests.support.command import TINY_RUN

FLAGS = "pretrain.flags"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A work directory with a checkpoint of step 2."""
    workdir = tmp_path_factory.mktemp("saved")
    config = CONFIG.replace(workdir=str(workdir))
    claim(config)
    save_at(store(workdir / "checkpoints", config=config), 2)
    return config


@pytest.fixture
def run(saved):
    """Its configuration; its flags are mended after the test."""
    path = pathlib.Path(saved.workdir) / FLAGS
    before = path.read_bytes()
    yield saved
    path.write_bytes(before)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file"),
        (b"# Every flag of this run.\n\n", "an empty file"),
        (b"--no_such=1\n", "no_such"),
        (b"--batch_size=many\n", "batch_size=many"),
        (b"--batch_si", "batch_si. Did you mean batch_size?"),
        (b"--seed=\xff\xfe\n", "no text"),
        (b"PK\x03\x04\x00", "the line 'PK"),
        (b"--batch_size=4\n--seed=9\n", "seed=9, where the run has 0"),
    ],
)
def test_edited_flags_are_told_and_mended(content, told, run):
    workdir = pathlib.Path(run.workdir)
    (workdir / FLAGS).write_bytes(content)
    with pytest.raises(KeptFileError) as caught:
        check(run)
    text = str(caught.value)
    kept = workdir / "checkpoints" / "step_000000002" / FLAGS
    assert text.startswith(f"{workdir / FLAGS} must have the flags")
    assert told in text and f"Copy {kept} over it" in text and "\n" not in text
    # What it says helps.
    (workdir / FLAGS).write_bytes(kept.read_bytes())
    check(run)


def test_empty_flags_without_a_checkpoint(tmp_path):
    config = CONFIG.replace(workdir=str(tmp_path))
    (tmp_path / FLAGS).touch()
    with pytest.raises(KeptFileError, match="Delete it: the run begins anew"):
        check(config)


def test_another_configuration_is_another_run_still(run):
    with pytest.raises(WorkdirError, match=r"seed=0 \(now 3\)"):
        check(run.replace(seed=3))


@pytest.mark.parametrize(
    "name",
    [
        *(FLAGS, "history.csv", "model.json", "scores.json", "skipped.txt"),
        *("slotcon.keras", "segmenter.keras", "finished.json", "run.lock"),
    ],
)
def test_a_folder_in_place_of_a_file(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(KeptFileError, match=f"{name} must be a file"):
        check(CONFIG.replace(workdir=str(tmp_path)))


@pytest.mark.parametrize("name", ["", "checkpoints", "tensorboard", "export"])
def test_a_file_in_place_of_a_folder(name, tmp_path):
    path = tmp_path / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(KeptFileError, match="must be a folder"):
        check(CONFIG.replace(workdir=str(tmp_path / "run")))
    assert path.read_text() == "mine"


SCORE = '{"rows": {"miou": {"trained": [0.5, null, null]}}}'


@pytest.mark.parametrize(
    ("name", "content", "kept"),
    [
        ("history.csv", b"epoch,loss,mine\n0,0.5,x\n", True),
        ("history.csv", b"", True),
        ("history.csv", b"\xff\xfee\x00p\x00", False),
        ("history.csv", b"my notes\n", False),
        ("history.csv", b"\xef\xbb\xbfepoch;loss\n0;0,5\n", False),
        ("scores.json", SCORE.encode(), True),
        ("scores.json", SCORE.encode()[:20], False),
        ("scores.json", b'{"rows": {"miou": 3}}', False),
        ("scores.json", b"[]", False),
        ("scores.json", b"\xff", False),
    ],
)
def test_history_and_scores_are_set_aside(name, content, kept, tmp_path, caplog):
    """Nothing that a run needs is in them, and what was there is not lost."""
    (tmp_path / name).write_bytes(content)
    set_aside_damaged(tmp_path)
    aside = tmp_path / f"damaged_{name}"
    assert (tmp_path / name).exists() == kept and aside.exists() != kept
    assert kept or aside.read_bytes() == content
    assert kept or f"{name} cannot be gone on with" in caplog.text


def test_a_run_goes_on_where_they_are_damaged(tmp_path):
    """And where what names bad images is no text."""
    config = TINY_RUN.replace(epochs=1, export=False, workdir=str(tmp_path))
    pretrain(config)
    for name in ("history.csv", "scores.json", "skipped.txt", "model.json"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    pretrain(config.replace(resume="auto"))
    assert json.loads((tmp_path / "model.json").read_text())["num_prototypes"] == 8


def test_flags_of_a_fine_tuning(tmp_path):
    config = FinetuneConfig(workdir=str(tmp_path), data_dir="a")
    claim(config)
    (tmp_path / config.flagfile).write_text("--steps=0\n")
    with pytest.raises(KeptFileError, match="steps=0. Delete it"):
        check(config)


def test_the_newest_checkpoint_is_named_and_no_copy_of_somebodys(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    kept = workdir / "checkpoints" / "step_000000002"
    for name in ("step_000000001", "step_of_mine_3", "step_000000002_copy4"):
        shutil.copytree(kept, kept.with_name(name))
    (workdir / FLAGS).write_text("")
    with pytest.raises(KeptFileError, match=f"Copy {kept / FLAGS} over it"):
        check(run.replace(workdir=str(workdir)))
