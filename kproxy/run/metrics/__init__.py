"""What Prometheus is told: under kube-proxy's names where they mean the same, else our own."""

from kproxy.run.metrics.identity import UPSTREAM_VERSION, GateState
from kproxy.run.metrics.instruments import Shown
from kproxy.run.metrics.registry import Metrics
from kproxy.run.metrics.state import Readers

__all__ = ["UPSTREAM_VERSION", "GateState", "Metrics", "Readers", "Shown"]
