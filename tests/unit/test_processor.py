"""oneDNN is on where the processor gains by it, unless the user says otherwise."""

import json
import os
import sys

import pytest

from slotcon_tf import processor
from slotcon_tf.processor import ONEDNN
from tests.support.command import run

X86 = "processor : 0\nmodel name : Some CPU\nflags\t\t: fpu {}\n"
ARM = "processor : 0\nFeatures\t: fp asimd sve\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Function: cpuinfo's text and a machine's name -> what this process then sees."""

    def be(cpuinfo, name):
        file = tmp_path / "cpuinfo"
        file.write_text(cpuinfo)
        monkeypatch.setattr(processor, "CPU_INFO", file)
        monkeypatch.setattr(processor.platform, "machine", lambda: name)

    return be


@pytest.mark.parametrize(
    ("cpuinfo", "name", "gains"),
    [
        (X86.format("avx avx2 fma"), "x86_64", True),
        (X86.format("avx avx2 fma"), "AMD64", True),
        (X86.format("avx avx2 avx512f avx512_vnni"), "x86_64", True),
        (X86.format("avx"), "x86_64", False),
        (ARM, "aarch64", False),
        ("", "arm64", False),
    ],
)
def test_who_gains_by_onednn(cpuinfo, name, gains, machine, monkeypatch):
    machine(cpuinfo, name)
    assert processor.gains_by_onednn() == gains
    # Before TensorFlow is there, the environment is set, and set for that only.
    monkeypatch.delenv(ONEDNN, raising=False)
    monkeypatch.delitem(sys.modules, "tensorflow")
    processor.turn_onednn_on()
    assert os.environ.get(ONEDNN) == ("1" if gains else None)
    # A user's own setting wins.
    monkeypatch.setenv(ONEDNN, "0")
    processor.turn_onednn_on()
    assert os.environ[ONEDNN] == "0"


def test_one_warning_with_the_line_to_set(machine, monkeypatch, recwarn):
    """TensorFlow came first, without oneDNN, on a processor that would gain."""
    machine(X86.format("avx2"), "x86_64")
    monkeypatch.delenv(ONEDNN, raising=False)
    monkeypatch.setattr(processor, "onednn_is_on", lambda: False)
    processor.turn_onednn_on()
    (warning,) = recwarn
    assert f"{ONEDNN}=1" in str(warning.message)
    monkeypatch.setattr(processor, "onednn_is_on", lambda: True)
    processor.turn_onednn_on()
    machine(ARM, "aarch64")
    monkeypatch.setattr(processor, "onednn_is_on", lambda: False)
    processor.turn_onednn_on()
    assert len(recwarn) == 1


def test_the_line_says_what_there_is(machine, monkeypatch):
    machine(X86.format("avx avx2 fma avx512_vnni"), "x86_64")
    monkeypatch.setattr(processor, "onednn_is_on", lambda: False)
    monkeypatch.setenv(ONEDNN, "0")
    said = processor.describe()
    assert "Some CPU" in said and "avx avx2 fma avx512_vnni" in said
    assert f"oneDNN off ({ONEDNN}=0)" in said and "threads" in said
    machine(ARM, "aarch64")
    assert "aarch64" in processor.describe() and "asimd sve" in processor.describe()


SCRIPT = (
    "import json, os, warnings\n"
    "with warnings.catch_warnings(record=True) as found:\n"
    "    warnings.simplefilter('always')\n"
    "    {}\n"
    "from slotcon_tf.processor import onednn_is_on\n"
    "told = [w for w in found if 'without oneDNN' in str(w.message)]\n"
    "print(json.dumps([os.environ.get('TF_ENABLE_ONEDNN_OPTS'), onednn_is_on(),"
    " len(told)]))\n"
)


OTHERS = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("trainers", "export", "benchmarks")
]


@pytest.mark.parametrize("imports", ["slotcon_tf", *OTHERS])
def test_packages_turn_it_on_before_tensorflow(imports):
    """In processes of their own, without the setting of this one."""
    code = SCRIPT.format(f"import {imports}, tensorflow")
    done = run("env", "-u", ONEDNN, sys.executable, "-c", code)
    setting, is_on, told = json.loads(done.stdout)
    assert told == 0
    if processor.gains_by_onednn():
        assert (setting, is_on) == ("1", True)


@pytest.mark.slow
def test_a_users_setting_wins():
    code = SCRIPT.format("import slotcon_tf")
    done = run("env", f"{ONEDNN}=0", sys.executable, "-c", code)
    assert json.loads(done.stdout) == ["0", False, 0]


def test_a_command_begins_by_saying_so(tmp_path):
    words = ("-m", "trainers.check_data", f"--data_dir={tmp_path / 'none'}")
    done = run("env", f"{ONEDNN}=0", sys.executable, *words, check=False)
    (line,) = (x for x in done.stderr.splitlines() if x.startswith("Processor: "))
    assert f"oneDNN off ({ONEDNN}=0)" in line and "threads" in line
