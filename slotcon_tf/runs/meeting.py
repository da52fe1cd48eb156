"""How the hosts of a run find each other, before TensorFlow does.

TensorFlow waits for a missing host for an hour, and names none. Here all connect to the
first host at its address of TF_CONFIG, which they can reach since TensorFlow needs
that, too, and which is free until its server starts. What they say are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

from absl import logging

from slotcon_tf.runs.cluster import Cluster
from slotcon_tf.runs.command import CommandError

FIRST = 0  # index of the host that the others connect to
_PROTOCOL = 1
_MOST = 1 << 20  # bytes of a message
SECONDS_TO_TELL = 30.0  # between lines about whom one waits for
_SECONDS = {"connect": 5.0, "retry": 1.0, "send": 10.0, "silent": 120.0}


class HostError(CommandError):
    """Hosts of one run are missing, differ, or one of them is gone.

    Example:
        >>> HostError("Worker 1 is missing.").status, HostError.at_once
        (1, True)
    """

    at_once = True  # TensorFlow would wait for the others as it takes itself apart


class Line:
    """Messages to and from another host, over a connection.

    Example:
        >>> here, there = (Line(end) for end in socket.socketpair())
        >>> here.send(seed=3)
        >>> there.receive()
        [{'seed': 3}]
        >>> here.close()
        >>> there.receive()
        Traceback (most recent call last):
        ConnectionError: the connection has ended
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_SECONDS["send"])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE") and connection.family != socket.AF_UNIX:
            # Networks forget what is silent for some minutes.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        self._connection = connection
        self._sending = threading.Lock()
        self._read = b""

    def fileno(self) -> int:
        """For `select`."""
        return self._connection.fileno()

    def send(self, **message: Any) -> None:
        """Sends a message.

        Raises:
            OSError: If the other one is gone.
        """
        with self._sending:
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have come; called where `select` says that some has.

        Raises:
            OSError: If the other one is gone.
            ValueError: If it does not speak so.
        """
        read = self._connection.recv(1 << 16)
        if not read:
            raise ConnectionError("the connection has ended")
        *lines, self._read = (self._read + read).split(b"\n")
        found = [json.loads(line) for line in lines]
        if len(self._read) > _MOST or not all(isinstance(m, dict) for m in found):
            raise ValueError("no message")
        return found

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


def meet(cluster: Cluster, wait_minutes: float) -> dict[int, Line]:
    """Waits until every host is there.

    Every half minute it logs whom it waits for.

    Args:
        cluster: All hosts.
        wait_minutes: How long.

    Returns:
        Dict of a host's index to the line to it: to all others on the first host, to
        the first one on all others.

    Raises:
        HostError: If one has not come by then, or this one's port or TF_CONFIG is not
            of this run; it names them.

    Example:
        >>> one = Cluster(("worker 0", "worker 1"), ("localhost:1", "localhost:2"), 1)
        >>> meet(one, wait_minutes=0)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.runs.meeting.HostError: ... nothing from worker 0 (localhost:1)...
    """
    end = time.monotonic() + 60 * wait_minutes
    with _listening(cluster) as server:
        if cluster.index == FIRST:
            return _gather(cluster, server, end, wait_minutes)
    return _join(cluster, end, wait_minutes)


@contextlib.contextmanager
def _listening(cluster: Cluster) -> Iterator[socket.socket]:
    """This host's port, which TensorFlow's server takes after."""
    port = cluster.place(cluster.index)[1]
    server = None
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # a system may have it and not use it
            server = socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True
            )
    try:
        server = server or socket.create_server(("", port))
    except OSError as error:
        raise HostError(
            f"The port of {cluster.told(cluster.index)} must be free on this host. "
            f"Received: {error.strerror}. An earlier run may still be there; end it, "
            "or take another port in TF_CONFIG on all hosts."
        ) from error
    with server:
        server.settimeout(_SECONDS["retry"])
        yield server


def _gather(
    cluster: Cluster, server: socket.socket, end: float, wait_minutes: float
) -> dict[int, Line]:
    here: dict[int, Line] = {}
    told = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        while len(here) < len(cluster.names) - 1:
            missing = [i for i in range(1, len(cluster.names)) if i not in here]
            names = ", ".join(map(cluster.told, missing))
            count = f"{len(here) + 1} of {len(cluster.names)}"
            if time.monotonic() > end:
                text = (
                    "Every host that TF_CONFIG names must come within "
                    f"host_wait_minutes={wait_minutes:g}. Received: {count}, without "
                    f"{names}. Start the same command there, or see there why it "
                    "ended, and start all again."
                )
                send_to_all(here, refused=text)
                raise HostError(text)
            if time.monotonic() > told + SECONDS_TO_TELL:
                told = time.monotonic()
                logging.info("Waiting for %s: %s are there", names, count)
                send_to_all(here, waiting=f"{names}: {count} are there")
            for key, _ in selector.select(_SECONDS["retry"]):
                if key.fileobj is server:
                    with contextlib.suppress(OSError):  # one that has gone again
                        line = Line(server.accept()[0])
                        selector.register(line, selectors.EVENT_READ)
                    continue
                line = cast("Line", key.fileobj)
                try:
                    for hello in line.receive():
                        index = hello.get("index")
                        before = here.get(index) if type(index) is int else None
                        if before not in (None, line) and not _answers(before):
                            # Its host has lost power, and comes again.
                            selector.unregister(before)
                            before.close()
                            here.pop(hello["index"])
                        _admit(cluster, hello, here)
                        here[hello["index"]] = line
                except (OSError, ValueError) as error:
                    # One that ended before the start, and will come again, or a
                    # stranger.
                    with contextlib.suppress(OSError):
                        line.send(refused=str(error))
                    with contextlib.suppress(KeyError):  # replaced just now
                        selector.unregister(line)
                    line.close()
                    here = {i: one for i, one in here.items() if one is not line}
        for key in selector.get_map().values():
            stranger: Any = key.fileobj
            if stranger not in (server, *here.values()):
                stranger.close()
    send_to_all(here, met=True)
    return here


def _answers(line: Line) -> bool:
    """Whether a host that waits is still there."""
    with (
        selectors.DefaultSelector() as selector,
        contextlib.suppress(OSError, ValueError),
    ):
        line.send(asked=True)
        selector.register(line, selectors.EVENT_READ)
        return bool(selector.select(_SECONDS["connect"]) and line.receive())
    return False


def _admit(cluster: Cluster, hello: dict[str, Any], here: dict[int, Line]) -> None:
    """Raises ValueError, which the other host is told, unless it is one of the run."""
    index, cluster_there = hello.get("index"), hello.get("cluster")
    if hello.get("protocol") != _PROTOCOL:
        raise ValueError("All hosts must have the same version of slotcon_tf.")
    if cluster_there != list(cluster.addresses):
        text = (
            "TF_CONFIG must name the same cluster on all hosts. Received: "
            f"{cluster_there} on one of them, {list(cluster.addresses)} on "
            f"{cluster.told(FIRST)}."
        )
        logging.warning("%s It is sent away.", text)
        raise ValueError(text)
    if type(index) is not int or not 0 < index < len(cluster.names) or index in here:
        raise ValueError(
            "TF_CONFIG must give every host an index of its own. Received: one that "
            f"another has, or none: {index}."
        )


def send_to_all(lines: Mapping[int, Line], **message: Any) -> None:
    """Sends a message over all lines; one that has ended is missed where it matters.

    Example:
        >>> here, there = (Line(end) for end in socket.socketpair())
        >>> send_to_all({1: here}, seed=3)
        >>> there.receive()
        [{'seed': 3}]
        >>> here.close(), there.close()
        (None, None)
    """
    for line in lines.values():
        with contextlib.suppress(OSError):
            line.send(**message)


def _join(cluster: Cluster, end: float, wait_minutes: float) -> dict[int, Line]:
    first, told, why = cluster.told(FIRST), time.monotonic(), ""
    hello = {
        "protocol": _PROTOCOL,
        "cluster": list(cluster.addresses),
        "index": cluster.index,
    }
    while True:
        try:
            place = cluster.place(FIRST)
            line = Line(socket.create_connection(place, _SECONDS["connect"]))
            try:
                line.send(**hello)
                if _is_met(line):
                    return {FIRST: line}
            except BaseException:
                line.close()
                raise
        except ValueError:
            why = "what answers there is no run that waits for hosts"
        except OSError as error:
            why = error.strerror or str(error)
        if time.monotonic() > end:
            raise HostError(
                "Every host that TF_CONFIG names must come within "
                f"host_wait_minutes={wait_minutes:g}. Received: nothing from {first}: "
                f"{why}. Start the same command there, or see there why it ended, and "
                "start all again."
            )
        if time.monotonic() > told + SECONDS_TO_TELL:
            told = time.monotonic()
            logging.info("Waiting for %s: %s", first, why)
        time.sleep(min(_SECONDS["retry"], max(0.0, end - time.monotonic())))


def _is_met(line: Line) -> bool:
    """Whether the first host says that all are there; it says so, or goes."""
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while selector.select(_SECONDS["silent"]):
            for message in line.receive():
                if "refused" in message:
                    raise HostError(message["refused"])
                if "waiting" in message:
                    logging.info("Waiting for %s", message["waiting"])
                if "asked" in message:
                    line.send(here=True)
                if message.get("met"):
                    return True
    raise TimeoutError("it has been silent for two minutes")
