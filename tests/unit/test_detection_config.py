"""The detector's protocol: its schedule, its recipes, and settings that cannot be."""

import inspect

import numpy as np
import pytest

from slotcon_tf.detection import MaskRCNN
from slotcon_tf.runs import DetectionConfig, PretrainConfig
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.training.schedules import WarmupSteps
from tests.support.detection_case import FOLDER


def test_the_learning_rate_is_detectron2s():
    recorded = np.load(FOLDER / "schedule.npz")
    rate = WarmupSteps(peak=0.02, total_steps=90_000, warmup_steps=1000)
    found = [float(rate(int(step))) for step in recorded["lr/iteration"]]
    np.testing.assert_allclose(found, recorded["lr/lr"], rtol=3e-7)


def test_a_ramp_ends_where_the_steps_are():
    """Also where it is longer than the run, of which a part is tried."""
    rate = WarmupSteps(peak=1.0, total_steps=6, warmup_steps=10)
    assert [round(float(rate(step)), 4) for step in (0, 5, 9, 10, 99)] == [
        *(0.001, 0.0055, 0.0091, 0.01, 0.01),
    ]
    short = WarmupSteps(peak=1.0, total_steps=9)
    found = [round(float(short(step)), 3) for step in range(9)]
    assert found == [1.0] * 6 + [0.1] * 2 + [0.01]
    assert WarmupSteps.from_config(short.get_config()).get_config()["gamma"] == 0.1


@pytest.mark.parametrize("name", ["coco_mask_rcnn", "coco_mask_rcnn_2x"])
def test_protocols(name):
    """What the paper says of them; 2x is twice as long, of the same form."""
    config = DetectionConfig.from_recipe(name, data_dir="data")
    times = 2 if name.endswith("2x") else 1
    assert config.steps == times * 90_000
    assert config.falls_at == (times * 60_000, times * 80_000)
    assert config.batch_size == 16 and config.precise_batches == 200
    assert config.precision == "float32"
    assert (config.learning_rate, config.weight_decay) == (0.02, 1e-4)
    assert (config.warmup_steps, config.warmup_factor) == (1000, 0.001)
    known = inspect.signature(MaskRCNN).parameters
    for setting, value in config.model_settings().items():
        assert known[setting].default == value, setting


def test_the_laptops_recipe_fits_its_pretraining():
    config = DetectionConfig.from_recipe("scenes_mask_rcnn", steps=6)
    assert config.falls_at == (4, 5) and config.steps_between_rows == 1
    encoder = PretrainConfig.from_recipe("scenes_r18")
    assert encoder.arch == config.arch and encoder.output_stride == 32


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"proposals": (5,)}, "`proposals` must be two whole numbers"),
        ({"test_proposals": (5, 0)}, "`test_proposals` must be 1 or more"),
        ({"train_short_edges": ()}, "must be one number of pixels"),
        ({"long_edge": 700}, "no shorter than the short edges.*long_edge=800"),
        ({"milestones": ("8/9", "2/3")}, "rising shares between 0 and 1"),
        ({"milestones": ("1",)}, "rising shares between 0 and 1"),
        ({"milestones": ("2/0",)}, "shares such as 2/3"),
        ({"milestones": ("many",)}, "shares such as 2/3"),
        ({"fixed_sizes": ("800",)}, "HEIGHTxWIDTH"),
        ({"fixed_sizes": ("800x1333",)}, "multiples of 32.*800x1333"),
        ({"jit_compile": "true"}, "needs `fixed_sizes`"),
        ({"eval_every_steps": 7}, "`eval_every_steps` must divide `steps`"),
        ({"precision": "mixed_float16"}, "one of auto, float32, mixed_bfloat16"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given, words):
    with pytest.raises(SettingError, match=words):
        DetectionConfig(**given)


def test_what_changes_no_number_is_free():
    free = {name for name, one in DetectionConfig.settings().items() if one.free}
    assert {"workdir", "strategy", "num_pictures", "host_wait_minutes"} <= free
    assert not {"seed", "fixed_sizes", "precise_batches", "eval_every_steps"} & free
