"""What all rounds together say of the load: whether it was slower than who was measured."""

from __future__ import annotations

import pytest

from bench.part import Rounds, Visit
from bench.parts.connections import OPENED, Connections
from bench.parts.packets import ALONE, FORWARDED, LOST, Packets
from bench.peers.routing import PlainRouting

EBPF = "kproxy ebpf"
WHERE = {"family": "IPv4", "path": "clusterIP"}


def rounds(who, *values, measure=FORWARDED, **where):
    return Rounds(Visit(who, WHERE | where, tuple), measure, dict(enumerate(values)))


def said(part, *found):
    return [(visit.who, limited.text) for visit, limited in part.judged(found)]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((5e5, 4e5, 9e5), []),
        ((6e5, 6e5, 2e5), ["the generator is measured too: it took 60% of the time"]),
        ((19e5, 19e5, 2e5), ["the generator was the limit: it took 95% of the time"]),
    ],
)
def test_the_generators_share_is_that_of_the_same_rounds(rates, expected):
    alone = rounds(ALONE, 1e6, 1e6, 1e6) if max(rates) < 1e6 else rounds(ALONE, 2e6, 2e6, 2e6)
    texts = [text for who, text in said(Packets(), rounds(EBPF, *rates), alone) if who == EBPF]

    assert [text.partition(", and")[0] for text in texts] == expected


def test_the_generator_of_the_other_family_is_no_limit():
    alone = rounds(ALONE, 1e6), rounds(ALONE, 5e6, family="IPv6")
    found = rounds(EBPF, 2e6, family="IPv6"), rounds(EBPF, 99.0, measure=LOST)

    assert said(Packets(), *alone, *found) == []


@pytest.mark.parametrize(("opened", "share"), [((89.0, 178.0, 300.0), ""), ((90.0, 180.0), "90%")])
def test_who_opens_as_many_as_nobody_hinders_is_limited_by_the_client(opened, share):
    unhindered = rounds(PlainRouting.name, 100.0, 200.0, 400.0, measure=OPENED)
    elsewhere = rounds(PlainRouting.name, 1.0, 1.0, 1.0, measure=OPENED, path="NodePort")
    texts = said(Connections(), rounds(EBPF, *opened, measure=OPENED), unhindered, elsewhere)

    assert [who for who, _ in texts] == ([EBPF] if share else [])
    assert all(share in text for _, text in texts)
