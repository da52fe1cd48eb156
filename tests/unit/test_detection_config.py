"""The detector's protocol: its schedule, its recipes, and settings that cannot be."""

import numpy as np

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
