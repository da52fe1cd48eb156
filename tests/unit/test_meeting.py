"""Hosts that meet, compare and part, as threads on loopback without TensorFlow."""

import contextlib
import json
import pathlib
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf

from slotcon_tf.runs import host_restore, meeting
from slotcon_tf.runs import hosts as hosts_module
from slotcon_tf.runs.cluster import Cluster, num_workers
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.hosts import Hosts
from slotcon_tf.runs.lock import held
from slotcon_tf.runs.meeting import HostError, meet, send_to_all
from slotcon_tf.runs.products import RunUnfinished
from slotcon_tf.runs.signals import RunStopped
from slotcon_tf.training.callbacks import Interrupted
from tests.support.command import free_ports


def clusters(count):
    """The cluster as each host sees it."""
    names = tuple(f"worker {index}" for index in range(count))
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count))
    return [Cluster(names, addresses, index) for index in range(count)]


def on_all(functions):
    """What each function returned or raised, all at once."""

    def run(function):
        try:
            return function()
        except HostError as error:
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


@contextlib.contextmanager
def together(count, wait_minutes=0.5):
    """Hosts that have met."""
    seen = clusters(count)
    lines = on_all([lambda c=c: meet(c, wait_minutes) for c in seen])
    with contextlib.ExitStack() as stack:
        found = [Hosts(*each, wait_minutes) for each in zip(seen, lines, strict=True)]
        for host in found:
            stack.callback(host.part)
            host.__enter__()
        yield found


def leave(host, error):
    """What an error becomes that ends a host."""
    try:
        host.__exit__(type(error), error, None)
    except HostError as told:
        return told
    return error


def test_hosts_compare_and_name_what_differs_on_all():
    with together(3) as found:
        assert on_all([lambda h=h: h.compare({"seed": "3"}, "it") for h in found]) == (
            [None] * 3
        )
        own = [{"seed": "3", "keras": "3.15"}, {"seed": "4"}, {"seed": "3"}]
        pairs = zip(found, own, strict=True)
        told = on_all(
            [lambda h=h, o=o: h.compare(o, "the same settings") for h, o in pairs]
        )
    first, second, third = (found[0].cluster.told(index) for index in range(3))
    assert {str(error) for error in told} == {
        "All hosts of a run must have the same settings. Received: "
        f"seed=3 on {first} and {third}, seed=4 on {second}; "
        f"keras=3.15 on {first}, keras=nothing on {second} and {third}. "
        "Mend it, and start all of them again."
    }


def test_missing_hosts_are_named_on_all_that_came():
    seen = clusters(3)
    told = on_all([lambda c=c: meet(c, 0.05) for c in (seen[0], seen[2])])
    assert len(set(map(str, told))) == 1
    assert f"Received: 2 of 3, without {seen[0].told(1)}." in str(told[0])


def test_the_first_host_is_missing():
    seen = clusters(2)
    with pytest.raises(HostError, match="nothing from worker 0 .*refused"):
        meet(seen[1], 0.01)


def test_strangers_and_hosts_that_come_again_do_not_matter(caplog):
    seen = clusters(3)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(meet, seen[0], 0.5)
        place = seen[0].place(0)
        hello = {"protocol": 1, "cluster": list(seen[0].addresses), "index": 1}

        def connected():
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    return socket.create_connection(place, 5)

        def answer(text):
            with connected() as one:
                one.sendall(text)
                return one.recv(1000)

        def answer_to(**changes):
            return answer(json.dumps({**hello, **changes}).encode() + b"\n")

        assert b"refused" in answer(b"GET / HTTP/1.1\r\n\r\n")
        assert b"refused" in answer(b"[1]\n")
        assert b"same version" in answer_to(protocol=0)
        assert b"index of its own" in answer_to(index=9)
        assert b"index of its own" in answer_to(index=[1])
        assert b"same cluster" in answer_to(cluster=["a:1", "b:2"])
        with connected() as gone:  # which ends, and comes again
            gone.sendall(json.dumps(hello).encode() + b"\n")
        others = [pool.submit(meet, cluster, 0.5) for cluster in seen[1:]]
        assert sorted(first.result()) == [1, 2]
        assert [sorted(other.result()) for other in others] == [[0], [0]]


def test_one_that_lost_power_may_come_again(monkeypatch):
    """Its first line stays half open; one that answers keeps its index."""
    monkeypatch.setitem(meeting._SECONDS, "connect", 1.0)
    seen = clusters(3)
    hello = {"protocol": 1, "cluster": list(seen[0].addresses), "index": 1}
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(meet, seen[0], 0.5)
        time.sleep(0.5)
        with socket.create_connection(seen[0].place(0), 5) as silent:
            silent.sendall(json.dumps(hello).encode() + b"\n")
            time.sleep(0.5)
            again = pool.submit(meet, seen[1], 0.5)
            time.sleep(2.5)
            with socket.create_connection(seen[0].place(0), 5) as other:
                other.sendall(json.dumps(hello).encode() + b"\n")
                assert b"index of its own" in other.recv(1000)
            last = pool.submit(meet, seen[2], 0.5)
            assert sorted(first.result()) == [1, 2]
            assert sorted(again.result()) == sorted(last.result()) == [0]


def test_a_port_in_use_is_named():
    seen = clusters(2)
    with (
        socket.create_server(("", seen[1].place(1)[1])),
        pytest.raises(HostError, match=r"port of worker 1 .* must be free"),
    ):
        meet(seen[1], 0.01)


def test_the_first_to_end_is_told_to_all_with_its_reason():
    with together(3) as found:
        found[0].latest = found[1].latest = lambda: "checkpoints/step_7"
        leave(found[2], OSError("No space is left."))
        for host in found[:2]:
            error = tf.errors.UnavailableError(None, None, "Socket closed")
            told = leave(host, error)
            assert str(told).startswith(
                "All hosts of a run must stay to its end. Received: "
                f"{host.cluster.told(2)} has ended: No space is left. "
            )
            assert "goes on from checkpoints/step_7." in str(told)
            assert told.at_once


def test_one_that_is_there_and_does_nothing_is_named_by_tensorflow(monkeypatch):
    monkeypatch.setattr(hosts_module, "SECONDS_TO_HEAR", 0.1)
    with together(3) as found:
        for host, text, named in (
            (found[0], "/job:worker/replica:0/task:2 is unhealthy", "worker 2"),
            (found[1], "RPC: /tensorflow.CoordinationService/Heartbeat", "worker 0"),
        ):
            error = tf.errors.DeadlineExceededError(None, None, text)
            assert f"{named} (" in str(host._lost(error))


def test_the_end_of_training_is_no_loss():
    with together(2) as found:
        found[1].part()
        error = tf.errors.DataLossError(None, None, "a damaged record")
        assert leave(found[0], error) is error and not found[0]._gone


@pytest.mark.parametrize("end", ["well", "error", "signal", "kill"])
def test_after_the_last_step_all_end_as_the_first_one_does(end, monkeypatch):
    ended = []
    monkeypatch.setattr(hosts_module, "SECONDS_TO_END", 0.5)
    monkeypatch.setattr(hosts_module.os, "_exit", ended.append)
    failed = {"error": RunUnfinished("No export."), "signal": RunStopped(Interrupted())}

    def waits(host):
        with host.finishing():
            pass

    with together(3) as found, ThreadPoolExecutor(1) as pool:
        first, other, lost = found
        told = pool.submit(waits, other)
        with contextlib.suppress(CommandError), first, first.finishing():
            lost._over.set()  # as one that is killed: it goes without a word
            time.sleep(1.5)
            assert not told.done()
            if end == "kill":
                for line in first._lines.values():
                    with contextlib.suppress(OSError):  # that of the lost one
                        line._connection.shutdown(socket.SHUT_RDWR)
                told.exception(10)
            if end in failed:
                raise failed[end]
        error = told.exception(10)
    words = {
        "well": "None",
        "error": "worker 0 .* has ended: No export",
        "signal": "worker 0 .* was stopped",
        "kill": "worker 0 .* has ended without a word",
    }
    assert re.search(words[end], str(error)), error
    assert not ended and (error is None or type(error) is HostError)


def test_a_process_that_does_not_notice_is_ended(monkeypatch, tmp_path):
    ended = threading.Event()
    monkeypatch.setattr(hosts_module, "SECONDS_TO_END", 0.0)

    def ends(status):
        ended.set()
        found[0]._over.set()  # its thread ends as the process would

    monkeypatch.setattr(hosts_module.os, "_exit", ends)
    with together(2) as found, held(tmp_path):
        found[1]._finishing = True  # so that only the first one is ended
        with found[0].writing():
            send_to_all(found[1]._lines, ended="No space is left.")
            assert not ended.wait(2)
        assert ended.wait(10)
        assert not list(tmp_path.iterdir())  # its lock is gone


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no", "must be a JSON object"),
        ('{"cluster": {"worker": ["one"]}}', "must be lists of HOST:PORT"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}}', "address of its own"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "task=null"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, '
            '"task": {"type": "worker", "index": 2}}',
            "must be one of its cluster: worker 0, worker 1",
        ),
    ],
)
def test_a_wrong_tf_config_is_named(text, words, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=words):
        Cluster.from_environment()


def test_the_chief_is_first(monkeypatch):
    cluster = {"worker": ["b:1", "[::1]:2"], "chief": ["a:1"]}
    task = {"type": "worker", "index": 1}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    found = Cluster.from_environment()
    assert found.names == ("chief", "worker 0", "worker 1") and found.index == 2
    assert found.place(2) == ("::1", 2) and num_workers() == 3
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1"]}}')
    assert Cluster.from_environment() is None


@pytest.mark.parametrize("shown", [True, False])
def test_a_checkpoint_that_shows_later_to_one_host_is_waited_for(shown, monkeypatch):
    monkeypatch.setattr(host_restore, "SECONDS_TO_SHOW", 10.0 if shown else 0.1)

    class Kept:
        """A folder as a host sees it."""

        def __init__(self, *steps):
            self.steps = list(steps)

        def paths(self):
            return [pathlib.Path(f"step_{step:09d}") for step in self.steps]

        def restore(self):
            return self.steps[0]

    with together(2) as found:
        folders = Kept(9, 7), Kept(7)
        if shown:
            threading.Timer(1.0, folders[1].steps.insert, (0, 9)).start()
        pairs = list(zip(found, folders, strict=True))
        restore = host_restore.restore_together
        read = on_all([lambda h=h, k=k: restore(h, k) for h, k in pairs])
    assert read == ([9, 9] if shown else [9, 7])
