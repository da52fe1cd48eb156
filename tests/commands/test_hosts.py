"""Two hosts, as two processes on loopback, train as one does, and end together."""

import shutil
import time

import pytest

from slotcon_tf.runs.checkpoints import checkpoint_paths, largest_difference
from tests.support.command import TINY, pretrain, until
from tests.support.host_case import hosts

SETTINGS = [*TINY, "--batch_size=8", "--base_lr=0.3", "--epochs=2", "--noexport"]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["lars", "sgd"])
def test_two_hosts_equal_one(optimizer, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    flags = [*SETTINGS, f"--optimizer={optimizer}"]
    with hosts(tmp_path, *[[*flags, f"--workdir={two}"]] * 2) as both:
        pretrain(*flags, f"--workdir={one}")
        both.wait()
    assert [host.status for host in both] == [0, 0], both[0].said[-3000:]
    # What MultiWorkerMirroredStrategy is called inside TensorFlow.
    assert "CollectiveAllReduceStrategy, 2 replica(s)" in both[0].said
    newest = [checkpoint_paths(run / "checkpoints")[0] for run in (one, two)]
    # float32's rounding, in another order of summation, over four steps; weights are
    # of order 1. Gradients, and so the optimizer's buffers, carry more of it: the
    # recorded original's differ by 2.5% in norm from float64's.
    assert largest_difference(*newest, part="model") < 2e-4
    assert (two / "slots.png").exists() and (two / "history.csv").exists()
    assert not both[0].errors and not both[1].errors
