"""The manifests in examples/ are what the demo and README.md promise."""

from __future__ import annotations

import pytest

from examples.demo import machine
from examples.demo.__main__ import main
from examples.demo.plan import CONFIG, NODE_A, SHOP, Caller, Expected, callers, read_pods
from kproxy.config.fields import Mode
from kproxy.config.loading import load_configuration, to_settings
from kproxy.core.addresses import Family, canonical_address, family_of
from kproxy.core.compile import Compiler
from kproxy.core.objects import Protocol, Service
from kproxy.core.resolve import Drop, Forward, Packet, Reject, resolve
from kproxy.watch.manifests.source import load

NODE_ADDRESSES = ("192.0.2.1", "2001:db8::1", "127.0.0.1")
SOURCES = {"outside": "192.0.2.100", "node-a": "127.0.0.1"}
VERDICTS = {Expected.ANSWER: Forward, Expected.REFUSAL: Reject, Expected.SILENCE: Drop}


MODES = (Mode.IPTABLES, Mode.IPVS, Mode.EBPF)


@pytest.fixture(scope="module")
def shops() -> dict[Mode, Compiler]:
    return {mode: compiled(mode) for mode in MODES}


def compiled(mode: Mode) -> Compiler:
    compiler = Compiler(to_settings(load_configuration(CONFIG, mode).configuration, NODE_A))
    compiler.apply(load(SHOP).changes())
    return compiler


def test_nothing_is_wrong_with_them():
    assert not load(SHOP).problems


def test_a_dozen_services_or_more():
    services = [each for each in load(SHOP).objects if isinstance(each, Service)]

    assert len(services) >= 12
    assert sum(each.not_proxied is not None for each in services) == 2


@pytest.mark.parametrize(
    ("mode", "caller"),
    [
        pytest.param(mode, caller, id=f"{mode.value}-{caller.title}-{caller.service}")
        for mode in MODES
        for caller in callers(mode.value)
    ],
)
def test_the_demo_expects_of_the_kernel_what_the_core_decides(shops, mode: Mode, caller: Caller):
    source = caller.source or SOURCES.get(caller.machine) or _pod_address(caller)
    packet = Packet(source, caller.address, caller.port, Protocol(caller.protocol))
    verdict = resolve(shops[mode].tables[family_of(caller.address)], packet, NODE_ADDRESSES)

    assert isinstance(verdict, VERDICTS[caller.expected])
    assert verdict.service is not None
    assert verdict.service.name == caller.service
    if caller.seen_as:
        assert isinstance(verdict, Forward)
        assert not verdict.masquerade


def test_both_families_have_frontends(shops):
    assert all(shop.tables[family].vips for shop in shops.values() for family in Family)


def test_in_every_mode_as_many_ask_as_often_and_fewer_where_the_machine_does_less():
    every = [callers(mode.value) for mode in MODES]
    assert {sum(each.rate for each in one) for one in every} == {422}
    assert {each.machine for each in every[1]} == {each.machine for each in every[0]}
    assert sum(each.rate for each in callers("ipvs", 8)) == pytest.approx(422 / 8)


def test_in_the_machine_the_demo_is_told_what_it_understands():
    told = main.make_context("demo", ["--mode", "ipvs", *machine.ARGUMENTS]).params
    assert told["slower"] > 1
    assert told["fewer"] > told["slower"]


def _pod_address(caller: Caller) -> str:
    family = family_of(canonical_address(caller.address))
    addresses = read_pods(SHOP)[caller.machine].addresses
    return next(each for each in addresses if family_of(each) is family)
