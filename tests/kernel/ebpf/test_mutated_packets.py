"""Whatever bytes come in: none that is not ours is altered, and none that is ours is corrupted."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from tests.support.ebpf.model import Model, change_of, error_changes, merged, sums_hold
from tests.support.ebpf.mutation import corpus, mutated
from tests.support.ebpf.packets import DROPPED, TRANSLATED, UNTOUCHED, Ends, Kind, Role

pytestmark = pytest.mark.kernel

PACKETS = 50_000  # of each family
AT_ONCE = 2_000  # then what is kept of fragments is forgotten: nothing is pushed out meanwhile
WITH_PORTS = (6, 17, 132)


class Expected:
    """What packet.bpf.c must do with a frame, and all that it may keep meanwhile."""

    def __init__(self, packets):
        self.model = Model(packets.family)
        self.places = packets.places
        self.there = Ends(self.places.node, 61000, self.places.endpoint, 8080)
        self.back = Ends(self.places.client, 33000, self.places.frontend, 80)
        self.by_end = {}
        self.by_embedded_end = {}
        for number in (*WITH_PORTS, 50, self.model.icmp):
            port = 80 if number in WITH_PORTS else 0
            self.by_end[self.places.frontend, port, number] = self.there
            packets.rewrite(Role.DESTINATION, self.places.frontend, port, number, self.there)
        for number in WITH_PORTS:
            self.by_embedded_end[self.places.endpoint, 8080, number] = self.back
            packets.rewrite(
                Role.EMBEDDED_DESTINATION, self.places.endpoint, 8080, number, self.back
            )
        self.first_ones = {}

    def check(self, frame, verdict, after):
        """Fail unless this is what must become of a frame; say what that is."""
        model, seen = self.model, self.model.read(frame)
        changes, parts = None, ()
        if seen.kind is Kind.ERROR:
            changes, parts = self._error(frame, seen)
        elif seen.kind < Kind.ERROR:
            seen = self._followed(seen)
            to = seen and self.by_end.get((*seen.ends[2:], seen.protocol))
            if to and self._is_part_of_sctp(frame, seen):
                assert (verdict, after) == (DROPPED, frame)
                return "dropped"
            if to:
                changes, parts = [change_of(model, seen, to, frame)], [seen]
        if changes is None:
            assert (verdict, after) == (UNTOUCHED, frame)
            return "untouched"
        change = merged(changes)
        assert verdict == TRANSLATED
        assert change.masked(after) == change.applied(frame)
        assert all(sums_hold(model, each, frame, after) for each in parts)
        return "translated"

    def _followed(self, seen):
        """Return the packet with the ports of its first fragment, None where that is not known."""
        key = (seen.source, seen.destination, seen.identity, seen.protocol * self.model.four)
        if seen.first:
            self.first_ones[key] = seen
        if seen.kind is not Kind.LATER_FRAGMENT:
            return seen
        first = self.first_ones.get(key)
        return first and replace(seen, ports=first.ports, protocol=first.protocol)

    def _is_part_of_sctp(self, frame, seen):
        return (
            seen.protocol == 132
            and seen.first
            and frame[seen.l4 + 8 : seen.l4 + 12] != bytes(4)
            and seen.ports != bytes.fromhex("ee481f90")
        )

    def _error(self, frame, seen):
        """Return how an error changes, and which parts of it sum up."""
        embedded = self.model.embedded(frame, seen)
        to = None
        if embedded.kind is Kind.PLAIN:
            to = self.by_embedded_end.get((*embedded.ends[2:], embedded.protocol))
        return (None, ()) if to is None else error_changes(self.model, frame, seen, embedded, to)


@pytest.mark.timeout(300)
def test_no_packet_is_corrupted_and_no_foreign_one_altered(packets):
    chance = random.Random(f"packets of {packets.family.value}")
    places, expected = packets.places, Expected(packets)
    frames = corpus(packets.family, expected.back, expected.there, places.router)
    became = Counter()
    for number in range(PACKETS):
        if number % AT_ONCE == 0:
            fragments_map = packets.maps["fragments"]
            fragments_map.delete_many(list(fragments_map.keys()))
            expected.first_ones.clear()
        frame = mutated(chance, frames)
        ran = packets.run(frame)
        try:
            became[expected.check(frame, ran.verdict, ran.data)] += 1
        except AssertionError as error:
            raise AssertionError(f"{number}: {frame.hex()} -> {ran.data.hex()}") from error
    assert min(became["translated"], became["untouched"]) > PACKETS / 5, became
    assert became["dropped"] > 20, became
