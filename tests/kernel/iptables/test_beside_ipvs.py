"""What is of ipvs mode, whose names begin as those of iptables mode do, is let alone; and back."""

import pytest

from backends.iptables.cleanup import clean_up
from backends.iptables.driver.ours import OURS as IPTABLES
from backends.iptables.withdrawal import FormerVariant
from backends.ipvs.driver.ours import OURS as IPVS
from backends.kernel.xtables import reading, removal
from backends.kernel.xtables.ours import Ours
from backends.kernel.xtables.reading import Reader
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.variant import choose
from kproxy.core.addresses import Family
from tests.kernel.iptables.test_cleanup import load
from tests.support.iptables.applied import Applied, iptables, run, shop

pytestmark = pytest.mark.kernel

CHAINS = {
    ("mangle", "PREROUTING"): "KPROXY-IPVS-SERVICES",
    ("nat", "POSTROUTING"): "KPROXY-IPVS-POSTROUTING",
    ("filter", "FORWARD"): "KPROXY-IPVS-FILTER",
}
IMAGE = {
    **{f"{table}/{chain}": b"ab:1" for (table, _), chain in CHAINS.items()},
    **{f"jump/{table}/{base}/{chain}": b"aa:1" for (table, base), chain in CHAINS.items()},
}
READERS = {
    Variant.LEGACY: (Reader.IN_PROCESS, Reader.SAVE),
    Variant.NF_TABLES: (Reader.NETLINK,),
}


def load_ipvs(family: Family, variant: Variant) -> None:
    """Make some rules of ipvs mode, and a set."""
    for (table, base), chain in CHAINS.items():
        end = "DROP" if table == "filter" else "RETURN"
        lines = (
            f"*{table}",
            f":{chain} - [0:0]",
            f"[2:120] -A {base} -m comment --comment kp:aa:1 -j {chain}",
            f"[3:180] -A {chain} -p udp -m comment --comment kp:ab:1 -j {end}",
            "COMMIT\n",
        )
        load(family, variant, "\n".join(lines))
    run(f"ipset create {set_of_ipvs(family)} hash:ip timeout 9 family {inet(family)}")


def set_of_ipvs(family: Family) -> str:
    return f"kproxy-ipvs-{'4' if family is Family.IPV4 else '6'}-x"


def inet(family: Family) -> str:
    return "inet" if family is Family.IPV4 else "inet6"


def of_ipvs(node: Applied) -> list[str]:
    """Return the rules of ipvs mode with their counters."""
    return [line for line in node.saved().splitlines() if "KPROXY-IPVS-" in line]


def image(how: Reader, family: Family, ours: Ours) -> dict:
    """Return what a reader finds in all tables of a data path that exist."""
    found: dict = {}
    for table in ours.tables:
        found |= reading.read(how, family=family, table=table, ours=ours).image
    return found


@pytest.fixture
def both(node):
    """A node with the rules of both modes."""
    node.apply(shop(node.family))
    load_ipvs(node.family, node.variant)
    return node


def test_each_reader_tells_them_apart(both):
    rules = {key: value for key, value in both.want.items() if not key.startswith(("set", "sysc"))}
    for how in READERS[both.variant]:
        assert image(how, both.family, IPTABLES) == rules
        assert image(how, both.family, IPVS) == IMAGE


def test_nothing_of_it_is_repaired_or_removed(both):
    before = of_ipvs(both)
    assert not both.apply()
    while both.backend.tend(1.0):
        pass
    both.apply(shop(both.family, localhost=both.family is Family.IPV4))
    assert of_ipvs(both) == before
    assert set_of_ipvs(both.family) in run("ipset list -n").splitlines()


def test_a_write_of_it_is_no_disturbance(namespace, family):
    node = Applied(family, Variant.NF_TABLES)
    node.apply(shop(family))
    load_ipvs(family, Variant.NF_TABLES)
    node.observed()
    node.iptables("-t nat -A KPROXY-IPVS-POSTROUTING -p tcp -j RETURN")
    assert not node.backend.disturbed()
    node.iptables("-t nat -A KPROXY-POSTROUTING -p tcp -j RETURN")
    assert node.backend.disturbed()


def test_clean_up_leaves_it(both):
    before = of_ipvs(both)
    assert clean_up(both.family) > 20
    assert of_ipvs(both) == before
    assert before == [line for line in both.saved().splitlines() if "KPROXY" in line]
    assert run("ipset list -n") == f"{set_of_ipvs(both.family)}\n"
    assert clean_up(both.family) == 0


def test_clean_up_of_it_leaves_ours(both):
    with removal.opened(both.family, both.variant, IPVS) as tables:
        removed = [removal.remove(both.family, both.variant, *each) for each in tables]
    assert removed == [2, 2, 2]
    assert not of_ipvs(both)
    assert both.observed() == both.want


def test_withdrawal_leaves_it(both):
    before = of_ipvs(both)
    former = FormerVariant(both.family, both.variant)
    former.withdraw()
    assert of_ipvs(both) == before
    former.clean_up()
    assert of_ipvs(both) == before


def test_its_chains_choose_no_variant_for_us(namespace, family, variant):
    (other,) = set(Variant) - {variant}
    load_ipvs(family, variant)
    run(f"{iptables(family, other)} -t mangle -N KUBE-IPTABLES-HINT")
    assert choose(family, IPTABLES) is other
    assert choose(family, IPVS) is variant


def test_its_jumps_are_no_policy_engines(node):
    """A new jump stands behind an engine's, and does not go behind those of ipvs mode too."""
    load_ipvs(node.family, node.variant)
    node.iptables("-N ENGINE")
    node.iptables("-A ENGINE -p udp -j DROP")
    node.iptables("-I FORWARD 1 -j ENGINE")
    node.apply(shop(node.family))
    rules = node.iptables("-S FORWARD").splitlines()[1:]
    targets = [rule.split()[-1] for rule in rules]
    assert (targets[0], targets[-1]) == ("ENGINE", "KPROXY-IPVS-FILTER")
