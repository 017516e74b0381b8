"""Requests to the API server, under client-go's names (component-base's restclient metrics)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from kproxy.run.metrics.buckets import REQUEST

FAILED = "<error>"
"""The status code of a request that got no answer."""


class RequestMetrics:
    """Counts requests. May be told of them in any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "rest_client_requests_total",
            "Requests to the API server by status code, method and host.",
            ("code", "method", "host"),
            registry=registry,
        )
        self._duration = Histogram(
            "rest_client_request_duration_seconds",
            "How long requests to the API server took that have an end.",
            ("verb", "host"),
            registry=registry,
            buckets=REQUEST,
        )

    def request(self, verb: str, code: int | str, host: str, seconds: float | None) -> None:
        """Note a request; `code` is FAILED without an answer, `seconds` None for a stream."""
        self._requests.labels(str(code), verb, host).inc()
        if seconds is not None:
            self._duration.labels(verb, host).observe(seconds)
