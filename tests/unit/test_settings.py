"""Settings that are said once: flags, flagfiles and comparisons are made of them."""

import dataclasses
import os
import sys
import warnings

import pytest
from absl import logging

from slotcon_tf.runs.command import Command
from slotcon_tf.runs.flag_files import expand
from slotcon_tf.runs.label_settings import with_prefix
from slotcon_tf.runs.messages import with_dashes
from slotcon_tf.runs.settings import Config, SettingError, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sieve(Config):
    size: int = setting(3, "Edge of the holes.", low=1)
    share: float = setting(0.5, "Of what falls through.", low=0.0, high=1.0)
    grain: str | None = setting(None, "What is sieved.")
    kinds: tuple[str, ...] = setting(("rye",), "Kinds.", free=True)
    shaken: bool = setting(False, "Whether it is shaken.", aliases=("rattled",))
    mode: str = setting("dry", "Mode.", choices=("dry", "wet"))
    weight: float | None = setting(None, "Of a grain, mg.", addable=True)
    edges: tuple[int, ...] = setting((4, 2), "Of the frame.", low=1, high=9)
    days: tuple[str, ...] = setting(("mon",), "Days.", choices=("mon", "tue"))


def main(seen=None):
    return Command("sieve", Sieve, (seen or []).append, "Sieves.", ("grain",))


def test_values_become_their_kind():
    config = Sieve(size=4.0, share=1, kinds=["a", "b"])
    assert (config.size, config.share, config.kinds) == (4, 1.0, ("a", "b"))
    assert type(config.size) is int and type(config.share) is float


@pytest.mark.parametrize(
    ("given", "must"),
    [
        ({"size": 0}, "be 1 or more. Received: size=0."),
        ({"size": 1.5}, "be a whole number. Received: size=1.5."),
        ({"size": True}, "be a whole number"),
        ({"size": float("inf")}, "be a whole number. Received: size=inf."),
        ({"size": float("nan")}, "be a whole number"),
        ({"size": None}, "not be None"),
        ({"share": 1.1}, "be 1.0 or less"),
        ({"share": float("nan")}, "be a number"),
        ({"kinds": "rye"}, "be a sequence of words"),
        ({"mode": "moist"}, "be one of dry, wet"),
        ({"shaken": "no"}, "be True or False"),
        ({"grain": 3}, "be a text"),
        ({"edges": (0, 3)}, "be 1 or more each. Received: edges=0,3."),
        ({"edges": (3, 10)}, "be 9 or less each. Received: edges=3,10."),
        ({"edges": (6.7, 3)}, "be whole numbers, with commas. Received: edges=6.7,3."),
        ({"edges": (True, 3)}, "be whole numbers"),
        ({"edges": (float("inf"), 3)}, "be whole numbers"),
        ({"edges": ("6.7", "3")}, "be whole numbers"),
        ({"days": ("tue", "wed")}, "be one of mon, tue each. Received: days=tue,wed."),
        ({"days": ()}, "be one of mon, tue each"),
    ],
)
def test_wrong_values_are_named(given, must):
    with pytest.raises(SettingError, match=must):
        Sieve(**given)


def test_lines_repeat_it():
    config = Sieve(grain="oats", kinds=("a", "b"), shaken=True)
    assert "--kinds=a,b" in config.lines() and "--shaken" in config.lines()
    assert main().config(["sieve", *config.lines()]) == config


def test_what_may_change():
    old = Sieve()
    assert not Sieve(kinds=("a",), weight=2.0).changes_from(old)
    assert Sieve(size=5).changes_from(old) == {"size": (3, 5)}
    heavy = Sieve(weight=2.0)
    assert old.changes_from(heavy) == {"weight": (2.0, None)}


def test_flags_in_any_form():
    words = ["sieve", "oats", "--size", "7", "-noshaken", "--verbosity=1", "--mode=wet"]
    config = main().config(words)
    assert (config.grain, config.size, config.mode) == ("oats", 7, "wet")
    assert not config.shaken


def test_old_names_go_on_with_a_note(capsys):
    assert main().config(["sieve", "--rattled"]).shaken
    assert "--rattled is --shaken now" in capsys.readouterr().err


def test_flagfiles_hold_flagfiles_and_later_flags_win(tmp_path):
    inner, outer = tmp_path / "inner.flags", tmp_path / "outer.flags"
    inner.write_text("# holes\n--size=9\n\n// share\n--share=0.25\n")
    outer.write_text(f"--flagfile={inner}\n--size=8\n")
    config = main().config(["sieve", f"--flagfile={outer}", "--share=0.75"])
    assert (config.size, config.share) == (8, 0.75)
    inner.write_text(f"--flagfile={outer}\n")
    with pytest.raises(SettingError, match="must not name itself"):
        expand([f"--flagfile={outer}"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sice=3"], "Unknown command line flag 'sice'. Did you mean: size"),
        (["--size=x"], "--size=x"),
        (["--size=0"], "--size=0"),
        (["--mode=moist"], "--mode=moist"),
        (["--flagfile=nowhere.flags"], "--flagfile=nowhere.flags: No such file"),
        (["a", "b"], "no arguments but --grain and flags. Received: b."),
    ],
)
def test_wrong_command_lines_end_in_one_line(words, told, capsys):
    with pytest.raises(SystemExit) as end:
        main()(["sieve", *words])
    text = capsys.readouterr().err
    assert end.value.code == 2
    assert text.startswith("sieve: ") and told in text and text.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("The `size` of grains must fit.\nReceived: size=3."), 1),
        (FileNotFoundError(2, "No such file", "oats"), 1),
        (SettingError("`size` must fit size=3."), 2),
    ],
)
def test_errors_of_users_end_in_one_line(error, status, capsys):
    def run(config):
        raise error

    with pytest.raises(SystemExit) as end:
        Command("sieve", Sieve, run, "Sieves.")(["sieve"])
    *_, last = capsys.readouterr().err.splitlines()
    assert end.value.code == status and last.startswith("sieve: ")
    assert "`size`" not in last


def test_an_interrupted_command_ends_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(os, "_exit", sys.exit)  # the tests' own process goes on

    def run(config):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        Command("sieve", Sieve, run, "Sieves.")(["sieve"])
    assert end.value.code == 130
    assert capsys.readouterr().err.endswith("sieve: Interrupted.\n")


def test_warnings_are_lines_as_errors_are(capsys):
    def run(config):
        warnings.warn("`size` is odd,\nas size=3.", stacklevel=1)
        logging.warning("Grain %s is wet", "oats")

    with pytest.raises(SystemExit):
        Command("sieve", Sieve, run, "Sieves.")(["sieve"])
    assert capsys.readouterr().err.splitlines()[1:] == [
        "sieve: warning: --size is odd, as --size=3.",
        "sieve: warning: Grain oats is wet",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Received: size=3.", "Received: --size=3."),
        ("Received: `size=3`, size=4.", "Received: --size=3, --size=4."),
        ("No /data/size=3/x.", "No /data/size=3/x."),
        (r"No C:\size=3\x.", r"No C:\size=3\x."),
        ("The oversize=3 stays.", "The oversize=3 stays."),
    ],
)
def test_settings_in_texts_are_flags_and_folders_are_not(text, said):
    assert with_dashes(text, Sieve) == said
    error = ValueError("Received: split=a in /data/split=a.")
    told = "Received: eval_split=a in /data/split=a."
    assert str(with_prefix(error, "eval_")) == told


def test_needed_settings():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Sack(Config):
        of: str = setting(None, "What is in it.")
        from_: str = setting("field", "Where it is from.")

    for given in ({}, {"of": ""}, {"of": None}):
        with pytest.raises(SettingError, match="`of` must be given. .* What is in it."):
            Sack(**given)
    main = Command("sack", Sack, print, "A sack.")
    assert main.config(["sack", "--of=rye", "--from=barn"]).from_ == "barn"
    assert Sack(of="rye").lines() == ["--from=field", "--of=rye"]
    assert Sack.from_lines(["--of=rye", "--from=barn"]).from_ == "barn"


def test_our_own_faults_keep_their_traceback():
    def run(config):
        raise KeyError("ours")

    with pytest.raises(KeyError):
        Command("sieve", Sieve, run, "Sieves.")(["sieve"])


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        main()(["sieve", "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and text.startswith("Sieves.")
    assert all(f"  --{name}:" in text for name in Sieve.settings())
