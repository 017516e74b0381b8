"""Whatever bytes come in at a node's devices: none is corrupted, none of others' is altered."""

import random
from collections import Counter

import pytest

from backends.kernel.bpf import programs
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.ebpf.model import Model, change_of, error_changes, merged, summed, sums_hold
from tests.support.ebpf.mutation import corpus, mutated
from tests.support.ebpf.packets import Ends, Kind
from tests.support.ebpf.tc import Tc, unit
from tests.support.net import plan
from tests.support.net.plan import in_family

pytestmark = pytest.mark.kernel

PACKETS = 12_500  # of each family and direction
PASSED, DROPPED, ANSWERED = 0xFFFFFFFF, 2, 7
FRONTEND, ENDPOINT = ("10.96.0.10", 80), (plan.FAR1, 8080)
SCTP = 132


@pytest.fixture(params=Family, ids=lambda family: family.value)
def tc(request, bytecode):
    """The programs, with one frontend of each protocol that an endpoint elsewhere serves."""
    made = Tc(request.param, unit(request.param, bytecode))
    for protocol in Protocol:
        made.frontend(FRONTEND, protocol, [ENDPOINT])
    yield made
    made.close()


class Views:
    """The one flow of all frames that are not mutated, as its places see it."""

    def __init__(self, family):
        self.model = Model(family)
        client, frontend, endpoint = (
            in_family(each, family) for each in (plan.CLIENT, FRONTEND[0], ENDPOINT[0])
        )
        self.asked = Ends(client, 33000, frontend, 80)
        self.served = Ends(client, 33000, endpoint, 8080)
        self.router = in_family(plan.OUTSIDE, family)

    def forward(self, ends):
        """Return a packet to the frontend as one to the endpoint."""
        if ends[2:] == self.asked[2:]:
            return Ends(*ends[:2], *self.served[2:])
        return None

    def backward(self, ends):
        """Return a packet from the endpoint as one from the frontend."""
        if ends[:2] == self.served[2:]:
            return Ends(*self.asked[2:], *ends[2:])
        return None


def inverted(ends):
    return Ends(*ends[2:], *ends[:2])


def expected_changes(model, frame, seen, translated):
    """Return how a frame may be translated, None: not at all.

    The packet that an error is about went the other way.
    """
    if seen.kind is Kind.ERROR:
        embedded = model.embedded(frame, seen)
        if embedded.kind is not Kind.PLAIN:
            return None
        to = translated(inverted(embedded.ends))
        return to and error_changes(model, frame, seen, embedded, inverted(to))
    if seen.kind > Kind.ERROR:
        return None
    if seen.kind is Kind.LATER_FRAGMENT:
        to = translated(Ends(*seen.ends)._replace(source_port=8080, destination_port=80))
    else:
        to = translated(seen.ends)
    return to and ([change_of(model, seen, to, frame)], [seen])


def check(model, frame, ran, translated, *, is_ours):
    """Fail if a frame became what it must not become; say what it became."""
    seen = model.read(frame)
    if ran.verdict == ANSWERED:
        assert is_ours(seen)
        assert_is_answer(model, seen, ran.data)
        return "answered"
    if ran.verdict == DROPPED:
        assert is_ours(seen)
        return "dropped"
    assert ran.verdict == PASSED
    if ran.data == frame:
        return "untouched"
    changes = expected_changes(model, frame, seen, translated)
    assert changes
    change = merged(changes[0])
    assert change.masked(ran.data) == change.applied(frame)
    assert all(sums_hold(model, each, frame, ran.data) for each in changes[1])
    return "translated"


def assert_is_answer(model, seen, answer):
    """A reset or an ICMP error, with all its checksums right."""
    got = model.read(answer)
    assert (got.source, got.destination) == (seen.destination, seen.source)
    assert got.kind is Kind.ERROR or (got.protocol == 6 and answer[got.l4 + 13] & 4)
    assert not model.four or summed(answer[got.l3 : got.l4]) == 0
    pseudo = b""
    if got.protocol in model.pseudo:
        length = (got.end - got.l4).to_bytes(2, "big")
        pseudo = got.source + got.destination + bytes((0, got.protocol)) + length
    assert summed(pseudo, answer[got.l4 : got.end]) == 0


def became(tc, program, frames, translated, is_ours):
    model = Model(tc.family)
    chance = random.Random(f"{program} of {tc.family.value}")
    counted = Counter()
    for number in range(PACKETS):
        frame = mutated(chance, frames)
        ran = programs.run(tc.programs[program], frame)
        try:
            counted[check(model, frame, ran, translated, is_ours=is_ours)] += 1
        except AssertionError as error:
            raise AssertionError(f"{number}: {frame.hex()} -> {ran}") from error
    return counted


def test_what_clients_send_is_translated_answered_or_left_as_it_is(tc):
    views = Views(tc.family)
    frames = corpus(tc.family, views.asked, inverted(views.asked), views.router)
    frontend = tc.packed(FRONTEND[0])

    counted = became(
        tc, "ingress", frames, views.forward, lambda seen: seen.destination == frontend
    )

    assert counted["translated"] > PACKETS / 5, counted
    assert min(counted["answered"], counted["dropped"]) > 0, counted
    assert counted["untouched"] > PACKETS / 5, counted


def test_what_endpoints_send_is_translated_back_or_left_as_it_is(tc):
    views = Views(tc.family)
    for frame in corpus(tc.family, views.asked, inverted(views.asked), views.router):
        programs.run(tc.programs["ingress"], frame)  # so that there are flows
    frames = corpus(tc.family, inverted(views.served), views.served, views.router)
    unsummed = {tc.packed(each) for each in (FRONTEND[0], plan.CLIENT)}

    counted = became(
        tc, "egress", frames, views.backward, lambda seen: seen.destination in unsummed
    )

    assert counted["translated"] > PACKETS / 5, counted
    assert counted["untouched"] > PACKETS / 5, counted


def test_a_packet_that_nothing_is_wrong_with_is_translated(tc):
    views = Views(tc.family)
    model = Model(tc.family)
    for frame in corpus(tc.family, views.asked, inverted(views.asked), views.router):
        seen = model.read(frame)
        ran = programs.run(tc.programs["ingress"], frame)
        if seen.protocol == SCTP and seen.first:  # its CRC covers what comes in other fragments
            assert ran.verdict == DROPPED
            continue
        is_ours = expected_changes(model, frame, seen, views.forward) is not None
        assert (ran.data != frame) == is_ours, frame.hex()
