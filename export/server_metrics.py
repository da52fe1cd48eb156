"""What Prometheus is told of a local server: TF Serving's names where it has them."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import prometheus_client
from prometheus_client.core import GaugeMetricFamily, Metric

from .server_versions import Versions

_REQUESTS = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"
_BUCKETS = [10 * 1.8**step for step in range(33)]  # microseconds, as TF Serving's


class Metrics:
    """Counts of calls by their code, latencies, calls under way, versions.

    Args:
        versions: What is served.

    Example:
        >>> import tempfile
        >>> metrics = Metrics(Versions(tempfile.mkdtemp(), "slotcon"))
        >>> with metrics.call("Predict", "GRPC") as done:
        ...     done("INVALID_ARGUMENT")
        >>> 'status="INVALID_ARGUMENT"} 1.0' in metrics.page().decode()
        True
    """

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self.in_flight = 0
        self._lock = threading.Lock()
        self._counts = collections.Counter()
        self._registry = prometheus_client.CollectorRegistry()
        self._latency = prometheus_client.Histogram(
            _LATENCY,
            "Microseconds of a request.",
            ["model_name", "API", "entrypoint"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(self)
        prometheus_client.ProcessCollector(registry=self._registry)

    @contextlib.contextmanager
    def call(self, api: str, entrypoint: str) -> Iterator[Callable[[str], None]]:
        """Context of a call; yields a function that takes the code of a refusal.

        Args:
            api: Name of the call.
            entrypoint: "GRPC" or "REST".
        """
        codes = []
        start = time.perf_counter()
        with self._lock:
            self.in_flight += 1
        try:
            yield codes.append
        finally:
            latency = self._latency.labels(self.versions.name, api, entrypoint)
            latency.observe(1e6 * (time.perf_counter() - start))
            with self._lock:
                self.in_flight -= 1
                self._counts[codes[-1] if codes else "OK"] += 1

    def collect(self) -> Iterator[Metric]:
        """What is not counted by the library; it asks for it."""
        name = self.versions.name
        # The library would call a counter `..._total`, which TF Serving does not.
        count = Metric(_REQUESTS, "Requests, by the code of the answer.", "unknown")
        with self._lock:
            for code, value in self._counts.items():
                labels = {"model_name": name, "status": code}
                count.add_sample(_REQUESTS, labels, value)
            in_flight = self.in_flight
        yield count
        flying = GaugeMetricFamily(
            "slotcon_requests_in_flight",
            "Requests that are being answered.",
            labels=["model_name"],
        )
        flying.add_metric([name], in_flight)
        yield flying
        loaded = GaugeMetricFamily(
            "slotcon_version_loaded",
            "1 for each version that is served.",
            labels=["model_name", "version"],
        )
        for number in self.versions.numbers():
            loaded.add_metric([name, str(number)], 1)
        yield loaded

    def page(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return prometheus_client.generate_latest(self._registry)
