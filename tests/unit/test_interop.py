"""The authors' checkpoint in, and out as their converters make it."""

import ast
import json
import pathlib
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import ResNet, SlotCon, backbone, recipes
from slotcon_tf.images.statistics import IMAGENET_MEAN, IMAGENET_STD
from slotcon_tf.interop import (
    CheckpointFileError,
    detectron2_config,
    load_encoder,
    load_pretrained,
    load_slotcon,
    mmsegmentation_config,
    save_encoder,
    save_slotcon,
)
from slotcon_tf.interop.architectures import resnet_settings, resnet_shapes
from slotcon_tf.interop.names import encoder_entries, with_batches_tracked
from slotcon_tf.interop.torch_files import TorchFile, write_torch
from slotcon_tf.method.objective import pool_slots
from slotcon_tf.presets import PUBLISHED
from tests.support.command import ROOT
from tests.support.golden_case import GOLDEN, draw, sample_indices
from tests.support.small_case import batch, used

CHECKPOINT = GOLDEN / "ckpt_tinyA.pth"


@pytest.fixture(scope="module")
def converted():
    return load_slotcon(CHECKPOINT)


def images():
    return draw(111, "ckpt_input", (2, 3, 64, 64)).transpose(0, 2, 3, 1)


def test_the_checkpoint_gives_the_recorded_outputs(converted):
    """Teacher in evaluation mode: map, projection, logits and slots, to 1e-4."""
    model, report = converted
    assert not report.unused and not report.missing
    assert len(report.matched) == 245 and len(report.left_out) == 46
    recorded = np.load(GOLDEN / "eval_tinyA.npz")
    found = model(images(), training=False)
    names = {"features": "map", "projected": "projected", "dots": "assignment_logits"}
    for theirs, ours in names.items():
        truth = recorded[f"{theirs}_f64"].transpose(0, 2, 3, 1)
        error = np.abs(found[ours] - truth).max() / np.abs(truth).max()
        assert error < 1e-4, (theirs, error)
    slots = pool_slots(found["projected"], found["assignment_logits"], 0.07)
    truth = recorded["slots_f64"]
    assert np.abs(slots - truth).max() < 1e-4 * np.abs(truth).max()


def test_settings_and_step_come_along(converted):
    model, _ = converted
    assert int(model.step.numpy()) == 4  # 8 batches in the counters
    assert (model.total_steps, model.num_prototypes) == (7, 16)
    assert (model.hidden_dim, model.projection_dim) == (64, 32)
    assert model.teacher_temperature == 0.07 and model.encoder.width == 8


@pytest.mark.parametrize("target", ["detectron2", "mmsegmentation"])
def test_converters_equal_the_recorded_ones(target, converted, tmp_path):
    """Names in order, shapes, types, sums and samples."""
    recorded = json.loads((GOLDEN / "convert_tinyA.json").read_text())
    recorded = recorded[{"detectron2": "d2", "mmsegmentation": "mm"}[target]]
    path = tmp_path / "weights"
    teacher = converted[0].teacher.encoder
    paths = save_encoder(teacher, path, target, batches_tracked=8)
    if target == "detectron2":
        saved = pickle.loads(path.read_bytes())
        assert saved["matching_heuristics"] is True
        assert set(saved) == set(recorded["top"])
        tensors = saved["model"]
    else:
        with TorchFile(path) as file:
            assert set(file.value) == set(recorded["top"])
            tensors = {k: t.numpy() for k, t in file.value["state_dict"].items()}
    assert list(tensors) == [entry["key"] for entry in recorded["entries"]]
    for entry in recorded["entries"]:
        tensor = tensors[entry["key"]]
        assert list(tensor.shape) == entry["shape"], entry
        assert str(tensor.dtype) == entry["dtype"], entry
        flat = tensor.reshape(-1)
        np.testing.assert_allclose(flat.sum(dtype="f8"), entry["sum"], rtol=1e-6)
        places = sample_indices(entry["key"], flat.size)[:4].astype(int)
        np.testing.assert_array_equal(flat[places], entry["samples"])
    assert len(paths) == {"detectron2": 2, "mmsegmentation": 4}[target]


def test_configurations_are_files_of_their_kind(tmp_path):
    """Python that runs, YAML that parses; weights, channels and classes are right."""
    encoder = backbone("resnet50", width=16)
    paths = save_encoder(encoder, tmp_path / "e.pth", "mmsegmentation")
    classes = {"voc12aug": 21, "cityscapes": 19, "ade20k": 150}
    for path in paths[1:]:
        names = {}
        exec(compile(path.read_text(), path.name, "exec"), names)
        model = names["model"]
        assert model["backbone"]["init_cfg"]["checkpoint"] == str(tmp_path / "e.pth")
        assert model["decode_head"]["in_channels"] == encoder.num_channels
        (known,) = [n for name, n in classes.items() if name in path.name]
        assert model["decode_head"]["num_classes"] == known
        assert names["train_dataloader"]["batch_size"] in (4, 8)
        assert f"mim train mmsegmentation {path.name}" in path.read_text()
    _, path = save_encoder(encoder, tmp_path / "d2.pkl", "detectron2")
    yaml = pytest.importorskip("yaml", reason="parses detectron2's file")
    config = yaml.safe_load(path.read_text())["MODEL"]
    assert config["WEIGHTS"] == str(tmp_path / "d2.pkl")
    assert config["RESNETS"]["RES2_OUT_CHANNELS"] == 64
    assert config["PIXEL_MEAN"] == [123.675, 116.28, 103.53]
    assert config["RESNETS"]["STRIDE_IN_1X1"] is False


@pytest.mark.parametrize(
    "arch",
    ["resnet18", "resnet50", "resnet18_d", "resnet50_d", "resnext101_32x8d"],
)
@pytest.mark.parametrize("target", ["torchvision", "timm", "safetensors"])
def test_there_and_back_is_bit_identical(arch, target, tmp_path):
    if arch == "resnext101_32x8d" and target != "timm":
        pytest.skip("large, and named as resnet50 is")
    width = {"resnext101_32x8d": 8}.get(arch, 16)
    encoder = used(backbone(arch, width=width))
    path = tmp_path / ("e.safetensors" if target == "safetensors" else "e.pth")
    if target == "torchvision" and encoder.deep_stem:
        with pytest.raises(ValueError, match="Take timm"):
            save_encoder(encoder, path, target)
        return
    save_encoder(encoder, path, target)
    back, report = load_encoder(path)
    assert back.get_config() == {**encoder.get_config(), "name": back.name}
    for old, new in zip(encoder.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert "0 unused, 0 missing" in str(report)


def test_a_whole_model_there_and_back(converted, tmp_path):
    """The original's names in its order, and every bit."""
    model, _ = converted
    save_slotcon(model, tmp_path / "back.pth")
    with TorchFile(CHECKPOINT) as theirs, TorchFile(tmp_path / "back.pth") as ours:
        old, new = theirs.value["model"], ours.value["model"]
        assert list(old) == list(new)
        for name, tensor in old.items():
            np.testing.assert_array_equal(tensor.numpy(), new[name].numpy())
    again, _ = load_slotcon(tmp_path / "back.pth")
    assert again.get_config()["teacher_temperature"] == model.teacher_temperature
    assert again.total_steps == model.total_steps
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_unmatched_tensors_are_an_error_and_named(tmp_path):
    encoder = backbone("resnet18", width=8)
    values = with_batches_tracked(encoder_entries(encoder), 0)
    values["fc.weight"] = np.zeros((10, 64), np.float32)
    values["extra"] = values.pop("layer1.1.bn2.bias")
    write_torch(tmp_path / "e.pth", values)
    with pytest.raises(CheckpointFileError, match="extra .unused., layer1.1.bn2.bias"):
        load_encoder(tmp_path / "e.pth")
    _, report = load_encoder(tmp_path / "e.pth", strict=False)
    assert report.unused == ["extra"] and report.missing == ["layer1.1.bn2.bias"]
    assert "fc.weight" in report.left_out  # a classifier is left out on purpose
    values["conv1.weight"] = np.zeros((8, 3, 5, 5), np.float32)
    write_torch(tmp_path / "e.pth", values)
    with pytest.raises(CheckpointFileError, match=r"conv1.weight must have shape"):
        load_encoder(tmp_path / "e.pth")
    write_torch(tmp_path / "e.pth", {"a": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointFileError, match="must be those of a ResNet"):
        load_encoder(tmp_path / "e.pth")


def test_presets(converted, tmp_path, monkeypatch):
    model, _ = converted
    model.save_to_preset(tmp_path / "preset")
    assert json.loads((tmp_path / "preset/preset.json").read_text())["step"] == 4
    back = SlotCon.from_preset(tmp_path / "preset")
    for old, new in zip(model.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    fresh = SlotCon.from_preset(CHECKPOINT, total_steps=100, grouping_weight=0.3)
    assert int(fresh.step.numpy()) == 0 and fresh.total_steps == 100
    np.testing.assert_array_equal(
        fresh.teacher.get_weights()[0], model.teacher.get_weights()[0]
    )
    with pytest.raises(ValueError, match="same sizes"):
        SlotCon.from_preset(CHECKPOINT, num_prototypes=8)
    name = next(iter(PUBLISHED))
    monkeypatch.setenv("SLOTCON_TF_PRESETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="https://.*nothing|nothing.*https://"):
        SlotCon.from_preset(name)
    (tmp_path / f"{name}.pth").write_bytes(CHECKPOINT.read_bytes())
    assert SlotCon.from_preset(name).num_prototypes == 16
    with pytest.raises(FileNotFoundError, match=f"one of .*{name}"):
        SlotCon.from_preset("slotcon_coco")
    save_encoder(model.encoder, tmp_path / "e.pth", "torchvision")
    with pytest.raises(ValueError, match="an encoder alone"):
        SlotCon.from_preset(tmp_path / "e.pth")


def test_a_broken_keras_file_is_named(tmp_path):
    path = tmp_path / "a.keras"
    path.write_bytes(b"PK\x03\x04 no")
    with pytest.raises(CheckpointFileError, match=r"whole \.keras file"):
        load_pretrained(path)


def test_torch_reads_what_is_written(converted, tmp_path):
    torch = pytest.importorskip("torch", reason="not a dependency")
    save_encoder(converted[0].encoder, tmp_path / "e.pth", "torchvision")
    state = torch.load(tmp_path / "e.pth", weights_only=True)
    assert state["conv1.weight"].shape == (8, 3, 7, 7)


@pytest.mark.slow
def test_converted_weights_train(converted):
    """One step from converted weights: finite, and it moves them."""
    model = SlotCon.from_preset(CHECKPOINT, total_steps=10)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    before = model.student.get_weights()
    model.optimizer.build(model.trainable_variables)
    logs = tf.function(model.train_step, autograph=False)(batch())
    assert np.isfinite(float(logs["loss"]))
    moved = zip(before, model.student.get_weights(), strict=True)
    assert any(np.any(old != new) for old, new in moved)


@pytest.mark.parametrize(
    "options",
    [
        {"block": "basic"},
        {"block": "bottleneck", "groups": 4, "width_per_group": 16},
        {"block": "bottleneck", "deep_stem": True, "avg_pool_shortcut": True},
    ],
    ids=str,
)
def test_the_shapes_of_a_network_that_is_not_built(options):
    encoder = ResNet(stage_depths=(2, 1, 1, 1), width=16, **options)
    truth = {n: entry.shape for n, entry in encoder_entries(encoder).items()}
    assert resnet_shapes(resnet_settings(truth)) == truth


def test_detectron2s_configuration_is_the_authors(shared_folder, tmp_path):
    """Every value of ours is the resolved one of their file for a ResNet-50."""
    yaml = pytest.importorskip("yaml", reason="parses detectron2's file")
    path = shared_folder / "golden" / "detection" / "config.json"
    theirs = json.loads(path.read_text())
    text = detectron2_config.texts(backbone("resnet50"), tmp_path / "w.pkl")
    config = yaml.safe_load(next(iter(text.values())))

    def flat(value, prefix=""):
        for key, inner in value.items():
            if isinstance(inner, dict):
                yield from flat(inner, f"{prefix}{key}.")
            else:
                # The toolbox reads tuples, which YAML does not know, from text.
                inner = ast.literal_eval(inner) if str(inner)[:1] == "(" else inner
                yield f"{prefix}{key}", inner

    # YAML has no tuples of names: detectron2 evaluates their text.
    names = ("DATASETS.TRAIN", "DATASETS.TEST")
    ours = {k: v for k, v in flat({**config, "DATASETS": {}}) if k in theirs}
    assert len(ours) > 35 and "MODEL.ROI_BOX_HEAD.NUM_CONV" in ours
    for key, value in ours.items():
        value = list(value) if isinstance(value, tuple) else value
        assert value == theirs[key], key
    for key in names:
        (name,) = theirs[key]
        assert config["DATASETS"][key.rpartition(".")[2]] == f"({name},)"
    assert "transfer/detection/configs/COCO_R_50_FPN_1x_SlotCon.yaml" in next(
        iter(text.values())
    )


def test_whose_input_a_published_number_is_of():
    """VOC and Cityscapes: the authors' normalisation is another; ADE20K: the same."""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    low = min(-m / s for m, s in zip(mean, std, strict=True))
    high = max((255 - m) / s for m, s in zip(mean, std, strict=True))
    texts = mmsegmentation_config.texts(backbone("resnet18"), pathlib.Path("w.pth"))
    for name, other in (("voc", True), ("cityscapes", True), ("ade20k", False)):
        flagfile = (ROOT / f"slotcon_tf/recipes/{name}_fcn.flags").read_text()
        assert (f"(numbers from {low:.0f} to {high:.0f} go in)" in flagfile) is other
        assert ("authors' input" in flagfile) is other
        (text,) = [text for file, text in texts.items() if name[:3] in file]
        assert ("Differs: " in text) is other


@pytest.mark.parametrize(("word", "changed"), [("true", True), ("false", False)])
def test_colours_are_changed_where_a_recipe_says_so(word, changed, monkeypatch):
    said = recipes.values("ade20k_fcn")
    monkeypatch.setattr(recipes, "values", lambda name: {**said, "distort": word})
    texts = mmsegmentation_config.texts(backbone("resnet18"), pathlib.Path("w.pth"))
    for text in texts.values():
        assert ("PhotoMetricDistortion" in text) is changed
