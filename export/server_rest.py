"""REST of the local server: TF Serving's calls, health and metrics.

| path | answer |
| --- | --- |
| `POST /v1/models/NAME[/versions/N or /labels/L]:predict` | outputs |
| `POST ...:classify`, `...:regress` | why not: no model here has their signatures |
| `GET /v1/models/NAME[/versions/N or /labels/L]` | states of the versions |
| `GET .../metadata` | signatures |
| `GET /monitoring/prometheus/metrics` | metrics |
| `GET /healthz`, `/readyz` | 200 if a version is served, else 503 |
| `GET /livez` | 200 |
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Coroutine
from typing import Any

import prometheus_client
from absl import logging
from aiohttp import web

from .server_answers import Answers
from .server_errors import Refused, invalid, refusal
from .server_metrics import Metrics
from .server_rest_calls import Call
from .server_tensors import Limits
from .server_tls import Certificates
from .server_versions import Versions

METRICS_PATH = "/monitoring/prometheus/metrics"
_ALIVE, _READY = "/livez", ("/healthz", "/readyz")
_TOO_SLOW = 408  # HTTP's status
_END_SECONDS = 0.5  # for the end itself, after that of the last request


class RestServer:
    """A started server, in a thread of its own; requests are computed in others.

    Args:
        answers: The calls.
        metrics: Where they are counted.
        pool: Threads that answer.
        host: Address to listen on.
        port: 0 for a free one.
        certificates: For TLS; None without.
        client_seconds: How long a client may take to send a request, and to take its
            answer: whoever sends a byte a minute is not waited for.
        answer_seconds: After which a request is given up; None for never.
        grace_seconds: For requests under way when it is stopped.

    Attributes:
        server_port: On which it listens.

    Raises:
        OSError: If the port is taken.

    Example:
        >>> import tempfile, urllib.request
        >>> versions = Versions(tempfile.mkdtemp(), "slotcon")
        >>> options = {"host": "127.0.0.1", "max_message_mb": 1}
        >>> server = start_rest(versions, port=0, **options)
        >>> url = f"http://127.0.0.1:{server.server_port}/livez"
        >>> urllib.request.urlopen(url).read()
        b'alive\\n'
        >>> server.stop()
    """

    def __init__(
        self,
        answers: Answers,
        metrics: Metrics,
        pool: concurrent.futures.Executor,
        host: str,
        port: int,
        *,
        certificates: Certificates | None = None,
        client_seconds: float = 60.0,
        answer_seconds: float | None = None,
        grace_seconds: float = 20.0,
    ) -> None:
        self._answers, self._metrics, self._pool = answers, metrics, pool
        self._client_seconds = client_seconds
        self._answer_seconds = answer_seconds
        self._grace_seconds = grace_seconds
        self._limit = answers.limits.max_bytes
        self._ends = False
        self._loop = asyncio.new_event_loop()
        # It ends with the process, whatever it does.
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        try:
            self._wait(self._listen(host, port, certificates))
        except OSError as error:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise OSError(
                f"`rest_port` must be free on {host}. Received: rest_port={port}: "
                f"{error.strerror}. Take another one, or 0 for no REST."
            ) from None

    def _wait(self, call: Coroutine, seconds: float | None = None) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(seconds)

    async def _listen(
        self, host: str, port: int, certificates: Certificates | None
    ) -> None:
        server = web.Server(
            self._handle, access_log=None, keepalive_timeout=self._client_seconds
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=self._grace_seconds)
        await self._runner.setup()
        context = certificates.context() if certificates else None
        site = web.TCPSite(self._runner, host, port, ssl_context=context)
        await site.start()
        self.server_port = self._runner.addresses[0][1]

    def stop(self) -> None:
        """Takes no more requests, and waits for those under way, for a while."""
        self._ends = True
        try:
            self._wait(self._end(), self._grace_seconds + _END_SECONDS)
        except TimeoutError:
            logging.warning("REST: a client does not let go of its connection.")
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end(self) -> None:
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if request.method in ("GET", "HEAD") and not path.startswith("/v1/"):
            response = self._own_page(path)
        else:
            response = await self._model_page(request, path)
        try:
            async with asyncio.timeout(self._client_seconds):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:  # who does not read
            if request.transport:
                request.transport.abort()
        return response

    def _own_page(self, path: str) -> web.Response:
        if path == METRICS_PATH:
            kind = prometheus_client.CONTENT_TYPE_LATEST
            page = self._metrics.page()
            return web.Response(body=page, headers={"Content-Type": kind})
        if path == _ALIVE:
            return web.Response(text="alive\n")
        if path in _READY:
            serves = self._answers.versions.numbers() and not self._ends
            text = "SERVING\n" if serves else "NOT_SERVING\n"
            return web.Response(text=text, status=200 if serves else 503)
        return _refused(Refused("NOT_FOUND", f"Malformed request: GET {path}"))

    async def _model_page(self, request: web.BaseRequest, path: str) -> web.Response:
        try:
            call = Call(request.method, path)
            body = await self._body(request) if request.method == "POST" else b""
        except Refused as error:
            response = _refused(error)
        except TimeoutError:
            seconds = f"{self._client_seconds:g}"
            slow = Refused("", f"A request must come within {seconds} seconds.")
            response = _refused(slow, _TOO_SLOW)
        else:
            return await self._loop.run_in_executor(
                self._pool, self._answered, call, body
            )
        response.force_close()  # what is left of the body is no other request
        return response

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Of a request, as long as it may be, in the time that a client has."""
        size, body = request.content_length or 0, bytearray()
        async with asyncio.timeout(self._client_seconds):
            while max(size, len(body)) <= self._limit:
                piece = await request.content.readany()
                if not piece:
                    return bytes(body)
                body += piece
        raise invalid(
            f"A body must have at most {self._limit} bytes. Received: "
            f"{max(size, len(body))} or more."
        )

    def _answered(self, call: Call, body: bytes) -> web.Response:
        with self._metrics.call(call.name, "REST") as done:
            try:
                answer = call.answer(self._answers, body, self._answer_seconds)
                return web.Response(body=answer, content_type="application/json")
            except Exception as error:
                refused = refusal(error, call.name)
                done(refused.code)
                return _refused(refused)


def _refused(error: Refused, status: int | None = None) -> web.Response:
    return web.Response(
        text=json.dumps({"error": str(error)}),
        status=status or error.http_status,
        content_type="application/json",
    )


def start_rest(
    versions: Versions, *, host: str, port: int, max_message_mb: int
) -> RestServer:
    """A `RestServer` with threads and metrics of its own.

    Args:
        versions: What is served.
        host: Address to listen on.
        port: 0 for a free one; `server_port` of the result has it.
        max_message_mb: Largest request.

    Raises:
        OSError: If the port is taken.

    Example:
        >>> import tempfile
        >>> versions = Versions(tempfile.mkdtemp(), "slotcon")
        >>> options = {"host": "127.0.0.1", "max_message_mb": 1}
        >>> start_rest(versions, port=0, **options).stop()
    """
    answers = Answers(versions, Limits(max_message_mb * 2**20))
    pool = concurrent.futures.ThreadPoolExecutor(8)
    return RestServer(answers, Metrics(versions), pool, host, port)
