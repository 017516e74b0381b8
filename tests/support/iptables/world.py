"""A node with our rules on it, simulated: from table changes to what becomes of a packet."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

import pytest

from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options, set_value
from backends.kernel.xtables.wording import fingerprint, split_key
from kproxy.core.addresses import Family, endpoint_text, is_loopback
from kproxy.core.image import Key
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Drop, Forward, Packet, Pass, Reject, resolve
from kproxy.core.table import ForwardingTable, TableChanges, Target, Use
from tests.support.iptables.simulator import End, Skb, Tables

UPLINK = "eth0"
_EVERY_BIT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Fate:
    """One way that a packet may end.

    `what` is forward, reject, drop or pass; `target` is "ip:port" where it goes in the end, and
    `masqueraded` says that it leaves with an address of the node.
    """

    probability: float
    what: str
    target: str
    masqueraded: bool
    remembered: tuple[str, ...]
    nat_decided: bool
    answer: str


class World:
    """A renderer and the image that its patches add up to."""

    def __init__(self, family: Family, options: Options | None = None) -> None:
        self.renderer = Renderer(family, options or Options())
        self.image: dict[Key, bytes] = {}

    @classmethod
    def of(cls, table: ForwardingTable) -> World:
        """Make a world of a whole table."""
        world = cls(table.family)
        world.update(table.everything())
        return world

    def update(self, changes: TableChanges, *, drop_invalid: bool = True) -> set[Key]:
        """Take changes in; return the keys that differ now."""
        changed = set()
        for key, value in self.renderer.update(changes, drop_invalid=drop_invalid).items():
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
        for key in sorted(self.image):
            match split_key(key):
                case ("jump", table, base, _):
                    found.setdefault((table, base), []).append(self.renderer.jump(key))
                case ("set", _):
                    self.renderer.affinity_set(key)
                case (table, name):
                    found[table, name] = list(self.renderer.chain(key))
        return found

    def tables(self) -> Tables:
        """Return the chains as a kernel would hold them."""
        return Tables(self.chains())


def fates(
    tables: Tables,
    packet: Packet,
    local: Collection[str],
    member_of: Iterable[str] = (),
    *,
    mark: int = 0,
) -> Iterator[Fate]:
    """Send the first packet of a connection, with somebody's mark, through all hooks it meets."""
    own = frozenset(local)
    outgoing = packet.in_interface is None
    skb = Skb(
        packet.source,
        packet.destination,
        packet.port,
        packet.protocol,
        in_interface=packet.in_interface or "",
        out_interface=_out(packet.destination, own) if outgoing else "",
        local=own,
        member_of=frozenset(member_of),
        mark=mark,
    )
    for end in tables.hook("nat", "OUTPUT" if outgoing else "PREROUTING", skb):
        yield _after_nat(tables, end, outgoing=outgoing)


def _after_nat(tables: Tables, end: End, *, outgoing: bool) -> Fate:
    translated = end.target == "DNAT"
    skb = end.skb
    if translated:
        address, _, port = end.options["--to-destination"].rpartition(":")
        skb = replace(
            skb,
            destination=address.strip("[]"),
            port=int(port),
            states=skb.states | {"DNAT"},
        )
    arrives = _is_local(skb.destination, skb.local)
    what, answer = "forward" if translated else "pass", ""
    for hook in _filter_hooks(outgoing=outgoing, arrives=arrives):
        inbound = "lo" if outgoing and hook == "INPUT" else skb.in_interface
        (verdict,) = tables.hook("filter", hook, replace(skb, in_interface=inbound))
        if verdict.target in ("REJECT", "DROP"):
            what, answer = verdict.target.lower(), verdict.options.get("--reject-with", "")
            break
    masqueraded = False
    if what in ("forward", "pass") and (outgoing or not arrives):
        leaving = replace(skb, in_interface="", out_interface=_out(skb.destination, skb.local))
        (last,) = tables.hook("nat", "POSTROUTING", leaving)
        masqueraded = last.target == "MASQUERADE"
    return Fate(
        probability=end.probability,
        what=what,
        target=endpoint_text(skb.destination, skb.port),
        masqueraded=masqueraded,
        remembered=skb.remembered,
        nat_decided=bool(end.target),
        answer=answer,
    )


def _filter_hooks(*, outgoing: bool, arrives: bool) -> tuple[str, ...]:
    if outgoing:
        return ("OUTPUT", "INPUT") if arrives else ("OUTPUT",)
    return ("INPUT",) if arrives else ("FORWARD",)


def _is_local(address: str, local: Collection[str]) -> bool:
    return address in local or ipaddress.ip_address(address).is_loopback


def _out(destination: str, local: Collection[str]) -> str:
    return "lo" if _is_local(destination, local) else UPLINK


def check(tables: Tables, table: ForwardingTable, packet: Packet, local: Collection[str]) -> None:
    """Hold the rules against the reference, for one packet of a client that nobody remembers."""
    found = list(fates(tables, packet, local))
    _check(found, table, packet, local)
    assert list(fates(tables, packet, local, mark=_EVERY_BIT)) == found, "others mark as they like"


def _check(
    found: list[Fate], table: ForwardingTable, packet: Packet, local: Collection[str]
) -> None:
    verdict = resolve(table, packet, local)
    assert sum(fate.probability for fate in found) == pytest.approx(1)
    whats = {fate.what for fate in found}
    match verdict:
        case Pass():
            guarded = is_loopback(packet.destination) and packet.in_interface is not None
            assert whats == {"pass"} or (guarded and whats == {"drop"}), verdict
            assert not any(fate.masqueraded for fate in found)
        case Drop(service=service):
            assert whats == {"drop"}, verdict
            assert all(fate.nat_decided for fate in found) or service is None
        case Reject(service=service):
            assert whats == {"reject"}, verdict
            assert all(fate.nat_decided for fate in found) or service is None
            for fate in found:
                assert (fate.answer == "tcp-reset") == (packet.protocol is Protocol.TCP)
        case Forward():
            assert whats == {"forward"}, verdict
            _check_forward(verdict, found, local)


def _check_forward(verdict: Forward, found: list[Fate], local: Collection[str]) -> None:
    chances: dict[str, float] = {}
    for fate in found:
        chances[fate.target] = chances.get(fate.target, 0.0) + fate.probability
    share = 1 / len(verdict.targets)
    assert chances == pytest.approx({str(target): share for target in verdict.targets}, rel=1e-6)
    targets = {str(target): target for target in verdict.targets}
    for fate in found:
        target = targets[fate.target]
        # What stays on the node has the node's address already, or never meets POSTROUTING.
        if not _is_local(target.address, local):
            expected = verdict.masquerade or target in verdict.hairpin
            assert fate.masqueraded == expected, (verdict, fate)
        assert len(fate.remembered) == (verdict.affinity_timeout_s is not None)


# Referred to only while some Service has a clusterIP.
ALWAYS_THERE = {"KPROXY-REJECT", "KPROXY-MARK"}


def unsigned(rules):
    """The rules without the comment in the first one, and what that comment says."""
    before, _, after = rules[0].partition("-m comment --comment kp:")
    said, _, rest = after.partition(" ")
    return (before + rest, *rules[1:]), said


def check_image(world):
    """Hold an image against what the kernel and the driver need of it."""
    for key, value in world.image.items():
        match split_key(key):
            case ("jump", *_):
                rules, said = unsigned([world.renderer.jump(key)])
                assert fingerprint(rules) == said == value.decode()
            case ("set", name):
                wanted = world.renderer.affinity_set(key)
                assert (wanted.name, set_value(wanted)) == (name, value)
                assert len(name) <= 31
            case (_, name):
                rules, said = unsigned(world.renderer.chain(key))
                assert fingerprint(rules) == said == value.decode()
                assert len(name) <= 28
                check_references(world.renderer, key, rules)
    tables = world.tables()
    assert tables.unreferenced() <= ALWAYS_THERE
    assert tables.longest_path() <= 15
    named = {f"set/{word}" for rules in world.chains().values() for rule in rules
             for word in rule.split() if word.startswith("kproxy-")}  # fmt: skip
    assert named == {key for key in world.image if key.startswith("set/")}


def check_references(renderer, key, rules):
    """A service port's chains lead to its own and the mark: they may be written before others."""
    owner = renderer.owner(key)
    if owner is not None:
        targets = {rule.split()[-1] for rule in rules}
        ours = {f"nat/{target}" for target in targets if target.startswith("KPROXY-")}
        assert {renderer.owner(target) for target in ours - {"nat/KPROXY-MARK"}} <= {owner}


def with_targets(compiler, key, count):
    """The change by which a service port gets so many endpoints, half of them local."""
    (family,) = compiler.tables
    table = compiler.tables[family]
    first = ipaddress.ip_address("10.128.0.0" if family is Family.IPV4 else "fd00:2::")
    targets = tuple(
        sorted((Target(str(first + n), 8080, n % 2 == 0) for n in range(count)), key=str)
    )
    entry = replace(
        table.service_ports[key],
        targets=targets,
        local_targets=tuple(target for target in targets if target.local),
        internal=Use.TARGETS,
        external=Use.LOCAL_TARGETS,
    )
    return replace(table.everything(), service_ports={key: entry})
