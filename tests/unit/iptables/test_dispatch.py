"""Dispatch trees lead a destination to its own rules, through few rules however many there are."""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.iptables.render.dispatch import Dispatch
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.effort import examples
from tests.support.iptables.simulator import Skb, Tables

ADDRESSES = {
    Family.IPV4: ("10.96.0.1", "10.96.0.2", "10.96.0.17", "10.96.1.1", "10.112.0.1", "192.0.2.1",
                  "255.255.255.255"),
    Family.IPV6: ("fd00::1", "fd00::2", "fd00::11", "fd00::1:1", "fd00:1::1", "2001:db8::1", "::2",
                  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
}  # fmt: skip
PORTS = (1, 2, 15, 16, 80, 255, 256, 443, 30000, 30001, 65535)


def edits(seed):
    """Hundreds of edits, most of them near each other; None removes."""
    chance = random.Random(seed)
    numbers = [*PORTS, *range(chance.randrange(1, 65000), 65535)[:80]]
    return {
        (
            chance.randrange(chance.choice([1, 7])),
            chance.choice(list(Protocol)),
            chance.choice(numbers),
        ): chance.choice([None, 1, 2, 3])
        for _ in range(chance.choice([3, 100, 400]))
    }


def place(family, where):
    number, protocol, port = where
    return {"address": ADDRESSES[family][number], "protocol": protocol, "port": port}


def load(chains, dispatch):
    """The tree as a kernel would hold it: what is found is told by the packet's mark."""
    endings = {
        ("nat", f"KPROXY-END{n}"): [f"-j MARK --set-xmark {n:#x}/0xff", "-j ACCEPT"]
        for n in range(1, 7)
    }
    tree = {("nat", name): list(rules) for name, rules in chains.items()}
    root = {("nat", "PREROUTING"): list(dispatch.root_rules())}
    return Tables({**endings, **tree, **root})


def found(tables, address, protocol, port):
    (end,) = tables.hook("nat", "PREROUTING", Skb("192.0.2.99", address, port, protocol))
    return end.skb.mark


def ending(number):
    return None if number is None else (f"-j KPROXY-END{number}",)


@examples(30)
@given(st.sampled_from(Family), st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
def test_each_destination_is_found_and_no_other(family, seeds):
    dispatch, content, chains = Dispatch("DV", family), {}, {}
    rounds = [edits(seed) for seed in seeds]
    every = {where for each in rounds for where in each}
    rounds.append(dict.fromkeys(sorted(every, key=str)[: len(every) * 9 // 10]))
    for each in rounds:
        for where, number in each.items():
            dispatch.put(ending(number), **place(family, where))
        content.update(each)
        for name, rules in dispatch.settle().items():
            if rules is None:
                del chains[name]
                assert name not in dispatch
            else:
                chains[name] = rules

    tables = load(chains, dispatch)
    wanted = {where: number for where, number in content.items() if number is not None}
    for number, protocol, port in sorted(content, key=str)[-60:]:
        for near in (port, port ^ 1, port ^ 16):
            expected = wanted.get((number, protocol, near), 0)
            assert found(tables, ADDRESSES[family][number], protocol, near) == expected
    fresh = Dispatch("DV", family)
    for where, number in wanted.items():
        fresh.put(ending(number), **place(family, where))
    assert fresh.settle() == chains
    assert fresh.root_rules() == dispatch.root_rules()
    for name, rules in chains.items():
        assert dispatch.chain(name) == rules
        assert len(name) <= 28
        assert rules


@examples(40)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(Protocol), st.sampled_from(PORTS)), st.integers(1, 5), max_size=33
    )
)
def test_a_tree_of_ports_does_not_look_at_addresses(content):
    dispatch = Dispatch("DN", None)
    for (protocol, port), number in content.items():
        dispatch.put(ending(number), protocol=protocol, port=port)
    tables = load(dispatch.settle(), dispatch)

    for protocol in Protocol:
        for port in PORTS:
            for address in ("10.0.0.1", "fd00::1"):
                expected = content.get((protocol, port), 0)
                assert found(tables, address, protocol, port) == expected


@pytest.mark.parametrize("family", [None, Family.IPV4, Family.IPV6])
def test_many_ports_of_one_address_are_told_apart(family):
    chance = random.Random(7)
    numbers = {chance.randrange(1, 65536) for _ in range(150)} | set(range(30000, 30300, 3))
    dispatch = Dispatch("DN", family)
    address = ADDRESSES[family or Family.IPV4][0]
    for protocol in (Protocol.TCP, Protocol.SCTP):
        for port in numbers:
            where = {"address": address} if family else {}
            dispatch.put(ending(1), **where, protocol=protocol, port=port)
    tables = load(dispatch.settle(), dispatch)

    for port in numbers | {n + 1 for n in numbers} | {n - 1 for n in numbers}:
        expected = int(port in numbers)
        assert found(tables, address, Protocol.TCP, port) == expected, port
        assert found(tables, address, Protocol.UDP, port) == 0, port


@pytest.mark.parametrize("family", Family)
def test_a_tree_of_addresses_does_not_look_at_ports(family):
    dispatch = Dispatch("FC", family, ports=False)
    first = ipaddress.ip_address(ADDRESSES[family][0])
    for n in range(0, 60, 3):
        dispatch.put(ending(1), address=str(first + n))
    tables = load(dispatch.settle(), dispatch)

    for n in range(70):
        expected = int(n < 60 and n % 3 == 0)
        assert found(tables, str(first + n), Protocol.UDP, n) == expected


def test_several_rules_of_one_destination_keep_their_order():
    dispatch = Dispatch("FV", Family.IPV4)
    dispatch.put(
        ("-s 10.0.0.0/8 -j KPROXY-END1", "-j KPROXY-END2"),
        address="192.0.2.1",
        protocol=Protocol.TCP,
        port=80,
    )
    dispatch.settle()

    assert dispatch.root_rules() == (
        "-d 192.0.2.1/32 -p tcp --dport 80 -s 10.0.0.0/8 -j KPROXY-END1",
        "-d 192.0.2.1/32 -p tcp --dport 80 -j KPROXY-END2",
    )


def test_an_edit_that_changes_nothing_yields_nothing():
    dispatch = Dispatch("DV", Family.IPV4)
    for port in range(1, 100):
        dispatch.put(ending(1), address="192.0.2.1", protocol=Protocol.TCP, port=port)
    assert dispatch.settle()
    assert dispatch.settle() == {}

    dispatch.put(None, address="192.0.2.1", protocol=Protocol.TCP, port=5)
    dispatch.put(ending(1), address="192.0.2.1", protocol=Protocol.TCP, port=5)
    dispatch.put(None, address="192.0.2.1", protocol=Protocol.UDP, port=5)
    assert dispatch.settle() == {}


def many(family, count):
    """A tree of `count` Services, spread as an allocator spreads them."""
    dispatch = Dispatch("DV", family)
    numbers = random.Random(count).sample(range(1, 65000), count)
    first = int(ipaddress.ip_address("10.96.0.0" if family is Family.IPV4 else "fd00:96::"))
    addresses = [str(ipaddress.ip_address(first + number)) for number in numbers]
    for address in addresses:
        dispatch.put(ending(1), address=address, protocol=Protocol.TCP, port=80)
    return dispatch, addresses


@pytest.mark.parametrize("family", Family)
def test_a_lookup_among_thousands_examines_a_handful_of_rules(family):
    dispatch, addresses = many(family, 5000)
    tables = load(dispatch.settle(), dispatch)
    worst = 0
    for address in addresses[:200]:
        tables.examined = 0
        assert found(tables, address, Protocol.TCP, 80) == 1
        worst = max(worst, tables.examined)

    assert worst <= 5 * 16 + 2
    tables.examined = 0
    other = {Family.IPV4: "8.8.8.8", Family.IPV6: "2606::1"}[family]
    assert found(tables, other, Protocol.TCP, 80) == 0
    assert tables.examined <= 16, "other traffic does not pay for Services"


def test_one_service_more_among_thousands_renders_a_handful_of_chains():
    dispatch, addresses = many(Family.IPV4, 5000)
    total = len(dispatch.settle())

    dispatch.put(ending(2), address=addresses[0], protocol=Protocol.TCP, port=81)
    assert 1 <= len(dispatch.settle()) <= 6
    dispatch.put(None, address=addresses[1], protocol=Protocol.TCP, port=80)
    assert 1 <= len(dispatch.settle()) <= 6
    assert total > 200
