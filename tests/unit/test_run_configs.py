"""The settings of runs: one place for each, recipes, flags, what may change."""

import inspect
import os
import signal

import pytest
import tensorflow as tf

from slotcon_tf import SlotCon, presets, recipes
from slotcon_tf.data.bad_images import TooManyBadImages
from slotcon_tf.runs import (
    DetectionConfig,
    EvaluateConfig,
    ExportConfig,
    FinetuneConfig,
    PretrainConfig,
    RunStopped,
    export,
    flag_files,
)
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.runs.signals import StopRequest, told_in_training
from slotcon_tf.training.callbacks import Interrupted
from tests.support.command import ROOT
from trainers import finetune_detection, finetune_segmentation, pretrain, visualize

# Arguments of the model that follow from settings of another name.
DERIVED = {
    "encoder": "arch",
    "total_steps": "epochs",
    "skip_nonfinite": "max_skipped_steps",
    "kwargs": "precision",  # dtype
}
FINETUNING = ("ade20k_fcn", "cityscapes_fcn", "voc_fcn")
DETECTION = ("coco_mask_rcnn", "coco_mask_rcnn_2x", "scenes_mask_rcnn")


def main_of(recipe):
    if recipe in DETECTION:
        return finetune_detection.main
    return finetune_segmentation.main if recipe in FINETUNING else pretrain.main


def test_every_argument_of_the_model_has_its_setting():
    """Of the same default; and a run hands it over."""
    known, handed = PretrainConfig.settings(), PretrainConfig().model_settings()
    arguments = inspect.signature(SlotCon).parameters
    for name, argument in arguments.items():
        if name in DERIVED:
            assert DERIVED[name] in known
            continue
        assert known[name].default == argument.default, name
        assert handed[name] == argument.default, name
    assert set(handed) <= set(arguments)
    changed = PretrainConfig(contrastive_temperature=0.3, max_skipped_steps=2)
    assert changed.model_settings()["contrastive_temperature"] == 0.3
    assert changed.model_settings()["skip_nonfinite"] is True


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"student_temperature": 0}, "must be above 0"),
        ({"teacher_momentum": 1.5}, "must be 1.0 or less"),
        ({"num_prototypes": 0}, "must be 1 or more"),
        ({"serving_size": 0}, "must be 1 or more"),
        ({"std": (1, 1, 1)}, "must be given together"),
        ({"mean": (1, 1), "std": (1, 1)}, "`mean` must be three numbers"),
        ({"mean": (123, 116, 103), "std": (58, 57, 57)}, "Divide grey levels"),
        (
            {"mean": (0.5,) * 3, "std": (0, 1, 1)},
            "`std` must be three numbers from 0.00",
        ),
        ({"mean": ("a", "b", "c"), "std": (1, 1, 1)}, "be numbers, with commas"),
        ({"pixel_range": (4095,)}, "low < high"),
        ({"pixel_range": (9, 1)}, "low < high"),
        ({"pixel_range": (0, float("nan"))}, "low < high"),
        ({"precision": "float16"}, "one of auto, float32"),
    ],
)
def test_what_the_model_would_refuse_is_refused_at_once(given, words):
    with pytest.raises(SettingError, match=words):
        PretrainConfig(**given)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (FinetuneConfig, {"fit_edges": (0, 0)}),
        (FinetuneConfig, {"fit_edges": (64.7, 32)}),
        (ExportConfig, {"batch_sizes": (0, -1), "model": "a", "export_dir": "b"}),
        (EvaluateConfig, {"task": ("nap",), "model": "a"}),
        (EvaluateConfig, {"task": (), "model": "a"}),
    ],
)
def test_each_of_several_values_is_checked(kind, given):
    with pytest.raises(SettingError, match=f"`{next(iter(given))}` must be "):
        kind(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"quantize": "int8", "calibration_images": "photos"},
        {"precision": "bfloat16"},
        {"max_objects": 3},
        {"signatures": ("groups",)},
        {"batch_sizes": ()},
        {"batching": True},
        {"storage_uri": "gs://a"},
    ],
)
def test_an_onnx_file_has_no_settings_of_a_saved_model(given):
    config = ExportConfig(model="a", export_dir="b", format="onnx", **given)
    name = next(iter(given))
    with pytest.raises(SettingError, match=f"`{name}` must be left out with format=o"):
        export(config)


def test_settings_of_the_model_have_its_bounds():
    """Which `--help` and the tables of the docs are made of, too."""
    known = PretrainConfig.settings()
    found = {n: (s.low, s.high, s.above) for n, s in known.items()}
    assert found["num_prototypes"] == found["serving_size"] == (1, None, None)
    assert found["center_momentum"] == found["grouping_weight"] == (0.0, 1.0, None)
    assert found["teacher_temperature"] == (None, None, 0.0)


@pytest.mark.parametrize("name", recipes.names())
def test_recipes(name, capsys):
    config = main_of(name).config_class.from_recipe(name, data_dir="data")
    assert config.data_dir == "data" and config.workdir == f"runs/{name}"
    assert type(config).from_lines(config.lines()) == config
    # The file at the root is the recipe, and what repeats a run is one too.
    (line,) = flag_files.expand([f"--flagfile={ROOT / f'{name}.flags'}"])[:1]
    assert line == next(x for x in recipes.lines(name) if x.startswith("--"))
    main = main_of(name)
    words = [f"--flagfile={ROOT / f'{name}.flags'}", "--data_dir=data"]
    assert main.config(["x", *words]) == config
    assert main.config(["x", *config.lines()]) == config
    assert f"--recipe={name}" in "\n".join(recipes.lines(name))


def test_published_recipes():
    """Appendix A of the paper; what a published model was trained by is known."""
    coco = PretrainConfig.from_recipe("coco")
    assert coco.peak_lr == 2.0 and coco.steps_per_epoch(118_287) == 231
    assert PretrainConfig.from_recipe("imagenet_200ep").num_prototypes == 2048
    assert {one.recipe for one in presets.PUBLISHED.values()} <= set(recipes.names())


def test_a_recipe_of_another_kind_and_one_that_is_not():
    with pytest.raises(SettingError, match="=voc_fcn, .* of another.* one of coco,"):
        PretrainConfig.from_recipe("voc_fcn")
    with pytest.raises(SettingError, match="=coco, .* one of ade20k_fcn, .*voc_fcn.$"):
        FinetuneConfig.from_recipe("coco")
    with pytest.raises(SettingError, match="one of coco_mask_r.*scenes_mask_rcnn.$"):
        DetectionConfig.from_recipe("voc_fcn")
    with pytest.raises(SettingError, match="of another. It has none."):
        visualize.main.config(["visualize", "--recipe=coco"])
    with pytest.raises(SettingError, match="one of ade20k_fcn, .*Received: recipe=c"):
        PretrainConfig.from_recipe("c")


def test_lines_of_any_age_are_read():
    lines = ["# note", "", "--base_lr=1E-5", "--noexport", "--scale=640,480"]
    config = FinetuneConfig.from_lines([*lines[:3], lines[4], "--label_ids=0,255"])
    assert (config.learning_rate, config.fit_edges) == (1e-5, (640, 480))
    assert config.label_ids == ("0", "255")
    assert not PretrainConfig.from_lines(lines[:4]).export
    with pytest.raises(SettingError, match="Received: noexprt. Did you mean"):
        PretrainConfig.from_lines(["--noexprt"])
    with pytest.raises(SettingError, match="a number. Received: base_lr=much"):
        PretrainConfig.from_lines(["--base_lr=much"])


def test_what_changes_no_number_is_free():
    free = {name for name, one in PretrainConfig.settings().items() if one.free}
    assert {"workdir", "strategy", "remat", "serving_size", "eval_void_ids"} <= free
    assert not {"seed", "batch_size", "data_dir", "precision", "init_from"} & free
    free = {name for name, one in FinetuneConfig.settings().items() if one.free}
    assert "num_pictures" in free and not {"void_ids", "dataset"} & free


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, None),
        ({"serving_size": 96, "dataset": "scenes"}, 96),
        ({"dataset": "scenes"}, 144),
        ({"dataset": "scenes", "evaluation_scale": 1.5}, 216),
        ({"eval_every_epochs": 1, "eval_crop_size": 64}, 64),
        ({"eval_every_epochs": 1, "eval_crop_size": 0}, None),
        ({"eval_every_epochs": 1, "eval_dataset": "coco_stuff27"}, 320),
        ({"eval_every_epochs": 1, "eval_task": "knn"}, None),
        ({"eval_crop_size": 64}, None),
    ],
)
def test_the_size_that_is_served_is_the_one_that_is_measured(settings, size):
    assert PretrainConfig(**settings).model_settings()["serving_size"] == size


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_request(number):
    with StopRequest() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()


def test_what_ends_training_has_one_error():
    fatal = TooManyBadImages("At most 10% may be bad.")
    for error, found, status in (
        (Interrupted("Stopped by a signal"), None, 143),
        (None, fatal, 1),
        (tf.errors.UnknownError(None, None, "a thread's"), fatal, 1),
    ):
        with (
            pytest.raises(RunStopped) as stopped,
            told_in_training(lambda found=found: found),
        ):
            if error:
                raise error
        assert stopped.value.status == status
        assert stopped.value.__cause__ in (error, found)
    with pytest.raises(tf.errors.UnknownError), told_in_training(lambda: None):
        raise tf.errors.UnknownError(None, None, "our own")
