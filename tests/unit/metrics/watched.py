"""An agent on fake kernels, in virtual time, whose metrics a test reads."""

from __future__ import annotations

import contextlib

from kproxy.config.fields import Mode
from kproxy.core.addresses import Family
from kproxy.core.objects import Kind
from kproxy.ports.source import SourceState, SourceStatus
from kproxy.proxy.startup import shown_in
from kproxy.run.loop.agent import Hooks
from kproxy.run.metrics import GateState, Metrics, Readers
from tests.unit.metrics.pages import Page
from tests.unit.run.scenario import SETTINGS, now, running

EPOCH_S = 1_000_000.0
"""What the loop's clock lacks to the time of day."""


def time_of_day():
    return EPOCH_S + now()


def metrics_of(mode=Mode.IPTABLES, features=None):
    return Metrics(
        mode.value,
        tuple(Family),
        features or {},
        shown=shown_in(mode),
        wall_clock=time_of_day,
    )


def hooks_of(metrics):
    return Hooks(
        differed=metrics.differed, took=metrics.took, began=metrics.began, done=metrics.done
    )


@contextlib.asynccontextmanager
async def watched(*, mode=Mode.IPTABLES, source=(), probes=None, **kwargs):
    """A running agent as `it`, with `it.page()` for a scrape."""
    features = {"Settled": GateState("", True), "Young": GateState("ALPHA", False)}
    metrics = metrics_of(mode, features)
    async with running(hooks=hooks_of(metrics), **kwargs) as it:
        metrics.watch(
            Readers(
                compiler=it.compiler,
                statuses=it.agent.status,
                source=lambda: source,
                probes=lambda: probes or {},
                sync_period_s=SETTINGS.sync_period_s,
                clock=now,
            )
        )
        it.metrics = metrics
        it.page = lambda: Page(metrics)
        yield it


SOURCE = tuple(
    SourceStatus(kind, SourceState.FOLLOWING, EPOCH_S, lists=2, reconnects=1, refused=3)
    for kind in Kind
)
