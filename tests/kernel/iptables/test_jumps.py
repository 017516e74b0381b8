"""Where our jumps come to stand in the kernel, and that nobody else's rule is touched."""

import itertools
import os
from collections.abc import Iterable

import pytest

from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import split_key
from kproxy.core.addresses import Family
from tests.support import kube_proxy
from tests.support.iptables.applied import Applied, run, shop
from tests.support.node.tools import Tools

pytestmark = pytest.mark.kernel

BASES = {"filter": ("INPUT", "FORWARD", "OUTPUT"), "nat": ("PREROUTING", "OUTPUT", "POSTROUTING")}
ENGINE = "ENGINE"


def engines(name: str = ENGINE) -> str:
    """Return a policy engine's jumps at the top of every built-in chain of filter."""
    jumps = [f"-I {base} 1 -m comment --comment engine -j {name}" for base in BASES["filter"]]
    rules = [f":{name} - [0:0]", f"-A {name} -p udp -m udp --dport 9 -j DROP", *jumps]
    return "\n".join(["*filter", *rules, "COMMIT", ""])


def ends() -> str:
    """Return rules that end every built-in chain of filter."""
    lines = [f"-A {base} -p udp -m udp --dport 9 -j ACCEPT" for base in BASES["filter"]]
    return "\n".join(["*filter", *lines, "COMMIT", ""])


def specs(node: Applied, table: str, base: str) -> list[str]:
    """Return the rules of a built-in chain as iptables prints them."""
    lines = node.iptables(f"-t {table} -S {base}").splitlines()
    return [line.removeprefix(f"-A {base} ") for line in lines if line.startswith("-A")]


def target(spec: str) -> str:
    """Return what a rule leads to."""
    words = spec.split()
    return next(after for word, after in itertools.pairwise(words) if word in ("-j", "-g"))


def standing(node: Applied) -> dict[tuple[str, str], list[str]]:
    """Return what each rule of the built-in chains leads to, by table and chain."""
    return {
        (table, base): [target(spec) for spec in specs(node, table, base)]
        for table, bases in BASES.items()
        for base in bases
    }


def ours(node: Applied, table: str, base: str) -> set[str]:
    """Return the chains that our jumps in a built-in chain lead to."""
    parts = [split_key(key) for key in node.want if key.startswith(f"jump/{table}/{base}/")]
    return {chain for *_, chain in parts}


def check(node: Applied, before: Iterable[str] = (), after: Iterable[str] = ()) -> None:
    """Require that exactly our jumps stand in each chain, and between these in those of filter."""
    for (table, base), targets in standing(node).items():
        jumps = [target for target in targets if target.startswith("KPROXY-")]
        assert set(jumps) == ours(node, table, base)
        assert len(jumps) == len(set(jumps))
        if table == "filter":
            assert targets == [*before, *jumps, *after]


def test_at_a_start_they_stand_behind_an_engine_and_before_what_ends_a_chain(node):
    node.restore(ends())
    node.restore(engines())
    node.apply(shop(node.family, localhost=node.family is Family.IPV4))
    check(node, [ENGINE], ["ACCEPT"])


@pytest.mark.parametrize("table", BASES)
def test_after_a_repair_they_stand_there_too(node, table):
    node.restore(ends())
    node.apply(shop(node.family))
    node.restore(engines())  # as an engine does that finds itself not to be the first
    check(node, [ENGINE], ["ACCEPT"])
    for base in BASES[table]:
        for spec in specs(node, table, base):
            if target(spec) in ours(node, table, base):
                node.restore(f"*{table}\n-D {base} {spec}\nCOMMIT\n")
    assert node.apply().put
    check(node, [ENGINE], ["ACCEPT"])
    assert node.observed() == node.want


def test_an_engine_whose_jump_comes_between_our_look_and_our_write_is_passed(
    node, tmp_path, monkeypatch
):
    (tmp_path / "engine").write_text(engines())
    tools = Tools(tmp_path / "tools", node.variant.value)
    tools.at(1, f"$real --noflush <{tmp_path / 'engine'}")
    monkeypatch.setenv("PATH", f"{tools.folder}:{os.environ['PATH']}")
    node.apply(shop(node.family))
    check(node, [ENGINE])
    assert node.observed() == node.want


def test_a_table_that_is_deleted_while_places_are_looked_at_is_made_again(
    namespace, family, tmp_path, monkeypatch
):
    tools = Tools(tmp_path / "tools", Variant.NF_TABLES.value)
    tools.at(1, '$real "$@"; nft flush ruleset; exit')
    monkeypatch.setenv("PATH", f"{tools.folder}:{os.environ['PATH']}")
    node = Applied(family, Variant.NF_TABLES)
    node.apply(shop(family))
    assert node.apply().put
    assert node.observed() == node.want


def test_a_jump_that_stands_before_an_engine_is_moved_only_when_it_is_written(node):
    node.apply(shop(node.family))
    text = engines().replace("-I FORWARD 1", "-A FORWARD")
    node.restore(text)
    node.observed()
    assert not node.apply()
    jump = specs(node, "filter", "FORWARD")[0]
    node.restore(f"*filter\n-R FORWARD 1 -p tcp {jump}\nCOMMIT\n")
    assert node.apply()
    assert standing(node)["filter", "FORWARD"][-1] == "KPROXY-FORWARD"


def test_several_engines_are_passed(node):
    for name in ("FIRST", "SECOND"):
        node.restore(engines(name))
    node.restore(ends())
    node.apply(shop(node.family))
    check(node, ["SECOND", "FIRST"], ["ACCEPT"])


def test_a_jump_that_is_written_anew_keeps_its_place(node):
    node.apply(shop(node.family))
    node.restore(ends())
    node.restore(engines())
    node.observed()
    number = 1 + standing(node)["filter", "FORWARD"].index("KPROXY-FORWARD")
    jump = specs(node, "filter", "FORWARD")[number - 1]
    node.restore(f"*filter\n-D FORWARD {jump}\n-I FORWARD {number} -p tcp {jump}\nCOMMIT\n")
    before = standing(node)
    assert list(node.apply().put) == ["jump/filter/FORWARD/KPROXY-FORWARD"]
    assert standing(node) == before
    assert specs(node, "filter", "FORWARD")[number - 1] == jump
    assert node.observed() == node.want


def test_of_several_copies_none_is_a_hint(node):
    node.apply(shop(node.family))
    node.restore(engines())
    node.iptables("-I FORWARD 1 -j KPROXY-FORWARD")
    node.apply()
    check(node, [ENGINE])


def test_they_go_where_those_of_kube_proxy_stand(node):
    node.restore(engines("FIRST"))
    node.restore(kube_proxy.iptables_mode(node.family))
    node.restore(engines("LATER"))  # kube-proxy's stand between the two in INPUT and OUTPUT
    node.restore("*filter\n-A FORWARD -p udp -m udp --dport 9 -j DROP\nCOMMIT\n")
    jump = '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'
    node.restore(f"*filter\n-D FORWARD {jump}\n-A FORWARD {jump}\nCOMMIT\n")
    node.apply(shop(node.family))
    found = standing(node)["filter", "FORWARD"]
    assert found.index("KPROXY-FORWARD") == found.index("KUBE-FORWARD") - 1
    assert found.index("KPROXY-FILTER") == found.index("KUBE-PROXY-FIREWALL") - 1
    assert found[0] == "LATER"
    assert "DROP" in found[: found.index("KPROXY-FORWARD")]
    found = standing(node)["filter", "INPUT"]
    assert found.index("KPROXY-HEALTH") == found.index("KUBE-NODEPORTS") - 1
    for base in ("PREROUTING", "OUTPUT"):
        assert standing(node)["nat", base] == ["KPROXY-SERVICES", "KUBE-SERVICES"]
    assert standing(node)["nat", "POSTROUTING"] == ["KPROXY-POSTROUTING", "KUBE-POSTROUTING"]


def test_what_translates_before_us_would_keep_services_from_being_served(node):
    node.restore(
        "*nat\n:HOSTPORTS - [0:0]\n-A PREROUTING -j HOSTPORTS\n-A OUTPUT -j HOSTPORTS\n"
        "-A HOSTPORTS -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80\nCOMMIT\n"
    )
    node.apply(shop(node.family))
    for base in ("PREROUTING", "OUTPUT"):
        assert standing(node)["nat", base] == ["KPROXY-SERVICES", "HOSTPORTS"]


def test_native_rules_count_where_places_are_counted(namespace, family):
    name = "ip" if family is Family.IPV4 else "ip6"
    node = Applied(family, Variant.NF_TABLES)
    node.restore(engines())
    run(f"nft insert rule {name} filter FORWARD meta mark set meta mark and 0xff00ffff xor 0x40000")
    run(f"nft add rule {name} filter FORWARD udp dport vmap {{ 9 : drop }}")
    node.apply(shop(family))
    printed = run(f"nft list chain {name} filter FORWARD")
    order = [printed.index(word) for word in ("0x00040000", ENGINE, "KPROXY-FORWARD", "vmap")]
    assert order == sorted(order)
    node.iptables("-t filter -D FORWARD 3")
    node.apply()
    assert node.observed() == node.want
    printed = run(f"nft list chain {name} filter FORWARD")
    order = [printed.index(word) for word in ("0x00040000", ENGINE, "KPROXY-FORWARD", "vmap")]
    assert order == sorted(order)
