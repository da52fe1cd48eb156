"""A flag's name has one kind and one meaning in every command."""

import collections
import importlib

import pytest

from slotcon_tf.data import open_source
from slotcon_tf.data.labelled import open_segmented
from slotcon_tf.runs.settings import Setting
from tests.support import labelled_case
from tests.support.command import BENCHMARKS, COMMANDS

# Said in other words from command to command, and why it is one meaning all the same.
IN_OTHER_WORDS = {
    "arch": "the encoder; of a training, one that init_from may say itself",
    "batch_size": "images at once; of training over all replicas",
    "crop_size": "edge of the square cut of an image: at random or in the middle",
    "data_dir": "folder of the data set; a few sets are a file",
    "dataset": "its layout; each command lists those that it can use",
    "eval_every_steps": "of a training; without it, each has a habit of its own",
    "export_dir": "folder of versions; extract takes one of them, too",
    "files": "their number",
    "image_size": "edge of what the network gets; in serving there is none, too",
    "learning_rate": "of the optimizer, as it is",
    "long_edge": "most pixels of an image that a detector looks at",
    "max_objects": "of an image: those of a served answer, or those to learn",
    "max_pixels": "of an image that is used; a server's default is lower",
    "minutes": "how long a benchmark runs",
    "output": "what is written; each command says in which form",
    "output_stride": "of the encoder; a model that is converted may say it itself",
    "precision": "of the computation; an export is computed in one alone",
    "seed": "of all random numbers; each command says of which",
    "short_edge": "pixels of an image that a detector looks at; it may say it itself",
    "split": "which images; a report has those of a detector alone",
    "steps": "of training: of a network, or of a probe",
    "tls_certificate": "a PEM file: of the server, or of a client",
    "tls_key": "a PEM file, as above",
    "train_split": "what is learned from",
}
# Old name, command: new name, and what the old one means elsewhere.
OLD = {
    ("checkpoint", "trainers.evaluate"): ("model", ""),
    ("checkpoint", "trainers.visualize"): ("model", ""),
    ("checkpoint", "trainers.convert"): ("model", ""),
    ("checkpoint", "export.saved_model"): ("model", ""),
    ("model", "export.extract"): ("export_dir", "a model that is no export"),
    ("model_dir", "export.server"): ("export_dir", ""),
    ("scale", "trainers.finetune_segmentation"): ("fit_edges", "a factor"),
    ("base_lr", "trainers.finetune_segmentation"): ("learning_rate", "at batch 256"),
    ("images", "benchmarks.memory"): ("batch_size", "a folder"),
    ("precision", "benchmarks.step"): ("precisions", "one"),
    ("jit_compile", "benchmarks.step"): ("jit_modes", "one"),
    ("threads", "benchmarks.serving"): ("interpreter_threads", "of the server"),
}


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, Setting]]:
    """Name of a flag to its setting by command."""
    found = collections.defaultdict(dict)
    for command in COMMANDS + BENCHMARKS:
        config = importlib.import_module(command).main.config_class
        for known in config.settings().values():
            found[known.flag][command] = known
    return found


def test_one_kind(table):
    for name, commands in table.items():
        kinds = {(known.kind, known.item) for known in commands.values()}
        assert len(kinds) == 1, (name, commands)


def test_one_meaning(table):
    texts = {
        name: {known.help for known in commands.values()}
        for name, commands in table.items()
    }
    assert {n for n, found in texts.items() if len(found) > 1} == set(IN_OTHER_WORDS)


def test_one_spelling(table):
    """No two names are one but for a plural, a dash or a `_dir`."""
    plain = collections.defaultdict(set)
    for name in (n for n, users in table.items() if set(users) & set(COMMANDS)):
        plain[name.removesuffix("_dir").rstrip("s").replace("_", "")].add(name)
    twice = {frozenset(names) for names in plain.values() if len(names) > 1}
    assert twice == {frozenset({"batch_size", "batch_sizes"}), *_PAIRS}


_PAIRS = {
    frozenset({"export", "export_dir"}),  # whether, and where to
    frozenset({"signature", "signatures"}),  # one that is asked, those to write
    frozenset({"version_label", "version_labels"}),  # of one request, of a server
    frozenset({"shard", "shards"}),  # which part of images, and how many files
    frozenset({"output", "outputs"}),  # a file, and what of a signature goes into it
    frozenset({"shard", "shards"}),  # which part of a job, how many of a data set
}


def test_old_names(table):
    found = {
        (alias, command): name
        for name, commands in table.items()
        for command, known in commands.items()
        for alias in known.aliases
    }
    assert found == {old: new for old, (new, _) in OLD.items()}
    elsewhere = {alias for alias, _ in found if alias in table}
    assert elsewhere == {alias for (alias, _), (_, meaning) in OLD.items() if meaning}


@pytest.mark.parametrize(
    ("command", "words", "name", "value"),
    [
        ("trainers.evaluate", ["--checkpoint=a"], "model", "a"),
        ("trainers.convert", ["a", "--output=b", "--from=timm"], "from_", "timm"),
        ("trainers.convert", ["a", "--output=b"], "model", "a"),
        ("export.server", ["--model_dir=a"], "export_dir", "a"),
        (
            "trainers.finetune_segmentation",
            ["--scale=64,40", "--base_lr=0.1"],
            "fit_edges",
            (64, 40),
        ),
    ],
)
def test_old_command_lines_are_read(command, words, name, value, capsys):
    main = importlib.import_module(command).main
    config = main.config([command, *words])
    assert getattr(config, name) == value
    told = capsys.readouterr().err
    assert told.count("it goes on as before") == sum(
        (word[2:].partition("=")[0], command) in OLD for word in words
    )


def test_folder_and_folders_are_one(tmp_path):
    labelled_case.folders(tmp_path)
    maps = [open_segmented(name, tmp_path, "val") for name in ("folder", "folders")]
    assert len(maps[0]) == len(maps[1]) > 0
    images = [open_source(name, tmp_path / "val") for name in ("folder", "folders")]
    assert images[0].paths == images[1].paths
