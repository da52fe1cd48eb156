"""What a client does for an answer, step by step, whoever waits for the steps.

`Asking` knows which version is meant, what to try again and how long, and when an
answer is to be believed. Its methods are generators: they give a `Send` or a `Pause`,
and take what came of it. `FeatureClient` waits in its thread, `AsyncFeatureClient` in
its loop.
"""

from __future__ import annotations

import functools
import itertools
import logging
import random
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from slotcon_client.answers import Served, are_alike, are_swapped, check_answer
from slotcon_client.codecs import Codec, Garbled, Message, Place
from slotcon_client.errors import (
    ExtractionError,
    RequestError,
    Unavailable,
    WrongAnswer,
)
from slotcon_client.images.deep_png import write_deep_png
from slotcon_client.sending import Sendable, asked
from slotcon_client.wires import Failed

_RETRIED = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
_REFUSED = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds between attempts
_DEADLINES_MISSED = 3  # attempts before a batch is halved
_ONCE = 1  # more attempts at what may be a moment's fault of the server
_PROBED = 64  # batches: of each first one, an image is asked alone as well
_log = logging.getLogger("slotcon_client")
T = TypeVar("T")
Rows = dict[str, np.ndarray]


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


class Asking:
    """The steps of a client.

    Args:
        codec: `slotcon_client.codecs.Codec`.
        server: For messages.
        model: Name of the model.
        place: Which version.
        signature: One that takes `image_bytes`.
        outputs: Names, () for all.
        deadline: Seconds for an answer.
        retry_seconds: How long a server that is away is asked again.

    Attributes:
        served: The pinned version; None before `pin` has ended.

    Example:
        >>> from slotcon_client.codec_rest import Rest
        >>> asking = Asking(
        ...     Rest("slotcon"),
        ...     server="localhost:8501",
        ...     model="slotcon",
        ...     place=Place(label="stable"),
        ...     signature="image_bytes",
        ...     outputs=(),
        ...     deadline=30.0,
        ...     retry_seconds=300.0,
        ... )
        >>> next(asking.pin()).message.path
        '/v1/models/slotcon/labels/stable/metadata'
    """

    def __init__(
        self,
        codec: Codec,
        *,
        server: str,
        model: str,
        place: Place,
        signature: str,
        outputs: Sequence[str],
        deadline: float,
        retry_seconds: float,
    ) -> None:
        self.codec = codec
        self.server = server
        self.model = model
        self.place = place
        self.signature = signature
        self.outputs = tuple(outputs)
        self.deadline = deadline
        self.retry_seconds = retry_seconds
        self.served: Served | None = None
        self._failing_since: float | None = None
        self._failed_at = 0.0
        self._batches = itertools.count()

    def pin(self) -> Steps[Served]:
        """Asks once which version is meant, and what its signature gives.

        Raises:
            ExtractionError: If there is none, or no such signature or outputs; it says
                what there is.
        """
        try:
            told = yield from self._answered(
                self.codec.metadata(self.place), self.codec.told
            )
        except RequestError as error:  # no batch of images is the cause
            raise ExtractionError(
                f"{self.server} must tell the signatures of {self.model}. Received: "
                f"{error}."
            ) from None
        if told.model != self.model:
            raise WrongAnswer(
                f"{self.server} must tell of {self.model}. Received: metadata of "
                f"{told.model!r}."
            )
        number = told.version
        if number is None or self.place.number not in (None, number):
            raise WrongAnswer(
                f"{self.server} must tell the version of {self.model} that it "
                f"{'serves' if self.place.number is None else 'was asked for'}. "
                f"Received: {'none' if number is None else f'version {number}'}."
            )
        takers = {k for k, (inputs, _) in told.signatures.items() if _takes(inputs)}
        if self.signature not in takers:
            raise ExtractionError(
                f"`signature` must be one that takes image_bytes: {sorted(takers)}. "
                f"Received: {self.signature!r}."
            )
        outputs = dict(told.signatures[self.signature][1])
        unknown = sorted(set(self.outputs) - set(outputs))
        if unknown:
            raise ExtractionError(
                f"`outputs` must be of those of {self.signature}: {sorted(outputs)}. "
                f"Received: {unknown}."
            )
        strange = sorted(
            name
            for name in self._names(outputs)
            if outputs[name][0] == "?" or outputs[name][1] == ()
        )
        if strange:
            raise ExtractionError(
                f"{self.signature} must give a row of numbers or texts per image. "
                f"Received: other kinds of {strange}."
            )
        self.served = Served(self.model, number, outputs)
        return self.served

    def _names(self, known: Any) -> list[str]:
        """Outputs that are fetched: those asked for, and the word on each image."""
        if not self.outputs:
            return list(known)
        along = [n for n in ("ok", "reason") if n in known and n not in self.outputs]
        return [*self.outputs, *along]

    def predict(self, content: Sequence[bytes]) -> Steps[Rows]:
        """Features of files, of the pinned version.

        Raises:
            RequestError, Unavailable, ExtractionError: As `FeatureClient.predict`.
        """
        asking = asked(content)
        files = next(asking)
        while True:
            found = yield from self._predict(files)
            try:
                files = asking.send(found)
            except StopIteration as end:
                return end.value

    def _predict(self, content: Sequence[bytes]) -> Steps[Rows]:
        found = yield from self._asked(content)
        count = len(content)
        good = np.flatnonzero(found["ok"]) if "ok" in found else np.arange(count)
        seen = [content[i] for i in good]
        if len(set(seen)) > 1 and next(self._batches) % _PROBED == 0:
            yield from self._probe(seen, {n: v[good] for n, v in found.items()})
        return found

    def _asked(self, content: Sequence[bytes]) -> Steps[Rows]:
        served = self.served
        assert served is not None
        names = self._names(served.signature)
        forms = {name: served.signature[name] for name in names}
        answer = yield from self._answered(
            self.codec.predict(served.version, self.signature, content, names),
            functools.partial(self.codec.predicted, outputs=forms),
        )
        for what, told, wanted in (
            ("model", answer.model, served.model),
            ("version", answer.version, served.version),
            ("signature", answer.signature, self.signature),
        ):
            if told not in ("", None, wanted):
                raise WrongAnswer(
                    f"An answer must be of {what} {wanted}, as it was asked for. "
                    f"Received: of {told}."
                )
        return check_answer(answer.outputs, served, names, content)

    def _probe(self, content: Sequence[bytes], found: Rows) -> Steps[None]:
        """Asks one image of a batch alone: it must be answered as within it.

        Where all images of the batch are answered alike, another picture must not be.
        """
        row = random.randrange(len(content))
        alone = yield from self._asked([content[row]])
        if are_swapped(found, alone, row):
            raise WrongAnswer(
                f"{self.server} must answer each image in its own row. Received: for "
                f"image {row + 1} of {len(content)} another row than for it alone."
            )
        if are_alike(found):
            other = yield from self._asked([_picture()])
            if are_alike(found, other):
                raise WrongAnswer(
                    f"{self.server} must look at the images. Received: the same answer "
                    "for all of them, and for noise."
                )

    def states(self) -> Steps[dict[int, str]]:
        """Dict of version to its state, such as "AVAILABLE"."""
        return (yield from self._answered(self.codec.status(), self.codec.states))

    def well(self) -> Steps[bool]:
        """Whether the server answers, and has a version; asked once only."""
        try:
            answer = yield Send(self.codec.health(), self.deadline)
            return self.codec.well(answer)
        except (Failed, Garbled) as error:
            if getattr(error, "code", "") not in ("UNIMPLEMENTED", "NOT_FOUND"):
                return False
        try:  # TF Serving has no other word for it
            answer = yield Send(self.codec.status(), self.deadline)
            return "AVAILABLE" in self.codec.states(answer).values()
        except (Failed, Garbled):
            return False

    def _answered(self, message: Message, read: Callable[[bytes], T]) -> Steps[T]:
        """An answer, asked for until there is one, or no hope of one."""
        pause, missed, faults = _FIRST_PAUSE, 0, 0
        while True:
            try:
                answer = read((yield Send(message, self.deadline)))
                self._failing_since = None
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
                missed += code == "DEADLINE_EXCEEDED"
                faults += code == "INTERNAL"
            away = self._seconds_away() > self.retry_seconds
            if code in _REFUSED or faults > _ONCE or missed >= _DEADLINES_MISSED:
                raise RequestError(f"{code}: {_short(text)}")
            if code not in (*_RETRIED, "INTERNAL"):
                raise ExtractionError(self._said(code, text))
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

    def _seconds_away(self) -> float:
        """How long no request of this client has been answered, since one failed."""
        now = time.monotonic()
        old = now - self._failed_at > self.retry_seconds + 2 * self.deadline
        if self._failing_since is None or old:
            self._failing_since = now
        self._failed_at = now
        return now - self._failing_since

    def _said(self, code: str, text: str) -> str:
        what = f"{self.model} with {self.signature}"
        if self.served is not None:
            what = f"version {self.served.version} of {what}, with which this began"
        return f"{self.server} must serve {what}. Received: {code}, {_short(text)}."


def sendable(content: Sequence[bytes]) -> list[Sendable]:
    """Files in their `served_form`; what training cannot read stays what it is.

    Example:
        >>> sendable([b"no image"])
        [b'no image']
    """
    return [Sendable(data) for data in next(asked(content))]


def _picture() -> bytes:
    """Noise, as a PNG: like no photograph."""
    return write_deep_png(np.random.default_rng(0).integers(0, 2**16, (64, 64), np.uint16))


def _takes(inputs: Sequence[str]) -> bool:
    return list(inputs) == ["image_bytes"]


def _short(text: str | None) -> str:
    return (text or "").strip().splitlines()[0][:300] if (text or "").strip() else ""
