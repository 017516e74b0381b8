"""What would be programmed for a table, as text for a person. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backends.ipvs.driver.link import LINK, PRIORITY, PROTOCOL, STEERING_RULE, TABLE
from backends.ipvs.driver.settings import ConnectionTimeouts, node_settings
from backends.ipvs.options import IpvsOptions
from backends.ipvs.render.entries import (
    Address,
    Destination,
    Entry,
    MarkedServer,
    Member,
    Place,
    Source,
    Steered,
    Steering,
    entry,
)
from backends.ipvs.render.renderer import Renderer, Surroundings
from backends.ipvs.render.rules import TABLES
from backends.ipvs.render.service_port import HASH_PORTS_TOO, Options
from backends.ipvs.render.sets import SetKind, set_name
from backends.kernel.ipset_elements import MOST_ELEMENTS
from backends.kernel.sysctls import NodeSetting
from backends.kernel.xtables.restore import RestoreInput, whole_edit
from kproxy.core.addresses import Family, endpoint_text
from kproxy.core.image import Changes, Key
from kproxy.core.objects import Protocol
from kproxy.core.table import ForwardingTable

_KERNEL = (5, 9)  # and all later ones
_OPTIONS = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}


def preview(table: ForwardingTable, options: IpvsOptions) -> str:
    """Return the input of iptables-restore --noflush for an empty kernel.

    What the rules need besides stands in comments, as commands in their order. What follows the
    node's own addresses, NodePorts above all, is not among it.
    """
    family = table.family
    renderer = Renderer(family, Options(options.scheduler))
    image = renderer.update(table.everything(), Surroundings())
    wanted = {key: value for key, value in image.items() if value is not None}
    settings = node_settings(family, options, _KERNEL)
    lines = ["# modprobe ip_vs", *(f"# {_setting(each)}" for each in settings)]
    lines += [f"# {command}" for command in _commands(family, wanted)]
    named = Changes(
        {key: value for key, value in wanted.items() if isinstance(key, str)}, frozenset()
    )
    for name in TABLES:
        edit = whole_edit(name, named)
        first = dict.fromkeys(edit.insert_jumps, 1)
        lines += RestoreInput(edit, renderer.chain, renderer.jump, old_jumps={}, numbers=first)
    return "".join(f"{line}\n" for line in lines)


def _commands(family: Family, wanted: Mapping[Key, bytes]) -> Iterator[str]:
    """Yield commands that make all that has no name, each kind behind what it refers to."""
    for kind in SetKind:
        yield f"ipset create {set_name(family, kind)} {_shape(family, kind)}"
    found = {key: entry(key) for key in wanted if isinstance(key, bytes)}
    yield f"ip link add {LINK} up type dummy"
    for kinds in (Member, Place | MarkedServer, Destination, Address | Steered | Steering):
        for key, each in sorted(found.items()):
            if isinstance(each, kinds):
                yield _command(family, each, wanted[key])


def _setting(setting: NodeSetting) -> str:
    if isinstance(setting, ConnectionTimeouts):
        wanted = setting.wanted  # 0 leaves one as it is, there too
        return f"ipvsadm --set {wanted.tcp_s} {wanted.tcp_fin_s} {wanted.udp_s}"
    return f"sysctl -w {setting.name}={setting.value}"


def _shape(family: Family, kind: SetKind) -> str:
    if kind.value.type.startswith("bitmap:"):
        return f"{kind.value.type} range 0-65535"
    inet = "inet" if family is Family.IPV4 else "inet6"
    marks = " skbinfo" if kind.value.marks else ""
    return f"{kind.value.type} family {inet} maxelem {MOST_ELEMENTS}{marks}"


def _command(family: Family, of: Entry, value: bytes) -> str:
    ip = "ip" if family is Family.IPV4 else "ip -6"
    match of:
        case Member(kind, element):
            mark = f" skbmark {int.from_bytes(value, 'big'):#x}" if value else ""
            return f"ipset add {set_name(family, kind)} {_element(element)}{mark}"
        case Place() | MarkedServer():
            return f"ipvsadm -A {_server(family, of)}{_choosing(value)}"
        case Destination(server, address, port):
            behind = endpoint_text(address, port)
            return f"ipvsadm -a {_server(family, server)} -r {behind} -m -w {value.decode()}"
        case Address(address):
            return f"{ip} {_route(address, 'local')}"
        case Steered(address):
            return f"{ip} {_route(address, str(TABLE))}"
        case Steering():
            rule = STEERING_RULE
            mark = f"{rule.mark:#x}/{rule.mask:#x}"
            return f"{ip} rule add pref {rule.priority} fwmark {mark} lookup {rule.table}"


def _route(address: str, table: str) -> str:
    return f"route add local {address} dev {LINK} table {table} proto {PROTOCOL} metric {PRIORITY}"


def _server(family: Family, server: Place | MarkedServer) -> str:
    if isinstance(server, MarkedServer):
        return f"-f {server.mark:#x}{'' if family is Family.IPV4 else ' -6'}"
    return f"{_OPTIONS[server.protocol]} {endpoint_text(server.address, server.port)}"


def _choosing(value: bytes) -> str:
    scheduler, flags, timeout_s = value.decode().split(":")
    persistent = f" -p {timeout_s}" if int(timeout_s) else ""
    ports_too = " -b mh-port" if int(flags) & HASH_PORTS_TOO else ""
    return f" -s {scheduler}{persistent}{ports_too}"


def _element(element: Place | Source | str | int) -> str:
    match element:
        case Source(place, network):
            return f"{_element(place)},{network}"
        case Place(address, protocol, port):
            return f"{address},{protocol.value.lower()}:{port}"
        case _:
            return str(element)
