"""Checkpoints keep what their run was trained on; other data is refused."""

import os
import shutil

import pytest

from slotcon_tf.data import open_source
from slotcon_tf.data.identity import Identity
from slotcon_tf.runs.checkpoints import CheckpointError
from slotcon_tf.runs.kept_data import ChangedData, RunData
from slotcon_tf.runs.workdir import WorkdirError
from tests.support.checkpoint_case import CONFIG, save_at, store
from tests.support.photo_case import photos


def _of(folder):
    return Identity(images=open_source("folder", folder).identity())


def data_of(folder, steps=10, **more):
    return RunData(_of(folder), steps_per_epoch=2, steps=steps, **more)


def test_a_checkpoint_keeps_its_data_and_refuses_other(tmp_path, caplog):
    folder, kept = photos(tmp_path / "photos", 6), tmp_path / "run" / "checkpoints"
    save_at(store(kept, data=data_of(folder), keep=1), 2, 4)
    (names,) = kept.glob("data-*.json.gz")  # once, not in every checkpoint
    (folder / "1.png").unlink()
    (folder / "4.png").unlink()
    with pytest.raises(ChangedData) as caught:
        store(kept, data=data_of(folder)).restore()
    said = str(caught.value)
    assert "2 files fewer (1.png, 4.png). Bring" in said and "\n" not in said
    assert "`allow_changed_data`" in said
    # Copied alone: the names are gone, and it is told all the same.
    names.unlink()
    with pytest.raises(ChangedData, match=r"other files \(6 of .* then, 4 of"):
        store(kept, data=data_of(folder)).restore()
    names.write_bytes(b"damaged")
    with pytest.raises(ChangedData, match=r"other files \(6 of"):
        store(kept, data=data_of(folder)).restore()
    allowed = CONFIG.replace(allow_changed_data=True)
    store_of_now = store(kept, config=allowed, data=data_of(folder))
    assert store_of_now.restore() == 4 and "The data has changed since" in caplog.text
    # What is allowed is allowed once: later checkpoints are of the data of now.
    save_at(store_of_now, 6)
    flags = (store_of_now.latest() / CONFIG.flagfile).read_text()
    assert "--noallow_changed_data" in flags
    assert store(kept, data=data_of(folder)).restore() == 6


def test_older_checkpoints_go_on_with_a_line(tmp_path, caplog):
    folder, kept = photos(tmp_path / "photos", 6), tmp_path / "run" / "checkpoints"
    was = CONFIG.replace(dataset="folder", data_dir=str(folder))
    save_at(store(kept, config=was), 4)
    caplog.set_level("INFO")
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, tmp_path / "link", os.path.relpath(folder)):
        config = was.replace(data_dir=str(place))
        later = store(kept, config=config, data=data_of(folder))
        assert later.restore() == 4
    assert "kept no identity of its data" in caplog.text
    save_at(later, 6)
    assert (later.latest() / "data.json").exists()
    # Of data that lies elsewhere nothing is known.
    shutil.rmtree(later.latest())
    copied = shutil.copytree(folder, tmp_path / "copied")
    config = was.replace(data_dir=str(copied))
    with pytest.raises(WorkdirError, match=r"data_dir=.*photos \(now .*copied\)"):
        store(kept, config=config, data=data_of(copied)).restore()
    # Nor does data that has grown reopen a run: its model's steps say how much it was.
    (kept.parent / "model.json").write_text('{"total_steps": 10}')
    grown = data_of(folder, steps=20, total_steps=20)
    with pytest.raises(WorkdirError, match="for 10 steps in all .now 20"):
        store(kept, config=was, data=grown).restore()


def test_what_a_checkpoint_says_of_its_data_may_be_damaged(tmp_path, caplog):
    folder, kept = photos(tmp_path / "photos", 6), tmp_path / "checkpoints"
    saved = store(kept, data=data_of(folder))
    save_at(saved, 2, 4, 6)
    for path, text in zip(saved.paths(), ["[", '{"digest": 1}'], strict=False):
        (path / "data.json").write_text(text)
    with pytest.raises(CheckpointError, match="2, all damaged"):
        store(kept, data=data_of(folder)).restore()


def test_an_ended_run_stays_ended(tmp_path):
    folder, kept = photos(tmp_path / "photos", 6), tmp_path / "checkpoints"
    save_at(store(kept, data=data_of(folder, steps=10)), 10)
    same = store(kept, data=data_of(folder))
    assert same.restore() == 10 and not same.ended
    shutil.copy(folder / "1.png", folder / "11.png")
    with pytest.raises(ChangedData, match=r"has ended.* set init_from=runs/pretrain"):
        store(kept, data=data_of(folder, steps=20)).restore()
    with pytest.raises(
        ChangedData, match=r"With `allow_changed_data` it stays ended.$"
    ):
        store(kept, data=data_of(folder, steps=20)).restore()
    allowed = CONFIG.replace(allow_changed_data=True)
    after = store(kept, config=allowed, data=data_of(folder, steps=20))
    assert after.restore() == 10 and after.ended


def test_an_ended_run_of_an_older_version_stays_ended(tmp_path):
    """7 images, 2 in a batch: 3 steps an epoch, and a model of 7 * 10 // 2 steps."""
    folder, kept = photos(tmp_path / "photos", 6), tmp_path / "run" / "checkpoints"
    was = CONFIG.replace(dataset="folder", data_dir=str(folder), epochs=10)
    (tmp_path / "run").mkdir()
    grown = data_of(folder, steps=60, total_steps=60)
    allowed = was.replace(allow_changed_data=True)
    for step, ended in ((29, False), (30, True)):
        save_at(store(kept, config=was), step)
        (kept.parent / "model.json").write_text('{"total_steps": 35}')
        after = store(kept, config=allowed, data=grown)
        assert after.restore() == step and after.ended == ended
    with pytest.raises(ChangedData, match="has ended, and other data does not reopen"):
        store(kept, config=was, data=grown).restore()
    # As it was, it has ended by its own steps.
    same = store(kept, config=was, data=data_of(folder, steps=30, total_steps=35))
    assert same.restore() == 30 and not same.ended


def test_checkpoints_kept_for_good_survive_data_of_another_size(tmp_path, caplog):
    folder, kept = photos(tmp_path / "photos", 6), tmp_path / "checkpoints"
    saved = store(kept, data=data_of(folder), keep=1, keep_every_epochs=2)
    save_at(saved, 2, 4, 6)
    shutil.copy(folder / "1.png", folder / "11.png")
    options = {"keep": 1, "keep_every_epochs": 2, "steps_per_epoch": 3}
    data = RunData(_of(folder), steps_per_epoch=3, steps=15)
    config = CONFIG.replace(allow_changed_data=True)
    later = store(kept, config=config, data=data, **options)
    assert later.restore() == 6
    assert "An epoch has 3 steps now, and had 2: what is done is" in caplog.text
    save_at(later, 7, 12, 13)
    assert [p.name[-2:] for p in later.paths()] == ["13", "12", "06", "04"]
