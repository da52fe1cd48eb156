"""`FeatureClient` asks a served model for the features of image files."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from slotcon_client.answers import Served
from slotcon_client.asking import Asking
from slotcon_client.codecs import Place
from slotcon_client.errors import ExtractionError
from slotcon_client.retrying import Pause, Send, Steps, T
from slotcon_client.security import Security
from slotcon_client.wires import Failed, Wire

CLOSED = "The client must be open. Received: a closed one."


class FeatureClient:
    """Asks a served model for the features of image files.

    The version is asked for once, with the first request, and all answers are of it:
    each is checked against what the version's signature promises. Safe to be used by
    several threads, and a context manager.

    Args:
        server: "host:port" of gRPC, or of REST.
        transport: "grpc" or "rest".
        model_name: As served.
        version: Number of a version, or None for the newest.
        version_label: Label of a version, or "".
        signature: One that takes `image_bytes`.
        outputs: Names of the outputs to fetch, () for all; `ok` and `reason` come
            along.
        deadline: Seconds for a whole answer.
        retry_seconds: How long a server that is away is asked again.
        max_message_bytes: Largest answer.
        tls: Whether to speak TLS, by the system's certificates; also where one of the
            files is given.
        tls_ca: PEM file of the certificates that the server's must be of.
        tls_certificate, tls_key: PEM files of this client's own certificate.
        token: Sent with every request as `authorization: Bearer TOKEN`.

    Raises:
        ExtractionError: If the transport, or what secures it, cannot be used.

    Example:
        >>> with FeatureClient("localhost:8500", outputs=["pooled", "map"]) as client:
        ...     client.outputs  # client.predict([photo_as_jpeg])["pooled"]
        ('pooled', 'map')
    """

    def __init__(
        self,
        server: str,
        *,
        transport: str = "grpc",
        model_name: str = "slotcon",
        version: int | None = None,
        version_label: str = "",
        signature: str = "image_bytes",
        outputs: Sequence[str] = ("pooled",),
        deadline: float = 30.0,
        retry_seconds: float = 300.0,
        max_message_bytes: int = 64 * 2**20,
        tls: bool = False,
        tls_ca: str | os.PathLike | None = None,
        tls_certificate: str | os.PathLike | None = None,
        tls_key: str | os.PathLike | None = None,
        token: str | None = None,
    ) -> None:
        self.server = server
        self.transport = transport
        self.model_name = model_name
        self.version = version
        self.version_label = version_label
        self.signature = signature
        self.outputs = tuple(outputs)
        self.deadline = deadline
        self.retry_seconds = retry_seconds
        self._max_bytes = max_message_bytes
        self._security = Security(tls, tls_ca, tls_certificate, tls_key, token)
        self._asking = self._make_asking()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._wire = self._make_wire()

    def _make_asking(self) -> Asking:
        if self.transport == "grpc":
            from slotcon_client.codec_grpc import Grpc as Codec
        elif self.transport == "rest":
            from slotcon_client.codec_rest import Rest as Codec
        else:
            raise ExtractionError(
                f"`transport` must be grpc or rest. Received: {self.transport!r}."
            )
        return Asking(
            Codec(self.model_name, self._max_bytes),
            server=self.server,
            model=self.model_name,
            place=Place(self.version, self.version_label),
            signature=self.signature,
            outputs=self.outputs,
            deadline=self.deadline,
            retry_seconds=self.retry_seconds,
        )

    def _make_wire(self) -> Any:
        if self.transport == "grpc":
            from slotcon_client.wires import GrpcWire as Kind
        else:
            from slotcon_client.wire_rest import RestWire as Kind
        return Kind(self.server, self._security, self._max_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is under way; whoever waits for it gets an ExtractionError."""
        self._closed.set()
        self._wire.close()

    @property
    def served(self) -> Served:
        """The version that all answers are of; asked for at its first use.

        Raises:
            ExtractionError: If the server has none, or no such signature or outputs.
        """
        return self._pinned()[1]

    def _pinned(self) -> tuple[Asking, Served]:
        with self._lock:
            asking = self._asking
            return asking, asking.served or self._done(asking.pin())

    def check(self) -> None:
        """Asks the server whether it has the version, signature and outputs.

        Raises:
            ExtractionError: If it has not; it says what there is.
        """
        _ = self.served

    def renew(self) -> None:
        """Forgets the pinned version: the next request asks which one is meant."""
        with self._lock:
            self._asking = self._make_asking()

    def predict(self, content: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Features of files, which are sent as `slotcon_client.sending.ask` does.

        Args:
            content: List of files' bytes.

        Returns:
            Dict of arrays with as many rows: the outputs, `ok` bool and `reason`, an
            index of `slotcon_client.reasons.REASONS`.

        Raises:
            RequestError: If the server refuses the batch, or its features of an image
                are none.
            Unavailable: If it has been away for `retry_seconds`.
            ExtractionError: If it does not serve the pinned version (any more).
            WrongAnswer: An ExtractionError, if it answers what that version cannot.
        """
        asking, _ = self._pinned()
        return self._done(asking.predict(content))

    def status(self) -> dict[int, str]:
        """Versions that the server knows, and their states, such as "AVAILABLE".

        Raises:
            ExtractionError: If there is no such model, or no answer.
        """
        return self._done(self._asking.states())

    def is_well(self) -> bool:
        """Whether the server answers, and has something to serve; asked once only."""
        return self._done(self._asking.well())

    def extract(self, images: Any, output: str | os.PathLike, **options: Any) -> Any:
        """`slotcon_client.extraction.extract` with this client; see there."""
        from slotcon_client.extraction import extract

        return extract(
            self.predict, images, output, settings=self.settings(), **options
        )

    def settings(self) -> dict[str, Any]:
        """What features depend on: model, pinned version, signature and outputs.

        Raises:
            ExtractionError: As `served`.
        """
        return {
            "model": self.model_name,
            "version": self.served.version,
            "signature": self.signature,
            "outputs": list(self.outputs),
        }

    def _done(self, steps: Steps[T]) -> T:
        """What comes of steps that are waited for."""
        answer, error = None, None
        while True:
            try:
                step = steps.throw(error) if error else steps.send(answer)
            except StopIteration as end:
                return end.value
            answer, error = None, None
            try:
                answer = self._take(step, self._wire)
            except Failed as failed:
                error = failed

    def _take(self, step: Send | Pause, wire: Wire) -> bytes | None:
        if isinstance(step, Send):
            return wire.send(step.message, step.seconds)
        if self._closed.wait(step.seconds):
            raise ExtractionError(CLOSED)
        return None
