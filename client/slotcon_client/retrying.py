"""How long, and how often, an answer is asked for."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

from slotcon_client.codecs import Garbled, Message
from slotcon_client.errors import (
    ExtractionError,
    RequestError,
    Unavailable,
    WrongAnswer,
)
from slotcon_client.wires import Failed

_RETRIED = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
_REFUSED = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds between attempts
_DEADLINES_MISSED = 3  # attempts before a batch is halved
_ONCE = 1  # more attempts at what may be a moment's fault of the server
_log = logging.getLogger("slotcon_client")
T = TypeVar("T")


class Send(NamedTuple):
    """A step: a message, and the seconds for its answer.

    Example:
        >>> Send(Message("/v1/models/slotcon"), 30.0).seconds
        30.0
    """

    message: Message
    seconds: float


class Pause(NamedTuple):
    """A step: nothing for some seconds.

    Example:
        >>> Pause(0.1).seconds
        0.1
    """

    seconds: float


Steps = Generator[Send | Pause, Any, T]


class Retrying:
    """Asks again what may be answered then.

    Args:
        server: For messages.
        deadline: Seconds for an answer.
        retry_seconds: How long a server that is away is asked again.

    Example:
        >>> retrying = Retrying("localhost:8501", deadline=30.0, retry_seconds=300.0)
        >>> steps = retrying.answered(Message("/v1/models/slotcon"), len, "slotcon")
        >>> next(steps).seconds
        30.0
        >>> type(steps.throw(Failed("UNAVAILABLE", "nobody there"))).__name__
        'Pause'
    """

    def __init__(self, server: str, *, deadline: float, retry_seconds: float) -> None:
        self.server = server
        self.deadline = deadline
        self.retry_seconds = retry_seconds
        self._guard = threading.Lock()
        self._failing_since: float | None = None
        self._failed_at = 0.0

    def answered(
        self,
        message: Message,
        read: Callable[[bytes], T],
        what: str,
        *,
        halved: bool = False,
    ) -> Steps[T]:
        """An answer, asked for until there is one, or no hope of one.

        Args:
            message: What is asked.
            read: Function of the answer's bytes; it raises Garbled.
            what: What the server must serve, for messages.
            halved: Whether half of it may be answered where all of it is too slow; else
                it is asked again for as long as of a server that is away.

        Raises:
            RequestError, Unavailable, ExtractionError, WrongAnswer: As of
                `FeatureClient.predict`.
        """
        pause, missed, faults = _FIRST_PAUSE, 0, 0
        while True:
            try:
                answer = read((yield Send(message, self.deadline)))
                self._seconds_away(True)
                return answer
            except Garbled as error:
                faults += 1
                code, text = "INTERNAL", str(error)
                if faults > _ONCE:
                    raise WrongAnswer(
                        f"{self.server} must answer as TF Serving does. Received: "
                        f"{_short(text)}."
                    ) from None
            except Failed as error:
                code, text = error.code, error.text
                missed += halved and code == "DEADLINE_EXCEEDED"
                faults += code == "INTERNAL"
            away = self._seconds_away(code not in _RETRIED) > self.retry_seconds
            if code in _REFUSED or faults > _ONCE or missed >= _DEADLINES_MISSED:
                raise RequestError(f"{code}: {_short(text)}")
            if code not in (*_RETRIED, "INTERNAL"):
                raise ExtractionError(
                    f"{self.server} must serve {what}. Received: {code}, "
                    f"{_short(text)}."
                )
            if away:
                raise Unavailable(
                    f"{self.server} must answer. Received: {code}, {_short(text)}, for "
                    f"{self.retry_seconds:g} s. Start it, and give the same command "
                    "again: what is done is kept."
                )
            if pause == _FIRST_PAUSE:
                _log.warning("%s does not answer, and is asked again", self.server)
            # Not all at once when it comes back.
            yield Pause(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _seconds_away(self, answered: bool) -> float:
        """How long no request of this client has been answered, since one failed.

        A refusal is an answer, too.
        """
        with self._guard:
            since, now = self._failing_since, time.monotonic()
            if answered:
                self._failing_since = None
                return 0.0
            old = now - self._failed_at > self.retry_seconds + 2 * self.deadline
            if since is None or old:
                since = now
            self._failing_since, self._failed_at = since, now
            return now - since


def _short(text: str | None) -> str:
    return (text or "").strip().splitlines()[0][:300] if (text or "").strip() else ""
