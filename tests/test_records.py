"""trainers.prepare and trainers.check_data as a user types them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.data import crop_pair_dataset, open_source
from tests.command import modules

# Several command lines in one process, each with fresh flags: imports take seconds.
IN_ONE = """
import json, sys
from absl import flags
from trainers import check_data
for line in json.loads(sys.argv[1]):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(['check_data', *line])
    try:
        check_data.main(['check_data'])
    except SystemExit as error:
        print('STATUS', error)
"""
ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eleven pictures, and a twelfth that is no picture."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(11):
        pixels = rng.integers(0, 256, (30 + index, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    (folder / "05_bad.jpg").write_bytes(b"<html>")
    return folder


@pytest.mark.slow
def test_records_hold_what_the_folder_holds(photos, tmp_path):
    shards = tmp_path / "shards"
    line = ["trainers.prepare", f"--data_dir={photos}", f"--output={shards}"]
    done, again = modules(*[[*line, "--shards=3"]] * 2, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "11 images" in done.stdout and "1 bad ones left out" in done.stdout
    assert "05_bad.jpg: a text file" in done.stderr and "prepare: 100%" in done.stderr
    assert len(list(shards.glob("images-*-of-00003.tfrecord"))) == 3
    assert again.returncode == 1 and "without shards" in again.stderr

    records, folder = open_source("records", shards), open_source("folder", photos)
    good = [p for p in folder.paths if "bad" not in p]
    assert records.num_images == 11
    for index, path in enumerate(good):
        np.testing.assert_array_equal(records.load(index), np.asarray(Image.open(path)))
    streams = [
        crop_pair_dataset(source, batch_size=11, image_size=16, seed=1, epochs=2)
        for source in (records, open_source("list", _list(tmp_path, good)))
    ]
    for a, b in zip(*(s.as_numpy_iterator() for s in streams), strict=True):
        np.testing.assert_array_equal(a["view_a"], b["view_a"])


def _list(folder, paths):
    path = folder / "good.txt"
    path.write_text("\n".join(paths))
    return path


def test_a_folder_without_index_names_the_command(photos):
    with pytest.raises(FileNotFoundError, match="python -m trainers.prepare"):
        open_source("records", photos)


def checked(*lines):
    """What check_data prints and ends with, line by line, in one process."""
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE, json.dumps([list(map(str, x)) for x in lines])],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    parts = done.stdout.split("STATUS ")
    statuses = [part.partition("\n")[0] for part in parts[1:]]
    reports = [parts[0], *(part.partition("\n")[2] for part in parts[1:])]
    return list(zip(statuses, reports, strict=False))


def test_check_data_reports_sizes_formats_and_all_that_is_wrong(photos, tmp_path):
    bad, mixed, listed = tmp_path / "bad.txt", tmp_path / "mixed", tmp_path / "l.csv"
    mixed.mkdir()
    os.mkfifo(mixed / "pipe.jpg")
    for name in ("a.cr2", "b.CR2", "notes.txt"):
        (mixed / name).write_bytes(b"x")
    os.symlink(photos / "01.png", mixed / "01.png")
    names = ["01.png,3", "pipe.jpg,3", "gone.jpg,3"]
    listed.write_text("path,label\n" + "\n".join(f"mixed/{name}" for name in names))
    remote = listed.with_stem("remote")
    remote.write_text(listed.read_text() + "\nhttp://nowhere/a.jpg,3")
    of_list = f"--data_dir={remote}", "--dataset=list"
    whole, nowhere, other, refused, allowed = checked(
        [f"--data_dir={photos}", f"--bad_list={bad}"],
        ["--data_dir=/nowhere"],
        [f"--data_dir={mixed}"],
        of_list,
        [*of_list, "--allow_remote_paths"],
    )
    status, report = whole
    assert status == "1" and "12 images, 1 bad" in report and "PNG RGB" in report
    rows = [line.split() for line in report.splitlines()]
    assert ["height", "30", "35", "40"] in rows and ["width", "40", "40", "40"] in rows
    assert bad.read_text() == f"{photos / '05_bad.jpg'}\ta text file\n"
    assert "no such folder" in nowhere[0]

    status, report = other
    assert status == "0" and "1 images, 0 bad" in report
    assert "Passed over: 2 .cr2 (save as PNG or JPEG), 1 .txt, 1 pipes" in report
    assert f"{mixed / 'pipe.jpg'}: no file" in report
    assert "in line 5 " in refused[0] and "--allow_remote_paths" in refused[0]
    status, report = allowed
    assert status == "1" and "4 images, 3 bad" in report
    assert "pipe.jpg: a named pipe, not a file" in report
    assert "gone.jpg: No such file or directory" in report
    assert "1 images are remote." in report
