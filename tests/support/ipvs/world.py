"""A node in ipvs mode, simulated: from table changes to what becomes of a packet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, replace

from backends.ipvs.render.entries import (
    Address,
    Destination,
    MarkedServer,
    Member,
    Place,
    Source,
    Steered,
    Steering,
    entry,
)
from backends.ipvs.render.marks import STEERED
from backends.ipvs.render.renderer import Renderer, Surroundings
from backends.ipvs.render.service_port import Options
from backends.ipvs.render.sets import SetKind, set_name
from backends.kernel.xtables.wording import split_key
from kproxy.core.addresses import Family, endpoint_text, is_loopback
from kproxy.core.image import Key
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Drop, Forward, Packet, Pass, Reject, resolve
from kproxy.core.table import ForwardingTable, TableChanges
from tests.support.iptables.simulator import Skb, Tables

UPLINK = "eth0"
LABEL_OURS, LABEL_MASQUERADE = "106", "107"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a packet.

    `what` is forward, reject, drop or pass. Forwarded, it goes to one of `targets`, each with the
    same chance, and leaves for those in `masqueraded` with an address of the node.
    """

    what: str
    answer: str = ""
    targets: frozenset[str] = frozenset()
    masqueraded: frozenset[str] = frozenset()
    server: str = ""


class World:
    """A renderer and the image that its patches add up to."""

    def __init__(self, family: Family, options: Options | None = None) -> None:
        self.family = family
        self.renderer = Renderer(family, options or Options())
        self.image: dict[Key, bytes] = {}
        self.around = Surroundings()

    @classmethod
    def of(cls, table: ForwardingTable, around: Surroundings) -> World:
        """Make a world of a whole table."""
        world = cls(table.family)
        world.update(table.everything(), around)
        return world

    def update(self, changes: TableChanges, around: Surroundings | None = None) -> set[Key]:
        """Take changes in; return the keys that differ now."""
        self.around = around or self.around
        changed = set()
        for key, value in self.renderer.update(changes, self.around).items():
            if self.image.get(key) != value:
                changed.add(key)
            if value is None:
                self.image.pop(key, None)
            else:
                self.image[key] = value
        return changed

    def chains(self) -> dict[tuple[str, str], list[str]]:
        """Return all chains with their rules, the base chains with our jumps included."""
        found: dict[tuple[str, str], list[str]] = {}
        for key in self.image:
            if isinstance(key, bytes):
                continue
            match split_key(key):
                case ("jump", table, base, _):
                    found.setdefault((table, base), []).append(self.renderer.jump(key))
                case (table, name) if table != "set":
                    found[table, name] = list(self.renderer.chain(key))
        return found


class Node:
    """What a kernel would hold of an image."""

    def __init__(self, world: World) -> None:
        self.tables = Tables(world.chains())
        self.link: dict[str, bytes] = {}
        self.steered: set[str] = set()
        self.steers = False
        self.servers: dict[Place | MarkedServer, str] = {}
        self.targets: dict[Place | MarkedServer, set[str]] = {}
        self.members: dict[SetKind, dict[object, bytes]] = {kind: {} for kind in SetKind}
        self._family = world.family
        self.own = world.around.addresses
        for key, value in world.image.items():
            if isinstance(key, bytes):
                self._take(entry(key), value)

    def _take(self, what: object, value: bytes) -> None:
        match what:
            case Address(address):
                self.link[address] = value
            case Steered(address):
                self.steered.add(address)
            case Steering():
                self.steers = True
            case Member(kind, element):
                assert bool(value) == kind.value.marks
                self.members[kind][element] = value
            case Destination(server, address, port):
                assert value == b"1"
                self.targets.setdefault(server, set()).add(endpoint_text(address, port))
            case Place() | MarkedServer() as server:
                self.servers[server] = value.decode()

    def fate(self, packet: Packet, *, mark: int = 0) -> Fate:
        """Send the first packet of a connection, with somebody's mark, through all it meets."""
        outgoing = packet.in_interface is None
        skb = self._skb(packet, mark)
        (end,) = self.tables.hook("mangle", "OUTPUT" if outgoing else "PREROUTING", skb)
        if end.target == "DROP":
            return Fate("drop")
        skb = end.skb
        if not outgoing:
            self._check_later_packets(self._skb(packet, mark), skb)
        (kept,) = self.tables.hook("nat", "OUTPUT" if outgoing else "PREROUTING", skb)
        assert (kept.target == "ACCEPT") == (LABEL_OURS in skb.labels)
        if outgoing:
            return self._translated(skb) or self._filtered(skb, ("OUTPUT",))
        arrives = self._arrives(skb)
        fate = self._filtered(skb, ("INPUT",) if arrives else ("FORWARD",))
        if fate.what == "pass" and arrives:
            return self._translated(skb) or fate
        return fate

    def _check_later_packets(self, skb: Skb, first: Skb) -> None:
        """Hold that what follows a client's first packet goes the same way, and no answer does."""
        later = replace(skb, labels=first.labels, states=frozenset({"ESTABLISHED"}))
        (end,) = self.tables.hook("mangle", "PREROUTING", later)
        assert self._arrives(end.skb) == self._arrives(first), "a connection changes its way"
        assert not (end.skb.mark ^ skb.mark) & (STEERED - 1), "others' bits of the mark are lost"
        answer = replace(later, direction="REPLY")
        (end,) = self.tables.hook("mangle", "PREROUTING", answer)
        assert end.skb == answer

    def _translated(self, skb: Skb) -> Fate | None:
        """Return what ipvs makes of a packet, None if it leaves it alone."""
        place = Place(skb.destination, skb.protocol, skb.port)
        marked = MarkedServer(skb.mark)
        server = marked if marked in self.servers else place
        if server not in self.servers:
            return None
        targets = self.targets[server]
        masqueraded = {each for each in targets if self._is_masqueraded(skb, each)}
        return Fate("forward", "", frozenset(targets), frozenset(masqueraded), self.servers[server])

    def _is_masqueraded(self, skb: Skb, target: str) -> bool:
        address, _, port = target.rpartition(":")
        address = address.strip("[]")
        out = "lo" if self._is_own(address) else UPLINK
        leaving = replace(
            skb, destination=address, port=int(port), by_ipvs=True, in_interface="",
            out_interface=out, member_of=frozenset(), marks=frozenset(),
        )  # fmt: skip
        leaving = self._asked_sets(leaving)
        for table in ("mangle", "filter"):
            (end,) = self.tables.hook(table, "OUTPUT", leaving)
            assert (end.target, end.skb) == ("", leaving), "what ipvs translated is judged again"
        (end,) = self.tables.hook("nat", "POSTROUTING", leaving)
        return end.target == "MASQUERADE"

    def _filtered(self, skb: Skb, hooks: tuple[str, ...]) -> Fate:
        for hook in hooks:
            (verdict,) = self.tables.hook("filter", hook, skb)
            if verdict.target in ("REJECT", "DROP"):
                told = LABEL_OURS not in skb.labels or not self._is_steered(skb)
                assert told, "from there the kernel sends no ICMP"
                answer = verdict.options.get("--reject-with", "")
                return Fate(verdict.target.lower(), answer)
        if not self._arrives(skb) or skb.in_interface == "":
            (end,) = self.tables.hook("nat", "POSTROUTING", replace(skb, in_interface=""))
            assert end.target == "", "what is not ours is masqueraded"
        return Fate("pass")

    def _skb(self, packet: Packet, mark: int) -> Skb:
        outgoing = packet.in_interface is None
        return self._asked_sets(
            Skb(
                packet.source,
                packet.destination,
                packet.port,
                packet.protocol,
                in_interface=packet.in_interface or "",
                out_interface=UPLINK if outgoing else "",
                local=frozenset((*self.own, *self.link)),
                mark=mark,
            )
        )

    def _asked_sets(self, skb: Skb) -> Skb:
        place = Place(skb.destination, skb.protocol, skb.port)
        member_of: set[str] = set()
        marks: set[tuple[str, int]] = set()
        for kind, fields in self._members(place, skb.source):
            name = f"{set_name(self._family, kind)} {fields}"
            member_of.add(name)
            if kind.value.marks:
                marks.add((name, int.from_bytes(self.members[kind][place], "big")))
        return replace(skb, member_of=frozenset(member_of), marks=frozenset(marks))

    def _members(self, place: Place, source: str) -> Iterator[tuple[SetKind, str]]:
        for kind, elements in self.members.items():
            match kind.value.type:
                case "hash:ip,port" if place in elements:
                    yield kind, "dst,dst"
                case "hash:ip,port,net" if any(
                    isinstance(each, Source)
                    and each.place == place
                    and ipaddress.ip_address(source) in each.network
                    for each in elements
                ):
                    yield kind, "dst,dst,src"
                case "hash:ip" if place.address in elements:
                    yield kind, "dst"
                case "bitmap:port" if place.port in elements:
                    yield kind, "dst"

    def _is_own(self, address: str) -> bool:
        return address in self.own or is_loopback(address)

    def _arrives(self, skb: Skb) -> bool:
        """Say whether a packet is routed to the node itself."""
        is_local = self._is_own(skb.destination) or skb.destination in self.link
        return is_local or self._is_steered(skb)

    def _is_steered(self, skb: Skb) -> bool:
        return self.steers and skb.mark & STEERED != 0 and skb.destination in self.steered


def check(node: Node, table: ForwardingTable, packet: Packet, *, mark: int = 0) -> None:
    """Hold what a node has against the reference, for one packet with somebody's mark."""
    verdict = resolve(table, packet, node.own)
    fate = node.fate(packet, mark=mark)
    match verdict:
        case Pass():
            assert fate.what == "pass", verdict
        case Drop():
            assert fate.what == "drop", verdict
        case Reject():
            assert fate.what == "reject", verdict
        case Forward():
            assert fate.what == "forward", verdict
            _check_forward(verdict, fate, node.own)
    if fate.what == "reject":
        assert (fate.answer == "tcp-reset") == (packet.protocol is Protocol.TCP)


def _check_forward(verdict: Forward, fate: Fate, own: frozenset[str]) -> None:
    targets = {str(target): target for target in verdict.targets}
    assert fate.targets == targets.keys(), verdict
    for text, target in targets.items():
        # What stays on the node has the node's address already, or never meets POSTROUTING.
        if target.address not in own:
            expected = verdict.masquerade or target in verdict.hairpin
            assert (text in fate.masqueraded) == expected, (verdict, fate)
    scheduler, flags, timeout_s = fate.server.split(":")
    if verdict.affinity_timeout_s is None:
        assert (scheduler, flags, timeout_s) == ("rr", "0", "0")
    else:
        by_time = (scheduler, flags, timeout_s) == ("rr", "1", str(verdict.affinity_timeout_s))
        assert by_time or (scheduler, flags, timeout_s) == ("mh", "0", "0")


def check_image(world: World) -> None:
    """Hold an image against what the kernel and the driver need of it."""
    node = Node(world)
    assert node.targets.keys() == node.servers.keys(), "a server without endpoints, or the reverse"
    assert not node.tables.unreferenced()
    assert node.tables.longest_path() <= 15
    kinds = (SetKind.CLUSTER_IP, SetKind.CLUSTER_POLICY, SetKind.LOCAL_POLICY)
    frontends = [place for kind in kinds for place in node.members[kind]]
    assert len(frontends) == len(set(frontends)), "a frontend is of two kinds"
    places = {server for server in node.servers if isinstance(server, Place)}
    assert places <= set(frontends), "a server is not known as ours"
    marks = {int.from_bytes(value, "big") for value in node.members[SetKind.LOCAL_POLICY].values()}
    found = {server.mark for server in node.servers if isinstance(server, MarkedServer)}
    assert marks == found or marks < found
    for key, value in world.image.items():
        assert world.renderer.owners([key]) or not isinstance(key, bytes) or _is_shared(key), value


def _is_shared(key: bytes) -> bool:
    match entry(key):
        case (
            Address()
            | Steered()
            | Steering()
            | Member(SetKind.STEERED_ADDRESSES | SetKind.CLUSTER_ADDRESSES | SetKind.HEALTH)
        ):
            return True
    return False
