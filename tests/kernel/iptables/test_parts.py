"""What a host lacks costs the feature that needs it, and nothing else."""

import os
import subprocess
import sys

import pytest

from backends.iptables.driver import parts
from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Feature, Options
from backends.kernel import nft
from backends.kernel.transactions import Transactions
from backends.kernel.xtables import legacy
from backends.kernel.xtables.parts import missing
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import BackendError
from tests.support.extensions import extensions_without
from tests.support.iptables.applied import Applied, changes, rules, run, service_port, shop
from tests.support.iptables.world import World, check_image
from tests.support.packets.asking import table_of
from tests.support.packets.data_paths import iptables
from tests.support.packets.groups import balancing, cluster_ips, policies
from tests.support.packets.kernel import Kernel, is_as_expected
from tests.support.packets.table import flows

pytestmark = pytest.mark.kernel

# The files of the program's extensions that serve each feature.
FILES = {
    Feature.AFFINITY: ("libxt_set.so", "libxt_SET.so"),
    Feature.HAIRPIN_MATCH: ("libxt_bpf.so",),
    Feature.LABELS: ("libxt_connlabel.so",),
    Feature.COUNTERS: ("libxt_nfacct.so",),
    Feature.REFUSAL: ("libipt_REJECT.so", "libip6t_REJECT.so"),
}
WITHOUT_NET_RAW = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 13, 0, 0, 0); "  # PR_CAPBSET_DROP
    "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
)


def test_this_host_lacks_nothing_and_asking_changes_nothing(namespace, family, variant):
    assert missing(family, variant, parts.parts(family)) == {}
    assert run("nft list ruleset") == ""
    assert run("ipset list -n") == ""
    assert run("cat /proc/self/net/ip_tables_names /proc/self/net/ip6_tables_names") == ""


@pytest.mark.parametrize("knows", [legacy.knows, nft.knows], ids=["legacy", "nft"])
def test_the_kernel_tells_which_extensions_it_has(namespace, family, knows):
    assert knows(family, "set", target=False)
    assert knows(family, "SET", target=True)
    for target in (False, True):
        assert not knows(family, "nonesuch", target=target)


@pytest.mark.parametrize("feature", FILES, ids=lambda feature: feature.name)
def test_what_is_missing_is_named_and_left_out_alone(namespace, family, variant, hide, feature):
    hide(*FILES[feature])
    lacking = parts.lacking(family, variant)
    assert list(lacking) == [feature]
    options = Options(counts=feature is not Feature.COUNTERS, without=lacking)
    node = Applied(family, variant)
    node.backend = IptablesBackend(
        family=family,
        variant=variant,
        renderer=Renderer(family, options),
        transactions=Transactions(),
    )
    node.apply(shop(family))
    assert not node.apply()


def test_a_missing_part_that_all_rules_need_is_an_error_with_a_remedy(
    namespace, family, variant, hide
):
    hide("libxt_statistic.so")
    with pytest.raises(BackendError, match=r"statistic.*modprobe xt_statistic"):
        parts.lacking(family, variant)


def without_net_raw(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NET_RAW, code],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


_LACKING = (
    "from backends.iptables.driver import parts; from kproxy.core.addresses import Family; "
    "from backends.kernel.xtables.tools import Variant; "
    "print({{f.name: why for f, why in parts.lacking(Family.{}, Variant.{}).items()}})"
)


def test_without_the_capability_there_is_no_affinity_in_one_variant(namespace, family):
    said = without_net_raw(_LACKING.format(family.name, "NF_TABLES"))
    assert said == "{'AFFINITY': 'rules that name ipsets need CAP_NET_RAW'}\n"


def test_without_the_capability_there_is_nothing_in_the_other(namespace, family):
    said = without_net_raw(_LACKING.format(family.name, "LEGACY"))
    assert said.splitlines()[-1].endswith("needs CAP_NET_RAW")


def test_affinity_that_cannot_be_had_is_told_for_each_service_port(family):
    world = World(family, Options(without={Feature.AFFINITY: "nobody here has ipsets"}))
    world.update(shop(family))
    check_image(world)
    ((key, why),) = world.renderer.unheld().items()
    assert key.name == "service-1"
    assert "sessionAffinity is off" in why
    assert "nobody here has ipsets" in why
    world.update(changes(family, service_port(family, 1, endpoints=(5,))))
    assert world.renderer.unheld() == {}


def test_ports_of_a_protocol_that_has_no_match_are_left_out_and_told(family):
    world = World(family, Options(without={Feature.SCTP: "there is no xt_sctp"}))
    usual = World(family)
    tcp = service_port(family, 0, endpoints=(2, 3))
    sctp = service_port(family, 0, endpoints=(2, 3), protocol=Protocol.SCTP)
    world.update(changes(family, tcp, sctp, rules=rules(family)))
    usual.update(changes(family, tcp, rules=rules(family)))
    assert world.image == usual.image
    assert world.renderer.unheld() == {sctp.key: "left out: there is no xt_sctp"}


EVERY = dict.fromkeys((*FILES, Feature.SCTP), "not on this host")
# Hairpins of every kind, and affinity, which has to fall back on any endpoint.
ASKED = [
    *(group for group in cluster_ips.GROUPS if "SCTP" not in str(group.cases)),
    *policies.GROUPS[:2],
    *(group for group in balancing.GROUPS if "SCTP" not in str(group.cases)),
]


@pytest.fixture(scope="module", params=list(Variant), ids=lambda variant: variant.value)
def kernel_for_the_poor(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extensions")
    hidden = {name for names in FILES.values() for name in names} | {"libxt_sctp.so"}
    extensions_without(folder, hidden)
    kernel = Kernel(iptables(request.param, Options(without=EVERY)))
    yield folder, kernel
    kernel.close()


@pytest.fixture
def poor_kernel(kernel_for_the_poor, monkeypatch):
    """A node without any of it: the programs refuse every rule that would need it."""
    folder, kernel = kernel_for_the_poor
    monkeypatch.setenv("XTABLES_LIBDIR", os.fspath(folder))
    return kernel


@pytest.mark.parametrize("group", ASKED, ids=lambda group: group.name)
@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_packets_go_where_they_went_without_any_of_it(poor_kernel, group, family):
    if group.family not in (None, family):
        family = group.family
    poor_kernel.program(table_of(group.name, family))
    asked = [flow for flow in flows(group, family) if "Reject" not in str(flow.expected)]
    outcomes = poor_kernel.ask(asked, family)
    wrong = [f"{flow}: {seen}" for flow, seen in outcomes.items() if not is_as_expected(flow, seen)]
    assert not wrong


def test_rules_for_endpoints_that_choose_themselves_go_with_the_last_that_has_the_address(family):
    world = World(family, Options(without={Feature.HAIRPIN_MATCH: "no xt_bpf"}))
    shared = [service_port(family, number, endpoints=(7, 8)) for number in (1, 2)]
    world.update(changes(family, shared[0], rules=rules(family)))
    before = dict(world.image)
    world.update(changes(family, shared[1]))
    check_image(world)
    world.update(TableChanges(family, service_ports={shared[1].key: None}, cluster_ips={
        shared[1].frontends[0].address: False}))  # fmt: skip
    assert world.image == before
    assert len(world.chains()["nat", "KPROXY-HAIRPIN"]) == 2
    world.update(TableChanges(family, service_ports={shared[0].key: None}))
    assert len(world.chains()["nat", "KPROXY-HAIRPIN"]) == 1, "the rule that never applies"
