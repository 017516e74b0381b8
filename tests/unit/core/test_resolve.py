"""The reference decision: total, with a reason for everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Drop, Forward, Packet, Pass, Reject, admits_node_port, resolve
from kproxy.core.settings import LocalhostNodePorts, NodePortKeyword, Settings
from kproxy.core.store import Connected
from kproxy.core.table import Via
from tests.support.core.things import (
    HERE,
    NODE_ADDRESS,
    a_cidr,
    a_node,
    a_port,
    a_service,
    a_slice,
    an_endpoint,
    listed,
    networks,
)
from tests.support.core.universe import (
    CLUSTERS,
    EXTERNAL_IPS,
    NODE_ADDRESSES,
    NODE_PORTS,
    NUMBERS,
    POD_IPS,
    SETTINGS,
)
from tests.support.effort import examples

TCP = Protocol.TCP
CLIENT = "203.0.113.77"
LOCAL = (NODE_ADDRESS,)


def table(*objects, family=Family.IPV4, **settings):
    compiler = Compiler(Settings(HERE, **settings), [family])
    compiler.apply(listed(*objects))
    return compiler.tables[family]


def node_port_service(**fields):
    return a_service(ports=[a_port(node_port=30080)], **fields)


SERVED = (node_port_service(), a_slice(an_endpoint("10.1.0.1", node=HERE), "10.1.0.2"))


@st.composite
def packets(draw, family):
    """Packets to and from anywhere, well-formed alone."""
    version = 4 if family is Family.IPV4 else 6
    known = (*POD_IPS[family], *EXTERNAL_IPS[family], NODE_ADDRESSES[family])
    anywhere = st.sampled_from(known) | st.ip_addresses(v=version).map(str)
    return Packet(
        draw(anywhere),
        draw(anywhere),
        draw(st.sampled_from((*NUMBERS, *NODE_PORTS[1:])) | st.integers(1, 65535)),
        draw(st.sampled_from(Protocol)),
        draw(st.sampled_from([None, "eth0", "pods0", "pod1", ""])),
    )


@examples(80)
@given(st.data(), st.sampled_from(Family), SETTINGS, CLUSTERS)
def test_every_packet_has_a_verdict_and_every_verdict_a_reason(data, family, settings, cluster):
    compiler = Compiler(settings, [family])
    compiler.apply(cluster)
    current = compiler.tables[family]
    frontends = [
        Packet(
            CLIENT if family is Family.IPV4 else "2001:db8:9::77", address, port, protocol, "eth0"
        )
        for address, protocol, port in current.vips
    ]
    for packet in [*frontends, *data.draw(st.lists(packets(family), min_size=3, max_size=6))]:
        verdict = resolve(current, packet, {NODE_ADDRESSES[family]})
        assert verdict.reason
        if isinstance(verdict, Forward):
            entry = current.service_ports[verdict.service]
            assert verdict.targets in (entry.targets, entry.local_targets)
            assert verdict.targets
            assert set(verdict.hairpin) <= set(verdict.targets)
            assert all(target.address == packet.source for target in verdict.hairpin)


def test_a_node_port_on_loopback_is_for_the_node_itself():
    current = table(*SERVED)

    own = resolve(current, Packet("127.0.0.1", "127.0.0.1", 30080, TCP), LOCAL)
    assert isinstance(own, Forward)
    assert (own.via, own.masquerade) == (Via.NODE_PORT, True)
    by_address = resolve(current, Packet(NODE_ADDRESS, "127.5.5.5", 30080, TCP), LOCAL)
    assert isinstance(by_address, Forward)
    stranger = resolve(current, Packet(CLIENT, "127.0.0.1", 30080, TCP, "eth0"), LOCAL)
    assert isinstance(stranger, Pass)


def test_a_loopback_address_counts_as_the_node_s_own_whatever_was_found():
    assert isinstance(
        resolve(table(*SERVED), Packet("127.0.0.1", "127.0.0.1", 30080, TCP), ()), Forward
    )


def test_node_ports_on_loopback_can_be_off_while_others_hold():
    current = table(*SERVED, localhost_ipv4=LocalhostNodePorts.NEVER)

    assert isinstance(resolve(current, Packet("127.0.0.1", "127.0.0.1", 30080, TCP), LOCAL), Pass)
    assert isinstance(
        resolve(current, Packet("127.0.0.1", NODE_ADDRESS, 30080, TCP), LOCAL), Forward
    )


def test_a_listed_loopback_network_alone_leaves_other_addresses_out():
    current = table(*SERVED, node_port_addresses=(NodePortKeyword.LOCALHOST,))

    assert isinstance(
        resolve(current, Packet("127.0.0.1", "127.0.0.1", 30080, TCP), LOCAL), Forward
    )
    assert isinstance(
        resolve(current, Packet(CLIENT, NODE_ADDRESS, 30080, TCP, "eth0"), LOCAL), Pass
    )


def test_node_port_addresses_decide_for_refusals_too():
    idle = node_port_service()
    everywhere = table(idle)
    elsewhere = table(idle, node_port_addresses=networks("198.51.100.0/24"))
    packet = Packet(CLIENT, NODE_ADDRESS, 30080, TCP, "eth0")

    assert isinstance(resolve(everywhere, packet, LOCAL), Reject)
    assert isinstance(resolve(elsewhere, packet, LOCAL), Pass)


@pytest.mark.parametrize(
    ("address", "admitted"),
    [("192.0.2.1", True), ("198.51.100.1", False), ("127.0.0.1", False)],
)
def test_where_node_ports_are_admitted(address, admitted):
    rules = table(node_port_addresses=networks("192.0.2.0/24")).rules

    assert admits_node_port(rules, address) is admitted


def test_a_node_port_number_means_nothing_at_another_s_address():
    verdict = resolve(table(*SERVED), Packet(CLIENT, "192.0.2.200", 30080, TCP, "eth0"), LOCAL)

    assert isinstance(verdict, Pass)


def test_an_address_of_the_node_is_never_taken_for_an_unallocated_one():
    current = table(a_cidr("192.0.2.0/24"))

    assert isinstance(resolve(current, Packet(CLIENT, NODE_ADDRESS, 22, TCP, "eth0"), LOCAL), Pass)
    verdict = resolve(current, Packet(CLIENT, "192.0.2.200", 22, TCP, "eth0"), LOCAL)
    assert isinstance(verdict, Drop)
    assert verdict.service is None


@pytest.mark.parametrize("cidr", ["192.0.0.0/16", "192.0.2.0/25"])
def test_a_neighbour_is_never_taken_for_an_unallocated_address(cidr):
    """Whether the nodes' network is inside the ServiceCIDR or around it."""
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    near = Connected(frozenset(networks("192.0.2.0/24")))
    compiler.apply([near, *listed(a_service(cluster_ips=("192.0.2.7",)), a_cidr(cidr))])

    def at(address, port=22):
        packet = Packet(NODE_ADDRESS, address, port, TCP)
        return resolve(compiler.tables[Family.IPV4], packet, LOCAL)

    neighbour = at("192.0.2.11")
    assert isinstance(neighbour, Pass)
    assert "192.0.2.0/24 (this node is directly connected to it)" in neighbour.reason
    assert isinstance(at("192.0.2.7"), Reject), "a clusterIP there is one"
    assert at("192.0.2.7", 80).via is Via.CLUSTER_IP
    assert isinstance(at("192.0.9.9"), Drop if cidr == "192.0.0.0/16" else Pass)


def test_node_ports_can_hold_on_a_part_of_loopback():
    current = table(*SERVED, node_port_addresses=networks("127.0.2.0/28"))

    def at(address):
        return resolve(current, Packet("127.0.0.1", address, 30080, TCP), LOCAL)

    assert isinstance(at("127.0.2.1"), Forward)
    assert at("127.0.0.1") == Pass("nodePortAddresses leaves this address out")


def test_a_service_that_calls_itself_alone_is_always_masqueraded():
    current = table(a_service(), a_slice("10.1.0.1"), cluster_cidrs=networks("10.1.0.0/16"))
    verdict = resolve(current, Packet("10.1.0.1", "10.96.0.1", 80, TCP, "pod0"), LOCAL)

    assert verdict.masquerade
    assert [target.address for target in verdict.hairpin] == ["10.1.0.1"]


def test_all_ports_of_the_source_are_hairpins():
    slices = a_slice("10.1.0.1"), a_slice("10.1.0.1", "10.1.0.2", name="2", ports=[(9090, "")])
    current = table(a_service(), *slices, cluster_cidrs=networks("10.1.0.0/16"))
    verdict = resolve(current, Packet("10.1.0.1", "10.96.0.1", 80, TCP, "pod0"), LOCAL)

    assert not verdict.masquerade
    assert [str(target) for target in verdict.hairpin] == ["10.1.0.1:8080", "10.1.0.1:9090"]
    assert "10.1.0.1:8080, 10.1.0.1:9090" in verdict.reason


@pytest.mark.parametrize(("source", "verdict"), [("198.51.100.7", Forward), (CLIENT, Drop)])
def test_source_ranges_hold_at_load_balancer_addresses_alone(source, verdict):
    service = node_port_service(
        load_balancer_ips=("203.0.113.1",),
        external_ips=("203.0.113.2",),
        sources=("198.51.100.0/24",),
    )
    current = table(service, a_slice("10.1.0.1"), a_node(NODE_ADDRESS))

    def at(address, port=80):
        return resolve(current, Packet(source, address, port, TCP, "eth0"), LOCAL)

    assert isinstance(at("203.0.113.1"), verdict)
    for address, port in (("203.0.113.2", 80), ("10.96.0.1", 80), (NODE_ADDRESS, 30080)):
        assert isinstance(at(address, port), Forward)


def test_ipv4_and_ipv6_networks_do_not_mix():
    current = table(a_cidr("10.96.0.0/16"), family=Family.IPV6)

    assert isinstance(resolve(current, Packet("fd00::1", "fd00::2", 80, TCP), ()), Pass)
