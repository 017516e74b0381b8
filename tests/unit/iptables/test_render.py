"""The image of a table: complete, within the kernel's limits, and the same by any way there."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.iptables.render import services
from backends.iptables.render.rules import Options
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import ObjectKey, Protocol
from kproxy.core.resolve import Packet
from kproxy.core.settings import DetectLocalMode, LocalhostNodePorts, Settings
from kproxy.core.store import Upserted
from kproxy.core.table import (
    FromInterface,
    FromInterfacePrefix,
    HealthCheck,
    TableChanges,
    Undetected,
)
from tests.support.core.things import HERE, a_cidr, a_node, a_port, a_service, a_slice, listed
from tests.support.core.universe import CHANGES, CLUSTERS, SETTINGS
from tests.support.effort import examples
from tests.support.iptables.world import World, check, check_image, fates, with_targets
from tests.unit.iptables.golden import golden_file, text


@examples(50)
@given(st.data(), st.sampled_from(Family), SETTINGS, CLUSTERS, CHANGES)
def test_only_the_last_table_matters(data, family, settings, cluster, changes):
    compiler, world, pending = Compiler(settings, [family]), World(family), None
    for change in [*cluster, *changes]:
        changed = compiler.apply([change]).get(family)
        if changed is not None:
            pending = changed if pending is None else pending.then(changed)
        if pending is not None and data.draw(st.booleans()):
            world.update(pending)
            pending = None
    if pending is not None:
        world.update(pending)

    if not world.image:
        return
    fresh = World.of(compiler.tables[family])
    assert world.image == fresh.image
    assert world.chains() == fresh.chains()
    check_image(world)
    assert not world.update(compiler.tables[family].everything()), "again changes nothing"


@examples(30)
@given(st.sampled_from(Family), SETTINGS, CLUSTERS, CHANGES)
def test_there_and_back_is_the_same_image(family, settings, cluster, changes):
    compiler = Compiler(settings, [family])
    first = compiler.apply(cluster)
    world = World(family)
    if family not in first:
        return
    world.update(first[family])
    image, chains = dict(world.image), world.chains()
    for batch in (changes, cluster):
        changed = compiler.apply(batch).get(family)
        if changed is not None:
            world.update(changed)

    assert world.image == image
    assert world.chains() == chains


@pytest.fixture
def calls(monkeypatch):
    """How often the chains of a service port were rendered, and a Service compiled."""
    counted = {"rendered": 0, "compiled": 0}

    def counting(what, function):
        def call(*args, **kwargs):
            counted[what] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(services, "chains", counting("rendered", services.chains))
    from kproxy.core import compile as compiling

    original = compiling.compile_service
    monkeypatch.setattr(compiling, "compile_service", counting("compiled", original))
    return counted


def test_one_endpoint_costs_what_one_endpoint_costs(calls):
    """Counted, not timed: compiled Services, rendered service ports, touched and changed keys."""
    count = 300
    objects = [a_service(f"web{n}", cluster_ips=(f"10.96.{n // 250}.{n % 250}",),
                         ports=[a_port(node_port=30000 + n)]) for n in range(count)]  # fmt: skip
    slices = [a_slice("10.1.0.1", "10.1.0.2", name=f"s{n}", service=f"web{n}")
              for n in range(count)]  # fmt: skip
    compiler, world = Compiler(Settings(HERE), [Family.IPV4]), World(Family.IPV4)
    world.update(compiler.apply(listed(*objects, *slices))[Family.IPV4])
    calls.update(rendered=0, compiled=0)

    def change(*endpoints):
        changed = compiler.apply([Upserted(a_slice(*endpoints, name="s7", service="web7"))])
        patch = world.renderer.update(changed[Family.IPV4])
        differing = {key for key, value in patch.items() if world.image.get(key) != value
                     and (value is not None or key in world.image)}  # fmt: skip
        world.image.update(patch)
        return patch, differing

    patch, differing = change("10.1.0.1", "10.1.0.3")
    assert calls == {"rendered": 2, "compiled": 1}
    (chain,) = differing
    assert chain.startswith("nat/KPROXY-SVC-")
    assert len(patch) <= 35, "what is there without any Service too, and one path"

    calls.update(rendered=0, compiled=0)
    patch, differing = change()
    assert calls == {"rendered": 2, "compiled": 1}
    assert len(differing) <= 12, "the last endpoint gone: the verdicts in filter appear"


def test_one_endpoint_of_ten_thousand_changes_one_path_of_the_choice():
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service(), a_slice("10.1.0.1")))
    (key,) = compiler.tables[Family.IPV4].service_ports
    world = World.of(compiler.tables[Family.IPV4])
    world.update(with_targets(compiler, key, 10_000))

    assert 1 <= len(world.update(with_targets(compiler, key, 10_001))) <= 4


@pytest.mark.parametrize("bit", [0, 14, 31])
def test_the_mark_is_the_chosen_bit_and_no_other(bit):
    compiler = Compiler(Settings(HERE, masquerade_all=True), [Family.IPV4])
    compiler.apply(listed(a_service(), a_slice("10.1.0.1")))
    world = World(Family.IPV4, Options(masquerade_bit=bit))
    world.update(compiler.tables[Family.IPV4].everything())
    packet = Packet("203.0.113.77", "10.96.0.1", 80, Protocol.TCP, "eth0")
    (fate,) = fates(world.tables(), packet, ())

    assert fate.masqueraded
    words = " ".join(rule for rules in world.chains().values() for rule in rules).split()
    used = {words[place + 1] for place, word in enumerate(words) if word.endswith("mark")
            and word.startswith("--")}  # fmt: skip
    assert used == {f"{1 << bit:#x}/{1 << bit:#x}", f"0x0/{1 << bit:#x}"}


@pytest.mark.parametrize("drop", [True, False])
def test_invalid_packets_are_dropped_if_asked(drop):
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service()))
    world = World(Family.IPV4)
    world.update(compiler.tables[Family.IPV4].everything(), drop_invalid=drop)

    rules = world.chains()["filter", "KPROXY-FORWARD"]
    assert any("INVALID" in rule for rule in rules) is drop


def test_health_check_ports_are_let_in_as_long_as_a_service_has_them():
    def service(name, port, address):
        return a_service(name, cluster_ips=(address,), external_local=True,
                         health_check_node_port=port)  # fmt: skip

    compiler, world = Compiler(Settings(HERE), [Family.IPV4]), World(Family.IPV4)
    both = [service("a", 32000, "10.96.0.1"), service("b", 32000, "10.96.0.2")]
    for objects, admitted in ((both, True), (both[1:], True), ([], False)):
        changes = compiler.apply(listed(*objects))
        world.update(changes[Family.IPV4])
        rules = world.chains()["filter", "KPROXY-HEALTH"]
        assert any("--dport 32000 " in rule for rule in rules) is admitted


def test_the_other_health_check_ports_are_not_looked_at_for_one_that_changes():
    compared = []

    class Port(int):
        __hash__ = int.__hash__

        def __eq__(self, other):
            compared.append(other)
            return int(self) == other

    def one(number, port):
        return {ObjectKey("shop", f"s{number}"): HealthCheck(Port(port), 1)}

    compiler, world = Compiler(Settings(HERE), [Family.IPV4]), World(Family.IPV4)
    world.update(compiler.apply(listed())[Family.IPV4])
    for number in range(200):
        world.update(TableChanges(Family.IPV4, health_checks=one(number, 32000 + number)))
    assert any("--dport 32199 " in rule for rules in world.chains().values() for rule in rules)
    compared.clear()
    world.update(TableChanges(Family.IPV4, health_checks=one(7, 32500)))
    assert len(compared) < 100


def test_the_loopback_guard_is_there_exactly_while_localhost_node_ports_are():
    guard = {"filter/KPROXY-LOCALNET", "jump/filter/INPUT/KPROXY-LOCALNET"}
    worlds = {}
    for on in (True, False):
        compiler = Compiler(
            Settings(
                HERE, localhost_ipv4=LocalhostNodePorts.COVERED if on else LocalhostNodePorts.NEVER
            )
        )
        compiler.apply(listed(a_service()))
        for family in Family:
            worlds[family, on] = World.of(compiler.tables[family])

    held = {where: guard & world.image.keys() for where, world in worlds.items()}
    assert held == {
        (Family.IPV4, True): guard,
        (Family.IPV4, False): set(),
        (Family.IPV6, True): set(),
        (Family.IPV6, False): set(),
    }
    assert worlds[Family.IPV4, True].renderer.localhost
    assert not worlds[Family.IPV6, True].renderer.localhost


@pytest.mark.parametrize("source", ["192.0.2.66", "127.0.0.2"])
def test_nobody_outside_reaches_a_loopback_address(source):
    """CVE-2020-8558; a forged loopback source helps as little."""
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service()))
    tables = World.of(compiler.tables[Family.IPV4]).tables()

    (fate,) = fates(tables, Packet(source, "127.0.0.1", 22, Protocol.TCP, "eth0"), ())
    assert fate.what == "drop"
    (own,) = fates(tables, Packet("127.0.0.1", "127.0.0.1", 22, Protocol.TCP, None), ())
    assert own.what == "pass"


def test_the_first_changes_must_bring_the_node_rules():
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    changes = compiler.apply(listed(a_service()))[Family.IPV4]

    with pytest.raises(ValueError, match="node rules"):
        World(Family.IPV4).update(replace(changes, rules=None))


@pytest.mark.parametrize("key", ["nat/KPROXY-SVC-x", "filter/KPROXY-FV-0", "nat/KPROXY-LOCALNET"])
def test_an_unknown_chain_is_an_error(key):
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service()))
    world = World.of(compiler.tables[Family.IPV4])

    with pytest.raises(KeyError):
        world.renderer.chain(key)


@pytest.mark.parametrize(
    ("local_pods", "matched"),
    [
        (FromInterface("cbr0"), "! -i cbr0 "),
        (FromInterfacePrefix("cali"), "! -i cali+ "),
        (Undetected("for a test"), None),
    ],
)
def test_who_is_masqueraded_at_a_cluster_ip(local_pods, matched):
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service(), a_slice("10.1.0.1")))
    changes = compiler.tables[Family.IPV4].everything()
    world = World(Family.IPV4)
    world.update(replace(changes, rules=replace(changes.rules, local_pods=local_pods)))

    (rules,) = (rules for (_, name), rules in world.chains().items() if "-SVC-" in name)
    assert [matched in rule for rule in rules if "MARK" in rule] == ([True] if matched else [])


@pytest.mark.parametrize("family", Family)
def test_the_rules_are_those_that_were_reviewed(family):
    """`python -m tests.unit.iptables.golden` writes them anew."""
    assert text(family) == golden_file(family).read_text(encoding="utf-8")


def test_other_pod_networks_render_every_service_again():
    settings = Settings(HERE, detect_local=DetectLocalMode.NODE_CIDR)
    compiler, world = Compiler(settings, [Family.IPV4]), World(Family.IPV4)
    node = a_node(pod_cidrs=("10.1.0.0/24",))
    world.update(compiler.apply(listed(a_service(), a_slice("10.1.0.1"), node))[Family.IPV4])

    other = Upserted(a_node(pod_cidrs=("10.2.0.0/24",)))
    (changed,) = world.update(compiler.apply([other])[Family.IPV4])
    assert "10.2.0.0/24" in world.renderer.chain(changed)[0]


def test_an_address_of_the_node_is_never_taken_for_a_cluster_ip():
    """Other proxies, and ours in ipvs mode, bind clusterIPs to a device of the node."""
    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service(), a_cidr("10.96.0.0/16")))
    table = compiler.tables[Family.IPV4]
    tables = World.of(table).tables()
    for address in ("10.96.0.1", "10.96.0.99"):
        packet = Packet("203.0.113.77", address, 22, Protocol.TCP, "eth0")
        check(tables, table, packet, [address])
        check(tables, table, packet, [])
        (fate,) = fates(tables, packet, [address])
        assert fate.what == "pass"


def test_a_service_cidr_does_not_render_any_service_again(calls):
    compiler, world = Compiler(Settings(HERE), [Family.IPV4]), World(Family.IPV4)
    world.update(compiler.apply(listed(a_service(), a_slice("10.1.0.1")))[Family.IPV4])
    calls.update(rendered=0, compiled=0)

    changes = compiler.apply([Upserted(a_cidr("10.96.0.0/16"))])[Family.IPV4]
    assert world.update(changes) == {"filter/KPROXY-FILTER"}
    assert calls == {"rendered": 0, "compiled": 0}
