"""Runs of the days before runs were objects are read, compared and gone on with."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest

from slotcon_tf import BACKBONES, SlotCon
from slotcon_tf.presets import HEADS
from slotcon_tf.runs import FinetuneConfig, PretrainConfig, finetune, pretrain
from slotcon_tf.runs.checkpoints import largest_difference
from slotcon_tf.runs.kept_files import KeptFileError
from slotcon_tf.runs.loading import load_trained, serving_options
from slotcon_tf.runs.places import LEDGER
from slotcon_tf.runs.pretraining import PretrainRun
from slotcon_tf.runs.products import Products
from slotcon_tf.runs.workdir import WorkdirError, check
from slotcon_tf.segmentation import Segmenter
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.training.auxiliaries import Troubles
from tests.support.disk_case import tree

OLD = pathlib.Path(__file__).parents[1] / "golden" / "old_runs"
LAST = "checkpoints/step_000000004"
# float32's rounding on another processor, over two steps.
ROUNDING = 1e-4


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the old runs, in the folder they were made in, with their network."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    tiny = {"width": 4, "stage_depths": (1, 1, 1, 1)}
    monkeypatch.setitem(BACKBONES, "tiny", {**BACKBONES["resnet18"], **tiny})
    monkeypatch.setitem(HEADS["d6"]["head"], "channels", 4)
    return tmp_path


def settings(kind, **changes):
    lines = (OLD / kind.flagfile.split(".")[0] / kind.flagfile).read_text()
    return kind.from_lines(lines.splitlines(), **changes)


def test_old_flags_are_settings():
    config = settings(PretrainConfig)
    assert config.weight_decay == 1e-4 and config.strategy == "one_device"
    assert config.eval_void_ids == () and config.export and not config.remat
    # What the run could not say is what it did.
    assert config.contrastive_temperature == 0.2 and config.pixel_range is None
    config = settings(FinetuneConfig)
    assert config.fit_edges == (48, 40) and config.steps_between_evaluations == 2


def test_an_old_run_goes_on_or_is_refused(old):
    run = PretrainRun(settings(PretrainConfig, workdir="./pretrain", remat=True))
    assert run.first_step == 4
    for change in ("seed=3", "contrastive_temperature=0.3", "weight_decay=2e-05"):
        name, value = change.split("=")
        with pytest.raises(WorkdirError, match=f"{name}=.* \\(now {value}\\)"):
            check(settings(PretrainConfig, **{name: float(value)}))
    # Done already: its scores stay, its files of then are read.
    ended = finetune(settings(FinetuneConfig, keep_checkpoints=1))
    known = json.loads((OLD / "finetune" / "scores.json").read_text())
    assert ended.first_step == 4 and ended.scores["miou"] == known["miou"]
    with pytest.raises(WorkdirError, match=r"crop_size=33 \(now 32\)"):
        check(settings(FinetuneConfig, crop_size=32))
    with pytest.raises(WorkdirError, match=r"which has pretrain\.flags"):
        check(settings(FinetuneConfig, workdir="pretrain"))


def test_a_flag_that_is_known_no_longer_is_another_version(old):
    for flags in (old / "pretrain").rglob("pretrain.flags"):
        flags.write_text(f"{flags.read_text()}--colour=red\n")
    with pytest.raises(KeptFileError, match="colour. Take .* the version that wrote"):
        check(settings(PretrainConfig))


def test_an_old_run_that_has_ended_keeps_its_models(old):
    """It has no record of what was made; what is there is not made again."""
    folder = old / "pretrain"
    version = folder / "export" / "3"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_text("of then")
    before = tree(folder)
    run = pretrain(settings(PretrainConfig))
    assert run.first_step == 4
    after = tree(folder)
    new = {name for name in after if after[name] != before.get(name)}
    assert {"finished.json", "slots.png"} <= new
    assert not {name for name in new if "keras" in name or "export" in name}
    made = json.loads((folder / "finished.json").read_text())["made"]
    assert made["export"]["path"] == "export/3"
    finetune(settings(FinetuneConfig))
    made = json.loads((old / "finetune" / "finished.json").read_text())["made"]
    assert sorted(made) == ["scores.json", "segmenter.keras"]
    known = (OLD / "finetune" / "segmenter.keras").read_bytes()
    assert (old / "finetune" / "segmenter.keras").read_bytes() == known


def test_a_model_is_of_its_end_only_if_it_says_so(old):
    """Of an earlier step, of other settings, cut short; or of a run that goes on."""
    folder = old / "pretrain"

    def made(step=4, of=None, ended=True):
        products = Products(folder, step, Troubles(), ended=ended)
        there = products.make("slotcon.keras", lambda: None, of=of)
        (folder / LEDGER).unlink(missing_ok=True)
        return there

    assert made() and made(of={"serving_size": None})
    assert not made(step=5) and not made(of={"serving_size": 48})
    assert not made(ended=False)
    whole = (folder / "slotcon.keras").read_bytes()
    (folder / "slotcon.keras").write_bytes(whole[: len(whole) // 2])
    assert not made()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "run"), [(PretrainConfig, pretrain), (FinetuneConfig, finetune)]
)
def test_an_old_run_ends_as_it_did(old, kind, run):
    """From its checkpoint of step 2; what it had at step 4 then is known."""
    folder = pathlib.Path(kind.flagfile).stem
    known = shutil.move(old / folder / LAST, old / "known")
    done = run(settings(kind))
    assert done.workdir == pathlib.Path(folder) and done.first_step == 2
    assert int(done.model.step.numpy()) == 4
    assert largest_difference(pathlib.Path(known), old / folder / LAST) < ROUNDING
    if kind is FinetuneConfig:
        before = json.loads((OLD / "finetune" / "scores.json").read_text())
        assert done.scores["miou"] == pytest.approx(before["miou"], abs=0.02)


def test_old_models_load():
    model = SlotCon.from_preset(OLD / "pretrain")
    assert model.serving_size is None
    kept, _ = load_trained(OLD / "pretrain" / LAST)
    for one, other in zip(model.get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert serving_options(model)["options"] == ServingOptions()
    segmenter = keras.models.load_model(OLD / "finetune" / "segmenter.keras")
    assert isinstance(segmenter, Segmenter) and segmenter.class_names == ("0", "1")
    assert segmenter(np.zeros((1, 40, 48, 3), np.float32)).shape == (1, 40, 48, 2)
