"""trainers.prepare and trainers.check_data as a user types them."""

import functools
import os

import numpy as np
import pytest
from PIL import Image

from slotcon_tf.data import crop_pair_dataset, open_source
from trainers import check_data, prepare


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


@pytest.fixture
def ended(capsys):
    """Function: runs a command in this process; what it ends with and prints."""

    def run(command, *words):
        with pytest.raises(SystemExit) as end:
            command.main([command.__name__, *words])
        told = capsys.readouterr()
        return end.value.code, told.out + told.err

    return run


@pytest.mark.slow
def test_records_hold_what_the_folder_holds(photos, tmp_path, ended):
    shards = tmp_path / "shards"
    flags = [f"--data_dir={photos}", f"--output={shards}", "--shards=3"]
    status, told = ended(prepare, *flags)
    assert status == 0 and "11 images" in told and "1 bad ones left out" in told
    assert "05_bad.jpg: a text file" in told and "prepare: 100%" in told
    assert len(list(shards.glob("images-*-of-00003.tfrecord"))) == 3
    status, told = ended(prepare, *flags)
    assert status == 2 and "without shards" in told

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
    with pytest.raises(FileNotFoundError, match="slotcon-prepare"):
        open_source("records", photos)


@pytest.fixture
def checked(ended):
    return functools.partial(ended, check_data)


def test_check_data_reports_sizes_formats_and_all_that_is_wrong(
    photos, tmp_path, checked
):
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
    status, report = checked(f"--data_dir={photos}", f"--bad_list={bad}")
    assert status == 1 and "12 images, 1 bad" in report and "PNG RGB" in report
    rows = [line.split() for line in report.splitlines()]
    assert ["height", "30", "35", "40"] in rows and ["width", "40", "40", "40"] in rows
    assert bad.read_text() == f"{photos / '05_bad.jpg'}\ta text file\n"
    assert "no such folder" in checked("--data_dir=/nowhere")[1]

    status, report = checked(f"--data_dir={mixed}")
    assert status == 0 and "1 images, 0 bad" in report
    assert "Passed over: 2 .cr2 (save as PNG or JPEG), 1 .txt, 1 pipes" in report
    assert f"{mixed / 'pipe.jpg'}: no file" in report
    status, report = checked(*of_list)
    assert status == 1
    assert "in line 5 " in report and "--allow_remote_paths" in report
    status, report = checked(*of_list, "--allow_remote_paths")
    assert status == 1 and "4 images, 3 bad" in report
    assert "pipe.jpg: a named pipe, not a file" in report
    assert "gone.jpg: No such file or directory" in report
    assert "1 images are remote." in report
