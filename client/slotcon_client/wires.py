"""How messages travel: gRPC, and REST (`slotcon_client.wire_rest`)."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from slotcon_client.codecs import Message
from slotcon_client.security import Security


class Failed(Exception):
    """No answer, and why.

    Args:
        code: A name of gRPC's codes.
        text: What was said.

    Example:
        >>> Failed("UNAVAILABLE", "nobody there").code
        'UNAVAILABLE'
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Wire(Protocol):
    """Sends a message, and gives the answer's bytes.

    Example:
        >>> wire: Wire = GrpcWire("localhost:8500", Security(), 2**20)
        >>> wire.close()
    """

    def send(self, message: Message, seconds: float) -> bytes:
        """Raises Failed; the whole answer is there within so many seconds."""
        ...

    def close(self) -> None:
        """Ends what is under way."""
        ...


class GrpcWire:
    """A channel.

    Args:
        server: "host:port", or another target of gRPC.
        security: TLS and token.
        max_bytes: Largest answer.

    Example:
        >>> wire = GrpcWire("localhost:1", Security(), 2**20)
        >>> wire.send(Message("/a/B", b""), 0.1)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_client.wires.Failed: ...
        >>> wire.close()
    """

    def __init__(self, server: str, security: Security, max_bytes: int) -> None:
        import grpc

        self._error: Any = grpc.RpcError
        self._metadata = tuple(security.headers.items())
        credentials, options = security.for_grpc(), _options(max_bytes)
        self._channel: Any = (
            grpc.secure_channel(server, credentials, options)
            if credentials
            else grpc.insecure_channel(server, options)
        )

    def send(self, message: Message, seconds: float) -> bytes:
        """See `Wire.send`."""
        try:
            call = self._channel.unary_unary(message.path)
            return call(message.body, timeout=seconds, metadata=self._metadata)
        except self._error as error:
            raise _failed(error) from None
        except ValueError as error:  # of a channel that is closed
            raise Failed("CANCELLED", str(error)) from None

    def close(self) -> None:
        """See `Wire.close`."""
        self._channel.close()


class AsyncGrpcWire:
    """A channel of asyncio's, made in the loop that first sends.

    Args:
        server, security, max_bytes: As of `GrpcWire`.

    Example:
        >>> wire = AsyncGrpcWire("localhost:1", Security(), 2**20)
        >>> asyncio.run(wire.close())
    """

    def __init__(self, server: str, security: Security, max_bytes: int) -> None:
        self._server = server
        self._metadata = tuple(security.headers.items())
        self._credentials, self._options = security.for_grpc(), _options(max_bytes)
        self._channel: Any = None
        self._closed = False

    async def send(self, message: Message, seconds: float) -> bytes:
        """As `Wire.send`."""
        import grpc

        if self._closed:
            raise _of_closed()
        if self._channel is None:
            self._channel = (
                grpc.aio.secure_channel(self._server, self._credentials, self._options)
                if self._credentials
                else grpc.aio.insecure_channel(self._server, self._options)
            )
        try:
            call = self._channel.unary_unary(message.path)
            return await call(message.body, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failed(error) from None
        except (ValueError, grpc.aio.UsageError) as error:
            raise Failed("CANCELLED", str(error)) from None
        except asyncio.CancelledError:
            if self._closed and not _is_cancelled():
                raise _of_closed() from None
            raise

    async def close(self) -> None:
        """As `Wire.close`."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()


class InThreads:
    """A wire for asyncio, each of whose messages has a thread.

    Args:
        wire: `Wire`.
        threads: Messages at once.

    Example:
        >>> wire = InThreads(GrpcWire("localhost:1", Security(), 2**20))
        >>> asyncio.run(wire.close())
    """

    def __init__(self, wire: Wire, threads: int = 32) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._wire = wire
        self._pool = ThreadPoolExecutor(threads, "slotcon_client")
        self._closed = False

    async def send(self, message: Message, seconds: float) -> bytes:
        """As `Wire.send`."""
        if self._closed:
            raise _of_closed()
        loop = asyncio.get_running_loop()
        try:
            given = (self._wire.send, message, seconds)
            return await loop.run_in_executor(self._pool, *given)
        except asyncio.CancelledError:
            if self._closed and not _is_cancelled():  # it waited for a thread
                raise _of_closed() from None
            raise

    async def close(self) -> None:
        """As `Wire.close`."""
        self._closed = True
        self._wire.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _of_closed() -> Failed:
    return Failed("CANCELLED", "the client is closed")


def _is_cancelled() -> bool:
    """Whether this task itself was, rather than what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _options(max_bytes: int) -> list[tuple[str, int]]:
    # Reconnects soon: the retries have pauses of their own.
    return [
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]


def _failed(error: Any) -> Failed:
    code, text = error.code().name, error.details() or ""
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSL_ERROR" in text:
        return Failed("UNAUTHENTICATED", text)
    return Failed(code, text)
