"""The hosts of one run: the same work on all, and one end for all.

Before the first step they compare what they were given. From then on each learns when
another one ends, and why: TensorFlow's own errors name an operation of the graph, come
after 10 seconds to never, and leave a process that takes half a minute to go.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import tensorflow as tf
from absl import logging

from slotcon_tf.errors import first_line
from slotcon_tf.runs.cluster import Cluster
from slotcon_tf.runs.host_descriptions import differences
from slotcon_tf.runs.lock import release_all
from slotcon_tf.runs.meeting import (
    FIRST,
    SECONDS_TO_TELL,
    HostError,
    Line,
    meet,
    send_to_all,
)
from slotcon_tf.runs.signals import INTERRUPTED

# After another host's end: until TensorFlow has said so, too, which its heartbeats do
# within 10 s, and until a process that hears nothing is ended from outside.
SECONDS_TO_HEAR, SECONDS_TO_END = 20.0, 60.0
_MOST_NAMED = 6  # differences
# What TensorFlow raises when a host that it talks to is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError)
_TASK = re.compile(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)")


class Hosts:
    """Context of a run that several hosts share, or one alone.

    Left by an error, it tells the others, and theirs becomes a `HostError` that names
    the host that was first.

    Args:
        cluster: All of them; None: this one is alone.
        lines: As `meet` returns them.
        wait_minutes: How long they wait for each other's descriptions.

    Attributes:
        wait_minutes: As given.
        latest: Function without arguments that returns the newest checkpoint, or None.

    Raises:
        HostError: If another host is gone, on leaving.

    Example:
        >>> with Hosts() as hosts:
        ...     hosts.compare({"seed": "3"}, "the same settings")
    """

    def __init__(
        self,
        cluster: Cluster | None = None,
        lines: Mapping[int, Line] | None = None,
        wait_minutes: float = 10.0,
    ) -> None:
        self.cluster = cluster or Cluster(("this host",), ("",), 0)
        self.latest: Callable[[], Any] = lambda: None
        self._lines = dict(lines or {})
        self.wait_minutes = wait_minutes
        self._change = threading.Condition()
        self._said: dict[int, dict[int, dict[str, str]]] = {}  # by round, by host
        self._round = 0
        self._gone: dict[int, str] = {}  # index to reason, in the order of their ends
        self._since: float | None = None  # the first one's end
        self._left: set[int] = set()  # done, and not missed
        self._finishing = self._done = False
        self._over = threading.Event()
        self._writing = threading.Lock()

    @property
    def leads(self) -> bool:
        """Whether this is the host that writes files: the first, or the only one."""
        return self.cluster.index == FIRST

    def __enter__(self) -> Self:
        if self._lines:
            threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if error is None or not self._lines or self._over.is_set():
            self.part()
            return
        known = error
        if isinstance(error, tf.errors.OpError) and not self._finishing:
            known = self._lost(error) or error
        # All of them stop together at a signal; this one may only be the first.
        if getattr(known, "status", 1) != INTERRUPTED:
            send_to_all(self._lines, ended=first_line(known))
        self.part()
        known.at_once = True  # type: ignore[attr-defined]
        if known is not error:
            raise known from error

    def part(self) -> None:
        """This host needs the others no more: their ends are no errors from now on."""
        if not self._over.is_set():
            send_to_all(self._lines, left=True)
            self._over.set()  # which closes the lines

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """Context of what the first host does after the last step, without the others.

        They wait in it, so that all end well or none does: whoever starts processes
        starts those again that fail, and one of them could not go on alone.

        Raises:
            HostError: On the others, if the first one fails or is stopped.

        Example:
            >>> with Hosts() as hosts, hosts.finishing():
            ...     pass  # what is made of the model, `if hosts.leads`
        """
        self._finishing = True
        yield
        if self.leads:
            send_to_all(self._lines, done=True)
        else:
            with self._change:
                self._change.wait_for(
                    lambda: self._done or FIRST in (*self._gone, *self._left)
                )
                if FIRST in self._gone and not self._done:
                    raise self._gone_error(FIRST)
            if not self._done:
                raise self._ended(f"{self.cluster.told(FIRST)} was stopped")
        self.part()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Context in which this process is not ended because of another one."""
        with self._writing:
            yield

    def compare(self, own: Mapping[str, str], must: str) -> None:
        """Refuses to go on unless all hosts say the same.

        All hosts must call it at the same places.

        Args:
            own: Names and values, as they are to be told.
            must: What hosts must have, "the same settings".

        Raises:
            HostError: On all hosts; it names what differs, where.
        """
        said = self._exchange(dict(own))
        names = [self.cluster.told(index) for index in range(len(said))]
        found = differences(said, names)
        if found:
            more = len(found) - _MOST_NAMED
            named = found[:_MOST_NAMED] + [f"and {more} more"] * (more > 0)
            raise HostError(
                f"All hosts of a run must have {must}. Received: {'; '.join(named)}. "
                "Mend it, and start all of them again."
            )

    def first_says(self, own: Mapping[str, str]) -> dict[str, str]:
        """What the first host says; all hosts must call it at the same places.

        Args:
            own: What this one says, which counts on the first host only.

        Raises:
            HostError: If a host has ended, or says nothing for long.

        Example:
            >>> with Hosts() as hosts:
            ...     hosts.first_says({"step": "3"})
            {'step': '3'}
        """
        return self._exchange(dict(own))[FIRST]

    def _exchange(self, own: dict[str, str]) -> list[dict[str, str]]:
        """What every host says, in their order."""
        if not self._lines:
            return [own]
        end = time.monotonic() + 60 * self.wait_minutes
        everyone = set(range(len(self.cluster.names)))
        with self._change:
            number, self._round = self._round, self._round + 1
            said = self._said.setdefault(number, {})
            said[self.cluster.index] = own
        send_to_all(self._lines, round=number, said={self.cluster.index: own})
        told = time.monotonic()
        while True:
            with self._change:
                self._change.wait_for(
                    lambda: self._gone or everyone == said.keys(), timeout=1.0
                )
                if everyone == said.keys():
                    break
                if self._gone:
                    raise self._first_gone()
                silent = ", ".join(
                    self.cluster.told(index) for index in sorted(everyone - said.keys())
                )
            if time.monotonic() > end:
                raise HostError(
                    "Hosts must wait for each other no longer than host_wait_minutes="
                    f"{self.wait_minutes:g}. Received: nothing from {silent}. See "
                    "there what it does, and start all again."
                )
            if time.monotonic() > told + SECONDS_TO_TELL:
                told = time.monotonic()
                logging.info("Waiting for %s", silent)
        if self.leads:
            send_to_all(self._lines, round=number, said=said)
        return [said[index] for index in sorted(said)]

    def _listen(self) -> None:
        """Of a thread: takes what the others say, and notes their ends."""
        with selectors.DefaultSelector() as selector:
            for index, line in self._lines.items():
                selector.register(line, selectors.EVENT_READ, index)
            while not self._over.is_set():
                self._end_if_stuck()
                if not selector.get_map():
                    time.sleep(1)
                    continue
                for key, _ in selector.select(1.0):
                    line: Any = key.fileobj
                    try:
                        for message in line.receive():
                            self._take(key.data, message)
                    except (OSError, ValueError):
                        selector.unregister(line)
                        self._note({key.data: ""})
        for line in self._lines.values():
            line.close()

    def _take(self, sender: int, message: dict[str, Any]) -> None:
        if "said" in message:
            with self._change:
                said = self._said.setdefault(message["round"], {})
                said |= {int(index): one for index, one in message["said"].items()}
                self._change.notify_all()
        if "done" in message or "left" in message:
            with self._change:
                self._done = self._done or "done" in message
                self._left.add(sender)
                self._change.notify_all()
        if "gone" in message:
            self._note({int(index): why for index, why in message["gone"].items()})
        if "ended" in message:
            self._note({sender: message["ended"]})

    def _note(self, gone: dict[int, str]) -> None:
        with self._change:
            known = {self.cluster.index, *self._left, *self._gone}
            new = {index: why for index, why in gone.items() if index not in known}
            if new and self._since is None:
                self._since = time.monotonic()
            self._gone |= new
            self._change.notify_all()
        if new and self.leads:
            send_to_all(self._lines, gone=new)

    def _end_if_stuck(self) -> None:
        """Ends a process that waits for one that is gone, and does not notice."""
        if self._since is None or time.monotonic() < self._since + SECONDS_TO_END:
            return
        if self._finishing:
            return  # the first one needs no others; they wait for it, and notice
        with self._writing:
            if not self._over.is_set():
                logging.error("%s", self._first_gone())
                sys.stdout.flush()
                sys.stderr.flush()
                freeing = threading.Thread(target=release_all, daemon=True)
                freeing.start()
                freeing.join(5)  # a disk may be away
                os._exit(HostError.status)

    def _lost(self, error: tf.errors.OpError) -> HostError | None:
        """What TensorFlow's error is if another host's end is behind it."""
        lost = isinstance(error, _LOST)
        with self._change:
            self._change.wait_for(
                lambda: self._gone, timeout=SECONDS_TO_HEAR if lost else 2.0
            )
            if self._gone:
                return self._first_gone()
        if not lost:
            return None
        # It is there, and does nothing: TensorFlow's heartbeats ask for more.
        tasks = [
            f"{kind} {task}" if kind == "worker" else kind
            for kind, task in _TASK.findall(str(error))
        ]
        others = [i for i in range(len(self.cluster.names)) if i != self.cluster.index]
        named = [i for i in others if self.cluster.names[i] in tasks]
        if not named and not self.leads:
            named = [FIRST]  # which all others' heartbeats go to
        told = self.cluster.told(named[0]) if named else "another host"
        return self._ended(f"{told} no longer answers")

    def _first_gone(self) -> HostError:
        return self._gone_error(next(iter(self._gone)))

    def _gone_error(self, index: int) -> HostError:
        why = self._gone[index]
        why = f": {why.rstrip('.')}" if why else " without a word"
        return self._ended(f"{self.cluster.told(index)} has ended{why}")

    def _ended(self, what: str) -> HostError:
        return HostError(
            f"All hosts of a run must stay to its end. Received: {what}. Its own log "
            "may say more. Give the same command on all hosts again: it goes on from "
            f"{self.latest() or 'the start'}."
        )


def meet_hosts(strategy: str, wait_minutes: float = 10.0) -> Hosts:
    """Waits for the other hosts of a run, where its strategy and TF_CONFIG have any.

    Args:
        strategy: As `build_strategy` takes it.
        wait_minutes: How long.

    Returns:
        Context of the run.

    Raises:
        ValueError: If TF_CONFIG is none.
        HostError: If a host has not come in time.

    Example:
        >>> meet_hosts("one_device").cluster.names
        ('this host',)
    """
    several = strategy in ("auto", "multi_worker")
    cluster = Cluster.from_environment() if several else None
    lines = meet(cluster, wait_minutes) if cluster else None
    return Hosts(cluster, lines, wait_minutes)
