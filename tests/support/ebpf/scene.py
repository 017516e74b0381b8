"""A node with the tc programs of both families on all its devices, and pods that converse."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from backends.ebpf.unit import Unit
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.ebpf.tc import Tc, Use, Where, unit
from tests.support.net import plan
from tests.support.net.network import Network, Pods
from tests.support.net.plan import in_family
from tests.support.node.conversations import PORT, Conversation, Conversations
from tests.support.waiting import SLOWER

_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_KIND = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
PATIENCE_S = 10.0 * SLOWER
SERVING = (plan.POD1, plan.POD2, plan.POD3, plan.FAR1, plan.FAR2, plan.NODE_SECOND)

Units = Callable[[Family], Unit]


class Scene:
    """Addresses are given as IPv4. Sockets block, for a while."""

    def __init__(self, units: Units, pods: Pods = Pods.ROUTED) -> None:
        self.patience_s = PATIENCE_S  # of sockets, before they give up
        self._of_a_test = ExitStack()
        self.network = Network(pods)
        self.tc = {family: Tc(family, units(family)) for family in Family}
        self.attach_to()
        self.conversations = Conversations(self.network)
        self.conversations.serve(*SERVING)

    def attach_to(self, only: str | None = None) -> None:
        """Attach the programs to a device of the node, or to all."""
        for number, tc in enumerate(self.tc.values(), start=1):
            tc.attach(self.network.node, priority=number, only=only)

    @contextmanager
    def without_programs_on(self, device: str) -> Iterator[None]:
        """Run the body with a device of the node that nothing is attached to."""
        with self.network.node.entered(), IPRoute() as netlink:
            (index,) = netlink.link_lookup(ifname=device)
            netlink.tc("del", "clsact", index)
        yield
        self.attach_to(device)

    @contextmanager
    def without_address(self, address: str, family: Family) -> Iterator[None]:
        """Run the body while a machine does not have an address: nobody answers for it."""
        to = in_family(address, family)
        with self.network.namespaces[plan.PLACES[address]].entered(), IPRoute() as netlink:
            (index,) = netlink.link_lookup(ifname="eth0")
            netlink.addr("del", index=index, address=to, prefixlen=family.bits)
            yield
            netlink.addr("add", index=index, address=to, prefixlen=family.bits)

    def frontend(
        self,
        where: Where | int,
        targets: Sequence[str],
        uses: Sequence[Use] = (Use(), Use(), Use()),
        *,
        port: int = PORT,
        affinity_s: int = 0,
    ) -> None:
        """Enter a frontend of TCP and UDP in both families."""
        for tc in self.tc.values():
            for protocol in _KIND:
                ends = [(target, port) for target in targets]
                tc.frontend(where, protocol, ends, uses, affinity_s=affinity_s)

    def socket(
        self, at: str, family: Family, protocol: Protocol = Protocol.TCP, port: int = 0
    ) -> socket.socket:
        """Return a socket that is bound to an address of its machine."""
        with self.network.namespaces[plan.PLACES[at]].entered():
            made = self._of_a_test.enter_context(socket.socket(_AF[family], _KIND[protocol]))
        made.settimeout(self.patience_s)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((in_family(at, family), port))
        return made

    def listener(self, at: str, family: Family, port: int) -> socket.socket:
        """Return a listening socket."""
        made = self.socket(at, family, port=port)
        made.listen(16384)
        return made

    def open(
        self, source: str, to: str, protocol: Protocol, family: Family, *, port: int = 0
    ) -> Conversation:
        """Begin to talk to a frontend ("ip:port")."""
        made = self.conversations.open(source, to, protocol, family, source_port=port)
        self._of_a_test.callback(made.end)
        return made

    def forget(self) -> None:
        """Close the sockets of a test, and take its frontends and flows away."""
        self._of_a_test.close()
        for tc in self.tc.values():
            tc.forget()

    def close(self) -> None:
        """Take it down."""
        self.forget()
        self.conversations.close()
        self.network.close()
        for tc in self.tc.values():
            tc.close()


def as_is(bytecode: Path) -> Units:
    """Return the programs as they are in the source."""
    return lambda family: unit(family, bytecode)
