"""Questions and answers of `kproxy explain`, as text and as JSON. No I/O."""

from __future__ import annotations

import msgspec

from kproxy.config.checks import split_address_port
from kproxy.core.addresses import canonical_address, endpoint_text, family_of
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Drop, Forward, Packet, Pass, Reject, Verdict
from kproxy.proxy.logs import escape


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of `--flows`."""

    source: str = msgspec.field(name="from")
    destination: str = msgspec.field(name="to")
    protocol: str
    in_interface: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict as JSON has it: always all six fields, in this order."""

    verdict: str
    service: str | None
    via: str | None
    endpoints: list[str]
    masquerade: bool
    reason: str


_FLOWS = msgspec.json.Decoder(Question)
_PROTOCOLS = {protocol.value.lower(): protocol for protocol in Protocol}


def parse_flow(line: bytes) -> Packet:
    """Return the packet that a line of `--flows` describes. Raises ValueError."""
    flow = _FLOWS.decode(line)
    return parse_packet(flow.source, flow.destination, flow.protocol, flow.in_interface)


def parse_packet(source: str, to: str, protocol: str, in_interface: str | None) -> Packet:
    """Return the packet from `source` to `to` (IP:PORT). Raises ValueError, naming the part."""
    known = _PROTOCOLS.get(protocol.lower())
    if known is None:
        raise ValueError(f"protocol: must be one of {', '.join(_PROTOCOLS)}, not {protocol!r}")
    try:
        address = canonical_address(source)
    except ValueError:
        raise ValueError(f"from: expected an IP address, not {source!r}") from None
    try:
        destination, port = split_address_port(to)
    except ValueError as error:
        raise ValueError(f"to: {error}, not {to!r}") from None
    if family_of(address) is not family_of(destination):
        families = f"{family_of(address).value} and {family_of(destination).value}"
        raise ValueError(f"from and to must be of one IP family, not {families}")
    return Packet(address, destination, port, known, in_interface or None)


def answer(verdict: Verdict) -> Answer:
    """Return a verdict in the form that JSON output has."""
    if isinstance(verdict, Forward):
        return Answer(
            verdict="forward",
            service=str(verdict.service),
            via=verdict.via.value,
            endpoints=sorted(str(target) for target in verdict.targets),
            masquerade=verdict.masquerade,
            reason=verdict.reason,
        )
    service = None if isinstance(verdict, Pass) else verdict.service
    via = None if isinstance(verdict, Pass) else verdict.via
    return Answer(
        verdict=_name(verdict),
        service=None if service is None else str(service),
        via=None if via is None else via.value,
        endpoints=[],
        masquerade=False,
        reason=verdict.reason,
    )


def describe(packet: Packet, verdict: Verdict) -> str:
    """Return a verdict for a person, several lines without the last line's end."""
    to = endpoint_text(packet.destination, packet.port)
    by = f", in by {packet.in_interface}" if packet.in_interface else ""
    lines = [f"{packet.source} -> {to} {packet.protocol.value.lower()}{by}: {_meaning(verdict)}"]
    short = answer(verdict)
    if short.service is not None:
        lines.append(_row("service", short.service))
    if short.via is not None:
        lines.append(_row("via", short.via))
    if isinstance(verdict, Forward):
        local = {str(target) for target in verdict.targets if target.local}
        for index, endpoint in enumerate(short.endpoints):
            here = "  (on this node)" if endpoint in local else ""
            lines.append(_row("endpoints" if index == 0 else "", endpoint + here))
        lines.append(_row("masquerade", _masquerade(verdict)))
        if verdict.affinity_timeout_s is not None:
            kept = f"a client keeps its endpoint for {verdict.affinity_timeout_s} s"
            lines.append(_row("affinity", kept))
    lines.append(_row("why", short.reason))
    return "\n".join(escape(line) for line in lines)


def _name(verdict: Reject | Drop | Pass) -> str:
    match verdict:
        case Reject():
            return "reject"
        case Drop():
            return "drop"
        case Pass():
            return "pass"


def _meaning(verdict: Verdict) -> str:
    match verdict:
        case Forward():
            one = len(verdict.targets) == 1
            return "FORWARD to one endpoint" if one else "FORWARD to one of the endpoints below"
        case Reject():
            return "REJECT, the client is told at once"
        case Drop():
            return "DROP, the client hears nothing"
        case Pass():
            return "PASS, none of kproxy's business"


def _masquerade(verdict: Forward) -> str:
    if verdict.masquerade:
        return "yes, the endpoint sees this node's address"
    if verdict.hairpin:
        return "no, save where the source itself is chosen"
    return "no, the endpoint sees the client's address"


def _row(name: str, value: str) -> str:
    return f"  {name:<11} {value}"
