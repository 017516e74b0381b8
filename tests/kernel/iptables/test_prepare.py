"""What a privileged process leaves for one that has CAP_NET_ADMIN alone."""

import pytest

from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.driver.localnet import GUARD
from backends.iptables.driver.prepare import prepare
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from backends.kernel import sysctl as node_settings
from backends.kernel.transactions import Transactions
from kproxy.core.addresses import Family
from tests.support.iptables.applied import Applied, rules, shop

pytestmark = pytest.mark.kernel

LOCALNET = "sysctl/net.ipv4.conf.all.route_localnet"


def prepared(family, variant, *, localhost=True) -> int:
    renderer = Renderer(family, Options())
    backend = IptablesBackend(
        family=family, variant=variant, renderer=renderer, transactions=Transactions()
    )
    return prepare(backend, rules(family, localhost=localhost))


def test_forwarding_is_on_and_no_service_rule_is_written(node):
    prepared(node.family, node.variant, localhost=False)
    assert node_settings.forwards(node.family)
    assert not any("SERVICES" in key for key in node.observed())


def test_route_localnet_comes_with_its_guard(namespace, variant):
    node = Applied(Family.IPV4, variant)
    prepared(Family.IPV4, variant)
    assert node_settings.routes_localnet()
    assert node.observed().keys() >= {GUARD, LOCALNET}
    assert "-j KPROXY-LOCALNET" in node.saved()


def test_a_second_time_finds_nothing_to_do(node):
    localhost = node.family is Family.IPV4
    assert prepared(node.family, node.variant, localhost=localhost) > 0
    assert prepared(node.family, node.variant, localhost=localhost) == 0


def test_the_rules_of_an_earlier_run_stay(node):
    node.apply(shop(node.family, localhost=node.family is Family.IPV4))
    before = node.saved()
    assert prepared(node.family, node.variant, localhost=False) == 0
    assert node.saved() == before


def test_the_proxy_that_follows_needs_to_write_no_setting(namespace, variant):
    prepared(Family.IPV4, variant)
    node = Applied(Family.IPV4, variant)
    written = node.apply(shop(Family.IPV4, localhost=True))
    assert not any(key.startswith("sysctl/") for key in [*written.put, *written.drop])
    assert GUARD not in written.put
