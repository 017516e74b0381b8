"""What the kernel itself refuses of one Service, and that the others do not feel it."""

import pytest

from backends.iptables.render.rules import chain_name
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import split_key
from kproxy.core.addresses import Family
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import BackendError
from kproxy.run.loop.reconcile import Reconciler
from tests.support.iptables.applied import Applied, run, service_port, shop

pytestmark = pytest.mark.kernel


def reconciled(node, changes):
    """A reconciler that was refused once, and then found out what it is."""
    reconciler = Reconciler(node.backend, lambda: ())
    with pytest.raises(BackendError):
        reconciler.apply(changes)
    reconciler.apply(TableChanges(node.family))
    return reconciler


def test_a_set_that_cannot_be_had_costs_its_service_port_affinity_alone(node):
    rendered = node.backend.render(shop(node.family))
    name = min(split_key(key)[1] for key in rendered if key.startswith("set/"))
    run(f"ipset create {name} bitmap:port range 1-2")
    reconciler = reconciled(node, shop(node.family))
    ((key, reason),) = reconciler.unheld.items()
    assert key == service_port(node.family, 1).key
    assert "sessionAffinity is off" in reason
    assert "a set of another type has this name" in reason
    sticky = service_port(node.family, 1, endpoints=(5, 6))
    for target in sticky.targets:
        assert f"-j DNAT --to-destination {target}" in node.saved(), "served all the same"

    reconciler.apply(TableChanges(node.family), retry=True)
    assert reconciler.unheld.keys() == {key}
    run(f"ipset destroy {name}")
    reconciler.settle()
    assert reconciler.unheld.keys() == {key}, "its rules go without as yet"
    reconciler.apply(TableChanges(node.family), retry=True)
    assert reconciler.unheld == {}
    assert f"--match-set {name} src" in node.saved()


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_a_chain_that_others_hang_into_a_hook_costs_the_service_that_it_is_named_after(
    namespace, family
):
    """The kernel refuses jumps to such a chain, whoever wants them."""
    node = Applied(family, Variant.NF_TABLES)
    key = service_port(family, 0).key
    chain = chain_name("SVC", key.namespace, key.name, key.port, key.protocol.value)
    table = "ip nat" if family is Family.IPV4 else "ip6 nat"
    hooked = f"add chain {table} {chain} {{ type nat hook prerouting priority 5; }}"
    run("nft -f -", f"add table {table}\n{hooked}\n")
    reconciler = reconciled(node, shop(family))
    assert reconciler.unheld.keys() == {key}
    others = service_port(family, 1, endpoints=(5, 6))
    for target in others.targets:
        assert f"-j DNAT --to-destination {target}" in node.saved()

    run(f"nft delete chain {table} {chain}")
    reconciler.apply(TableChanges(family), retry=True)
    assert reconciler.unheld == {}
    assert chain in node.saved()
