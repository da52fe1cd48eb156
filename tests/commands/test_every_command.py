"""What every command has in common: its help, its flags, and how it ends on errors."""

import importlib
import os
import signal
import threading

import pytest

from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config
from tests.support.command import BENCHMARKS, COMMANDS, module, until


def main_of(name):
    return importlib.import_module(name).main


@pytest.mark.parametrize("name", COMMANDS + BENCHMARKS)
def test_all_can_be_imported_and_asked_in_one_process(name, capsys):
    main = main_of(name)
    assert isinstance(main, Command) and issubclass(main.config_class, Config)
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and name in shown
    assert all(f"\n  --{one.flag}:" in shown for one in _settings(name).values())
    assert "``" not in shown and "`--" not in shown


def _settings(name):
    return main_of(name).config_class.settings()


def _needed(name):
    """Flags without which a command cannot be."""
    endings = {"output": "out.npz"}
    known = _settings(name)
    return [f"--{n}={endings.get(n, n)}" for n in known if known[n].required]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_arguments(name, ends):
    status, line = ends(name)
    assert status == 2 or not _needed(name)
    assert "Received: none" in line or "et --data_dir" in line


@pytest.mark.parametrize("name", COMMANDS + BENCHMARKS)
def test_flags_that_cannot_be(name, ends):
    known, needed = _settings(name), _needed(name)
    first = next(iter(known.values())).flag
    cases = {
        f"--{first}z=1": f"Unknown command line flag '{first}z'",
        "--flagfile=nowhere.flags": "Received: --flagfile=nowhere.flags: No such file",
        "--recipe=nothing": "Received: --recipe=nothing",
        f"--{first}": "",
    }
    for one in known.values():
        if one.kind in (int, float):
            cases[f"--{one.flag}=many"] = f"Received: --{one.flag}=many."
            if one.low is not None:
                below = f"--{one.flag}={one.low - 1}"
                cases[below] = f"--{one.flag} must be {one.low} or more. Received: "
            if one.high is not None:
                above = f"--{one.flag}={one.high + 1}"
                cases[above] = f"--{one.flag} must be {one.high} or less. Received: "
        if one.kind is bool:
            cases[f"--{one.flag}=maybe"] = f"--{one.flag} must be True or False"
        if one.choices:
            cases[f"--{one.flag}=none_such"] = f"--{one.flag} must be one of "
    for words, told in cases.items():
        status, line = ends(name, *needed, words)
        assert status == 2 and told in line, words
    positionals = main_of(name).positionals
    count = len(positionals)
    if positionals and known[positionals[-1]].kind is tuple:
        return  # it takes any number
    status, line = ends(name, *needed, *"abc"[: count + 1])
    assert status == 2 and f"Received: {'abc'[count]}." in line


@pytest.mark.parametrize("name", COMMANDS)
def test_flagfiles_that_cannot_be_read(name, ends, tmp_path):
    (tmp_path / "a.flags").write_bytes(b"--seed=\xff\xfe")
    (tmp_path / "cut.flags").write_text("--no_such")
    for file in (tmp_path, tmp_path / "a.flags", "/proc/self/mem"):
        status, line = ends(name, f"--flagfile={file}")
        assert status == 2 and f"Received: --flagfile={file}: " in line
    status, line = ends(name, f"--flagfile={tmp_path / 'cut.flags'}")
    assert status == 2 and "Unknown command line flag 'no_such'" in line


def _empty(root):
    (root / "empty").mkdir()
    return root / "empty"


def _export(root):
    (root / "1").mkdir()
    (root / "1" / "saved_model.pb").write_bytes(b"broken")
    return root


@pytest.mark.parametrize("make", [_empty, _export])
def test_a_server_waits_for_a_version(make, tmp_path, caplog, capsys):
    """Both folders may get one while it serves; it says what it found so far."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def end():
        until(lambda: signal.getsignal(signal.SIGTERM) != before[0])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
    try:
        folder = make(tmp_path)
        words = ["server", f"--export_dir={folder}", "--port=0"]
        with pytest.raises(SystemExit) as ended:
            main_of("export.server")(words)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert ended.value.code == 0
    assert "Serving slotcon version(s) [] on 127.0.0.1:" in capsys.readouterr().out
    assert f"No version in {folder} yet" in caplog.text
    assert ("Version 1 of slotcon is damaged: " in caplog.text) == (make is _export)


@pytest.mark.parametrize("name", ["trainers.check_data", "export.extract"])
def test_as_a_process(name):
    """What a user sees: nothing of TensorFlow's, and the status."""
    done = module(name, "--no_such", check=False)
    *before, line = done.stderr.splitlines()
    # What TensorFlow says of itself cannot be kept from it.
    assert not [x for x in before if not x.startswith(("I0000", "WARNING: All log"))]
    assert done.returncode == 2 and line.startswith(f"{main_of(name).name}: Unknown")
