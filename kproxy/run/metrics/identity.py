"""Who is talking: versions, mode and feature gates."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric

from kproxy import __version__

UPSTREAM_VERSION = "1.37.1"
"""The kube-proxy whose answers to configuration, metrics and probes are ours too."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "s390x": "s390x", "ppc64le": "ppc64le"}


class GateState(NamedTuple):
    """A feature gate: ALPHA, BETA, DEPRECATED or empty for one that is settled, and its value."""

    stage: str
    enabled: bool


class IdentityCollector:
    """Tells what never changes while the process lives."""

    def __init__(self, mode: str, features: Mapping[str, GateState]) -> None:
        self._metrics = (_build(), _own_build(), _mode(mode), _features(features))

    def collect(self) -> Iterator[Metric]:
        """Return it."""
        yield from self._metrics


def _build() -> Metric:
    """Return what tools that watch for version skew ask every component of a cluster.

    The version is kube-proxy's, since that is what others may rely on, and says what it is by its
    build metadata. There is no Go in it, and an empty label is none.
    """
    major, minor, _ = UPSTREAM_VERSION.split(".")
    machine = platform.machine()
    labels = {
        "major": major,
        "minor": minor,
        "git_version": f"v{UPSTREAM_VERSION}+kproxy.{__version__}",
        "git_commit": "",
        "git_tree_state": "",
        "build_date": "",
        "go_version": "",
        "compiler": "",
        "platform": f"linux/{_ARCHITECTURES.get(machine, machine)}",
    }
    return _constant(
        "kubernetes_build_info", "1, with the version whose interfaces this is true to.", labels
    )


def _own_build() -> Metric:
    labels = {"version": __version__, "python_version": platform.python_version()}
    return _constant("kproxy_build_info", "1, with our own version.", labels)


def _mode(mode: str) -> Metric:
    return _constant("kproxy_mode_info", "1, with the data path in use.", {"mode": mode})


def _features(features: Mapping[str, GateState]) -> Metric:
    metric = GaugeMetricFamily(
        "kubernetes_feature_enabled",
        "Whether a feature gate is on.",
        labels=("name", "stage"),
    )
    for name, feature in sorted(features.items()):
        metric.add_metric((name, feature.stage), feature.enabled)
    return metric


def _constant(name: str, text: str, labels: Mapping[str, str]) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=tuple(labels))
    metric.add_metric(tuple(labels.values()), 1)
    return metric
