"""A backend of iptables in the current network namespace, and small forwarding tables for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from backends.kernel.transactions import Transactions
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family, canonical_network
from kproxy.core.image import Changes, Image, diff
from kproxy.core.objects import Protocol
from kproxy.core.table import (
    FromNetwork,
    NodePort,
    NodeRules,
    ServicePort,
    ServicePortKey,
    TableChanges,
    Target,
    Use,
    Via,
    Vip,
)
from tests.support.commands import output_of
from tests.support.waiting import LONGEST_S


def run(command: str, stdin: str = "") -> str:
    """Run a command in the test's namespace and return what it printed."""
    return output_of(*command.split(), stdin=stdin, timeout_s=LONGEST_S)


def iptables(family: Family, variant: Variant, verb: str = "") -> str:
    """Return the name of a program."""
    stem = "iptables" if family is Family.IPV4 else "ip6tables"
    return "-".join(part for part in (stem, variant.value, verb) if part)


def saved(family: Family, variant: Variant) -> str:
    """Return all rules with their counters, without the remarks that hold the time."""
    printed = run(f"{iptables(family, variant, 'save')} -c")
    return "\n".join(line for line in printed.splitlines() if not line.startswith("#"))


class Applied:
    """A backend that is told changes of a table, as the reconciler tells it."""

    def __init__(self, family: Family, variant: Variant) -> None:
        self.family = family
        self.variant = variant
        self.renderer = Renderer(family, Options())
        self.backend = IptablesBackend(
            family=family,
            variant=variant,
            renderer=self.renderer,
            transactions=Transactions(),
        )
        self.want: dict = {}

    def render(self, changes: TableChanges) -> None:
        for key, value in self.backend.render(changes).items():
            if value is None:
                self.want.pop(key, None)
            else:
                self.want[key] = value

    def apply(self, changes: TableChanges | None = None) -> Changes:
        """Observe, and write what differs; return that."""
        if changes is not None:
            self.render(changes)
        written = diff(self.backend.observe(), self.want)
        if written:
            self.backend.commit(written)
        return written

    def observed(self) -> Image:
        return self.backend.observe()

    def iptables(self, rest: str) -> str:
        return run(f"{iptables(self.family, self.variant)} {rest}")

    def restore(self, text: str, options: str = "--noflush") -> None:
        run(f"{iptables(self.family, self.variant, 'restore')} {options}", text)

    def saved(self) -> str:
        return saved(self.family, self.variant)


def rules(family: Family, *, localhost: bool = False) -> NodeRules:
    """Return the rules of a node whose pods are in one network."""
    v4 = family is Family.IPV4
    loopback = canonical_network("127.0.0.0/8" if v4 else "::1/128")
    return NodeRules(
        local_pods=FromNetwork(canonical_network("10.0.0.0/16" if v4 else "fd00:10::/64")),
        masquerade_all=False,
        node_port_addresses=(canonical_network("0.0.0.0/0" if v4 else "::/0"),),
        localhost_node_ports=(loopback,) if localhost else (),
        service_cidrs=(canonical_network("172.30.0.0/16" if v4 else "fd00:30::/112"),),
        shared_ranges=(),
    )


def address(family: Family, prefix: str, number: int) -> str:
    """Return an address; `prefix` is `vip` or `pod`."""
    if family is Family.IPV4:
        first = {"vip": "172.30", "pod": "10.0"}[prefix]
        return f"{first}.{number >> 8 & 255}.{number & 255}"
    return f"{ {'vip': 'fd00:30::', 'pod': 'fd00:10::'}[prefix] }{number:x}"


def service_port(
    family: Family,
    number: int,
    *,
    endpoints: Iterable[int] = (),
    affinity_timeout_s: int | None = None,
    protocol: Protocol = Protocol.TCP,
) -> ServicePort:
    """Return a service port with a clusterIP and a NodePort; no endpoints: it refuses."""
    targets = tuple(
        sorted(
            (Target(address(family, "pod", n), 8080, local=n % 2 == 0) for n in endpoints), key=str
        )
    )
    use = Use.TARGETS if targets else Use.REJECT
    return ServicePort(
        key=ServicePortKey("shop", f"service-{number}", "http", protocol),
        frontends=(
            Vip(Via.CLUSTER_IP, address(family, "vip", number + 1), 80),
            NodePort(30000 + number),
        ),
        internal=use,
        external=use,
        external_local=False,
        targets=targets,
        local_targets=(),
        sources=None,
        affinity_timeout_s=affinity_timeout_s,
        serving=frozenset(),
    )


def changes(family: Family, *ports: ServicePort, **parts) -> TableChanges:
    """Return the changes that put service ports."""
    return TableChanges(
        family,
        service_ports={port.key: port for port in ports},
        cluster_ips={port.frontends[0].address: True for port in ports},
        **parts,
    )


Shop = Callable[[], TableChanges]


def shop(family: Family, *, localhost: bool = False) -> TableChanges:
    """Return a table: one service with endpoints, one with affinity, one without endpoints."""
    return changes(
        family,
        service_port(family, 0, endpoints=(2, 3, 4)),
        service_port(family, 1, endpoints=(5, 6), affinity_timeout_s=10800),
        service_port(family, 2),
        rules=rules(family, localhost=localhost),
    )
