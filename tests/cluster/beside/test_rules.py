"""The rules that tests elsewhere take for kube-proxy's are those that it writes."""

from __future__ import annotations

import re

import pytest

from kproxy.core.addresses import Family
from tests.support import kube_proxy
from tests.support.cluster.place import Place
from tests.support.node.cluster import both
from tests.support.packets.objects import endpoint, port

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

# What the rules elsewhere call otherwise than the cluster does. The order counts.
NAMES = {
    Family.IPV4: {"10.0.0.0/16": "10.1.0.0/16", "10.0.0.": "10.1.0.", "172.30.0.": "10.96.0."},
    Family.IPV6: {"fd00:10::/64": "fd00:1::/48", "fd00:10::": "fd00:1::", "fd00:30::": "fd00:96::"},
}
NAMESPACE = "shop"

# kube-proxy adds these where the kernel has nfacct: a rule that counts packets to NodePorts of
# localhost, and a counter of drops. They cannot be loaded where the counters do not exist.
_COUNTING_RULE = re.compile(r"-A KUBE-NODEPORTS -d 127\.0\.0\.0/8 .* -m nfacct ")
_COUNTER = re.compile(r" -m nfacct --nfacct-name +\S+")
_HASH = re.compile(r"(KUBE-[A-Z]{2,3}-)[A-Z2-7]{16}")
# Not of the three Services; kubelet's chain, which kube-proxy makes too if kubelet has not.
_OF_OTHERS = ("default/", "KUBE-FIREWALL")


def shop():
    """Return the three Services that the rules elsewhere are about."""
    vips = ({"ip": "10.96.0.77"}, {"ip": "fd00:96::77"})
    http, sql = {"name": "http"}, {"name": "sql"}
    objects = (
        *both(
            "edge",
            "10.96.0.7",
            "10.1.0.3",
            endpoint("10.1.0.4", node="node2"),
            ports=(port(80, name="http", node_port=30080),),
            slice_ports=({**http, "port": 8080, "protocol": "TCP"},),
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            healthCheckNodePort=31999,
            load_balancer=vips,
            loadBalancerSourceRanges=["10.96.0.200/32", "fd00:96::200/128"],
        ),
        *both("idle", "10.96.0.9", ports=(port(80, name="http", node_port=30090),)),
        *both(
            "db",
            "10.96.0.8",
            "10.1.0.5",
            ports=(port(5432, name="sql"),),
            slice_ports=({**sql, "port": 8080, "protocol": "TCP"},),
        ),
    )
    return [{**each, "metadata": {**each["metadata"], "namespace": NAMESPACE}} for each in objects]


@pytest.fixture
def place(tmp_path, plane):
    place = Place(tmp_path / "place", "nft", plane)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    place.apply([namespace, *shop()])
    yield place
    place.close()
    place.delete(shop())


def test_they_are_what_kube_proxy_writes(place, start_original):
    start_original(place)
    for family in Family:
        real = place.node.iptables(family, "-save").splitlines()
        written_down = kube_proxy.iptables_mode(family)
        for there, here in NAMES[family].items():
            written_down = written_down.replace(there, here)
        assumed = written_down.splitlines()
        assert rules(real) - rules(assumed) == set(), "what it writes and we do not know"
        assert rules(assumed) - rules(real) == set(), "what it does not write"
        assert chains(real) == chains(assumed)


def rules(lines):
    """Return the rules without the hashes in names of chains, and without counters."""
    return {
        _HASH.sub(r"\1*", _COUNTER.sub("", line))
        for line in lines
        if line.startswith("-A")
        and not _COUNTING_RULE.match(line)
        and not any(other in line for other in _OF_OTHERS)
    }


def chains(lines):
    """Return the kinds of kube-proxy's chains."""
    return {
        _HASH.sub(r"\1*", line.split()[0])
        for line in lines
        if line.startswith(":KUBE-") and "KUBE-FIREWALL" not in line
    }
