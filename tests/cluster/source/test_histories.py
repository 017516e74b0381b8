"""Whatever happens to a cluster and its server: in the end the source has what the server has."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.objects import InvalidObject, Kind
from kproxy.core.parse import from_builtins
from kproxy.ports.source import SourceState
from kproxy.watch.api.reflector import LEVELS
from tests.support.effort import examples
from tests.support.fake_api.faults import (
    Answer,
    Cut,
    Drop,
    Hang,
    Silence,
    Trickle,
    gone,
    html,
    internal_error,
    redirect,
    unavailable,
)
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.samples import (
    HEADLESS,
    OTHER_PROXY,
    endpoint_slice,
    service,
    service_cidr,
)
from tests.support.fake_api.servers import FakeServer
from tests.support.fake_api.source import QUICK, following, own_node
from tests.support.fake_api.tls import Authority
from tests.support.fake_api.watching import raw_event
from tests.support.recursion import recursion_limit

# A failure is made small for up to 300 s before it is shown.
pytestmark = pytest.mark.timeout(420)


@pytest.fixture(autouse=True)
def deep():
    """Let Python recurse as deep as a source asks for: Hypothesis minds a limit that changes."""
    with recursion_limit(LEVELS):
        yield


HASTY = dataclasses.replace(
    QUICK, answer_s=0.15, idle_s=0.15, backoff_most_s=0.04, missing_most_s=0.05, node_s=0.1
)
NUMBERS = st.integers(0, 5)
FOLLOWED = st.sampled_from(["services", "endpointslices", "nodes", "servicecidrs"])

FAULTS = st.sampled_from(
    [
        Hang(),
        Drop(),
        Drop(reset=True),
        Silence(),
        Silence(after=400),
        Cut(after=400),
        Cut(after=400, reset=True),
        Cut(after=1200),
        Trickle(),
        Answer(200, b"{}"),
        Answer(200, b"garbage"),
        internal_error(),
        unavailable(),
        html(200),
        html(502),
        redirect("https://127.0.0.1:1/"),
        gone(),
    ]
)


def documents():
    """Return objects from a small set of names, so that they change often and meet each other."""
    services = st.builds(
        lambda n, port, label, fault: service(
            f"s{n}", "10.96.1.256" if fault else f"10.96.1.{n}", port=port, **label
        ),
        NUMBERS,
        st.integers(1, 4),
        st.sampled_from([{}, {}, {OTHER_PROXY: "x"}, {"app": "web"}]),
        st.integers(0, 9).map(lambda n: n == 0),
    )
    slices = st.builds(
        lambda n, addresses, label: endpoint_slice(
            f"e{n}", [f"10.1.0.{a}" for a in addresses], of=f"s{n % 3}", **label
        ),
        NUMBERS,
        st.lists(st.integers(1, 9), max_size=3),
        st.sampled_from([{}, {}, {HEADLESS: ""}]),
    )
    nodes = st.builds(lambda zone: own_node(zone=zone), st.sampled_from(["z1", "z2"]))
    cidrs = st.builds(lambda n: service_cidr("more", f"10.{112 + n}.0.0/16"), NUMBERS)
    return st.one_of(
        st.tuples(st.just("services"), services),
        st.tuples(st.just("endpointslices"), slices),
        st.tuples(st.just("nodes"), nodes),
        st.tuples(st.just("servicecidrs"), cidrs),
    )


STEPS = st.one_of(
    st.tuples(st.just("put"), documents()),
    st.tuples(st.just("put"), documents()),
    st.tuples(st.just("delete"), st.tuples(FOLLOWED, NUMBERS)),
    st.tuples(st.just("fault"), st.tuples(FOLLOWED, FAULTS, st.integers(1, 2))),
    st.tuples(st.just("cut"), st.tuples(FOLLOWED, st.booleans())),
    st.tuples(st.just("end"), FOLLOWED),
    st.tuples(st.just("freeze"), FOLLOWED),
    st.tuples(st.just("bookmark"), FOLLOWED),
    st.tuples(st.just("repeat"), FOLLOWED),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("away"), st.none()),
    st.tuples(st.just("streaming"), st.sampled_from(Streaming)),
    st.tuples(st.just("missing"), st.booleans()),
    st.tuples(st.just("pause"), st.sampled_from([0.0, 0.01, 0.05])),
)


class World:
    """A server that things happen to."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.fake = server.fake
        self.ever: dict[Kind, set[object]] = {kind: set() for kind in Kind}
        for name, document in (("nodes", own_node()), ("services", service("s0", "10.96.1.0"))):
            self.put((name, document))
        (own_range,) = self.fake.objects("servicecidrs")
        self._remember(own_range)

    async def happen(self, what: str, how) -> None:
        if what == "pause":
            await asyncio.sleep(how)
        else:
            getattr(self, what)(how)

    def put(self, what) -> None:
        resource, document = what
        for stored in self.fake.put(resource, document):
            self._remember(stored)

    def _remember(self, stored) -> None:
        try:
            parsed = from_builtins(stored)
        except InvalidObject:
            return
        self.ever[Kind(stored["kind"])].add(parsed)

    def delete(self, what) -> None:
        resource, number = what
        stored = self.fake.objects(resource)
        if stored:
            metadata = stored[number % len(stored)]["metadata"]
            self.fake.delete(resource, metadata.get("namespace", ""), metadata["name"])

    def fault(self, what) -> None:
        resource, fault, times = what
        self.fake.next(resource, fault, times=times)

    def cut(self, what) -> None:
        resource, reset = what
        self.fake.cut(resource, reset=reset, partial=b'{"type":"ADDED","object":{"kind":')

    def end(self, resource) -> None:
        self.fake.end(resource)

    def freeze(self, resource) -> None:
        self.fake.freeze(resource)

    def bookmark(self, resource) -> None:
        self.fake.bookmark(resource)

    def repeat(self, resource) -> None:
        """Tell of an object again, as it is."""
        for stored in self.fake.objects(resource)[:1]:
            labels = stored["metadata"].get("labels") or {}
            if OTHER_PROXY not in labels and HEADLESS not in labels:
                self.fake.say(resource, raw_event("ADDED", stored))

    def compact(self, _) -> None:
        self.fake.tick()
        self.fake.compact()

    def tick(self, _) -> None:
        self.fake.tick(7)

    def away(self, _) -> None:
        self.server.leave()
        self.server.come_back()

    def streaming(self, how) -> None:
        self.fake.serve_streaming_lists(how)

    def missing(self, gone_now) -> None:
        if gone_now:
            self.fake.remove("servicecidrs")
            self.fake.cut("servicecidrs")
        else:
            self.fake.restore("servicecidrs")


async def live(world: World, kubeconfig, steps) -> None:
    """Follow the world through its history, and compare at the end."""
    async with following(world.server, kubeconfig, times=HASTY) as follower:
        for what, how in steps:
            await world.happen(what, how)
        world.fake.restore("servicecidrs")
        await follower.same()
        for kind in Kind:
            await follower.until(lambda kind=kind: follower.state(kind) is SourceState.FOLLOWING)
            delivered = set(follower.store.all(kind))
            assert delivered <= world.ever[kind], "nothing was invented"
        await follower.same()


@pytest.fixture(scope="module")
def authority():
    return Authority()


@given(steps=st.lists(STEPS, min_size=15, max_size=60))
@examples(8)
def test_in_the_end_the_source_has_what_the_server_has(authority, tmp_path_factory, steps):
    server = FakeServer(authority)
    try:
        kubeconfig = server.write_kubeconfig(tmp_path_factory.mktemp("history") / "kubeconfig")
        asyncio.run(live(World(server), kubeconfig, steps))
    finally:
        server.close()
