"""One work directory, one run: refused while its holder lives, free when it is dead."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from slotcon_tf.files import machine
from slotcon_tf.runs import lock
from slotcon_tf.runs.cluster import Cluster
from slotcon_tf.runs.holder import start_of
from slotcon_tf.runs.hosts import Hosts
from slotcon_tf.runs.lock import WorkdirBusy, check_held, held
from slotcon_tf.runs.places import LOCK
from slotcon_tf.runs.products import Products
from slotcon_tf.training.auxiliaries import Troubles
from tests.support.command import ENVIRONMENT, ROOT, until

HOLDER = """
import sys, time
from slotcon_tf.runs.lock import held
with held(sys.argv[1]):
    time.sleep(600)
"""


@contextlib.contextmanager
def other_process(folder):
    """A process that holds a work directory; killed at the end."""
    words = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT)
    try:
        until(lambda: said(folder).get("pid") == process.pid, "the lock", process)
        yield process
    finally:
        process.kill()
        process.wait()


def said(folder):
    """What the lock file says."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / LOCK).read_text())
    return {}


def left_behind(folder, **about):
    """The file of a holder that did not remove it."""
    folder.mkdir(exist_ok=True)
    known = {
        "host": "node7",
        "pid": 7,
        "since": "today",
        "token": "its",
        "machine": "m",
    }
    (folder / LOCK).write_text(json.dumps({**known, "started": "1", **about}))
    return folder / LOCK


def test_held_by_a_process_and_free_at_once_when_it_is_killed(tmp_path):
    folder = tmp_path / "run"
    with other_process(folder) as process:
        with pytest.raises(WorkdirBusy) as caught, held(folder):
            pass
        told = str(caught.value)
        assert f"process {process.pid}, since 20" in told and "\n" not in told
        assert f"host {said(folder)['host']}" in told
        # A process that does not get on is not dead.
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(WorkdirBusy), held(folder):
            pass
        process.send_signal(signal.SIGKILL)
        # Not even waited for: a zombie holds nothing.
        start = time.monotonic()
        until(lambda: start_of(process.pid) is None, "its death")
        with held(folder):
            assert time.monotonic() - start < 5
            assert said(folder)["pid"] == os.getpid()
    assert not folder.exists() or not list(folder.iterdir())


def test_without_the_kernels_lock_processes_are_asked(tmp_path, monkeypatch):
    """As on network disks that have none, and on systems without fcntl."""
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.01)
    path = left_behind(tmp_path, pid=os.getppid(), machine=machine())
    path.write_text(json.dumps({**said(tmp_path), "started": start_of(os.getppid())}))
    told = f"process {os.getppid()}, since today"
    with pytest.raises(WorkdirBusy, match=told), held(tmp_path):
        pass
    # The number is another process's by now: that one was started at another time.
    path.write_text(json.dumps({**said(tmp_path), "started": "1"}))
    with held(tmp_path):
        assert said(tmp_path)["pid"] == os.getpid()
    assert not path.exists()


def test_holders_elsewhere_are_told_by_their_signs(tmp_path, monkeypatch, caplog):
    """Other hosts, and containers: their numbers of processes say nothing here."""
    monkeypatch.setattr(lock, "_LOOK_SECONDS", 0.05)
    path = left_behind(tmp_path, pid=os.getpid(), machine="another namespace")
    os.utime(path, (0, time.time() - lock.DEAD_SECONDS - 9))
    with held(tmp_path):  # no sign for long, by the disk's clock
        pass
    left_behind(tmp_path)
    beating = threading.Timer(0.3, os.utime, [path])
    beating.start()
    with pytest.raises(WorkdirBusy, match="host node7, process 7"), held(tmp_path):
        pass
    assert "may be held by host node7, process 7, since today" in caplog.text
    beating.join()
    assert said(tmp_path)["token"] == "its"  # it is left as it was
    ending = threading.Timer(0.3, path.unlink)  # its run comes to its end
    ending.start()
    with held(tmp_path):
        assert said(tmp_path)["pid"] == os.getpid()
    ending.join()
    monkeypatch.setattr(lock, "DEAD_SECONDS", 1.0)
    left_behind(tmp_path)
    start = time.monotonic()
    with held(tmp_path):
        assert 0.5 < time.monotonic() - start < 10
    assert not list(tmp_path.iterdir())


def test_a_servers_lock_of_a_dead_host_is_not_waited_for(tmp_path, monkeypatch):
    """NFS keeps it until the host comes back, or for its lease: signs decide."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(lock, "_LOOK_SECONDS", 0.05)
    path = left_behind(tmp_path)
    with path.open() as server:
        fcntl.flock(server, fcntl.LOCK_EX)
        beating = threading.Timer(0.3, os.utime, [path])
        beating.start()
        with pytest.raises(WorkdirBusy, match="node7"), held(tmp_path):
            pass
        beating.join()
        os.utime(path, (0, time.time() - lock.DEAD_SECONDS - 9))
        with held(tmp_path):
            assert said(tmp_path)["pid"] == os.getpid()
            assert [each.name for each in tmp_path.iterdir()] == [LOCK]
            with pytest.raises(OSError), path.open() as other:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Here its number tells that it is dead, but somebody is about to take it.
        monkeypatch.setattr(lock, "_LEAVING_SECONDS", 0.5)
        left_behind(tmp_path, machine=machine())
        with path.open() as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            with pytest.raises(WorkdirBusy), held(tmp_path):
                pass


def test_a_file_without_a_name_is_nobodys(tmp_path):
    (tmp_path / LOCK).write_text("")  # killed before it wrote, or a full disk
    with held(tmp_path):
        assert said(tmp_path)["pid"] == os.getpid()


def test_threads_and_turns_of_one_process(tmp_path):
    for _ in range(2):
        with held(tmp_path):
            found = []

            def try_it(found=found):
                try:
                    with held(tmp_path / ".." / tmp_path.name):
                        found.append("held")
                except WorkdirBusy as error:
                    found.append(str(error))

            thread = threading.Thread(target=try_it)
            thread.start()
            thread.join()
            assert "(this process)" in found[0]
        assert not list(tmp_path.iterdir())


def test_a_failed_run_gives_it_back_and_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), held(tmp_path / "a" / "b"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with held(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["kept"]


def test_a_child_does_not_hold_it_beyond_its_parent(tmp_path):
    context = multiprocessing.get_context("fork")
    with held(tmp_path):
        child = context.Process(target=time.sleep, args=(60,))
        child.start()
    try:
        with held(tmp_path):
            pass
    finally:
        child.kill()
        child.join()


def test_who_was_taken_for_dead_writes_nothing_any_more(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.05)
    with held(tmp_path):
        before = (tmp_path / LOCK).stat().st_mtime_ns
        until(
            lambda: (tmp_path / LOCK).stat().st_mtime_ns > before, "a sign", seconds=9
        )
        (tmp_path / LOCK).unlink()  # somebody tidies up
        until(lambda: said(tmp_path).get("pid") == os.getpid(), "the file", seconds=9)
        check_held(tmp_path)
        left_behind(tmp_path)
        until(lambda: lock._held[str(tmp_path)].lost, "the loss", seconds=9)
        with pytest.raises(WorkdirBusy, match="held by host node7"):
            check_held(tmp_path)
    assert said(tmp_path)["token"] == "its"  # its new holder's file stays
    check_held(tmp_path)


def test_a_loss_is_noticed_before_the_next_sign(tmp_path):
    """After a suspend: what writes asks the file itself."""
    with held(tmp_path):
        check_held(tmp_path)
        (tmp_path / LOCK).unlink()  # nobody has it
        check_held(tmp_path)
        left_behind(tmp_path)
        products = Products(tmp_path, 7, Troubles())
        for writes in (
            lambda: check_held(tmp_path),
            products.forget,
            lambda: products.make("a.txt", pytest.fail),
        ):
            with pytest.raises(WorkdirBusy, match="held by host node7"):
                writes()
    assert said(tmp_path)["token"] == "its"


def test_a_folder_that_cannot_be_written_needs_no_lock(tmp_path, monkeypatch):
    def refuse(path, flags, *_):
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(lock.os, "open", refuse)
    with held(tmp_path):
        check_held(tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_users_file_is_judged_as_any(tmp_path, monkeypatch):
    """In a folder of a group: it can be read and replaced, but not written."""
    own = os.open

    def refuse(path, flags, *more):
        theirs = path == tmp_path / LOCK and said(tmp_path).get("token") == "its"
        if theirs and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", path)
        return own(path, flags, *more)

    monkeypatch.setattr(lock.os, "open", refuse)
    monkeypatch.setattr(lock, "_LOOK_SECONDS", 0.05)
    parent = {"pid": os.getppid(), "machine": machine()}
    path = left_behind(tmp_path, **parent, started=start_of(os.getppid()))
    with pytest.raises(WorkdirBusy, match=f"process {os.getppid()}"), held(tmp_path):
        pass
    left_behind(tmp_path, **parent)  # dead
    with held(tmp_path):
        assert said(tmp_path)["pid"] == os.getpid()
        assert path.stat().st_mode & 0o666 == 0o666 & ~umask()
    assert not path.exists()
    left_behind(tmp_path)  # elsewhere, without a sign for long
    os.utime(path, (0, time.time() - lock.DEAD_SECONDS - 9))
    with held(tmp_path):
        assert said(tmp_path)["pid"] == os.getpid()
    left_behind(tmp_path, **parent)

    def keep(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lock.os, "replace", keep)  # a sticky folder
    with pytest.raises(WorkdirBusy, match="node7"), held(tmp_path):
        pass
    assert [each.name for each in tmp_path.iterdir()] == [LOCK]


def test_the_file_is_closed_before_it_is_removed_on_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.01)
    removes = lock.pathlib.Path.unlink

    def remove(path, *more, **options):
        if path.name == LOCK and lock._held[str(tmp_path)]._file is not None:
            raise PermissionError(13, "The file is used by another process", path)
        removes(path, *more, **options)

    monkeypatch.setattr(lock.pathlib.Path, "unlink", remove)
    with held(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert not list(tmp_path.iterdir())


def umask():
    now = os.umask(0)
    os.umask(now)
    return now


def test_only_the_chief_takes_it(tmp_path, monkeypatch):
    workers = {"cluster": {"worker": ["a:1", "b:1"]}}
    with_chief = {"cluster": {"chief": ["c:1"], **workers["cluster"]}}

    def leads(config, kind, index):
        task = {"type": kind, "index": index}
        monkeypatch.setenv("TF_CONFIG", json.dumps({**config, "task": task}))
        return Hosts(Cluster.from_environment()).leads

    assert leads(workers, "worker", 0) and not leads(workers, "worker", 1)
    assert leads(with_chief, "chief", 0) and not leads(with_chief, "worker", 0)
    assert Hosts().leads  # alone
    with held(tmp_path), held(tmp_path, wanted=False):
        pass
