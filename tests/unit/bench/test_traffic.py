"""Whom clients call: who translates is compared with who does not on the same endpoints."""

from __future__ import annotations

import pytest

from bench.cluster import NODE_ADDRESS, NODE_ADDRESS6, Cluster
from bench.traffic import Kind, Way, services, targets
from kproxy.core.addresses import Family, family_of

_SIZES = [Cluster(1, 10), Cluster(100, 10), Cluster(150, 2), Cluster(3_000, 10)]


def called(way, kind, cluster, family, *, translated):
    """Return the addresses and ports that are called."""
    found = targets(way, kind, cluster, translated=translated, family=family)
    pairs = [(each.address, each.port) for each in found]
    assert len(pairs) == len(set(pairs))
    return pairs


def led_to(pairs, protocol, documents):
    """Return all endpoints of the Services that are called, by clusterIP or NodePort."""
    found = []
    for service in documents:
        if service["kind"] != "Service":
            continue
        spec = service["spec"]
        for port in spec["ports"]:
            fronts = {(each, port["port"]) for each in spec["clusterIPs"]}
            fronts |= {(each, port.get("nodePort")) for each in (NODE_ADDRESS, NODE_ADDRESS6)}
            if port["protocol"] == protocol and fronts & set(pairs):
                found += endpoints(service["metadata"]["name"], port["name"], documents)
    return found


def endpoints(name, port_name, documents):
    for each in documents:
        labels = each["metadata"].get("labels", {})
        if labels.get("kubernetes.io/service-name") == name:
            (port,) = (port["port"] for port in each["ports"] if port["name"] == port_name)
            yield from ((end["addresses"][0], port) for end in each["endpoints"])


@pytest.mark.parametrize("cluster", _SIZES, ids=str)
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("kind", [Kind.CONNECTIONS, Kind.PACKETS])
@pytest.mark.parametrize("way", [Way.CLUSTER_IP, Way.NODE_PORT, Way.NODE_PORT_LOCAL])
def test_who_does_not_translate_calls_the_endpoints_of_the_same_services(
    way, kind, family, cluster
):
    documents = [*cluster.objects(), *services()]
    through = called(way, kind, cluster, family, translated=True)
    straight = called(way, kind, cluster, family, translated=False)

    ends = led_to(through, kind.protocol, documents)
    assert sorted(straight) == sorted(each for each in ends if family_of(each[0]) is family)
