"""Every command and every wrong place: one line, a status, and nothing overwritten."""

import importlib
import json
import os
import shutil
import sys

import pytest

from tests.support import wrong_inputs as wrong
from tests.support.command import COMMANDS, TINY, run
from tests.support.disk_case import fill, small_disk

TRAIN = [*TINY, "--noexport", "--strategy=one_device", "--epochs=1", "--batch_size=2"]
PHOTOS = ["--dataset=folder", "--data_dir={good.photos}"]
WATCHED = [*TRAIN, *PHOTOS, "--eval_every_epochs=1", "--eval_images=2"]
FINETUNE = "trainers.finetune_segmentation"
SEGMENT = ["--dataset=folders", "--strategy=one_device"]
DETECT = "trainers.finetune_detection"
OBJECTS = ["--data_dir={good.coco}"]
SMALL = ["--arch=resnet10", "--channels=8", "--units=16", "--steps=1", "--box_only"]
SMALL += ["--train_short_edges=32", "--short_edge=32", "--long_edge=64"]
SMALL += ["--batch_size=2", "--strategy=one_device"]
FOUND = ["--signature=detect", "--output={out}/found.json"]
LABELLED = ["--data_dir={good.root}"]
MODEL = ["--model={good.checkpoint}"]
SEND = ["--server=127.0.0.1:1", "--retry_minutes=0", "--transport=rest"]
SENT = ["--images={good.photos}"]
SERVE = ["--port=0", "--export_dir={good.served}"]
KEY, CERTIFICATE = "--tls_key={good.key}", "--tls_certificate={good.certificate}"
LIST = ["--dataset=list", "--data_dir={}"]
# Flags that name no place.
WORDS = {
    *("arch", "beam", "dataset", "eval_dataset", "eval_split", "eval_train_split"),
    *("host", "license", "model_name", "prefix", "server", "shard", "signature"),
    *("split", "storage_uri", "tpu", "train_split", "val_split", "version_label"),
}
# Command, flag, what cannot be there, and flags; {} is the place, out what is written.
READ = [
    ("trainers.pretrain", "data_dir", wrong.IMAGES, [*TRAIN, "--dataset=folder"]),
    ("trainers.pretrain", "data_dir", wrong.TEXT, [*TRAIN, *LIST]),
    ("trainers.pretrain", "init_from", wrong.MODEL_AGAIN, [*TRAIN, *PHOTOS]),
    ("trainers.pretrain", "eval_data_dir", wrong.LABELLED_AGAIN, WATCHED),
    (
        "trainers.pretrain",
        *("eval_class_file", wrong.TEXT_AGAIN),
        [*WATCHED, "--eval_data_dir={good.root}"],
    ),
    (FINETUNE, "data_dir", wrong.LABELLED, SEGMENT),
    (FINETUNE, "init_from", wrong.MODEL_AGAIN, [*SEGMENT, *LABELLED]),
    (FINETUNE, "class_file", wrong.TEXT, [*SEGMENT, *LABELLED]),
    (DETECT, "data_dir", wrong.OBJECTS, SMALL),
    (DETECT, "init_from", wrong.MODEL_AGAIN, [*SMALL, *OBJECTS]),
    ("trainers.evaluate", "model", wrong.MODEL, LABELLED),
    ("trainers.evaluate", "data_dir", wrong.LABELLED_AGAIN, MODEL),
    ("trainers.evaluate", "class_file", wrong.TEXT_AGAIN, [*MODEL, *LABELLED]),
    ("trainers.evaluate", "image_list", wrong.TEXT, [*MODEL, *LABELLED]),
    ("trainers.visualize", "model", wrong.MODEL_AGAIN, PHOTOS),
    ("trainers.visualize", "data_dir", wrong.IMAGES_AGAIN, MODEL),
    ("trainers.convert", "model", wrong.MODEL, []),
    ("trainers.prepare", "data_dir", wrong.IMAGES, []),
    ("trainers.prepare", "data_dir", wrong.TEXT, LIST),
    ("trainers.check_data", "data_dir", wrong.ANY, []),  # bad images: in its report
    ("export.saved_model", "model", wrong.MODEL_AGAIN, []),
    (
        "export.saved_model",
        *("calibration_images", wrong.IMAGES_AGAIN, [*MODEL, "--quantize=int8"]),
    ),
    ("export.extract", "export_dir", wrong.EXPORT, SENT),
    ("export.extract", "images", wrong.ANY, ["--export_dir={good.export}"]),
    (
        "export.extract",
        "annotations",
        wrong.TEXT_AGAIN,
        ["--export_dir={good.export}", *SENT, *FOUND],
    ),
    ("export.client", "images", wrong.ANY, SEND),
    ("export.client", "annotations", wrong.TEXT, [*SEND, *SENT, *FOUND]),
    ("export.client", "tls_ca", wrong.TEXT_AGAIN, [*SEND, *SENT]),
    ("export.client", "tls_certificate", wrong.TEXT_AGAIN, [*SEND, *SENT, KEY]),
    ("export.client", "tls_key", wrong.TEXT_AGAIN, [*SEND, *SENT, CERTIFICATE]),
    ("export.client", "token_file", wrong.TEXT_AGAIN, [*SEND, *SENT]),
    (
        "export.compare",
        "first",
        wrong.EXPORT_AGAIN,
        ["--second={good.export}", *SENT],
    ),
    (
        "export.compare",
        "second",
        wrong.EXPORT_AGAIN,
        ["--first={good.export}", *SENT],
    ),
    ("export.compare", "images", wrong.ANY[2:], ["{good.export}"] * 2),
    # A folder without a version may get one while it serves.
    ("export.server", "export_dir", (*wrong.ANY[:2], *wrong.ANY[3:]), ["--port=0"]),
    ("export.server", "tls_certificate", wrong.TEXT_AGAIN, [*SERVE, KEY]),
    ("export.server", "tls_key", wrong.TEXT_AGAIN, [*SERVE, CERTIFICATE]),
    ("export.server", "client_ca", wrong.TEXT_AGAIN, [*SERVE, KEY, CERTIFICATE]),
]
EXTRACT = ["--export_dir={good.export}", *SENT]
EVALUATE = [*MODEL, *LABELLED, "--nobaseline", "--resamples=0"]
# Command, flag of what it writes, and its ending; "/" of folders.
WRITTEN = [
    ("trainers.pretrain", "workdir", "/", [*TRAIN, *PHOTOS]),
    (FINETUNE, "workdir", "/", [*SEGMENT, *LABELLED]),
    (DETECT, "workdir", "/", [*SMALL, *OBJECTS]),
    ("trainers.evaluate", "output", ".json", EVALUATE),
    ("trainers.visualize", "output", ".html", [*MODEL, *PHOTOS]),
    ("trainers.visualize", "pictures", "/", [*MODEL, *PHOTOS]),
    ("trainers.convert", "output", ".keras", MODEL),
    ("trainers.prepare", "output", "/", ["--data_dir={good.photos}"]),
    ("trainers.check_data", "bad_list", ".txt", ["--data_dir={good.broken}"]),
    ("export.saved_model", "export_dir", "/", [*MODEL, "--batch_sizes="]),
    ("export.extract", "output", ".npz", EXTRACT),
    ("export.extract", "pictures", "/", [*EXTRACT, *FOUND]),
    ("export.client", "output", ".npz", [*SEND, *SENT]),
    ("export.client", "pictures", "/", [*SEND, *SENT, *FOUND]),
    ("export.merge", "output", ".npz", ["{good.features}"]),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return wrong.Good(tmp_path_factory.mktemp("good"))


def _places(name):
    settings = importlib.import_module(name).main.config_class.settings().values()
    return {s.flag for s in settings if s.kind is str and not s.choices} - WORDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_place_is_tried(name):
    tried = {flag for command, flag, *_ in READ + WRITTEN if command == name}
    assert tried == _places(name)


def _words(name, flag, place, flags, good, out):
    """A whole command line: with what it writes, which is there already."""
    words = [word.format(place, good=good, out=out) for word in flags]
    if not any("{}" in word for word in flags):
        words.append(f"--{flag}={place}")
    given = {word.split("=")[0].lstrip("-") for word in words}
    for command, other, ending, _ in WRITTEN:
        if command == name and other not in given and other != "pictures":
            target = out / other if ending == "/" else out / f"{other}{ending}"
            if ending != "/":
                target.write_bytes(b"kept")
            words.append(f"--{other}={target}")
    return words


def _content(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("name", "flag", "make", "flags"),
    [
        pytest.param(name, flag, make, flags, id=f"{name}-{flag}-{make.__name__}")
        for name, flag, makers, flags in READ
        for make in makers
    ],
)
@pytest.mark.timeout(120)  # a pipe is not waited at
def test_what_cannot_be_read(name, flag, make, flags, good, ends, tmp_path):
    (tmp_path / "in").mkdir()
    place = make(tmp_path / "in", good)
    out = tmp_path / "out"
    out.mkdir()
    words = _words(name, flag, place, flags, good, out)
    before = _content(out), _content(good.root)
    status, line = ends(name, *words)
    assert status in (1, 2) and line.endswith(".")
    assert len(line) < 700 + len(str(place)), line
    assert (_content(out), _content(good.root)) == before


@pytest.mark.parametrize(("name", "flag", "ending", "flags"), WRITTEN)
@pytest.mark.parametrize("make", [wrong.no_folder, wrong.below_a_file, wrong.no_file])
def test_what_cannot_be_written(name, flag, ending, flags, make, good, ends, tmp_path):
    """A file where a folder must be, or above it; a folder where a file must be."""
    is_folder = ending == "/"
    if make is (wrong.no_file if is_folder else wrong.no_folder):
        pytest.skip("that is what it writes")
    place = make(tmp_path, good)
    if not is_folder:
        wanted = place.with_name(place.name + ending)
        place = place.rename(wanted) if place.exists() else wanted
    _fails(name, flag, place, flags, good, ends, tmp_path)


def _fails(name, flag, place, flags, good, ends, folder):
    """One line that says so; what was there is there, and nothing more."""
    words = [word.format(good=good, out=folder) for word in flags]
    if name == "trainers.visualize" and flag == "pictures":
        words.append(f"--output={folder / 'report.html'}")
    before = _content(folder)
    status, line = ends(name, *words, f"--{flag}={place}")
    assert status in (1, 2) and line.endswith(".") and len(line) < 700
    after = _content(folder)
    after.pop(folder / "report.html", None)
    assert after == before
    return line


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory):
    """Folder of a file system that is full."""
    with small_disk(tmp_path_factory.mktemp("disk"), 1 / 16) as folder:
        yield folder


@pytest.mark.parametrize(("name", "flag", "ending", "flags"), WRITTEN)
def test_a_full_disk(name, flag, ending, flags, full_disk, good, ends):
    for path in full_disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    place = full_disk / f"kept{ending}"
    if ending == "/":
        place.mkdir()
        (place / "kept").write_bytes(b"kept")
    else:
        place.write_bytes(b"kept")
    fill(full_disk)
    _fails(name, flag, place, flags, good, ends, full_disk)


_WITHOUT_RIGHTS = """
import contextlib, importlib, io, json, sys
for name, *flags in json.loads(sys.argv[1]):
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(None):
            importlib.import_module(name).main([name, *flags])
    except SystemExit as end:
        print(json.dumps([end.code, told.getvalue()]))
    except BaseException as error:
        print(json.dumps(["traceback", repr(error)]))
"""


@pytest.mark.slow
def test_without_the_right_to_read_or_write(good, tmp_path):
    """As a user who may not, root included: it gives up what makes it root."""
    words = [sys.executable, "-c", _WITHOUT_RIGHTS]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("needs setpriv to give up the rights of root")
        words = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *words]
    lines = []
    for number, (name, flag, makers, flags) in enumerate(READ):
        if name == "export.server":
            continue  # it waits until it may
        place = tmp_path / f"{number}.txt"
        if wrong.pipe in makers and wrong.photo in makers:
            shutil.copy(good.list, place)
        else:
            shutil.copytree(good.photos, place)
        place.chmod(0)
        out = tmp_path / f"out{number}"
        out.mkdir()
        lines.append([name, *_words(name, flag, place, flags, good, out)])
    for number, (name, flag, ending, flags) in enumerate(WRITTEN):
        folder = tmp_path / f"closed{number}"
        folder.mkdir()
        folder.chmod(0o555)
        place = folder / f"new{ending}".rstrip("/")
        given = [word.format(good=good, out=tmp_path) for word in flags]
        if name == "trainers.visualize" and flag == "pictures":
            given.append(f"--output={tmp_path / 'report.html'}")
        lines.append([name, *given, f"--{flag}={place}"])
    before = _content(tmp_path)
    done = run(*words, json.dumps(lines, default=str))
    for line, end in zip(lines, done.stdout.splitlines(), strict=True):
        status, told = json.loads(end)
        last = told.splitlines()[-1]
        assert status in (1, 2) and "Traceback" not in told, (line, end)
        assert last.endswith(".") and len(last) < 700, (line, last)
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    after = _content(tmp_path)
    after.pop(tmp_path / "report.html", None)
    assert set(after) >= set(before)
