"""The converter and --init_from as a user types them."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import LARS, ResNet, SlotCon, backbone
from slotcon_tf.images import normalize
from slotcon_tf.interop import (
    CheckpointFileError,
    load_encoder,
    load_slotcon,
    save_encoder,
)
from slotcon_tf.interop.names import encoder_entries, with_batches_tracked
from slotcon_tf.interop.torch_files import write_torch
from slotcon_tf.runs import PretrainConfig
from slotcon_tf.runs.checkpoints import Checkpoints
from slotcon_tf.runs.initialization import initialize
from slotcon_tf.runs.loading import (
    load_trained,
    results_folder,
    run_folder,
)
from slotcon_tf.runs.model_config import write_model_config
from tests.support.command import TINY, modules
from tests.support.golden_case import CHECKPOINT
from tests.support.small_case import small_model
from trainers import convert


@pytest.mark.slow
def test_official_weights_to_a_saved_model_and_to_others(tmp_path):
    """The README's commands, without the server: convert, export, load, compare."""
    model_file, served = tmp_path / "slotcon.keras", tmp_path / "served"
    others = tmp_path / "others"
    others.mkdir()
    line = ("trainers.convert", CHECKPOINT)
    taken, _, _ = modules(
        (*line, "--from=slotcon_torch", f"--output={model_file}"),
        ("export.saved_model", f"--model={model_file}", f"--export_dir={served}"),
        (*line, "--to=detectron2", f"--output={others / 'd2.pkl'}"),
    )
    assert "245 matched, 46 left out, 0 unused, 0 missing" in taken.stdout
    assert "module" not in taken.stdout and f"Written: {model_file}" in taken.stdout
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    answer = tf.saved_model.load(str(served / "1")).signatures["serving_default"]
    found = answer(image=tf.constant(image))["map"]
    encoder = load_encoder(CHECKPOINT)[0]
    truth = encoder(normalize(tf.cast(image, tf.float32)), training=False)
    np.testing.assert_allclose(found, truth, atol=1e-4 * np.abs(truth).max())
    assert sorted(p.name for p in others.iterdir()) == ["d2.pkl", "d2_coco_1x.yaml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([CHECKPOINT], "--output must be given"),
        ([CHECKPOINT, "--output=a", "--from=keras"], "--from=keras reads .keras"),
        ([CHECKPOINT, "--output=a", "--part=model", "--to=timm"], "takes an encoder"),
        (["none.pth", "--output=a"], "No pretrained model: none.pth"),
    ],
)
def test_what_cannot_be_converted(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        convert.main(["convert", *map(str, words)])
    *_, last = capsys.readouterr().err.splitlines()
    assert message in last and end.value.code == (1 if "none" in message else 2)


@pytest.mark.slow
def test_a_run_begins_with_another_runs_weights(tmp_path):
    """The first run's model, as the second's first weights; and it goes on."""
    first, second = tmp_path / "first", tmp_path / "second"
    flags = ["trainers.pretrain", *TINY, "--epochs=1"]
    other = [f"--init_from={first}", "--base_lr=0", "--seed=5", "--noexport"]
    other = [*flags, *other, f"--workdir={second}"]
    _, begun, again = modules([*flags, f"--workdir={first}"], other, other)
    assert f"Student, teacher and predictor begin as {first}" in begun.stderr
    # Without a learning rate the student stays what it was.
    students = [SlotCon.from_preset(first).student, load_trained(second)[0].student]
    for old, new in zip(*[s.parameters() for s in students], strict=True):
        np.testing.assert_array_equal(old, new)
    assert "begin as" not in again.stderr and "done already" in again.stderr


@pytest.mark.slow
def test_encoders_begin_a_model(tmp_path):
    keras.utils.set_random_seed(1)
    encoder = backbone("resnet18", width=8)
    save_encoder(encoder, tmp_path / "e.pth", "torchvision")

    def fresh(arch="resnet18"):
        sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 8}
        return SlotCon(backbone(arch, width=8), total_steps=3, **sizes)

    for source, part in ((tmp_path / "e.pth", "auto"), (CHECKPOINT, "encoder")):
        model = fresh()
        initialize(model, source, part)
        truth = encoder if part == "auto" else load_slotcon(CHECKPOINT)[0].teacher
        truth = getattr(truth, "encoder", truth).get_weights()
        for network in (model.student, model.teacher):
            for old, new in zip(truth, network.encoder.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)
        assert int(model.step.numpy()) == 0
    with pytest.raises(ValueError, match="same sizes.*Set `arch`, `num_prototypes`"):
        initialize(fresh(), CHECKPOINT)
    with pytest.raises(ValueError, match="init_part=model needs a whole"):
        initialize(fresh(), tmp_path / "e.pth", "model")
    with pytest.raises(ValueError, match="must hold the encoder of `arch`"):
        initialize(fresh("resnet34"), tmp_path / "e.pth")
    with pytest.raises(ValueError, match="must hold the encoder of `arch`"):
        initialize(small_model(), tmp_path / "e.pth")


def test_a_run_that_has_not_ended_is_read_from_its_checkpoint(tmp_path):
    model = SlotCon.from_preset(CHECKPOINT)
    model.compile(optimizer=LARS(0.1))
    model.optimizer.build(model.trainable_variables)
    model.step.assign(7)
    folder = tmp_path / "checkpoints"
    Checkpoints(folder, model, PretrainConfig(), steps_per_epoch=1, keep=1).save()
    write_model_config(tmp_path, model)
    found, _ = load_trained(tmp_path)
    assert int(found.step.numpy()) == 7
    for old, new in zip(model.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    (tmp_path / "model.json").unlink()  # the checkpoint has its own
    assert int(load_trained(tmp_path)[0].step.numpy()) == 7
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match=r"directory with slotcon\.keras"):
        load_trained(tmp_path)


@pytest.fixture
def kept(tmp_path):
    """A run's folder with checkpoints of steps 7 and 8, of other weights."""
    model = small_model()
    model.compile(optimizer=LARS(0.1))
    model.optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(
        tmp_path / "run" / "checkpoints",
        model,
        PretrainConfig(),
        steps_per_epoch=1,
        keep=2,
    )
    for step in (7, 8):
        model.step.assign(step)
        model.center.assign(model.center * 0 + step)
        checkpoints.save()
    write_model_config(tmp_path / "run", model)
    return tmp_path / "run"


def test_a_checkpoint_is_read_from_its_folder(kept, tmp_path, monkeypatch):
    folder = kept / "checkpoints"
    for source, step in (
        (folder / "step_000000007", 7),
        (str(folder / "step_000000008") + "/", 8),
        (folder, 8),
        (kept, 8),
    ):
        found, _ = load_trained(source)
        assert int(found.step.numpy()) == step
        assert np.all(found.center.numpy() == step)
    monkeypatch.chdir(folder / "step_000000007")
    assert int(load_trained(".")[0].step.numpy()) == 7
    # A copy elsewhere has the description in it; one of earlier versions has none.
    copy = shutil.copytree(folder / "step_000000007", tmp_path / "best" / "mine")
    (copy / "model.json").unlink()
    with pytest.raises(CheckpointFileError, match="needs the model.json of its model"):
        load_trained(copy)
    shutil.copy(kept / "model.json", copy)
    assert int(load_trained(copy)[0].step.numpy()) == 7
    assert results_folder(copy) == copy
    initialize(small_model(), folder / "step_000000007")


def test_results_of_a_checkpoint_stay_when_it_goes(kept):
    step = kept / "checkpoints" / "step_000000007"
    assert results_folder(step) == kept / "step_000000007"
    assert run_folder(step) == results_folder(kept) == kept
    assert results_folder(CHECKPOINT) is None


@pytest.mark.parametrize("part", ["state.index", "state.data-00000-of-00001"])
def test_a_damaged_checkpoint_is_one_line(part, kept):
    step = kept / "checkpoints" / "step_000000008"
    data = (step / part).read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"\0" * len(data)):
        (step / part).write_bytes(damaged)
        with pytest.raises(CheckpointFileError, match="must be a whole checkpoint"):
            load_trained(step)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(num_prototypes=10**8),
        lambda config: config.update(num_prototypes=config["num_prototypes"] + 1),
        lambda config: config.update(no_such=1),
        lambda config: config.clear(),
    ],
    ids=["large", "other", "unknown", "empty"],
)
def test_a_description_of_another_model_is_one_line(change, kept):
    config = json.loads((kept / "model.json").read_text())
    change(config)
    checkpoint = kept / "checkpoints" / "step_000000008"
    (checkpoint / "model.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointFileError, match="checkpoint|describes") as caught:
        load_trained(checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_encoder_is_chosen_by_its_prefix(tmp_path):
    encoder = ResNet(block="basic", stage_depths=(1, 1, 1, 1), width=4)
    values = with_batches_tracked(encoder_entries(encoder), 0)
    pair = {f"{side}.{n}": v for side in ("left", "right") for n, v in values.items()}
    write_torch(tmp_path / "two.pth", pair)
    line = ("trainers.convert", tmp_path / "two.pth")
    line = (*line, f"--output={tmp_path / 'e.keras'}")
    both, done = modules(line, (*line, "--prefix=right"), check=False)
    assert both.returncode == 1 and "Traceback" not in both.stderr
    assert "encoders under left, right. Choose one with --prefix" in both.stderr
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Taken: right." in done.stdout
    with pytest.raises(ValueError, match="`prefix` is for files of torch"):
        load_trained(tmp_path / "e.keras", prefix="right")
    model = SlotCon(encoder, total_steps=3, num_prototypes=4, hidden_dim=8)
    with pytest.raises(CheckpointFileError, match="left, right"):
        initialize(model, tmp_path / "two.pth")
    initialize(model, tmp_path / "two.pth", prefix="left")
