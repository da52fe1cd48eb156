"""Detection on two hosts, as two processes on loopback."""

import numpy as np
import pytest

from tests.support.detector_case import SIZES
from tests.support.exact_detector import (
    KEPT,
    STOP,
    ExactConfig,
    ended_with,
    finetune_exactly,
)
from tests.support.host_case import hosts

CLOSE = 1e-12  # float64; weights are of order 1. Seen: 4e-16


def config_of(folder, **changes):
    return ExactConfig(
        dataset="scenes",
        max_train_images=40,
        val_split="test",
        max_val_images=2,
        arch="resnet10",
        train_short_edges=(64, 96),
        short_edge=64,
        long_edge=160,
        **SIZES,
        batch_size=4,
        steps=2,
        warmup_steps=1,
        precise_batches=2,
        num_pictures=0,
        workdir=str(folder),
        **changes,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a run of one replica ends with."""
    folder = tmp_path_factory.mktemp("alone")
    return ended_with(finetune_exactly(config_of(folder / "run")).model)


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=CLOSE, atol=CLOSE)


@pytest.mark.slow
def test_two_hosts_equal_one(alone, tmp_path):
    """Also where one of them gets a signal in PreciseBN, and both go on later."""
    config = config_of(tmp_path / "run")
    flags = sorted(set(config.lines()) - set(ExactConfig().lines()))
    kept = [str(tmp_path / f"host{index}.npz") for index in range(2)]
    for stop in ("statistics", ""):
        variables = {0: {KEPT: kept[0]}, 1: {KEPT: kept[1], STOP: stop}}
        options = {"variables": variables, "module": "tests.support.exact_detector"}
        with hosts(tmp_path, flags, flags, **options) as both:
            both.wait()
        status = 143 if stop else 0
        assert [host.status for host in both] == [status] * 2, both[0].said[-3000:]
        for host in both if stop else ():
            line = host.errors[-1]
            assert "Stopped by a signal after step 2" in line
        # The same losses, weights and statistics on both.
        first, second = (list(np.load(path).values()) for path in kept)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)
        if stop:
            assert_equal(first[:1], alone[:1])  # the steps' losses
    assert_equal(first[1:], alone[1:])
