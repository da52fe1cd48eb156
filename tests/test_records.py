"""trainers.prepare and trainers.check_data as a user types them."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.data import crop_pair_dataset, open_source

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


def command(module, *flags):
    return subprocess.run(
        [sys.executable, "-m", f"trainers.{module}", *flags],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_records_hold_what_the_folder_holds(photos, tmp_path):
    shards = tmp_path / "shards"
    flags = [f"--data_dir={photos}", f"--output={shards}", "--shards=3"]
    done = command("prepare", *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "11 images" in done.stdout and "1 bad ones left out" in done.stdout
    assert "05_bad.jpg: a text file" in done.stderr and "prepare: 100%" in done.stderr
    assert len(list(shards.glob("images-*-of-00003.tfrecord"))) == 3
    again = command("prepare", *flags)
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


def test_check_data_reports_sizes_formats_and_bad_files(photos, tmp_path):
    bad = tmp_path / "bad.txt"
    done = command("check_data", f"--data_dir={photos}", f"--bad_list={bad}")
    assert done.returncode == 1
    assert "12 images, 1 bad" in done.stdout and "PNG RGB" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["height", "30", "35", "40"] in rows and ["width", "40", "40", "40"] in rows
    assert bad.read_text() == f"{photos / '05_bad.jpg'}\ta text file\n"
    done = command("check_data", "--data_dir=/nowhere")
    assert done.returncode == 1 and "no such folder" in done.stderr
