"""The soak counts what readers do with damaged files, and keeps what is wrong."""

import os
import time

import numpy as np
import pytest

from benchmarks import soak
from tests.support.command import module


def planted(rng, folder):
    """A reader that takes, refuses, fails and dies, by the file's first byte."""
    del rng, folder

    def read(files):
        (data,) = files.values()
        if data == b"refuse":
            raise KeyError("a documented error")
        if data == b"fail":
            raise RuntimeError("a bug")
        if data == b"die":
            os.abort()

    kinds = (b"take", b"refuse", b"take", b"fail", b"die", b"take")
    return ({f"{i}.bin": data} for i, data in enumerate(kinds)), read, KeyError


def silent(rng, folder):
    """A reader that never returns."""
    del rng, folder
    return iter([{"a.bin": b"a"}]), lambda _: time.sleep(600), ()


@pytest.mark.slow
def test_every_end_is_counted_and_its_file_kept(tmp_path):
    (tmp_path / "work").mkdir()
    keep = tmp_path / "keep"
    end = time.monotonic() + 300
    found = soak.soak([planted], tmp_path / "work", keep, end=end, files=8)
    # Dies at its fifth file, begins anew, and has had eight at its fourth.
    np.testing.assert_array_equal(found["planted"], [8, 4, 2, 2, 1])
    died, *failed = (
        sorted(p for p in keep.iterdir() if "exit" in _why(p)),
        *[p for p in keep.iterdir() if "a bug" in _why(p)],
    )
    assert [p.read_bytes() for p in died[0].glob("*.bin")] == [b"die"]
    assert len(failed) == 2


def _why(folder):
    return (folder / "why.txt").read_text()


@pytest.mark.slow
def test_a_silent_process_is_a_death(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "START", 20.0)
    (tmp_path / "work").mkdir()
    end = time.monotonic() + 30
    found = soak.soak([silent], tmp_path / "work", tmp_path / "keep", end=end, files=1)
    assert found["silent"][-1] >= 1


@pytest.mark.slow
def test_every_reader_stands_some_files(tmp_path):
    done = module("benchmarks.soak", "--files=40", f"--keep={tmp_path / 'keep'}")
    rows = [line.split() for line in done.stdout.splitlines()[-5:]]
    assert [row[0] for row in rows] == [r.__name__ for r in soak.READERS]
    for name, tried, taken, refused, *ends in rows:
        assert int(tried) >= 40 and int(taken) + int(refused) == int(tried), name
        assert ends == ["0", "0"]
