"""Checkpoints: whole or not at all, found again, never of another run."""

import os
import resource
import shutil
import signal

import numpy as np
import pytest

from slotcon_tf.runs.checkpoints import CheckpointError
from slotcon_tf.runs.workdir import WorkdirError
from tests.support.checkpoint_case import CONFIG, save_at, store
from tests.support.small_case import dataset


def names(checkpoints):
    return [path.name for path in checkpoints.paths()]


def test_what_is_saved_comes_back(tmp_path):
    saved = store(tmp_path)
    saved.model.fit(dataset(3), verbose=0, shuffle=False)
    saved.save()
    fresh = store(tmp_path)
    assert fresh.restore() == 3
    pairs = zip(saved.model.variables, fresh.model.variables, strict=True)
    for old, new in pairs:
        np.testing.assert_array_equal(old.numpy(), new.numpy(), err_msg=new.path)
    buffers = zip(
        saved.model.optimizer.variables, fresh.model.optimizer.variables, strict=True
    )
    for old, new in buffers:
        np.testing.assert_array_equal(old.numpy(), new.numpy(), err_msg=new.path)
    assert float(fresh.model.metrics[0].result()) > 0
    means = zip(saved.model.metrics, fresh.model.metrics, strict=True)
    for old, new in means:
        assert float(old.result()) == float(new.result()), new.name


def test_nothing_saved_is_step_0(tmp_path):
    assert store(tmp_path / "none").restore() == 0


def test_the_newest_and_those_of_epochs_are_kept(tmp_path):
    checkpoints = store(tmp_path, keep_every_epochs=2)
    save_at(checkpoints, 2, 4, 5, 6, 8, 9, 10)
    assert names(checkpoints) == [f"step_{n:09d}" for n in (10, 9, 8, 4)]


def truncate(path):
    file = next(path.glob("state.data*"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(path):
    file = next(path.glob("state.data*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def lose_index(path):
    (path / "state.index").unlink()


def empty(path):
    shutil.rmtree(path)
    path.mkdir()


def lose_flags(path):
    (path / "pretrain.flags").write_text("")


@pytest.mark.parametrize("damage", [truncate, flip, lose_index, lose_flags, empty])
def test_a_damaged_one_falls_back_to_the_one_before(damage, tmp_path, caplog):
    saved = store(tmp_path, keep=3)
    save_at(saved, 2, 4)
    damage(saved.latest())
    fresh = store(tmp_path)
    assert fresh.restore() == 2
    assert "step_000000004 is damaged" in caplog.text
    # What is damaged makes room: the run writes this step's again.
    save_at(fresh, 4)
    assert store(tmp_path).restore() == 4
    for path in fresh.paths():
        damage(path)
    for _ in range(2):  # a scheduler that tries again must not start from nothing
        with pytest.raises(CheckpointError, match="2, all damaged"):
            store(tmp_path).restore()


def test_another_configuration_is_refused_and_left_alone(tmp_path):
    save_at(store(tmp_path), 2)
    other = store(tmp_path, config=CONFIG.replace(batch_size=8))
    with pytest.raises(WorkdirError, match=r"batch_size=4 \(now 8\)"):
        other.restore()
    assert store(tmp_path).restore() == 2


def test_copies_of_the_users_are_left_alone(tmp_path):
    checkpoints = store(tmp_path, keep=1)
    save_at(checkpoints, 2)
    shutil.copytree(checkpoints.latest(), tmp_path / "step_000000002_best")
    save_at(checkpoints, 4, 6)
    assert names(checkpoints) == ["step_000000006"]
    assert (tmp_path / "step_000000002_best").exists()


def test_half_a_checkpoint_does_not_count(tmp_path):
    checkpoints = store(tmp_path)
    save_at(checkpoints, 2)
    shutil.copytree(checkpoints.latest(), tmp_path / ".writing")
    assert store(tmp_path).restore() == 2
    save_at(checkpoints, 4)
    assert not (tmp_path / ".writing").exists()


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def note(file):
        synced.append(os.fstat(file).st_ino)
        assert not list(tmp_path.glob("step_*"))
        sync(file)

    monkeypatch.setattr(os, "fsync", note)
    checkpoints = store(tmp_path)
    save_at(checkpoints, 2)
    files = list(checkpoints.latest().iterdir())
    assert files and {file.stat().st_ino for file in files} <= set(synced)


@pytest.fixture
def full_disk():
    """Files of this process may not grow beyond 10 kB, as on a disk without space."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_destroys_nothing(tmp_path, request):
    checkpoints = store(tmp_path)
    save_at(checkpoints, 2)
    request.getfixturevalue("full_disk")
    with pytest.raises(CheckpointError, match="goes on from .*step_000000002"):
        save_at(checkpoints, 4)
    assert names(checkpoints) == ["step_000000002"]
    assert sorted(os.listdir(tmp_path)) == ["step_000000002"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="must be written to .*file"):
        save_at(store(tmp_path / "file"), 2)
