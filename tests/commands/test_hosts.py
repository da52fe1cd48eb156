"""Two hosts, as two processes on loopback, train as one does, and end together."""

import os
import signal
import time

import pytest
from PIL import Image

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


def test_differences_and_missing_hosts_are_named(tmp_path):
    """On all hosts, in one line, before anything is written."""
    photos = [tmp_path / name for name in ("many", "few")]
    for folder, count in zip(photos, (9, 8), strict=True):
        folder.mkdir()
        for index in range(count):
            Image.new("RGB", (48, 40), (index, 0, 0)).save(folder / f"{index}.png")
    flags = [*TINY, "--dataset=folder", f"--workdir={tmp_path / 'run'}"]
    flag, data, missing = (tmp_path / name for name in ("flag", "data", "missing"))
    for folder in (flag, data, missing):
        folder.mkdir()
    same = [*flags, f"--data_dir={photos[0]}"]
    with (
        hosts(flag, [*same, "--seed=3"], [*same, "--seed=4", "--epochs=9"]) as one,
        hosts(data, same, [*flags, f"--data_dir={photos[1]}"]) as two,
        hosts(missing, [*same, "--host_wait_minutes=0.05"], count=2) as three,
    ):
        for each in (one, two, three):
            each.wait()
            # Each says the same, and nothing else.
            assert [host.status for host in each] == [1] * len(each), each[0].said
            (line,) = {line for host in each for line in host.errors}
            assert "Traceback" not in each[0].said
            each.line = line
    assert "--seed=3 on worker 0 (127.0.0.1:" in one.line
    assert "--seed=4 on worker 1 (127.0.0.1:" in one.line
    assert "--epochs=800 on" in one.line and "batch_size" not in one.line
    assert "9 images" in two.line and "8 images" in two.line
    assert f"without worker 1 (127.0.0.1:{three.ports[1]})" in three.line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_one_that_waits_for_others_ends_on_sigterm(tmp_path):
    with hosts(tmp_path, [*SETTINGS, f"--workdir={tmp_path / 'run'}"], count=2) as one:
        until(lambda: one[0].log.exists() and "Processor" in one[0].said, "its start")
        time.sleep(1)  # which comes before it meets
        os.kill(one[0].pid, signal.SIGTERM)
        one.wait()
    assert one[0].status == 143 and not (tmp_path / "run").exists()
    assert one[0].errors == ["pretrain: Stopped by SIGTERM."]


@pytest.mark.slow
def test_a_killed_host_ends_the_others_and_the_run_goes_on(tmp_path):
    flags = [*SETTINGS, "--epochs=999", "--checkpoint_steps=1"]
    flags += ["--keep_checkpoints=2", f"--workdir={tmp_path / 'run'}"]
    checkpoints = tmp_path / "run" / "checkpoints"
    with hosts(tmp_path, flags, flags) as both:
        until(lambda: checkpoint_paths(checkpoints), "a checkpoint", both.process)
        both[1].kill()
        start = time.monotonic()
        both.wait()
        assert time.monotonic() - start < 90
        newest = checkpoint_paths(checkpoints)[0]
        (line,) = both[0].errors
    assert both[0].status == 1 and "Traceback" not in both[0].said
    assert f"{both[1].name} has ended without a word." in line
    assert line.endswith(f"on all hosts again: it goes on from {newest}.")

    # And the first one's error is the others' end, with its reason.
    with hosts(tmp_path, flags, flags) as both:
        both.until("Resumed after step")
        until(lambda: checkpoint_paths(checkpoints)[0] != newest, "one", both.process)
        checkpoints.rename(tmp_path / "gone")
        checkpoints.write_text("in the way")
        both.wait()
    assert [host.status for host in both] == [1, 1]
    assert not any("Traceback" in host.said for host in both)
    (first,), (second,) = (host.errors for host in both)
    assert "pretrain: A checkpoint of step" in first
    assert f"{both[0].name} has ended: A checkpoint of step" in second
