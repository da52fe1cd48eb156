"""The benchmarks measure what they say."""

import dataclasses
import re
import time

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import step_cost
from benchmarks.common import in_turns, median_ratio
from benchmarks.profiling import by_scope, operation_times
from tests.support.command import module


def test_scopes_gather_forward_backward_and_the_rest():
    times = {
        "student_1/resnet50_1/conv1_1/convolution:Conv2D": 2.0,
        "gradient_tape/student_1/resnet50_1/conv1_1/Grad:Conv2DBackpropInput": 3.0,
        "slot_contrastive_loss/predictor_1/dense_0_1/MatMul:MatMul": 1.0,
        "slot_contrastive_loss_1/Softmax:Softmax": 0.5,
        "AddN_12:AddN": 0.25,
        "Mean:Mean": 0.125,
        "KernelAndDeviceFunc::Run": 99.0,
    }
    parts = by_scope(times, step_cost.PARTS, {"resnet50": "encoder"})
    seen = {name: seconds for name, seconds in parts.items() if seconds}
    assert seen == {
        "encoder": 5.0,
        "predictor": 1.0,
        "slot_contrastive_loss": 0.5,
        "AddN": 0.25,
        "other": 0.125,
    }


def test_the_profile_sees_where_the_time_goes():
    x = tf.random.normal((600, 600))

    @tf.function
    def work():
        with tf.name_scope("heavy"):
            y = tf.linalg.matmul(x, tf.linalg.matmul(x, x))
        with tf.name_scope("light"):
            return tf.reduce_sum(tf.nn.relu(y[:10]))

    work()
    parts = by_scope(operation_times(work), ("heavy", "light"))
    assert parts["heavy"] > parts["light"] > 0


def test_turns_are_taken_and_ratios_paired(monkeypatch):
    calls, now = [], [0.0]

    def take(name, seconds):
        calls.append(name)
        now[0] += seconds

    runs = {"slow": lambda: take("slow", 5.0), "fast": lambda: take("fast", 2.0)}
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    seconds = in_turns(runs, rounds=3, warmup=1)
    assert calls == ["slow", "fast"] * 4
    assert median_ratio(seconds["slow"], seconds["fast"]) == 2.5
    assert median_ratio([2.0, 8.0, 3.0], [1.0, 2.0, 3.0]) == 2.0


@pytest.mark.slow
def test_a_small_case_is_measured_whole():
    case = dataclasses.replace(
        step_cost.RESNET18,
        arch="resnet10",
        image_size=32,
        batch_size=2,
        hidden_dim=8,
        projection_dim=4,
        num_prototypes=(4,),
        rounds=1,
    )
    _, rows, parts = step_cost.measure(case)
    ((k, seconds, ideal, ratio, rate, peak, share),) = rows
    assert k == 4 and seconds > 0 and ideal > 0 and peak > 100
    np.testing.assert_allclose(ratio, seconds / ideal)
    np.testing.assert_allclose(rate, 2 / seconds)
    assert 0 <= share <= 1
    # Each part of the method was met under its name: none fell under "other".
    assert all(parts[scope] > 0 for scope in step_cost.PARTS), parts
    assert parts["encoder"] > parts["other"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_five_times_ends_as_an_undisturbed_one():
    """The short form of the endurance run: SIGKILL, also while it writes."""
    done = module(
        "benchmarks.endurance", "--kills=5", "--steps=100", "--faults=none", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    (kills,) = re.findall(r"kills survived +(\d+)", done.stdout)
    assert int(kills) == 5
    assert re.search(r"largest difference of any saved number +0\n", done.stdout)
