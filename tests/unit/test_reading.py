"""Files that would hang a run, files that are away, and what is nobody's data."""

import errno
import io
import os
import socket
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from slotcon_tf.data import open_source
from slotcon_tf.data.bad_images import TooManyBadImages
from slotcon_tf.data.labelled import open_classified, open_segmented
from slotcon_tf.data.listing import (
    PassedOver,
    is_image_name,
    list_images,
    read_list,
    reads_heic,
)
from slotcon_tf.data.reading import Patience, largest_file, read_file
from slotcon_tf.images.decoding import BadImage


def picture(path, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(path, "JPEG")
    return path


@pytest.fixture
def said(monkeypatch):
    found = []
    for module in ("listing", "reading", "labelled.classified"):
        monkeypatch.setattr(
            f"slotcon_tf.data.{module}.logging.warning",
            lambda text, *values: found.append(text % values),
        )
    return found


def sparse(path, start=b""):
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(60 * 2**30)


@pytest.fixture
def traps(tmp_path):
    """Files of every kind that is no image file, and why."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.symlink("/dev/zero", tmp_path / "zero.jpg")
    os.symlink("/dev/tty", tmp_path / "terminal.jpg")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(os.path.relpath(tmp_path / "socket.jpg"))
    listening.close()
    sparse(tmp_path / "sparse.jpg", b"\xff\xd8\xff\xe0")
    (tmp_path / "zeros.jpg").write_bytes(bytes(5000))
    return tmp_path


TRAPS = {
    "pipe.jpg": "a named pipe, not a file",
    "folder.jpg": "a folder, not a file",
    "zero.jpg": "a device, not a file",
    "terminal.jpg": "a device, not a file",
    "socket.jpg": "a socket, not a file",
    "sparse.jpg": "64424509440 bytes are more than",
    "zeros.jpg": "begins with zeros",
    "a\0b.jpg": "no file can have this name",
}


@pytest.mark.parametrize("name", TRAPS)
def test_traps_are_never_read(traps, name):
    with pytest.raises(BadImage, match=TRAPS[name]):
        read_file(str(traps / name))


def test_a_list_of_traps_is_replaced_by_good_images(traps):
    picture(traps / "good.jpg")
    names = [name for name in TRAPS if "\0" not in name] + ["good.jpg"]
    (traps / "list.txt").write_text("\n".join(names))
    source = open_source("list", traps / "list.txt", max_bad_share=1.0)
    for number in range(len(names)):
        assert (source.load(number) == 90).all()
    assert len(source.bad.reasons) == len(names) - 1


def test_a_folder_of_traps_has_the_good_images_only(traps):
    picture(traps / "good.jpg")
    passed_over = PassedOver()
    found = [os.path.basename(p) for p in list_images("folder", traps, passed_over)]
    assert found == ["good.jpg", "sparse.jpg", "zeros.jpg"]
    assert len(passed_over.special) == 4 and "4 pipes or devices" in str(passed_over)


def test_files_may_be_as_large_as_their_pixels_allow(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(b"x" * 1000)
    assert len(read_file(path, 1000)) == 1000
    with pytest.raises(BadImage, match="1000 bytes are more than the 999 allowed"):
        read_file(path, 999)
    assert largest_file(10**9) == 8 * 10**9 and largest_file(100) == 2**26


HIDDEN = (
    *(".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git", ".Trash-1000", "lost+found"),
    *("$RECYCLE.BIN", "System Volume Information", "#recycle", "@Recycle"),
)


@pytest.mark.parametrize("root", ["local", "ram://hidden"])
def test_hidden_folders_hold_no_images(tmp_path, root):
    root = str(tmp_path) if root == "local" else root
    data = picture(tmp_path / "x.jpg").read_bytes()
    os.remove(tmp_path / "x.jpg")
    names = ["cat/a.jpg", "cat/._a.jpg", "cat/Thumbs.db", "cat/.DS_Store"]
    names += [f"cat/{hidden}/a.jpg" for hidden in HIDDEN]
    names += [f"{hidden}/deep/a.jpg" for hidden in HIDDEN]
    for name in names:
        tf.io.gfile.makedirs(os.path.dirname(f"{root}/{name}"))
        with tf.io.gfile.GFile(f"{root}/{name}", "wb") as file:
            file.write(data)
    passed_over = PassedOver()
    assert list_images("folder", root, passed_over) == [f"{root}/cat/a.jpg"]
    assert not str(passed_over)


def test_hidden_folders_are_no_classes(tmp_path, said):
    for name in ("cat", "dog", *HIDDEN):
        picture(tmp_path / "train" / name / "a.jpg")
    (tmp_path / "train" / "empty").mkdir()
    found = open_classified("class_folders", tmp_path, "train", crop_size=0)
    assert found.class_names == ("cat", "dog", "empty")
    assert [number for _, number in found] == [0, 1]
    assert said == [f"{tmp_path}/train: 1 of 3 classes have no image: empty"]


def test_other_extensions_are_counted_and_said(tmp_path, said):
    for name in ("a.HEIC", "b.heic", "c.jfif", "d.txt", "README", "e.DNG"):
        (tmp_path / name).write_bytes(b"x")
    message = "0 images in it or below it. Passed over: .*" + (
        "" if reads_heic() else r'2 .heic .pip install "slotcon_tf\[heic\]"'
    )
    if not reads_heic():
        with pytest.raises(ValueError, match=message):
            open_source("folder", tmp_path)
    picture(tmp_path / "a.jpg")
    passed_over = open_source("folder", tmp_path).passed_over
    assert str(passed_over) in said[-1] and str(tmp_path) in said[-1]
    assert passed_over.extensions[".dng"] == passed_over.extensions[""] == 1
    assert "1 .jfif (rename to .jpg)" in str(passed_over)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="It holds no files"):
        open_source("folder", tmp_path / "empty")


def test_heic_is_listed_where_it_can_be_read(tmp_path, monkeypatch, said):
    monkeypatch.setattr("slotcon_tf.data.extensions.reads_heic", lambda: True)
    assert is_image_name("IMG_1.HEIC") and is_image_name("a.heif")
    for module in ("extensions", "listing"):
        name = f"slotcon_tf.data.{module}.reads_heic"
        monkeypatch.setattr(name, lambda: False)
    assert not is_image_name("IMG_1.HEIC") and is_image_name("a.avif")
    (tmp_path / "a.heic").write_bytes(b"x")
    (tmp_path / "list.txt").write_text("a.heic 3\n")
    open_source("list", tmp_path / "list.txt")
    assert '1 files are HEIC: pip install "slotcon_tf[heic]"' in said[-1]


REMOTE = ("gs://bucket/a.jpg", "http://somewhere/a.jpg", "ram://lists/a.jpg")


@pytest.mark.parametrize("name", REMOTE)
def test_a_local_list_names_no_remote_files(tmp_path, name):
    picture(tmp_path / "a.jpg")
    (tmp_path / "list.txt").write_text(f"a.jpg\n{name}\t3\n")
    with pytest.raises(ValueError, match="in line 2 .*allow_remote_paths"):
        open_source("list", tmp_path / "list.txt")


def test_remote_lists_and_those_that_are_trusted(tmp_path):
    data = picture(tmp_path / "a.jpg").read_bytes()
    with tf.io.gfile.GFile("ram://lists/a.jpg", "wb") as file:
        file.write(data)
    text = "a.jpg 1\nram://lists/a.jpg 2\n"
    with tf.io.gfile.GFile("ram://lists/list.txt", "w") as file:
        file.write(text)
    (tmp_path / "list.txt").write_text(text)
    for source in (
        open_source("list", "ram://lists/list.txt"),
        open_source("list", tmp_path / "list.txt", allow_remote=True),
    ):
        assert [source.load(n).mean() for n in (0, 1)] == [90, 90]
        assert not source.bad.reasons
    with tf.io.gfile.GFile("ram://lists/list.txt", "w") as file:
        file.write("ram://other/a.jpg\n")
    with pytest.raises(ValueError, match="may name remote files only"):
        open_source("list", "ram://lists/list.txt")


@pytest.mark.parametrize("dataset", ["list", "records", "scenes"])
def test_what_no_file_system_reads_is_told_in_one_line(dataset):
    message = "must be readable. Received: .*scheme 's3' not implemented.*copied"
    with pytest.raises(OSError, match=message) as caught:
        open_source(dataset, "s3://bucket/data")
    assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match=message):
        read_list("s3://bucket/list.txt")
    with pytest.raises(OSError, match=message):
        open_segmented("scenes", "s3://bucket/data", "val")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnst", "Received: tfds:mnst, which is none. Did you mean tfds:mnist?"),
        ("mnst/a", "Did you mean tfds:mnist?"),
        ("qqqqqqqq", "tfds:qqqqqqqq, which is none. See"),
        ("mnist/foo", "tfds:mnist/foo: .*BuilderConfig foo not found"),
        ("mnist:0.0.9", "cannot be loaded at version"),
        ("", "must name a set"),
        ("../x", "must name a set"),
    ],
)
def test_an_unknown_set_of_tfds_is_told_in_one_line(name, message, tmp_path):
    for opens in (open_source, lambda *a: open_classified(*a, "train")):
        with pytest.raises(ValueError, match=message) as caught:
            opens(f"tfds:{name}", tmp_path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


class Disk:
    """Reads that fail so often, then succeed."""

    def __init__(self, *numbers):
        self.errors = [OSError(n, os.strerror(n)) for n in numbers]

    def __call__(self):
        if self.errors:
            raise self.errors.pop(0)
        return b"data"


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_what_is_away_is_tried_again(number, said):
    patience = Patience(waits=(0.01, 0.01, 0.01))
    assert patience.read(Disk(number, number), "a.jpg") == b"data"
    assert len(said) == 1 and "Waiting for a.jpg" in said[0]
    with pytest.raises(OSError):
        patience.read(Disk(*[number] * 9), "a.jpg")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.ELOOP])
def test_what_is_gone_is_not_waited_for(number, tmp_path):
    picture(tmp_path / "other.jpg")
    start = time.monotonic()
    with pytest.raises(OSError):
        Patience().read(Disk(number), str(tmp_path / "a.jpg"))
    assert time.monotonic() - start < 0.1


def test_a_disk_that_comes_back_costs_no_image(tmp_path):
    """Its folder goes, and comes back from another thread while a file is asked for."""
    disk = tmp_path / "disk"
    for number in range(10):
        picture(disk / f"{number}.jpg", 10 * number)
    source = open_source("folder", disk)
    truth = [source.load(n) for n in range(10)]
    os.rename(disk, tmp_path / "away")
    source.patience.waits = (0.05, 0.1, 0.1)

    def back(read=source.read):
        source.read = read
        os.rename(tmp_path / "away", disk)
        raise OSError(errno.EIO, "still mounting")

    tries = []
    read = source.read

    def counted(number):
        tries.append(number)
        return back() if len(tries) == 2 else read(number)

    source.read = counted
    np.testing.assert_array_equal(source.load(3), truth[3])
    assert not source.bad.reasons and len(tries) == 3


def test_what_was_away_is_not_bad_for_ever(tmp_path):
    disk = tmp_path / "disk"
    for number in range(10):
        picture(disk / f"{number}.jpg", 20 * number)
    source = open_source("folder", disk, max_bad_share=0.3)
    source.patience.waits = (0.01,)
    os.rename(disk / "3.jpg", tmp_path / "3.jpg")
    assert abs(source.load(3).mean() - 60) > 5
    assert list(source.bad.reasons) == [str(disk / "3.jpg")]
    os.rename(tmp_path / "3.jpg", disk / "3.jpg")
    assert abs(source.load(3).mean() - 60) < 5
    assert not source.bad.reasons


def test_a_disk_that_stays_away_ends_the_run_soon(tmp_path):
    disk = tmp_path / "disk"
    for number in range(200):
        (disk).mkdir(exist_ok=True)
        (disk / f"{number}.jpg").write_bytes(b"x")
    source = open_source("folder", disk, max_bad_share=1.0)
    source.patience.waits = (0.1, 0.1)
    os.rename(disk, tmp_path / "away")
    start = time.monotonic()
    with pytest.raises(TooManyBadImages, match="No such file"):
        source.bad.max_share = 0.1
        source.load(0)
    assert 0.2 <= time.monotonic() - start < 1.0  # once, not for each of 100


def test_a_folder_that_is_gone_is_waited_for_once(tmp_path, monkeypatch):
    """Removed classes, while others are read: seconds in all, not for each file."""
    paths = [picture(tmp_path / f"all/{c}/{n}.jpg") for c in "ab" for n in range(30)]
    paths.append(picture(tmp_path / "other" / "x.jpg"))
    patience, slept = Patience(), []

    def read(path):
        return patience.read(lambda: read_file(path), str(path))

    def sleep(seconds):
        slept.append(seconds)
        read(paths[-1])

    monkeypatch.setattr("slotcon_tf.data.reading.time.sleep", sleep)
    os.rename(tmp_path / "all", tmp_path / "away")
    for path in paths[:-1]:
        with pytest.raises(FileNotFoundError):
            read(path)
        read(paths[-1])
    assert 3 <= sum(slept) < 4
    os.rename(tmp_path / "away", tmp_path / "all")
    assert read(paths[0])
    os.rename(tmp_path / "all" / "a", tmp_path / "a")  # again: it was there once more
    slept.clear()
    with pytest.raises(FileNotFoundError):
        read(paths[1])
    assert 3 <= sum(slept) < 4


def test_a_single_sector_is_waited_for_shortly(monkeypatch):
    """While other files are read, one alone is given up after some seconds."""
    slept = []
    patience = Patience(waits=(1, 2, 4, 8))

    def sleep(seconds):
        slept.append(seconds)
        patience.read(lambda: b"another")

    monkeypatch.setattr("slotcon_tf.data.reading.time.sleep", sleep)
    with pytest.raises(OSError):
        patience.read(Disk(*[errno.EIO] * 9), "a.jpg")
    assert slept == [1, 2]
    patience.read(lambda: b"more")


def test_files_are_read_once_and_whole(tmp_path):
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(data, "PNG")
    (tmp_path / "a.png").write_bytes(data.getvalue())
    assert read_file(tmp_path / "a.png") == data.getvalue()
    (tmp_path / "empty.png").touch()
    assert read_file(tmp_path / "empty.png") == b""
