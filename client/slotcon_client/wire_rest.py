"""How messages travel over HTTP: each within its time, none larger than is allowed."""

from __future__ import annotations

import collections
import contextlib
import http.client
import io
import json
import socket
import ssl
import threading
import time
from typing import Any

from slotcon_client.codecs import Message
from slotcon_client.errors import ExtractionError
from slotcon_client.security import Security
from slotcon_client.wires import Failed

_PIECE = 2**16  # bytes read or sent at once
_TOLD = 1000  # bytes of an error that are read
_OK = 200
_READS_NO_FURTHER = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)
# TF Serving's statuses, and those of what stands before it.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    412: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    429: "UNAVAILABLE",  # too many requests
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RestWire:
    """HTTP/1.1, over connections that are kept.

    Args:
        server: "host:port"; without a port, 443 with TLS, else 80.
        security: TLS and token.
        max_bytes: Largest answer.

    Raises:
        ExtractionError: If `server` is no host and port.

    Example:
        >>> wire = RestWire("127.0.0.1:1", Security(), 2**20)
        >>> wire.send(Message("/v1/models/slotcon"), 1.0)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_client.wires.Failed: UNAVAILABLE: ...
        >>> wire.close()
    """

    def __init__(self, server: str, security: Security, max_bytes: int) -> None:
        try:
            http.client.HTTPConnection(server)
        except http.client.InvalidURL as error:
            raise ExtractionError(
                f"`server` must be host:port. Received: {server!r}, {error}."
            ) from None
        self._server = server
        self._context = security.for_rest()
        self._headers = {"Content-Type": "application/json", **security.headers}
        self._max_bytes = max_bytes
        self._idle: collections.deque[_Connection] = collections.deque()
        self._busy: set[_Connection] = set()
        self._lock = threading.Lock()
        self._closed = False

    def send(self, message: Message, seconds: float) -> bytes:
        """See `Wire.send`."""
        end = time.monotonic() + seconds
        with contextlib.suppress(IndexError):
            try:
                return self._sent(self._idle.pop(), message, end)
            except (ConnectionError, http.client.BadStatusLine):
                pass  # closed by the other side while it was idle
            except Exception as error:
                raise self._failed(error, seconds) from None
        try:
            new = _Connection(self._server, self._context)
            return self._sent(new, message, end)
        except Exception as error:
            raise self._failed(error, seconds) from None

    def _sent(self, connection: _Connection, message: Message, end: float) -> bytes:
        with self._lock:
            if self._closed:
                raise Failed("CANCELLED", "the client is closed")
            self._busy.add(connection)
        kept = False
        try:
            connection.end = end
            verb = "GET" if message.body is None else "POST"
            connection.request(verb, message.path, message.body, self._headers)
            response = connection.getresponse()
            if response.status != _OK:
                code = _CODES.get(response.status, "UNKNOWN")
                raise Failed(code, f"{response.status} {_told(response)}")
            body = self._read(response)
            kept = not response.will_close
            return body
        finally:
            with self._lock:
                self._busy.discard(connection)
                kept = kept and not self._closed
            if kept:
                self._idle.append(connection)
            else:
                connection.end_now()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        pieces, size = [], 0
        while piece := response.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > self._max_bytes:
                limit = f"an answer of more than {self._max_bytes} bytes"
                raise Failed("RESOURCE_EXHAUSTED", limit)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(pieces)

    def _failed(self, error: Exception, seconds: float) -> Failed:
        if isinstance(error, Failed):
            return error
        if self._closed:
            return Failed("CANCELLED", "the client is closed")
        if isinstance(error, TimeoutError):
            return Failed("DEADLINE_EXCEEDED", f"no whole answer in {seconds:g} s")
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return Failed("UNAUTHENTICATED", f"TLS: {error.reason or error}")
        if isinstance(error, OSError | http.client.HTTPException):
            return Failed("UNAVAILABLE", str(error) or type(error).__name__)
        raise error

    def close(self) -> None:
        """See `Wire.close`."""
        with self._lock:
            self._closed = True
            open_ = [*self._busy, *self._idle]
        for connection in open_:
            connection.end_now()


def _told(response: http.client.HTTPResponse) -> str:
    """What an error says of itself."""
    text = response.read(_TOLD).decode(errors="replace")
    with contextlib.suppress(ValueError, LookupError, TypeError):
        text = str(json.loads(text)["error"])
    return text or response.reason


class _Connection(http.client.HTTPConnection):
    """One all of whose waiting ends at `end`, a time of time.monotonic."""

    end = 0.0

    def __init__(self, server: str, context: ssl.SSLContext | None) -> None:
        # Before it takes the server apart: that of https, if no port is said.
        self.default_port = 443 if context else 80
        super().__init__(server)
        self._context = context
        self._plain: Any = None

    def left(self) -> float:
        """Seconds; raises TimeoutError where there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def connect(self) -> None:
        try:
            plain = socket.create_connection((self.host, self.port), self.left())
        except TimeoutError:
            raise ConnectionError("no connection in time") from None
        self._plain = plain
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context:
            plain.settimeout(self.left())
            self._plain = self._context.wrap_socket(plain, server_hostname=self.host)
        self.sock: Any = self

    # What http.client asks of a socket.

    def sendall(self, data: Any) -> None:
        view = memoryview(data)
        # Whoever does not read on may have said why: the answer is read then.
        with contextlib.suppress(*_READS_NO_FURTHER):
            while view:
                self._plain.settimeout(self.left())
                view = view[self._plain.send(view[:_PIECE]) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode
        return io.BufferedReader(_Reader(self), _PIECE)

    def recv_into(self, buffer: Any) -> int:
        self._plain.settimeout(self.left())
        return self._plain.recv_into(buffer)

    def close(self) -> None:
        """Nothing: the answer may not have been read yet; see `end_now`."""

    def end_now(self) -> None:
        if self._plain is not None:
            with contextlib.suppress(OSError):
                self._plain.shutdown(socket.SHUT_RDWR)
            self._plain.close()


class _Reader(io.RawIOBase):
    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.recv_into(buffer)
