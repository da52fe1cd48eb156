"""Files are whole or as they were: errors, full disks, killed and other writers."""

import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from safetensors.numpy import save_file

from export.tables import write_table
from slotcon_tf import files
from slotcon_tf.data.records import write_index, write_shard
from slotcon_tf.evaluation.results import result, write_result
from slotcon_tf.files import (
    ABANDONED_SECONDS,
    write_text,
    write_whole,
    written_aside,
    written_whole,
)
from slotcon_tf.interop.torch_files import write_torch
from slotcon_tf.serving.archive import publish
from slotcon_tf.visualize.figures import write_figure
from tests.support.disk_case import fill, is_full, read_only, small_disk

BIG = np.arange(100_000, dtype=np.float32)


def asides(folder):
    return list(folder.rglob(".writing-*"))


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fails(file):
        file.write(b"half")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_whole(path, fails)
    assert path.read_text() == "old" and not asides(tmp_path)
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "b") as aside:
        aside.mkdir()
        (aside / "half").write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a.txt"]


def test_links_are_followed_and_devices_written_to(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "far" / "real.txt")
    write_text(link, "new")
    assert link.is_symlink() and (tmp_path / "far" / "real.txt").read_text() == "new"
    write_text("/dev/null", "gone")
    assert not pathlib.Path("/dev/null").is_file()
    long = tmp_path / f"{'ö' * 120}.keras"
    write_text(long, "a name near the longest")
    assert long.exists()


def test_the_same_text_is_left_untouched(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "same")
    os.utime(path, (1, 1))
    write_text(path, "same")
    assert path.stat().st_mtime == 1
    write_text(path, "other")
    assert path.stat().st_mtime != 1


def test_two_writers_of_one_path_never_meet(tmp_path):
    path = tmp_path / "a.txt"
    with written_whole(path) as first, written_whole(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and not asides(tmp_path)
    # Versions of an export have one number each.
    with written_aside(tmp_path / "x") as first, written_aside(tmp_path / "x") as other:
        for aside in (first, other):
            aside.mkdir()
            (aside / "model").write_text(aside.name)
        names = [publish(aside, tmp_path).name for aside in (first, other)]
    assert names == ["1", "2"]


WRITER = """
import runpy, sys, time
files = runpy.run_path(sys.argv[1])  # without the package, which takes seconds
with files["written_whole"](sys.argv[2]) as aside:
    aside.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_leftovers_of_the_dead_go_and_the_living_keep_theirs(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, files.__file__, tmp_path / name],
            stdout=subprocess.PIPE,
        )
        for name in ("dead.txt", "alive.txt")
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"writing\n"
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        # Of another machine: one was left a week ago, one is being written.
        left, fresh = (
            tmp_path / f".writing-00000000-{number}-0-far.txt" for number in (1, 2)
        )
        own = tmp_path / ".writing-notes.txt"  # somebody's, of no writer here
        for path in (left, fresh, own):
            path.write_text("half")
        week_ago = left.stat().st_mtime - 7 * ABANDONED_SECONDS
        for path in (left, own):
            os.utime(path, (week_ago, week_ago))
        write_text(tmp_path / "mine.txt", "whole")
        names = sorted(path.name for path in asides(tmp_path))
        assert len(names) == 3 and {fresh.name, own.name} < set(names)
        assert any(name.endswith("-alive.txt") for name in names)
        assert writers[1].poll() is None
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def test_machines_of_one_name_do_not_take_each_others_processes_for_theirs(
    tmp_path, monkeypatch
):
    """Another boot, or another container: of its processes nothing is known here."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = tmp_path / f".writing-{files._place()}-{dead.pid}-0-a.txt"
    files._place.cache_clear()
    monkeypatch.setattr(files, "machine", lambda: "another boot")
    elsewhere = tmp_path / f".writing-{files._place()}-{dead.pid}-0-a.txt"
    monkeypatch.undo()
    files._place.cache_clear()
    for path in (here, elsewhere):
        path.write_text("half")
    write_text(tmp_path / "mine.txt", "whole")
    assert asides(tmp_path) == [elsewhere]


def model():
    return keras.Sequential([keras.Input((256,)), keras.layers.Dense(256)])


def saved(path):
    with written_whole(path) as aside:
        model().save(aside)


def exported(path):
    archive = keras.export.ExportArchive()
    network = model()
    archive.track(network)
    spec = [tf.TensorSpec((None, 256))]
    archive.add_endpoint("serve", network.call, input_signature=spec)
    with written_whole(path) as aside:
        archive.write_out(str(aside), verbose=False)


def safetensors(path):
    with written_whole(path) as aside:
        save_file({"a": BIG}, aside)


def index(path):
    write_index(path.parent, [np.zeros((50_000, 2), np.int64)])


def pixels(path):
    figure = Figure(figsize=(8, 8))
    noise = np.random.default_rng(0).random((400, 400))
    figure.subplots().imshow(noise)
    write_figure(path, figure)


# Every way in which this project writes; each must not fit on the disk.
WRITERS = {
    "a.keras": saved,
    "a.txt": lambda path: write_text(path, "x" * 200_000),
    "a.json": lambda path: write_result(
        path, result("t", {}, {str(i): {"trained": 0.1} for i in range(9999)}, "d", "s")
    ),
    "a.npz": lambda path: write_table(path, ["a"] * 100_000, {"x": BIG}),
    "a.parquet": lambda path: write_table(path, ["a"] * 100_000, {"x": BIG}),
    "a.png": pixels,
    "a.pth": lambda path: write_torch(path, {"a": BIG}),
    "a.safetensors": safetensors,
    "a.tfrecord": lambda path: write_shard(path, [("a.jpg", BIG.tobytes())]),
    "index.npz": index,
    "1": exported,
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    with small_disk(tmp_path_factory.mktemp("mounted"), 0.25) as folder:
        yield folder


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_keeps_the_old_file(name, disk):
    path = disk / name
    if name != "1":
        path.write_text("old")
    filler = fill(disk, leave=40_960)
    try:
        with pytest.raises(OSError) as caught:
            WRITERS[name](path)
        assert is_full(caught.value) and caught.value.filename == str(path)
        assert not asides(disk)
        assert not path.exists() if name == "1" else path.read_text() == "old"
    finally:
        filler.unlink()
        path.unlink(missing_ok=True)


def test_a_read_only_disk_is_named(disk):
    (disk / "a.txt").write_text("old")
    with read_only(disk):
        for name, write in WRITERS.items():
            with pytest.raises(OSError, match="Read-only file system") as caught:
                write(disk / name)
            assert caught.value.filename == str(disk / name)
        assert (disk / "a.txt").read_text() == "old"
        with pytest.raises(OSError, match="Read-only file system: '.*new'"):
            write_text(disk / "new" / "a.txt", "a")
