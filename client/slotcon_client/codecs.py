"""What is asked, and what is answered, over gRPC and over REST.

A codec makes messages, and reads what came back; how they travel is for others
(`slotcon_client.wires`). `slotcon_client.codec_grpc` and `codec_rest` are the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from slotcon_client.answers import Outputs


class Garbled(ValueError):
    """An answer that cannot be read at all.

    Example:
        >>> Grpc("slotcon").predicted(b"\\xff", {})
        Traceback (most recent call last):
        slotcon_client.codecs.Garbled: Error parsing message ...
    """


class Message(NamedTuple):
    """What is sent.

    Attributes:
        path: Of the call.
        body: None where there is none.

    Example:
        >>> Message("/v1/models/slotcon").body is None
        True
    """

    path: str
    body: bytes | None = None


class Place(NamedTuple):
    """Which version is meant: a number, a label, or the newest.

    Example:
        >>> Place(label="stable").number is None
        True
    """

    number: int | None = None
    label: str = ""


class Metadata(NamedTuple):
    """A version, and its signatures: the names of its inputs, and its outputs.

    Example:
        >>> Metadata("slotcon", 1, {}).version
        1
    """

    model: str
    version: int | None
    signatures: Mapping[str, tuple[Sequence[str], Outputs]]


class Answer(NamedTuple):
    """Outputs, and whose they are, where that is told.

    Example:
        >>> Answer({}).version is None
        True
    """

    outputs: dict[str, np.ndarray]
    model: str = ""
    version: int | None = None
    signature: str = ""


class Codec(Protocol):
    """What `Grpc` and `Rest` have in common.

    Args:
        model: Name of the model.
        max_bytes: Largest array.

    Example:
        >>> from slotcon_client.codec_rest import Rest
        >>> codec: Codec = Rest("slotcon")
    """

    def metadata(self, place: Place) -> Message:
        """Asks for the signatures."""
        ...

    def told(self, answer: bytes) -> Metadata:
        """Reads them; raises Garbled."""
        ...

    def predict(
        self, number: int, signature: str, content: Sequence[bytes], names: list[str]
    ) -> Message:
        """Asks for outputs of files."""
        ...

    def predicted(self, answer: bytes, outputs: Outputs) -> Answer:
        """Reads them; raises Garbled."""
        ...

    def status(self) -> Message:
        """Asks for the states of all versions."""
        ...

    def states(self, answer: bytes) -> dict[int, str]:
        """Reads them; raises Garbled."""
        ...

    def health(self) -> Message:
        """Asks whether the server is well."""
        ...

    def well(self, answer: bytes) -> bool:
        """Reads that; raises Garbled."""
        ...


def read_output(name: str, read: Callable[..., np.ndarray], *what: Any) -> np.ndarray:
    """An output of an answer.

    Raises:
        Garbled: If it cannot be read; it names the output.

    Example:
        >>> read_output("pooled", lambda: np.ones(1))
        array([1.])
    """
    try:
        return read(*what)
    except ValueError as error:
        raise Garbled(f"{name}: {error}") from None
