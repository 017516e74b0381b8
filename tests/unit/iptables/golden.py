"""The rules of a small cluster, for reviewers to read.

`python -m tests.unit.iptables.golden` writes tests/iptables/golden/*.txt anew.
"""

from pathlib import Path

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Protocol
from kproxy.core.settings import Settings
from tests.support.core.things import (
    HERE,
    THERE,
    a_cidr,
    a_node,
    a_port,
    a_service,
    a_slice,
    an_endpoint,
    listed,
    networks,
)
from tests.support.iptables.world import World

FOLDER = Path(__file__).with_name("golden")


def cluster():
    """A clusterIP, a NodePort with policy Local, a filtered load balancer, DNS, and an idle one."""
    services = [
        a_service("plain", cluster_ips=("10.96.0.1", "fd00:96::1")),
        a_service(
            "node-port-local",
            cluster_ips=("10.96.0.2", "fd00:96::2"),
            ports=[a_port(node_port=30080)],
            external_local=True,
            health_check_node_port=32000,
        ),
        a_service(
            "balanced",
            cluster_ips=("10.96.0.3", "fd00:96::3"),
            load_balancer_ips=("203.0.113.1", "2001:db8:2::1"),
            sources=("198.51.100.0/24", "2001:db8:9::/64"),
            affinity_timeout_s=10800,
        ),
        a_service(
            "dns",
            cluster_ips=("10.96.0.10", "fd00:96::a"),
            ports=[a_port(53, protocol=Protocol.UDP)],
            internal_local=True,
        ),
        a_service(
            "idle",
            cluster_ips=("10.96.0.4", "fd00:96::4"),
            external_ips=("203.0.113.9", "2001:db8:2::9"),
            ports=[a_port(node_port=30081)],
        ),
    ]
    slices = []
    for pods in ("10.1.0.", "fd00:1::"):
        local, remote = an_endpoint(f"{pods}1", node=HERE), an_endpoint(f"{pods}2", node=THERE)
        family = "v4" if "." in pods else "v6"
        for name in ("plain", "node-port-local", "balanced"):
            slices.append(a_slice(local, remote, name=f"{name}-{family}", service=name))
        slices.append(a_slice(remote, name=f"dns-{family}", service="dns", protocol=Protocol.UDP))
    node = a_node("192.0.2.1", "2001:db8::1")
    return listed(*services, *slices, node, a_cidr("10.96.0.0/16", "fd00:96::/112"))


def text(family):
    """Return the rules of one family, chain by chain."""
    cidrs = networks("10.1.0.0/24", "fd00:1::/64")
    compiler = Compiler(Settings(HERE, cluster_cidrs=cidrs), [family])
    compiler.apply(cluster())
    world = World.of(compiler.tables[family])
    lines = [f"set {key.removeprefix('set/')} {world.image[key].decode()}"
             for key in sorted(world.image) if key.startswith("set/")]  # fmt: skip
    for (table, chain), rules in sorted(world.chains().items()):
        lines += ["", f"{table} {chain}", *(f"  {rule}" for rule in rules)]
    return "\n".join(lines).strip() + "\n"


def golden_file(family):
    """Return where the rules of a family are written down."""
    return FOLDER / f"{family.value.lower()}.txt"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in Family:
        golden_file(each).write_text(text(each), encoding="utf-8")
