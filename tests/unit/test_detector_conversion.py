"""Detectors from and to detectron2's files, and what is refused there by name."""

import json
import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from slotcon_tf import ResNet, backbone
from slotcon_tf.detection import Detector, MaskRCNN, detector_entries, load_detector
from slotcon_tf.detection.conversion import (
    COCO_NAMES,
    holds_detector,
    save_detector,
)
from slotcon_tf.detection.copies import copy_detector
from slotcon_tf.interop import CheckpointFileError, load_encoder, save_encoder
from slotcon_tf.interop.names import with_batches_tracked
from slotcon_tf.interop.torch_files import TorchFile, write_torch
from slotcon_tf.runs import DetectionConfig
from slotcon_tf.runs.checkpoints import STATE
from slotcon_tf.runs.initialization import begin_as_detector
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.model_config import write_model_config
from slotcon_tf.runs.settings import SettingError
from tests.support.detection_case import FOLDER
from tests.support.detector_case import small_detector
from trainers import convert

NORM = (".norm.weight", ".norm.bias", ".norm.running_mean", ".norm.running_var")
BOX = "roi_heads.box_head"


@pytest.fixture(scope="module")
def model():
    return small_detector()


@pytest.fixture
def values(model):
    """By detectron2's names, as its checkpointer has them."""
    return with_batches_tracked(detector_entries(model), batches=7)


def written(values, path, **beside):
    write_torch(path, {"model": values, **beside})
    return path


def test_every_name_and_shape_is_detectron2s():
    """The real model's: ResNet-50, 80 classes."""
    model = MaskRCNN(backbone("resnet50"), class_names=COCO_NAMES)
    found = {}
    for name, entry in detector_entries(model).items():
        found[name] = list(entry.shape)
        if name.endswith("running_var"):
            found[name.replace("running_var", "num_batches_tracked")] = []
    assert found == json.loads((FOLDER / "shapes_full.json").read_text())


def test_there_and_back_bit_for_bit(model, values, tmp_path):
    first, second = tmp_path / "a.pth", tmp_path / "b.pth"
    assert save_detector(model, first) == [first, tmp_path / "a.yaml"]
    again, report = load_detector(first)
    assert not report.missing and not report.unused
    assert int(again.step) == 7 and again.class_names == model.class_names
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    save_detector(again, second)
    with TorchFile(second) as file:
        found = {name: tensor.numpy() for name, tensor in file.value["model"].items()}
    assert found.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(found[name], value, name)
    text = (tmp_path / "a.yaml").read_text()
    assert "NUM_CLASSES: 3" in text and "FC_DIM: 16" in text and "DEPTH: 10" in text
    assert "(640, 672, 704, 736, 768, 800)\n  MAX_SIZE_TRAIN: 1333\n" in text


def test_settings_there_and_back(values, tmp_path):
    """What no tensor tells: counts and edges; and so what is found is the same."""
    changes = {"proposals": (64, 32), "anchors_per_image": 16, "regions_per_image": 24}
    changes |= {"short_edge": 64, "long_edge": 128, "fixed_shapes": True, "seed": 5}
    model, path = small_detector(**changes), tmp_path / "a.pth"
    save_detector(model, path)
    again, _ = load_detector(path)
    own, found = model.get_config(), again.get_config()
    for config in (own, found):  # names are Keras's alone
        config["encoder"] = {**config["encoder"]["config"], "name": ""}
        config["name"] = ""
    assert found == own
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    one, two = Detector(model)(image), Detector(again)(image)
    assert len(one.scores)
    for name in ("boxes", "scores", "classes", "masks"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    text = path.with_suffix(".yaml").read_text()
    for line in (
        "  MIN_SIZE_TRAIN: (64,)\n  MAX_SIZE_TRAIN: 128\n"
        "  MIN_SIZE_TEST: 64\n  MAX_SIZE_TEST: 128\n",
        "    PRE_NMS_TOPK_TRAIN: 64\n    PRE_NMS_TOPK_TEST: 50\n"
        "    POST_NMS_TOPK_TRAIN: 32\n    POST_NMS_TOPK_TEST: 30\n"
        "    BATCH_SIZE_PER_IMAGE: 16\n",
        "    BATCH_SIZE_PER_IMAGE: 24\n",
        "  DETECTIONS_PER_IMAGE: 5\n",
    ):
        assert line in text, line
    # A file of others says nothing: the protocol's.
    foreign, _ = load_detector(written(values, path))
    assert foreign.proposals == (2000, 1000) and foreign.max_detections == 100
    assert (foreign.short_edge, foreign.long_edge) == (800, 1333)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (3, "must be settings of a detector in JSON"),
        ("{", "must be settings of a detector in JSON"),
        ('{"units": 3}', "units"),
        ('{"proposals": [3]}', "proposals"),
        ('{"max_detections": true}', "max_detections=True"),
        ('{"seed": 0.5}', "seed=0.5"),
        ('{"short_edge": 64, "long_edge": 32}', "a long edge shorter"),
    ],
)
def test_damaged_settings_are_refused(kept, message, values, tmp_path):
    path = written(values, tmp_path / "a.pth", args={"slotcon_tf_detector": kept})
    with pytest.raises(CheckpointFileError, match=message):
        load_detector(path)


def test_detectron2s_pickle(model, values, tmp_path):
    save_detector(model, tmp_path / "a.pkl")
    found = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert found["__author__"] and found["model"].keys() == values.keys()
    with pytest.raises(CheckpointFileError, match=r"as detectron2 keeps its models"):
        load_trained(tmp_path / "a.pkl", detectors=True)


def test_buffers_of_earlier_versions(values, tmp_path):
    """Grey levels become the model's statistics; the anchors are checked."""
    values["pixel_mean"] = np.float32([[[127.5]], [[116.28]], [[51]]])
    values["pixel_std"] = np.float32([[[58.395]], [[57.12]], [[57.375]]])
    anchors = "proposal_generator.anchor_generator.cell_anchors.0"
    values[anchors] = np.float32(
        [
            [-22.627417, -11.313708, 22.627417, 11.313708],
            [-16, -16, 16, 16],
            [-11.313708, -22.627417, 11.313708, 22.627417],
        ]
    )
    path = written(values, tmp_path / "a.pth", iteration=7)
    model, report = load_detector(path)
    assert model.statistics.mean == (0.5, 0.456, 0.2)
    assert model.statistics.std == (0.229, 0.224, 0.225)
    assert {"pixel_mean", anchors} <= {
        x.rpartition("model.")[2] for x in report.left_out
    }
    assert model.class_names == ("0", "1", "2")
    save_detector(model, tmp_path / "b.pth")
    assert load_detector(tmp_path / "b.pth")[0].statistics == model.statistics
    values[anchors] *= 2
    with pytest.raises(CheckpointFileError, match="cell_anchors.0 must be anchors"):
        load_detector(written(values, path))


def test_without_masks(tmp_path):
    save_detector(small_detector(masks=False), tmp_path / "a.pth")
    assert load_detector(tmp_path / "a.pth")[0].mask_head is None
    assert "MASK_ON: False" in (tmp_path / "a.yaml").read_text()


def group_norms(values):
    return {k: v for k, v in values.items() if "running" not in k}


def frozen_norms(values):
    """As of detectron2's zoo: a pyramid with biases, and no norm in the heads."""
    kept = {
        k: v
        for k, v in values.items()
        if not k.endswith("num_batches_tracked")
        and ("bottom_up" in k or not k.endswith(NORM))
    }
    return {**kept, "backbone.fpn_lateral2.bias": np.zeros(8, np.float32)}


def c4(values):
    values = {
        re.sub("^backbone.bottom_up", "backbone", k): v for k, v in values.items()
    }
    return {k: v for k, v in values.items() if "fpn" not in k}


def two_dense(values):
    values = {k: v for k, v in values.items() if not k.startswith(f"{BOX}.conv")}
    return {**values, f"{BOX}.fc2.weight": np.zeros((16, 16), np.float32)}


def deeper_box_head(values):
    return {**values, f"{BOX}.conv5.weight": np.zeros((8, 8, 3, 3), np.float32)}


def one_box_for_all(values):
    name = "roi_heads.box_predictor.bbox_pred."
    values[f"{name}weight"] = values[f"{name}weight"][:4]
    return values


def two_anchors(values):
    name = "proposal_generator.rpn_head.objectness_logits.weight"
    values[name] = values[name][:2]
    return values


def keypoints(values):
    return {
        **values,
        "roi_heads.keypoint_head.conv_fcn1.weight": np.zeros((8, 8, 3, 3)),
    }


def half_a_block(values):
    return {k: v for k, v in values.items() if "res3.0.conv2" not in k}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (group_norms, r"no backbone.bottom_up.stem.conv1.norm.running_var: no batch"),
        (frozen_norms, r"no backbone.fpn_lateral2.norm.running_var: .* in the pyramid"),
        (c4, r"no backbone.bottom_up.stem.conv1.weight: .*C4"),
        (two_dense, r"no roi_heads.box_head.conv4.weight: .*\(it has fc1, fc2\)"),
        (deeper_box_head, r"roi_heads.box_head.conv5.weight: a box head that is not"),
        (one_box_for_all, r"bbox_pred.weight must have shape \(12, 16\).*\(4, 16\)"),
        (two_anchors, r"objectness_logits.weight must have shape \(3, 8, 1, 1\)"),
        (keypoints, r"roi_heads.keypoint_head.conv_fcn1.weight \(unused\)"),
        (half_a_block, r"res3.0.conv2.weight \(missing\)"),
    ],
)
def test_other_detectors_are_refused_by_name(change, message, values, tmp_path):
    path = written(change(values), tmp_path / "zoo.pth")
    assert holds_detector(path)
    with pytest.raises(CheckpointFileError, match=message) as caught:
        load_detector(path)
    assert "\n" not in str(caught.value)


def test_other_files_hold_no_detector(tmp_path):
    values = {"backbone.res2.0.conv1.weight": np.zeros((8, 8, 3, 3), np.float32)}
    path = written(values, tmp_path / "a.pth")
    assert not holds_detector(path) and not holds_detector(tmp_path / "none")
    with pytest.raises(CheckpointFileError, match="must hold a detector"):
        load_detector(path)


def run(capsys, *words):
    """Status of the converter, and the last line of its errors."""
    with pytest.raises(SystemExit) as end:
        convert.main(["convert", *map(str, words)])
    return end.value.code or 0, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_the_converter_as_typed(model, values, tmp_path, capsys):
    keras_file, torch_file = tmp_path / "a.keras", tmp_path / "a.pth"
    model.save(keras_file)
    to = f"--output={torch_file}"
    assert run(capsys, keras_file, "--to=detectron2", to)[0] == 0
    again = tmp_path / "again.keras"
    line = (torch_file, "--from=detectron2", f"--output={again}")
    assert run(capsys, *line)[0] == 0
    found = keras.models.load_model(again)
    for old, new in zip(model.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # Elsewhere its encoder is what it was.
    assert (
        run(capsys, torch_file, "--to=timm", f"--output={tmp_path / 'e.pth'}")[0] == 0
    )
    encoder, _ = load_encoder(tmp_path / "e.pth")
    kernel = model.encoder.get_layer("conv1").kernel
    np.testing.assert_array_equal(encoder.get_layer("conv1").kernel, kernel)
    zoo = written(frozen_norms(values), tmp_path / "zoo.pth")
    status, last = run(capsys, zoo, f"--output={tmp_path / 'z.keras'}")
    assert status == 1 and "no backbone.fpn_lateral2.norm.running_var" in last
    part = ("--part=teacher", f"--output={tmp_path / 'z.keras'}")
    assert run(capsys, zoo, *part)[0] == 0
    status, last = run(capsys, keras_file, f"--output={tmp_path / 'folder'}")
    assert status == 2 and "--output of a detector must be a .keras file" in last
    status, last = run(capsys, keras_file, "--part=model", "--to=timm", "--output=a")
    assert status == 2 and "takes an encoder" in last


def test_a_detector_begins_as_another(model, values, tmp_path):
    path = written(values, tmp_path / "a.pth")
    same = small_detector(seed=1)
    same.step.assign(0)
    begin_as_detector(same, path)  # whose classes have no names there
    kept = copy_detector(model, same)
    assert not kept and int(same.step) == 0
    for name, entry in detector_entries(same).items():
        np.testing.assert_array_equal(entry.to_torch(), values[name])
    other = small_detector(seed=1, class_names=("cow",))
    before = other.box_head.logits.kernel.numpy()
    kept = copy_detector(model, other)
    layers = ("box_predictor.cls_score", "box_predictor.bbox_pred")
    layers = [f"roi_heads.{name}" for name in (*layers, "mask_head.predictor")]
    assert kept == [f"{name}.{part}" for name in layers for part in ("weight", "bias")]
    np.testing.assert_array_equal(other.box_head.logits.kernel, before)
    dense = model.box_head.dense.kernel
    np.testing.assert_array_equal(other.box_head.dense.kernel, dense)
    message = "fc1.weight of shape .* Set `channels` and `units`"
    with pytest.raises(ValueError, match=message):
        begin_as_detector(small_detector(units=8), path)
    save_encoder(model.encoder, tmp_path / "e.pth", "timm")
    with pytest.raises(ValueError, match="init_part=detector needs a detector"):
        begin_as_detector(same, tmp_path / "e.pth")
    with pytest.raises(SettingError, match="needs `init_from`"):
        DetectionConfig(init_part="detector")


def test_a_checkpoint_of_a_run_is_read_whole(model, tmp_path):
    folder = tmp_path / "checkpoints" / "step_000000007"
    tf.train.Checkpoint(model=model).write(str(folder / STATE))
    write_model_config(folder, model)
    for source in (folder, tmp_path):
        found, _ = load_trained(source, detectors=True)
        assert isinstance(found, MaskRCNN) and int(found.step) == 7
        for old, new in zip(model.get_weights(), found.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    assert isinstance(load_trained(folder)[0], ResNet)
