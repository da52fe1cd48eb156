"""Every command and every wrong place: one line, a status, and nothing overwritten."""

import importlib

import pytest

from tests.support import wrong_inputs as wrong
from tests.support.command import COMMANDS, TINY

TRAIN = [*TINY, "--noexport", "--strategy=one_device", "--epochs=1"]
PHOTOS = ["--dataset=folder", "--data_dir={good.photos}"]
WATCHED = ["--eval_every_epochs=1", "--eval_images=2", "--eval_data_dir={good.root}"]
FINETUNE = ["--dataset=folders", "--strategy=one_device"]
LABELLED = ["--data_dir={good.root}"]
MODEL = ["--model={good.checkpoint}"]
SEND = ["--server=127.0.0.1:1", "--retry_minutes=0", "--transport=rest"]
IMAGES = ["--images={good.photos}"]
LIST = ["--dataset=list", "--data_dir={}"]
# Flags that name no place.
WORDS = {
    *("arch", "dataset", "eval_dataset", "eval_split", "eval_train_split", "host"),
    *("model_name", "prefix", "server", "signature", "split", "tpu", "train_split"),
    *("val_split", "version_label"),
}
# Command, flag, what cannot be there, and flags; {} is the place, out what is written.
READ = [
    ("trainers.pretrain", "data_dir", wrong.IMAGES, [*TRAIN, "--dataset=folder"]),
    ("trainers.pretrain", "data_dir", wrong.TEXT, [*TRAIN, *LIST]),
    ("trainers.pretrain", "init_from", wrong.MODEL, [*TRAIN, *PHOTOS]),
    ("trainers.pretrain", "eval_data_dir", wrong.LABELLED, [*TRAIN, *PHOTOS, *WATCHED]),
    ("trainers.pretrain", "eval_class_file", wrong.TEXT, [*TRAIN, *PHOTOS, *WATCHED]),
    ("trainers.finetune_segmentation", "data_dir", wrong.LABELLED, FINETUNE),
    (
        "trainers.finetune_segmentation",
        *("init_from", wrong.MODEL, [*FINETUNE, *LABELLED]),
    ),
    (
        "trainers.finetune_segmentation",
        *("class_file", wrong.TEXT, [*FINETUNE, *LABELLED]),
    ),
    ("trainers.evaluate", "model", wrong.MODEL, LABELLED),
    ("trainers.evaluate", "data_dir", wrong.LABELLED, MODEL),
    ("trainers.evaluate", "class_file", wrong.TEXT, [*MODEL, *LABELLED]),
    ("trainers.evaluate", "image_list", wrong.TEXT, [*MODEL, *LABELLED]),
    ("trainers.visualize", "model", wrong.MODEL, PHOTOS),
    ("trainers.visualize", "data_dir", wrong.IMAGES, MODEL),
    ("trainers.convert", "model", wrong.MODEL, []),
    ("trainers.prepare", "data_dir", wrong.IMAGES, []),
    ("trainers.prepare", "data_dir", wrong.TEXT, LIST),
    ("trainers.check_data", "data_dir", wrong.ANY, []),  # bad images: in its report
    ("export.saved_model", "model", wrong.MODEL, []),
    (
        "export.saved_model",
        *("calibration_images", wrong.IMAGES, [*MODEL, "--quantize=int8"]),
    ),
    ("export.extract", "export_dir", wrong.EXPORT, IMAGES),
    ("export.extract", "images", wrong.ANY, ["--export_dir={good.export}"]),
    ("export.client", "images", wrong.ANY, SEND),
    ("export.compare", "first", wrong.EXPORT, ["--second={good.export}", *IMAGES]),
    ("export.compare", "second", wrong.EXPORT, ["--first={good.export}", *IMAGES]),
    ("export.compare", "images", wrong.IMAGES, ["{good.export}", "{good.export}"]),
    # A folder without a version may get one while it serves.
    ("export.server", "export_dir", (*wrong.ANY[:2], *wrong.ANY[3:]), ["--port=0"]),
]
EXTRACT = ["--export_dir={good.export}", *IMAGES]
EVALUATE = [*MODEL, *LABELLED, "--nobaseline", "--resamples=0"]
# Command, flag of what it writes, and its ending; "/" of folders.
WRITTEN = [
    ("trainers.pretrain", "workdir", "/", [*TRAIN, *PHOTOS]),
    ("trainers.finetune_segmentation", "workdir", "/", [*FINETUNE, *LABELLED]),
    ("trainers.evaluate", "output", ".json", EVALUATE),
    ("trainers.visualize", "output", ".html", [*MODEL, *PHOTOS]),
    ("trainers.visualize", "pictures", "/", [*MODEL, *PHOTOS]),
    ("trainers.convert", "output", ".keras", MODEL),
    ("trainers.prepare", "output", "/", ["--data_dir={good.photos}"]),
    ("trainers.check_data", "bad_list", ".txt", ["--data_dir={good.photos}"]),
    ("export.saved_model", "export_dir", "/", [*MODEL, "--batch_sizes="]),
    ("export.extract", "output", ".npz", EXTRACT),
    ("export.client", "output", ".npz", [*SEND, *IMAGES]),
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
    words = [word.format(place, good=good) for word in flags]
    if not any(str(place) in word for word in words):
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
