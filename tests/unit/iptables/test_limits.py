"""The limits of the kernel and its tools hold for every table, and no name gets into a rule."""

import ipaddress
from dataclasses import replace

import pytest

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Packet
from kproxy.core.settings import Settings
from tests.support.core.things import HERE, a_port, a_service, a_slice, listed
from tests.support.iptables.world import World, check_image, fates, with_targets


def unkind(family):
    """Addresses that part at every nibble, so that no path can be compressed."""
    bits = family.bits
    first = int(ipaddress.ip_address("10.96.0.0" if family is Family.IPV4 else "fd00:96::"))
    keep = 16 if family is Family.IPV4 else 32
    numbers = {first}
    for shift in range(0, bits - keep, 4):
        numbers |= {first | digit << shift for digit in range(1, 16)}
    return [str(ipaddress.ip_address(number)) for number in sorted(numbers)]


@pytest.mark.parametrize(("family", "count"), [(Family.IPV4, 2_000), (Family.IPV6, 10_000)])
def test_the_longest_path_fits_into_what_nf_tables_allows(family, count):
    """Unkind addresses, all ports of one address, many endpoints, affinity, sources, policy."""
    addresses = unkind(family)
    ports = [a_port(n, name=f"p{n}", node_port=30000 + n) for n in range(1, 200)]
    crowd = a_service("crowd", cluster_ips=(addresses[0],), ports=ports, external_local=True)
    busy = a_service(
        "busy",
        cluster_ips=(addresses[1],),
        load_balancer_ips=tuple(addresses[2:]),
        sources=("10.1.0.0/16", "fd00:1::/64"),
        external_local=True,
        affinity_timeout_s=60,
        ports=[a_port(80, name="http")],
    )
    compiler = Compiler(Settings(HERE), [family])
    compiler.apply(listed(crowd, busy))
    key = next(k for k in compiler.tables[family].service_ports if k.name == "busy")
    world = World.of(compiler.tables[family])
    world.update(with_targets(compiler, key, count))
    tables = world.tables()

    assert 10 <= tables.longest_path() <= 15
    assert tables.unreferenced() == set()
    packet = Packet("10.1.0.1" if family is Family.IPV4 else "fd00:1::1", addresses[2], 80,
                    Protocol.TCP, "eth0")  # fmt: skip
    found = list(fates(tables, packet, ()))
    assert sum(fate.probability for fate in found) == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 100, 2000])
def test_every_endpoint_has_the_same_chance_however_many_there_are(count):
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service(), a_slice("10.1.0.1")))
    (key,) = compiler.tables[Family.IPV4].service_ports
    world = World.of(compiler.tables[Family.IPV4])
    world.update(with_targets(compiler, key, count))
    tables = world.tables()

    packet = Packet("203.0.113.77", "10.96.0.1", 80, Protocol.TCP, "eth0")
    chances = {fate.target: fate.probability for fate in fates(tables, packet, ())}
    assert len(chances) == count
    assert max(abs(chance * count - 1) for chance in chances.values()) < 1e-6


HOSTILE = ["a-j-accept", "kproxy-svc", "dport-0-65535", "-m", "x" * 63, "0", "a b", "$(id)",
           '"; -j ACCEPT', "a\n-A INPUT -j ACCEPT"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_service_gets_into_a_rule(name):
    """Neither legal names nor those that parsing refuses."""
    service = a_service(
        ports=[a_port(name="http", node_port=30000)],
        load_balancer_ips=("203.0.113.1",),
        sources=("198.51.100.0/24",),
        affinity_timeout_s=60,
        external_local=True,
    )
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(service, a_slice("10.1.0.1", ports=[(8080, "http")])))
    table = compiler.tables[Family.IPV4]
    ((key, entry),) = table.service_ports.items()

    def rendered(namespace, name, port):
        renamed = key._replace(namespace=namespace, name=name, port=port)
        alone = {renamed: replace(entry, key=renamed)}
        world = World(Family.IPV4)
        world.update(replace(table.everything(), service_ports=alone))
        check_image(world)
        return world

    usual = rendered("shop", "web", "http")
    worlds = [rendered(name, "web", "http"), rendered("shop", name, "http"),
              rendered("shop", "web", name)]  # fmt: skip
    for world in worlds:
        assert len(world.image) == len(usual.image)
        for rules in world.chains().values():
            for rule in rules:
                assert rule.isprintable()
                assert len(name) < 3 or name not in rule
    names = [{key for key in world.image if "SVC-" in key} for world in (usual, *worlds)]
    assert len(set().union(*names)) == len(names), "no two of them share a chain"


def test_names_that_read_the_same_when_joined_have_chains_of_their_own():
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service(), a_slice("10.1.0.1")))
    table = compiler.tables[Family.IPV4]
    ((key, entry),) = table.service_ports.items()
    keys = [key._replace(namespace=a, name=b, port=c)
            for a, b, c in (("a", "b-c", ""), ("a-b", "c", ""), ("a", "b", "c"), ("a", "bc", ""))
            ] + [key._replace(protocol=Protocol.UDP)]  # fmt: skip
    world = World(Family.IPV4)
    everything = {each: replace(entry, key=each, frontends=entry.frontends) for each in keys}
    world.update(replace(table.everything(), service_ports=everything))

    assert sum("KPROXY-SVC-" in each for each in world.image) == len(keys)


def test_too_many_endpoints_with_affinity_cost_one_service_its_affinity_and_nothing_else():
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    sticky = {"affinity_timeout_s": 60}
    services = [a_service("one", **sticky), a_service("two", cluster_ips=("10.96.0.2",), **sticky)]
    slices = [a_slice("10.1.0.1", name=f"{n}-1", service=n) for n in ("one", "two")]
    compiler.apply(listed(*services, *slices))
    table = compiler.tables[Family.IPV4]
    one, two = sorted(table.service_ports, key=str)
    world, small = World.of(table), World.of(table)

    world.update(with_targets(compiler, one, 20_000))
    world.update(with_targets(compiler, two, 20_000))
    assert list(world.renderer.unheld()) == [two]
    assert "sessionAffinity is off" in world.renderer.unheld()[two]
    assert sum(key.startswith("set/") for key in world.image) == 20_000

    world.update(table.everything())
    assert world.renderer.unheld() == {}
    assert world.image == small.image
    check_image(world)
