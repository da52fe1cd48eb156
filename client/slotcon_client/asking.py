"""What a client does for an answer, step by step, whoever waits for the steps.

`Asking` knows which version is meant, what to try again and how long, and when an
answer is to be believed. Its methods are generators: they give a `Send` or a `Pause`,
and take what came of it. `FeatureClient` waits in its thread, `AsyncFeatureClient` in
its loop.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from slotcon_client.answers import Served, are_alike, are_swapped, check_answer
from slotcon_client.codecs import Codec, Garbled, Message, Place
from slotcon_client.errors import ExtractionError, RequestError, WrongAnswer
from slotcon_client.images.deep_png import write_deep_png
from slotcon_client.retrying import Retrying, Send, Steps, T
from slotcon_client.sending import asked
from slotcon_client.wires import Failed

_PROBED = 64  # batches: the images of each first one are asked for a second time
Rows = dict[str, np.ndarray]


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
        self.served: Served | None = None
        self._retrying = Retrying(
            server, deadline=deadline, retry_seconds=retry_seconds
        )
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
        good = np.flatnonzero(found.get("ok", np.ones(len(content), bool))).tolist()
        several = len({content[row] for row in good}) > 1
        if several and next(self._batches) % _PROBED == 0:
            yield from self._probe(content, found, good)
        return found

    def _asked(self, content: Sequence[bytes]) -> Steps[Rows]:
        served = self.served
        assert served is not None
        names = self._names(served.signature)
        forms = {name: served.signature[name] for name in names}
        answer = yield from self._answered(
            self.codec.predict(served.version, self.signature, content, names),
            functools.partial(self.codec.predicted, outputs=forms),
            halved=True,
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

    def _probe(
        self, content: Sequence[bytes], found: Rows, good: list[int]
    ) -> Steps[None]:
        """Asks for the images of a batch again: each must be answered as within it.

        First all, moved on by one row, then one of them alone. Rows that change places
        would have to be swapped alike before and after moving, as only those can be
        that have all moved on by as much: then the one alone is another.

        Where all images of the batch are answered alike, another picture must not be.
        """
        rows = {name: values[good] for name, values in found.items()}
        places = {row: place for place, row in enumerate(good)}
        for order in ([*range(1, len(content)), 0], [random.choice(good)]):
            again = yield from self._asked([content[row] for row in order])
            for at, row in enumerate(order):
                one = {name: values[at : at + 1] for name, values in again.items()}
                if row in places and are_swapped(rows, one, places[row]):
                    raise WrongAnswer(
                        f"{self.server} must answer each image in its own row. "
                        f"Received: for image {row + 1} of {len(content)} another row "
                        "than when it was asked for again."
                    )
        if are_alike(rows):
            other = yield from self._asked([_picture()])
            if are_alike(rows, other):
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

    def _answered(
        self, message: Message, read: Callable[[bytes], T], *, halved: bool = False
    ) -> Steps[T]:
        what = f"{self.model} with {self.signature}"
        if self.served is not None:
            what = f"version {self.served.version} of {what}, with which this began"
        return self._retrying.answered(message, read, what, halved=halved)


def _picture() -> bytes:
    """Noise, as a PNG: like no photograph."""
    return write_deep_png(np.random.default_rng(0).integers(0, 2**16, (64, 64), np.uint16))


def _takes(inputs: Sequence[str]) -> bool:
    return list(inputs) == ["image_bytes"]
