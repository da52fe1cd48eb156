"""A local model server for development and tests.

    python -m export.server --export_dir=served/slotcon --rest_port=8501

Answers TF Serving's calls on the SavedModels of a folder, over gRPC and REST, in a
session as TF Serving does, and loads a new version while it serves. Beside them:
grpc.health.v1, /healthz, Prometheus's metrics, TLS. Production runs TF Serving itself:
it batches requests, and is written in C++.

Differs from TF Serving: it listens before there is a version, says NOT_FOUND, and is
not SERVING; numbers are answered as bytes (`tensor_content`), which tf.make_ndarray
reads as well; shapes are checked against the signature; what a request may ask for is
bounded before it is read (--max_message_mb, --max_batch); whole numbers in JSON that
their dtype has no place for are refused, not cut; labels are set on the command line
only, may name a version that is not there yet, and keep theirs loaded; a damaged
version is not tried again before its files change, and the newest sound one is served,
also after a start; Classify, Regress and MultiInference are answered of no model;
requests are not batched.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from absl import logging

from slotcon_tf.extras import needed
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.export_config import EXPORT_DIR
from slotcon_tf.runs.settings import Config, SettingError, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig(Config):
    """What is served, and where.

    Example:
        >>> ServerConfig(export_dir="served/slotcon").port
        8500
    """

    export_dir: str = setting(None, EXPORT_DIR, aliases=("model_dir",))
    model_name: str = setting("slotcon", "As served.")
    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8500, "Port; 0: a free one.", low=0, high=65535)
    rest_port: int = setting(
        0, "Port of REST, health and metrics; 0: none.", low=0, high=65535
    )
    tls_certificate: str | None = setting(
        None, "PEM file of the server's certificate, for TLS on both ports."
    )
    tls_key: str | None = setting(None, "PEM file of its private key.")
    client_ca: str | None = setting(
        None, "PEM file of who signs clients' certificates, which are then asked for."
    )
    threads: int = setting(8, "Requests at once.", low=1)
    max_message_mb: int = setting(64, "Largest message.", low=1)
    max_batch: int = setting(1024, "Most rows of a request.", low=1)
    answer_seconds: float = setting(
        300.0, "After which a REST request is given up.", low=0.001
    )
    client_seconds: float = setting(
        60.0, "In which a REST client must send, and take its answer.", low=0.1
    )
    grace_seconds: float = setting(
        20.0, "For requests under way when it is stopped.", low=0.0
    )
    poll_seconds: float = setting(1.0, "Between looks at the folder.", low=0.01)
    keep_versions: int = setting(1, "Newest versions to serve.", low=1)
    warmup: bool = setting(True, "Versions answer their warm-up requests first.")
    version_labels: tuple[str, ...] = setting((), "Such as stable:1,canary:2.")


def serve(config: ServerConfig) -> None:
    """Serves until SIGTERM or SIGINT, and is down `grace_seconds` later.

    Args:
        config: What is served, and where.

    Raises:
        MissingExtra: Without the `serving` extra.
        SettingError: If labels cannot be read, or half of TLS is named.
        OSError: If there is no folder, a certificate is none, or a port is taken.

    Example:
        >>> serve(ServerConfig(export_dir="none"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: `export_dir` must be a folder, of versions that ...
    """
    labels = _labels(config.version_labels)
    with needed("serving"):
        from . import server_rest, server_services  # noqa: F401  what it will need
        from .server_versions import Versions
    if not os.path.isdir(config.export_dir):
        raise FileNotFoundError(
            "`export_dir` must be a folder, of versions that slotcon-export wrote. "
            f"Received: export_dir={config.export_dir}, which is none. Check the path."
        )
    certificates = _certificates(config)
    # Before the line that says it serves: who reads that may end it at once.
    end = _End(config.grace_seconds)
    versions = Versions(
        config.export_dir,
        config.model_name,
        labels,
        config.keep_versions,
        config.warmup,
    )
    looks = _Looks(versions, config.poll_seconds, end.asked)
    try:
        _serve(config, versions, certificates, looks, end)
    finally:
        end.asked.set()


def _serve(
    config: ServerConfig, versions: Any, certificates: Any, looks: _Looks, end: _End
) -> None:
    from .server_answers import Answers
    from .server_metrics import Metrics
    from .server_rest import RestServer
    from .server_services import GrpcServer
    from .server_tensors import Limits

    looks.first.wait()
    answers = Answers(versions, Limits(config.max_message_mb * 2**20, config.max_batch))
    metrics = Metrics(versions)
    pool = concurrent.futures.ThreadPoolExecutor(config.threads)
    address = f"{config.host}:{config.port}"
    rpc = GrpcServer(answers, metrics, pool, address, certificates)
    looks.after.append(rpc.tell_health)
    rest = None
    if config.rest_port:
        rest = RestServer(
            answers,
            metrics,
            pool,
            config.host,
            config.rest_port,
            certificates=certificates,
            client_seconds=config.client_seconds,
            answer_seconds=config.answer_seconds,
            grace_seconds=end.patience,
        )
    if not versions.numbers():
        logging.warning("No version in %s yet; it is looked for.", config.export_dir)
    print(
        f"Serving {config.model_name} version(s) {versions.numbers()} on "
        f"{config.host}:{rpc.port}",
        flush=True,
    )
    end.asked.wait()
    closing = threading.Thread(target=rest.stop if rest else lambda: None)
    closing.daemon = True
    closing.start()
    rpc.stop(end.patience)
    closing.join()
    if metrics.in_flight:
        logging.warning("%d requests are given up.", metrics.in_flight)
    end.done(busy=bool(metrics.in_flight) or looks.busy)


class _Looks:
    """Looks for versions, in a thread: signals are heard while a large one is read."""

    def __init__(self, versions: Any, seconds: float, stopped: threading.Event) -> None:
        self.first, self.busy, self.after = threading.Event(), True, []
        self._versions, self._seconds, self._stopped = versions, seconds, stopped
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self.first.is_set() or not self._stopped.is_set():
            self.busy = True
            try:
                self._versions.poll()
                for tell in list(self.after):
                    tell()
            except Exception:
                logging.exception("Versions cannot be looked for")
            self.busy = False
            self.first.set()
            self._stopped.wait(self._seconds)


class _End:
    """The end of the process, which comes whatever runs.

    A thread that computes cannot be stopped, and an interpreter that ends waits for it.
    """

    def __init__(self, grace: float) -> None:
        self.asked = threading.Event()
        self.patience = max(grace - 1.0, grace / 2)  # what is left ends the rest
        self._timer = threading.Timer(grace, self._now)
        self._timer.daemon = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _: Any) -> None:
        if self.asked.is_set():  # who asks twice does not want to wait
            os._exit(128 + number)
        self._timer.start()
        self.asked.set()

    def _now(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)

    def done(self, busy: bool) -> None:
        """Ends the process at once if a thread of it cannot end."""
        if busy:
            self._now()
        self._timer.cancel()


def _certificates(config: ServerConfig) -> Any:
    certificate, key = config.tls_certificate, config.tls_key
    if not (certificate or key or config.client_ca):
        return None
    if not certificate or not key:
        raise SettingError(
            "`tls_certificate` and `tls_key` must be named both. Received: "
            f"tls_certificate={certificate}, tls_key={key}."
        )
    from .server_tls import Certificates

    return Certificates(certificate, key, config.client_ca or "")


def _labels(words: Sequence[str]) -> dict[str, int]:
    pairs = [word.partition(":") for word in words]
    if not all(name and number.isdecimal() for name, _, number in pairs):
        raise SettingError(
            "`version_labels` must be such as stable:1,canary:2. "
            f"Received: version_labels={','.join(words)}."
        )
    return {name: int(number) for name, _, number in pairs}


main = Command("server", ServerConfig, serve, __doc__)

if __name__ == "__main__":
    main()
