"""What is said of a configuration once the Node and its families are known."""

import ipaddress

import pytest

from kproxy.config.families import family_complaints, primary_family
from kproxy.config.fields import Configuration
from kproxy.core.addresses import Family
from kproxy.core.objects import Node, ObjectKey
from kproxy.core.settings import DetectLocalMode

BOTH = (Family.IPV4, Family.IPV6)
V4 = (Family.IPV4,)


def node(*addresses, pod_cidrs=()):
    return Node(
        key=ObjectKey("", "n"),
        zone="",
        addresses=addresses,
        pod_cidrs=tuple(map(ipaddress.ip_network, pod_cidrs)),
        deleting=False,
    )


NODE = node("192.0.2.1")
DUAL = node("192.0.2.1", "fd00::1", pod_cidrs=("10.1.0.0/24", "fd01::/64"))
PRIMARY = {"node_port_addresses": ("primary",)}


@pytest.mark.parametrize(
    ("bind_address", "known", "expected"),
    [
        ("0.0.0.0", None, Family.IPV4),
        ("::", None, Family.IPV4),
        ("fd00::5", NODE, Family.IPV6),
        ("010.0.0.1", node("fd00::1"), Family.IPV4),
        ("0.0.0.0", node("fd00::1", "192.0.2.1"), Family.IPV6),
        ("0.0.0.0", node(), Family.IPV4),
    ],
)
def test_the_primary_family(bind_address, known, expected):
    assert primary_family(Configuration(bind_address=bind_address), known) is expected


@pytest.mark.parametrize(
    ("fields", "known", "families", "warnings"),
    [
        (PRIMARY, NODE, V4, []),
        (PRIMARY, DUAL, BOTH, []),
        ({"node_port_addresses": ("all",)}, DUAL, BOTH, []),
        ({}, NODE, V4, ["nodePortAddresses names no address"]),
        (PRIMARY, None, V4, ["nodePortAddresses names no address"]),
        ({"node_port_addresses": ("fd00::/8",)}, NODE, BOTH, ["every IPv4 address"]),
        ({"node_port_addresses": ("10.0.0.0/8",)}, DUAL, BOTH, ["every IPv6 address"]),
        ({"node_port_addresses": ("10.0.0.0/8",)}, NODE, BOTH, []),
        (
            {"node_port_addresses": ("10.0.0.0/8",), "cluster_cidr": "10.1.0.0/16,fd00::/56"},
            NODE,
            BOTH,
            ["every IPv6 address"],
        ),
        (PRIMARY | {"cluster_cidr": "fd00::/56"}, NODE, BOTH, ["clusterCIDR has only IPv6"]),
        (
            PRIMARY | {"cluster_cidr": "x", "detect_local_mode": DetectLocalMode.NODE_CIDR},
            node("192.0.2.1", pod_cidrs=("10.1.0.0/24",)),
            V4,
            [],
        ),
        (PRIMARY, node("192.0.2.1", pod_cidrs=("fd01::/64",)), V4, ["podCIDRs are only IPv6"]),
        (PRIMARY | {"healthz_bind_address": "[fd00::1]:80"}, NODE, V4, ["healthzBindAddress"]),
        (PRIMARY | {"metrics_bind_address": "[fd00::1]:80"}, NODE, V4, ["metricsBindAddress"]),
        (PRIMARY | {"metrics_bind_address": "[fd00::1]:80"}, NODE, BOTH, []),
        (PRIMARY | {"healthz_bind_address": "[::]:80"}, NODE, V4, []),
        (PRIMARY | {"healthz_bind_address": ""}, NODE, V4, []),
    ],
)
def test_what_is_probably_not_meant_so_is_said(fields, known, families, warnings):
    complaints = family_complaints(Configuration(**fields), known, families)
    assert complaints.fatal == ()
    assert len(complaints.warnings) == len(warnings)
    assert all(part in line for part, line in zip(warnings, complaints.warnings, strict=True))


def test_a_cluster_cidr_of_the_only_other_family_is_fatal():
    configuration = Configuration(cluster_cidr="fd00::/56", **PRIMARY)
    complaints = family_complaints(configuration, NODE, V4)
    assert complaints.warnings == ()
    assert complaints.fatal == ("the cluster is IPv4-only, but clusterCIDR has only IPv6 networks",)


@pytest.mark.parametrize("families", [V4, BOTH])
def test_pod_cidrs_of_the_wrong_family_are_fatal_where_they_decide(families):
    configuration = Configuration(detect_local_mode=DetectLocalMode.NODE_CIDR, **PRIMARY)
    known = node("192.0.2.1", pod_cidrs=("fd01::/64",))
    (line,) = family_complaints(configuration, known, families).fatal
    assert "podCIDRs are only IPv6" in line
