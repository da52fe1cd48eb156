"""`AsyncFeatureClient` is `FeatureClient` for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from slotcon_client.answers import Served
from slotcon_client.asking import Asking
from slotcon_client.client import CLOSED, FeatureClient
from slotcon_client.errors import ExtractionError
from slotcon_client.retrying import Send, Steps, T
from slotcon_client.wires import AsyncGrpcWire, Failed, InThreads


class AsyncFeatureClient:
    """`FeatureClient`, whose methods are awaited: many requests in one thread.

    Args:
        server: As of `FeatureClient`.
        **options: As of `FeatureClient`, with the same meaning and defaults.

    Raises:
        ExtractionError: As `FeatureClient`.

    Example:
        >>> async def main():
        ...     async with AsyncFeatureClient("localhost:8500") as client:
        ...         return client.outputs  # await client.predict([photo_as_jpeg])
        >>> asyncio.run(main())
        ('pooled',)
    """

    def __init__(self, server: str, **options: Any) -> None:
        self._own = _Own(server, **options)
        self.outputs = self._own.outputs
        self._lock = asyncio.Lock()
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends what is under way; whoever awaits it gets an ExtractionError."""
        self._closed.set()
        await self._own.wire.close()

    async def served(self) -> Served:
        """`FeatureClient.served`, which is asked for once."""
        return (await self._pinned())[1]

    async def _pinned(self) -> tuple[Asking, Served]:
        async with self._lock:
            asking = self._own.asking
            return asking, asking.served or await self._done(asking.pin())

    async def check(self) -> None:
        """`FeatureClient.check`."""
        await self.served()

    async def renew(self) -> None:
        """`FeatureClient.renew`."""
        self._own.renew()

    async def predict(self, content: Sequence[bytes]) -> dict[str, np.ndarray]:
        """`FeatureClient.predict`; files are converted, and answers read, in a thread."""
        asking, _ = await self._pinned()
        return await self._done(asking.predict(content))

    async def status(self) -> dict[int, str]:
        """`FeatureClient.status`."""
        return await self._done(self._own.asking.states())

    async def is_well(self) -> bool:
        """`FeatureClient.is_well`."""
        return await self._done(self._own.asking.well())

    async def _done(self, steps: Steps[T]) -> T:
        answer, error = None, None
        while True:
            step = await asyncio.to_thread(_advanced, steps, answer, error)
            if isinstance(step, _Ended):
                return step.value
            answer, error = None, None
            if not isinstance(step, Send):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), step.seconds)
                if self._closed.is_set():
                    raise ExtractionError(CLOSED)
                continue
            try:
                answer = await self._own.wire.send(step.message, step.seconds)
            except Failed as failed:
                error = failed


class _Ended(NamedTuple):
    value: Any


def _advanced(steps: Steps[T], answer: Any, error: Failed | None) -> Any:
    """The next step, whose making may take its time, or what came of all."""
    try:
        return steps.throw(error) if error else steps.send(answer)
    except StopIteration as end:
        return _Ended(end.value)


class _Own(FeatureClient):
    """A client's settings and steps, and a wire that is awaited."""

    @property
    def asking(self) -> Any:
        return self._asking

    @property
    def wire(self) -> Any:
        return self._wire

    def _make_wire(self) -> Any:
        if self.transport == "grpc":
            return AsyncGrpcWire(self.server, self._security, self._max_bytes)
        return InThreads(super()._make_wire())
