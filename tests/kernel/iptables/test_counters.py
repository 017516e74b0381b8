"""What the data path tells of itself: rules as the kernel has them, packets as it saw them."""

import socket

import pytest

from backends.iptables.cleanup import clean_up
from backends.iptables.driver import accounting, counters, parts
from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Account, Options, account_name
from backends.kernel.transactions import Transactions
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import Applied, address, changes, rules, run, service_port, shop
from tests.support.net import plan
from tests.support.net.network import Network

pytestmark = pytest.mark.kernel

NODE_PORT = 30000


class Counting(Applied):
    """A backend whose rules count."""

    def __init__(self, family, variant):
        super().__init__(family, variant)
        renderer = Renderer(family, Options(counts=True))
        self.backend = IptablesBackend(
            family=family, variant=variant, renderer=renderer, transactions=Transactions()
        )

    def value(self, metric, *labels):
        (value,) = [s.value for s in self.backend.counters() if s[:2] == (metric, labels)]
        return value

    def rules_in_kernel(self, table):
        lines = self.iptables(f"-t {table} -S").splitlines()
        return sum(line.startswith("-A") and "KPROXY-" in line for line in lines)


def ready(family, variant):
    """A Service whose endpoint is an address of the node itself."""
    node = Counting(family, variant)
    run(f"ip address add {address(family, 'pod', 2)} dev lo")
    port = service_port(family, 0, endpoints=[2])
    node.apply(changes(family, port, rules=rules(family, localhost=True)))
    return node


def connect(target, port):
    """Send a SYN; nobody has to answer."""
    with socket.socket(socket.AF_INET) as client:
        client.setblocking(False)
        client.bind(("127.0.0.1", 0))
        client.connect_ex((target, port))


def test_the_rules_are_as_many_as_the_kernel_has(namespace, family, variant):
    node = Counting(family, variant)
    node.apply(shop(family, localhost=True))
    for change in (
        changes(family, service_port(family, 7, endpoints=range(40))),
        changes(family, service_port(family, 7)),
        TableChanges(family, service_ports=dict.fromkeys([service_port(family, 0).key])),
    ):
        node.apply(change)
        for table in ("filter", "nat"):
            assert node.value(counters.RULES, table) == node.rules_in_kernel(table) > 10


def test_the_last_write_of_anything_is_told_by_its_rules(namespace, family, variant):
    node = Counting(family, variant)
    assert counters.WRITTEN not in {sample.metric for sample in node.backend.counters()}
    node.apply(shop(family))
    for table in ("filter", "nat"):
        assert node.value(counters.WRITTEN, table) == node.rules_in_kernel(table)
    before = node.value(counters.RULES, "nat")
    node.apply(changes(family, service_port(family, 0, endpoints=(2, 3, 4, 5))))
    assert node.value(counters.RULES, "nat") == before + 1
    # The chain of the Service, which masquerades what comes from outside and then has to choose.
    assert node.value(counters.WRITTEN, "nat") == 5
    assert node.value(counters.WRITTEN, "filter") == 0
    assert not node.apply()
    assert node.value(counters.WRITTEN, "nat") == 5


def test_connections_to_a_node_port_on_loopback_are_counted(namespace, variant):
    node = ready(Family.IPV4, variant)
    connect("127.0.0.1", NODE_PORT)
    connect("127.0.0.1", NODE_PORT + 1)  # nobody has it
    connect("127.0.0.1", 80)
    connect(address(Family.IPV4, "pod", 2), NODE_PORT)  # from loopback, but to another address
    assert node.value(counters.PACKETS[Account.LOCALHOST]) == 1


def test_the_count_outlives_rules_and_processes(namespace, variant):
    node = ready(Family.IPV4, variant)
    connect("127.0.0.1", NODE_PORT)
    node.iptables("-t nat -F")
    assert node.apply()
    connect("127.0.0.1", NODE_PORT)
    again = Counting(Family.IPV4, variant)
    again.apply(changes(Family.IPV4, *[service_port(Family.IPV4, 0)], rules=rules(Family.IPV4)))
    assert again.value(counters.PACKETS[Account.LOCALHOST]) == 2


def test_a_counter_that_went_with_the_rules_is_made_again(namespace, family, variant):
    node = Counting(family, variant)
    node.apply(shop(family, localhost=True))
    clean_up(family)
    assert not set(counters.PACKETS.values()) & {s.metric for s in node.backend.counters()}
    assert node.apply()
    assert node.value(counters.PACKETS[Account.INVALID]) == 0


def test_clean_up_removes_the_counters(namespace, family, variant):
    Counting(family, variant).apply(shop(family, localhost=True))
    clean_up(family)
    with pytest.raises(BackendError, match="No such file"):
        accounting.packets(family)
    assert clean_up(family) == 0


def test_a_counter_that_somebody_else_uses_stays(namespace, family, variant):
    node = Counting(family, variant)
    node.apply(shop(family))
    name = account_name(family, Account.INVALID)
    node.iptables(f"-A INPUT -m nfacct --nfacct-name {name}")
    assert clean_up(family) > 20
    assert name in node.saved()


@pytest.mark.parametrize("variant", Variant, ids=lambda variant: variant.value)
@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_forwarded_packets_of_no_connection_are_counted_and_dropped(family, variant):
    pod, client = (plan.in_family(each, family) for each in (plan.POD1, plan.CLIENT))
    kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    with Network() as network:
        with network.node.entered():
            node = Counting(family, variant)
            node.apply(shop(family))
        with (
            network.namespaces["outside"].entered(),
            socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_TCP) as outside,
        ):
            if family is Family.IPV6:
                outside.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, 16)
            outside.bind((client, 0))
            for _ in range(3):
                outside.sendto(_reset(client, pod), (pod, 0))
        with network.node.entered():
            assert node.value(counters.PACKETS[Account.INVALID]) == 3


def test_asking_whether_the_kernel_can_count_makes_no_counter(namespace, family, variant):
    assert parts.lacking(family, variant) == {}
    with pytest.raises(BackendError, match="No such file"):
        accounting.packets(family)


_IPV6_CHECKSUM = 7  # linux/in6.h


def _reset(source, destination):
    """Return a reset of a connection that never was; over IPv6 the kernel adds the checksum."""
    header = bytearray(b"\x12\x34\x00\x50" + bytes(8) + b"\x50\x04\x00\x00\x00\x00\x00\x00")
    if ":" not in source:
        pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + b"\x00\x06\x00\x14"
        words = pseudo + header
        total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, len(words), 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        header[16:18] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(header)
