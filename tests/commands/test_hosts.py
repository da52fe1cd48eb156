"""Two hosts, as two processes on loopback, train as one does."""

import contextlib
import json

import pytest

from slotcon_tf.runs.checkpoints import checkpoint_paths, largest_difference
from tests.support.command import TINY, free_ports, pretrain, pretrain_command, started

SETTINGS = [*TINY, "--batch_size=8", "--base_lr=0.3", "--epochs=2", "--noexport"]


def start_hosts(stack, *flags):
    """Both hosts' processes, which end with the stack."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": workers}, "task": task})
        host = started(*pretrain_command(*flags), TF_CONFIG=config)
        yield stack.enter_context(host)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["lars", "sgd"])
def test_two_hosts_equal_one(optimizer, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    flags = [*SETTINGS, f"--optimizer={optimizer}"]
    with contextlib.ExitStack() as stack:
        hosts = list(start_hosts(stack, *flags, f"--workdir={two}"))
        pretrain(*flags, f"--workdir={one}")
        logs = [host.communicate()[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], logs[0][-3000:]
    # What MultiWorkerMirroredStrategy is called inside TensorFlow.
    assert "CollectiveAllReduceStrategy, 2 replica(s)" in logs[0]
    newest = [checkpoint_paths(run / "checkpoints")[0] for run in (one, two)]
    # float32's rounding, in another order of summation, over four steps; weights are
    # of order 1. Gradients, and so the optimizer's buffers, carry more of it: the
    # recorded original's differ by 2.5% in norm from float64's.
    assert largest_difference(*newest, part="model") < 2e-4
    assert (two / "slots.png").exists() and (two / "history.csv").exists()
