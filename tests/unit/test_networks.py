"""Others' checkpoints: the encoder is found, whatever stands around it."""

import dataclasses
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.interop import (
    CheckpointFileError,
    load_encoder,
    load_slotcon,
    save_slotcon,
)
from slotcon_tf.interop.names import encoder_entries, with_batches_tracked
from slotcon_tf.interop.networks import choose_network
from slotcon_tf.interop.torch_files import TorchFile, write_torch
from slotcon_tf.interop.weights import open_weights
from tests.support.small_case import small_model, used

HEAD = np.zeros((4, 4), np.float32)
# Places among torchvision's children in an nn.Sequential; some leave out the pooling.
CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
FEWER = {"conv1": 0, "bn1": 1, "layer1": 3, "layer2": 4, "layer3": 5, "layer4": 6}


@dataclasses.dataclass
class Case:
    """An encoder, a student's other weights, and both as torch names them."""

    encoder: ResNet
    base: dict
    other: dict


def values_of(encoder, style="original"):
    return with_batches_tracked(encoder_entries(encoder, style), 3)


@pytest.fixture(scope="module")
def case():
    encoder = used(ResNet(block="basic", stage_depths=(1, 1, 1, 1), width=4))
    base = values_of(encoder)
    other = {n: np.asarray(v + 1, v.dtype) for n, v in base.items()}
    return Case(encoder, base, other)


@pytest.fixture(scope="module")
def deep():
    """With timm's deep stem and pooled shortcuts."""
    settings = {"deep_stem": True, "avg_pool_shortcut": True, "width": 8}
    return used(ResNet(block="basic", stage_depths=(1, 1, 1, 1), **settings))


def search(path, which="teacher", prefix=None):
    """The chosen network's arrays by torchvision's name, its prefix, the others'."""
    with open_weights(path) as weights:
        chosen, others = choose_network(weights.tensors, which, prefix)
        values = {name: tensor.numpy() for name, tensor in chosen.tensors.items()}
    return values, chosen.shown, [other.shown for other in others]


def assert_holds(values, truth):
    for name, value in truth.items():
        np.testing.assert_array_equal(values[name], value)


def put(values, prefix):
    return {prefix + name: value for name, value in values.items()}


def numbered(values, children, prefix="backbone."):
    found = {}
    for name, value in values.items():
        module, _, rest = name.partition(".")
        found[f"{prefix}{children[module]}.{rest}"] = value
    return found


def nested(values):
    """Dicts in dicts, a level for every part of a name."""
    tree = {}
    for name, value in values.items():
        *path, leaf = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = value
    return tree


WRAPPERS = {
    "plain": lambda b: b,
    "DDP": lambda b: {"state_dict": put(b, "module.")},
    "compiled": lambda b: put(b, "_orig_mod."),
    "DDP of compiled": lambda b: {"model": put(b, "module._orig_mod.")},
    "compiled of DDP": lambda b: {"model": put(b, "_orig_mod.module.")},
    "Lightning": lambda b: {
        "state_dict": {**put(b, "model.backbone."), "model.head.weight": HEAD},
        "optimizer_states": [{"state": {0: {"exp_avg": HEAD.tolist()}}}],
        "loops": {"fit_loop": {"epoch": 3}},
    },
    "FSDP": lambda b: {"app": {"model": put(b, "_fsdp_wrapped_module.")}},
    "MoCo's query": lambda b: {"state_dict": put(b, "module.encoder_q.")},
    "DenseCL": lambda b: {
        "state_dict": {**put(b, "encoder_q.0."), "encoder_q.1.mlp.0.weight": HEAD}
    },
    "SimSiam": lambda b: {
        "state_dict": {**put(b, "module.encoder."), "module.predictor.0.weight": HEAD}
    },
    "VISSL": lambda b: {
        "classy_state_dict": {
            "base_model": {
                "model": {
                    "trunk": put(b, "_feature_blocks."),
                    "heads": {"0.clf.weight": HEAD},
                }
            }
        }
    },
    "mmdet": lambda b: {
        "meta": {"epoch": 12},
        "state_dict": {**put(b, "backbone."), "neck.lateral_convs.0.weight": HEAD},
    },
    "torchvision's segmentation": lambda b: {
        "model": {**put(b, "backbone."), "classifier.0.weight": HEAD}
    },
    "torchvision's detection": lambda b: {
        "model": {**put(b, "backbone.body."), "rpn.head.conv.0.0.weight": HEAD}
    },
    "lightly": lambda b: {
        "state_dict": {
            **numbered(b, CHILDREN),
            "projection_head.layers.0.weight": HEAD,
        }
    },
    "Sequential without pooling": lambda b: numbered(b, FEWER, "f."),
    "slashes": lambda b: {n.replace(".", "/"): v for n, v in put(b, "net/").items()},
    "dicts in dicts": lambda b: {"checkpoint": {"net": nested(b)}},
    "many, in any order": lambda b: {
        "state_dict": {"model": put(b, "encoder.module.backbone.module._orig_mod.")}
    },
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_an_encoder_is_found_under_any_prefix(name, case, tmp_path):
    write_torch(tmp_path / "f.pth", WRAPPERS[name](case.base))
    values, _, others = search(tmp_path / "f.pth")
    assert_holds(values, case.base)
    assert not others


@pytest.mark.parametrize("name", ["Lightning", "VISSL", "lightly"])
def test_heads_are_said_to_be_left_out(name, case, tmp_path):
    write_torch(tmp_path / "f.pth", WRAPPERS[name](case.base))
    found, report = load_encoder(tmp_path / "f.pth")
    weights = zip(case.encoder.get_weights(), found.get_weights(), strict=True)
    assert all(np.array_equal(old, new) for old, new in weights)
    assert not report.choice
    heads = [n for n in report.left_out if not n.endswith("num_batches_tracked")]
    assert len(heads) == 1
    assert re.search(rf"{heads[0]} +left out", str(report))


def test_flat_files_too(case, tmp_path):
    save_file(put(case.base, "module.encoder_k."), tmp_path / "f.safetensors")
    values, prefix, _ = search(tmp_path / "f.safetensors")
    assert_holds(values, case.base)
    assert prefix == "module.encoder_k"


TWO = {
    "MoCo": ("module.encoder_q.", "module.encoder_k."),
    "MoCo v3": ("base_encoder.", "momentum_encoder."),
    "PixPro": ("module.encoder.", "module.encoder_k."),
    "BYOL": ("online_network.encoder.", "target_network.encoder."),
    "lightly's BYOL": ("backbone.", "backbone_momentum."),
    "DINO": ("student.module.backbone.", "teacher.backbone."),
    "timm": ("state_dict.", "state_dict_ema."),
    "mmengine": ("state_dict.backbone.", "ema_state_dict.module.backbone."),
    "shadow": ("model.", "shadow."),
    "averaged by torch": ("model.", "swa_model.module."),
    "camels": ("netStudent.", "netTeacher."),
    "short camels": ("encoderQ.", "encoderK."),
    "the teacher first": ("z_student.", "a_teacher."),
}


@pytest.mark.parametrize("name", TWO)
def test_of_two_networks_the_teachers_is_taken(name, case, tmp_path):
    student, teacher = TWO[name]
    pair = {**put(case.base, teacher), **put(case.other, student)}
    if name != "the teacher first":
        pair = dict(reversed(pair.items()))
    write_torch(tmp_path / "f.pth", pair)
    values, taken, others = search(tmp_path / "f.pth")
    assert_holds(values, case.base)
    other = student.rstrip(".")
    assert taken == teacher.rstrip(".") and others == [other]
    for options in ({"which": "student"}, {"prefix": other}, {"prefix": f"{other}."}):
        values, _, _ = search(tmp_path / "f.pth", **options)
        assert_holds(values, case.other)


def test_other_ties_are_an_error_that_lists_them(case, tmp_path):
    path = tmp_path / "f.pth"
    write_torch(path, {**put(case.base, "rgb.net."), **put(case.other, "depth.net.")})
    with pytest.raises(CheckpointFileError, match="under rgb.net, depth.net. Choose"):
        load_encoder(path)
    for prefix in ("rgb", "rgb.net", "rgb/net", "rgb.net."):
        assert_holds(search(path, prefix=prefix)[0], case.base)
    found, report = load_encoder(path, prefix="rgb")
    kernel = case.encoder.get_layer("conv1").kernel
    np.testing.assert_array_equal(found.get_layer("conv1").kernel, kernel)
    assert "Taken: rgb.net. Encoders too, and not taken: depth.net" in str(report)
    with pytest.raises(CheckpointFileError, match="Choose one with `prefix`"):
        load_encoder(path, prefix="net")
    with pytest.raises(CheckpointFileError, match="Received: rg, .* rgb.net, depth"):
        load_encoder(path, prefix="rg")


def test_names_without_a_prefix_can_be_chosen(case, tmp_path):
    path = tmp_path / "f.pth"
    write_torch(path, {**case.base, **put(case.other, "second.")})
    with pytest.raises(CheckpointFileError, match="under ., second. Choose"):
        load_encoder(path)
    assert_holds(search(path, prefix=".")[0], case.base)


def test_what_an_optimizer_keeps_is_no_network(case, tmp_path):
    """Not even where it would be a teacher's by its name."""
    path, kept = tmp_path / "f.pth", case.other
    moments = {"exp_avg": kept, "exp_avg_sq": kept, "momentum_buffer": kept}
    write_torch(path, {"model": case.base, "optimizer": moments, "grads": kept})
    values, taken, others = search(path)
    assert_holds(values, case.base)
    assert taken == "model" and not others
    write_torch(path, {"optimizer": moments})
    with pytest.raises(CheckpointFileError, match="must be those of a ResNet"):
        search(path)


def test_a_student_is_not_made_of_a_teacher(case, tmp_path):
    write_torch(tmp_path / "f.pth", put(case.base, "teacher."))
    with pytest.raises(CheckpointFileError, match="hold a student's.* teacher only"):
        load_encoder(tmp_path / "f.pth", which="student")


@pytest.mark.parametrize("style", ["timm", "mmsegmentation", "original"])
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_deep_stems_are_found_too(style, prefix, deep, tmp_path):
    write_torch(tmp_path / "f.pth", put(values_of(deep, style), prefix))
    assert_holds(search(tmp_path / "f.pth")[0], values_of(deep))


def test_a_numbered_deep_stem(deep, tmp_path):
    write_torch(tmp_path / "f.pth", numbered(values_of(deep, "timm"), CHILDREN))
    assert_holds(search(tmp_path / "f.pth")[0], values_of(deep))


def test_detectron2s_names(case, tmp_path):
    values = put(values_of(case.encoder, "detectron2"), "backbone.bottom_up.")
    write_torch(tmp_path / "f.pth", {"model": values})
    found, report = load_encoder(tmp_path / "f.pth")
    weights = zip(case.encoder.get_weights(), found.get_weights(), strict=True)
    assert all(np.array_equal(old, new) for old, new in weights)
    assert "res3.0.shortcut.norm.weight" in str(report)


def test_what_changes_the_network_is_not_left_out(case, tmp_path):
    """A squeeze-and-excitation is no head; without it the features are others."""
    path = tmp_path / "f.pth"
    for extra in ("layer1.0.se.fc1.weight", "conv2.weight", "layer5.0.conv1.weight"):
        values = put({**case.base, extra: HEAD}, "backbone.")
        write_torch(path, {"state_dict": values})
        with pytest.raises(CheckpointFileError, match=rf"{extra} \(unused\)"):
            load_encoder(path)
    values = put(case.base, "backbone.")
    del values["backbone.layer4.0.bn1.bias"]
    write_torch(path, {"state_dict": values})
    with pytest.raises(CheckpointFileError, match=r"layer4.0.bn1.bias \(missing\)"):
        load_encoder(path)


def test_nothing_found_says_what_came_nearest(case, tmp_path):
    path = tmp_path / "f.pth"
    write_torch(path, {"vit": {"blocks.0.attn.qkv.weight": HEAD}})
    with pytest.raises(CheckpointFileError, match="no layer1.0.conv1.*vit.blocks.0"):
        load_encoder(path)
    values = put(case.base, "net.")
    del values["net.conv1.weight"]
    write_torch(path, values)
    with pytest.raises(CheckpointFileError, match="prefix net.: .* no 'conv1.weight'"):
        load_encoder(path)
    many = {f"n{i}.layer1.0.conv1.weight": HEAD for i in range(100)}
    write_torch(path, many)
    with pytest.raises(CheckpointFileError, match="64 networks at most"):
        load_encoder(path)


def test_a_network_under_two_keys_is_one(case, tmp_path):
    """Lightning saves a module that two attributes name under both."""
    write_torch(tmp_path / "f.pth", case.base)
    with open_weights(tmp_path / "f.pth") as weights:
        twice = {**put(weights.tensors, "model."), **put(weights.tensors, "net.")}
        chosen, others = choose_network(twice)
    assert chosen.shown == "model" and not others


@pytest.fixture(scope="module")
def whole(case, tmp_path_factory):
    """A whole model as the original's checkpoint has it."""
    path = tmp_path_factory.mktemp("whole") / "slotcon.pth"
    save_slotcon(small_model(case.encoder), path)
    with TorchFile(path) as file:
        return {n: t.numpy() for n, t in file.value["model"].items()}


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("module.encoder_k.layer1.0.se.weight", True),
        ("module.encoder_k.extra.weight", True),
        ("module.projector_k.mlp.9.weight", True),
        ("module.predictor_dense.weight", True),
        ("module.encoder_k.fc.weight", False),
        ("other.weight", False),
    ],
)
def test_a_whole_model_leaves_out_nothing_of_its_own(name, unused, whole, tmp_path):
    """What changes what the model computes is never left out."""
    path, values = tmp_path / "slotcon.pth", dict(whole)
    top, _, _ = name.partition(".")
    place = {"module": values}.get(top, {})
    place[name] = HEAD
    write_torch(path, {"model": values, "beside": {} if place is values else place})
    if unused:
        with pytest.raises(CheckpointFileError, match=rf"{name[7:]} \(unused\)"):
            load_slotcon(path)
    else:
        left_out = load_slotcon(path)[1].left_out
        assert any(left.endswith(name.removeprefix("module.")) for left in left_out)


def test_a_whole_model_beside_an_averaged_one(whole, tmp_path):
    """One stands inside of the other's names, and is not a part of it."""
    path, values = tmp_path / "slotcon.pth", dict(whole)
    inner = {f"student.{n}": v for n, v in values.items()}
    write_torch(path, {**values, **inner})
    _, report = load_slotcon(path)
    assert set(inner) <= {*report.left_out} and not report.unused
