"""/healthz and /livez, byte for byte."""

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Kind, Node, ObjectKey, Protocol
from kproxy.core.table import ServicePortKey
from kproxy.ports.source import SourceState, SourceStatus
from kproxy.run.http.health import ProxyHealth
from kproxy.run.http.message import Request, Response
from kproxy.run.loop.status import FamilyStatus

WEB = ServicePortKey("shop", "web", "http", Protocol.TCP)
V4, V6 = Family
NOW = 1000.0  # of the loop's clock
NOON_NS = 1_767_268_800 * 10**9
HEADERS = (("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff"))


def node(*, deleting=False):
    return Node(ObjectKey("", "n1"), "", (), (), deleting)


class World:
    """What ProxyHealth asks, all of it to be changed by a test."""

    def __init__(self):
        self.now = NOW
        self.wall_ns = NOON_NS
        self.node = node()
        self.statuses = ()
        self.sources = ()
        self.health = ProxyHealth(
            statuses=lambda: self.statuses,
            node=lambda: self.node,
            sources=lambda: self.sources,
            patience_s=60.0,
            clock=lambda: self.now,
            wall_ns=lambda: self.wall_ns,
        )

    def ask(self, path, query=""):
        """Return code and body; the headers are always the same."""
        answer = self.health.router()(Request("GET", path, query))
        assert answer.headers == HEADERS
        return answer.status, answer.body.decode()


def test_all_is_well():
    world = World()
    world.statuses = (
        FamilyStatus(V4, applied_at=NOW - 84.5),
        FamilyStatus(V6, applied_at=NOW - 0.25),
    )
    status = (
        '"status":{"IPv4":{"lastUpdated":"2026-01-01T11:58:35.5Z","healthy":true},'
        '"IPv6":{"lastUpdated":"2026-01-01T11:59:59.75Z","healthy":true}}}'
    )
    now = '{"lastUpdated":"2026-01-01T12:00:00Z","currentTime":"2026-01-01T12:00:00Z",'
    assert world.ask("/healthz") == (200, now + '"nodeEligible":true,"healthy":true,' + status)
    assert world.ask("/livez") == (200, now + '"healthy":true,' + status)


def test_before_any_family_is_known():
    world = World()
    world.node = None
    assert world.ask("/healthz") == (
        503,
        '{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"2026-01-01T12:00:00Z",'
        '"nodeEligible":false,"healthy":true}',
    )
    assert world.ask("/livez") == (
        200,
        '{"lastUpdated":"2026-01-01T12:00:00Z","currentTime":"2026-01-01T12:00:00Z",'
        '"healthy":true}',
    )


def test_a_family_that_was_never_written_counts_from_the_start():
    world = World()
    world.statuses = (FamilyStatus(V4, behind_since=NOW),)
    world.now += 60.0
    world.wall_ns += 60 * 10**9
    assert world.ask("/livez")[0] == 200
    world.now += 0.5
    world.wall_ns += 10**9 // 2
    assert world.ask("/livez") == (
        503,
        '{"lastUpdated":"2026-01-01T12:00:00Z","currentTime":"2026-01-01T12:01:00.5Z",'
        '"healthy":false,"status":{"IPv4":{"lastUpdated":"2026-01-01T12:00:00Z","healthy":false}}}',
    )


def test_one_family_cannot_heal_the_other():
    world = World()
    world.statuses = (
        FamilyStatus(V4, applied_at=NOW - 100, behind_since=NOW - 61),
        FamilyStatus(V6, applied_at=NOW - 1),
    )
    assert not world.health.healthy()
    assert world.ask("/healthz") == (
        503,
        '{"lastUpdated":"2026-01-01T11:59:59Z","currentTime":"2026-01-01T12:00:00Z",'
        '"nodeEligible":true,"healthy":false,"status":'
        '{"IPv4":{"lastUpdated":"2026-01-01T11:58:20Z","healthy":false},'
        '"IPv6":{"lastUpdated":"2026-01-01T11:59:59Z","healthy":true}}}',
    )


def test_the_latest_update_counts_however_it_is_written():
    world = World()
    world.statuses = (
        FamilyStatus(V4, applied_at=NOW - 99.48, behind_since=NOW - 61),
        FamilyStatus(V6, applied_at=NOW - 99.5),
    )
    assert world.ask("/livez")[1].startswith('{"lastUpdated":"2026-01-01T11:58:20.52Z",')


@pytest.mark.parametrize("which", [None, node(deleting=True)])
def test_an_ineligible_node_fails_healthz_alone(which):
    world = World()
    world.node = which
    world.statuses = (FamilyStatus(V4, applied_at=NOW - 2),)
    status, body = world.ask("/healthz")
    assert status == 503
    assert body.startswith('{"lastUpdated":"2026-01-01T11:59:58Z",')
    assert '"nodeEligible":false,"healthy":true,' in body
    assert world.ask("/livez")[0] == 200
    assert world.health.healthy()


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "12:00:00Z"),
        (1, "12:00:00.000000001Z"),
        (120_000_000, "12:00:00.12Z"),
        (999_999_999, "12:00:00.999999999Z"),
        (10**9, "12:00:01Z"),
    ],
)
def test_times_are_written_as_go_writes_them(ns, text):
    world = World()
    world.wall_ns += ns
    assert f'"currentTime":"2026-01-01T{text}"' in world.ask("/livez")[1]


def test_the_time_of_an_update_does_not_jitter():
    world = World()
    world.statuses = (FamilyStatus(V4, applied_at=NOW - 1.2345),)
    seen = set()
    for jitter_ns in (0, 12_345, 234_567):
        world.wall_ns = NOON_NS + jitter_ns
        seen.add(world.ask("/livez")[1].split('"status"')[1])
    assert len(seen) == 1


def test_details_come_on_demand_and_last():
    world = World()
    world.statuses = (
        FamilyStatus(V4, applied_at=NOW, unheld={WEB: "no room"}),
        FamilyStatus(V6, failures=3, error="commit: <refused>", behind_since=NOW - 1),
    )
    world.sources = (
        SourceStatus(Kind.SERVICE, SourceState.FAILING, 1_767_268_700.5, "no route", 2, 3, 4),
    )
    for path in ("/healthz", "/livez"):
        plain = world.ask(path)
        detailed = world.ask(path, "verbose")
        assert detailed == (
            200,
            plain[1][:-1] + ',"errors":{"IPv6":"commit: \\u003crefused\\u003e"},'
            '"unheld":{"IPv4":{"shop/web:http":"no room"}},'
            '"sources":[{"kind":"Service","state":"failing","since":"2026-01-01T11:58:20.5Z",'
            '"detail":"no route","lists":2,"reconnects":3,"refused":4}]}',
        )


def test_an_api_server_that_is_away_makes_nobody_unhealthy():
    world = World()
    world.statuses = (FamilyStatus(V4, applied_at=NOW - 3600),)
    world.sources = (SourceStatus(Kind.SERVICE, SourceState.FAILING, 0.0, "refused"),)
    assert world.ask("/healthz")[0] == 200


def test_answers_are_counted_by_code():
    world = World()
    world.ask("/healthz")
    world.ask("/livez")
    world.node = None
    world.ask("/healthz")
    world.ask("/healthz")
    assert world.health.healthz_answers == {200: 1, 503: 2}
    assert world.health.livez_answers == {200: 1}


@pytest.mark.parametrize("path", ["/", "/healthz/", "/Healthz", "/metrics", "/healthz/ping"])
def test_there_is_nothing_else(path):
    assert World().health.router()(Request("GET", path)) == Response(
        404,
        (("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")),
        b"404 page not found\n",
    )
