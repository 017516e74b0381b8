"""The pages of the metrics server: the paths, headers and bodies of upstream's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from kproxy.run.http.message import (
    JSON,
    NO_SNIFFING,
    PLAIN_TEXT,
    Request,
    Response,
    Router,
    text_answer,
    to_json,
)
from kproxy.run.http.zpages import About, flagz, statusz

_NS = 1_000_000_000
_RECENT_NS = _NS // 2
_CONFIGURATION = "kubeproxy.config.k8s.io"
_INDICATORS_TYPE = f"{CONTENT_TYPE_PLAIN_0_0_4}; escaping=underscores"


@dataclass(frozen=True, slots=True)
class Pages:
    """What there is to show. The functions are asked at each request, but for `metrics`.

    - `mode`: the data path by its configuration name.
    - `metrics` returns content type and text; it is asked at most twice a second, as a page of
      10,000 Services takes some 10 ms and anybody may ask for it.
    - `configuration` returns the configuration in force as a KubeProxyConfiguration object.
    - `flags` returns each flag of the command line with its value.
    """

    mode: str
    metrics: Callable[[], tuple[str, bytes]]
    configuration: Callable[[], Mapping[str, object]]
    flags: Callable[[], Mapping[str, str]]
    about: About


def metrics_mux(pages: Pages) -> Router:
    """Return what the metrics server serves; there is no profiling, so /debug/ does not exist."""
    slis = _Slis(pages.about)
    started = ("Process-Start-Time-Unix", str(pages.about.started_ns // _NS))

    recent = _Recent(pages.metrics, pages.about.wall_ns)

    def metrics(request: Request) -> Response:
        content_type, text = recent()
        return Response(200, (("Content-Type", content_type), started), text)

    def configuration(request: Request) -> Response:
        body = to_json({_CONFIGURATION: pages.configuration()})
        return Response(200, (JSON, NO_SNIFFING), body)

    def slis_page(request: Request) -> Response:
        return Response(200, (("Content-Type", _INDICATORS_TYPE), started), slis.text())

    served = {
        "/healthz": slis.healthz,
        "/healthz/ping": lambda request: Response(200, (PLAIN_TEXT,), b"ok"),
        "/metrics/slis": slis_page,
        "/proxyMode": lambda request: text_answer(pages.mode),
        "/metrics": metrics,
        "/configz": configuration,
        "/flagz": flagz(pages.flags),
    }
    return Router({**served, "/statusz": statusz(pages.about, served)})


class _Recent:
    """Returns what a function returned a moment ago, or else asks it anew."""

    def __init__(
        self, function: Callable[[], tuple[str, bytes]], wall_ns: Callable[[], int]
    ) -> None:
        self._function = function
        self._wall_ns = wall_ns
        self._asked_ns = -_RECENT_NS
        self._returned = ("", b"")

    def __call__(self) -> tuple[str, bytes]:
        now_ns = self._wall_ns()
        if not 0 <= now_ns - self._asked_ns < _RECENT_NS:  # also if the clock was turned back
            self._returned = self._function()
            self._asked_ns = now_ns
        return self._returned


class _Slis(Collector):
    """Whether this server answers at all, and how often it was asked (component SLIs)."""

    def __init__(self, about: About) -> None:
        self._started_s = about.started_ns / _NS
        self._checks = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def healthz(self, request: Request) -> Response:
        """Say that the server answers."""
        self._checks += 1
        verbose = request.asks_for("verbose")
        return text_answer("[+]ping ok\nhealthz check passed\n" if verbose else "ok")

    def text(self) -> bytes:
        """Return the metrics in text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; what was never checked has none."""
        result = GaugeMetricFamily(
            "kubernetes_healthcheck",
            "[STABLE] What the last health check found, 1 for good.",
            labels=("name", "type"),
        )
        total = CounterMetricFamily(
            "kubernetes_healthchecks",
            "[STABLE] Health checks by what they found.",
            labels=("name", "type", "status"),
        )
        if self._checks:
            result.add_metric(("ping", "healthz"), 1)
            total.add_metric(("ping", "healthz", "success"), self._checks)
            yield result
            yield total
        yield GaugeMetricFamily(
            "process_start_time_seconds",
            "[ALPHA] When this process started, in seconds since the epoch.",
            value=self._started_s,
        )
