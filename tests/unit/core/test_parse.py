"""API objects: what their defaults are, and what is read of them."""

import ipaddress

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import (
    Endpoint,
    EndpointPort,
    InvalidObject,
    NotProxied,
    ObjectKey,
    PortSpec,
    Protocol,
    ServiceCIDR,
)
from kproxy.core.parse import from_builtins
from tests.unit.core.documents import (
    EVERYTHING,
    changed,
    endpoint_slice,
    node,
    service,
    service_cidr,
    without,
)

ADDRESS = ("endpoints", 0, "addresses", 0)


def endpoint(**fields):
    return endpoint_slice({"addresses": ["10.1.0.1"], **fields})


def test_a_service_written_by_hand_gets_the_defaults_of_the_api():
    made = from_builtins(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
        }
    )

    assert made.key == ObjectKey("default", "web")
    assert made.not_proxied is None
    assert made.ports == (PortSpec("", Protocol.TCP, 80, 0),)
    assert not made.internal_local
    assert not made.external_local
    assert made.affinity_timeout_s is None
    assert made.health_check_node_port == 0


@pytest.mark.parametrize("config", [None, {}, {"clientIP": None}, {"clientIP": {}}])
def test_affinity_lasts_three_hours_by_default(config):
    fields = {} if config is None else {"sessionAffinityConfig": config}

    assert from_builtins(service(sessionAffinity="ClientIP", **fields)).affinity_timeout_s == 10800


def test_a_slice_written_by_hand_gets_the_defaults_of_the_api():
    made = from_builtins(endpoint())

    assert made.ports == (EndpointPort("", Protocol.TCP, 8080),)
    assert made.endpoints == (
        Endpoint("10.1.0.1", "", True, True, False, (), ()),
    )  # fmt: skip


@pytest.mark.parametrize("document", EVERYTHING, ids=lambda document: document["kind"])
def test_null_is_as_good_as_absent(document):
    """Go writes null for an empty list; every field that may be absent may be null."""
    required = ("name", "port", "addressType", "key", "address")

    def nulled(value):
        if isinstance(value, dict):
            for name in value:
                if name in ("apiVersion", "kind", "metadata", "spec", *required) or "/" in name:
                    continue
                yield {**value, name: None}, without(value, name)
            for name, inner in value.items():
                for null, absent in nulled(inner):
                    yield {**value, name: null}, {**value, name: absent}
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                for null, absent in nulled(inner):
                    yield [*value[:i], null, *value[i + 1 :]], [*value[:i], absent, *value[i + 1 :]]

    for null, absent in nulled(document):
        try:
            expected = from_builtins(absent)
        except InvalidObject:
            continue
        assert from_builtins(null) == expected, null


def test_addresses_are_canonical():
    made = from_builtins(
        service(
            clusterIP="010.96.0.001",
            clusterIPs=["10.096.0.1", "FD00:96:0::1"],
            externalIPs=["192.0.2.009", "192.0.2.9", "2001:DB8::9"],
            loadBalancerSourceRanges=[" 010.1.2.3/8 "],
        )
        | {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.001"}]}}}
    )

    assert made.cluster_ips == ("10.96.0.1", "fd00:96::1")
    assert made.external_ips == ("192.0.2.9", "2001:db8::9")
    assert made.load_balancer_ips == ("203.0.113.1",)
    assert made.source_ranges == (ipaddress.ip_network("10.0.0.0/8"),)
    assert from_builtins(changed(endpoint(), ADDRESS, "10.01.0.1")).endpoints[0].address == (
        "10.1.0.1"
    )


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (service(clusterIP="None"), NotProxied.HEADLESS),
        (service(clusterIP="None", clusterIPs=["None"]), NotProxied.HEADLESS),
        (service(clusterIPs=["None"], clusterIP=None), NotProxied.HEADLESS),
        (service(type="ExternalName"), NotProxied.EXTERNAL_NAME),
        (service(type="ExternalName", clusterIP=None), NotProxied.EXTERNAL_NAME),
        (service(clusterIP=None), NotProxied.NO_CLUSTER_IP),
        (service(clusterIP=""), NotProxied.NO_CLUSTER_IP),
        (service(clusterIP="", clusterIPs=[]), NotProxied.NO_CLUSTER_IP),
        (
            changed(
                service(),
                ("metadata", "labels"),
                {"service.kubernetes.io/service-proxy-name": ""},
            ),
            NotProxied.OTHER_PROXY,
        ),
        (service(), None),
        (service(clusterIP="", clusterIPs=["10.96.0.1"]), None),
    ],
)
def test_why_a_valid_service_is_not_proxied(document, why):
    assert from_builtins(document).not_proxied is why


@pytest.mark.parametrize(
    ("labels", "used"),
    [
        ({"kubernetes.io/service-name": "web"}, ObjectKey("shop", "web")),
        ({"kubernetes.io/service-name": ""}, None),
        ({}, None),
        (None, None),
        (
            {"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""},
            None,
        ),
    ],
)
def test_which_service_a_slice_belongs_to(labels, used):
    document = changed(endpoint_slice(), ("metadata", "labels"), labels)

    assert from_builtins(document).service == used


def test_a_slice_of_names_is_valid_and_unused():
    made = from_builtins(
        endpoint_slice({"addresses": ["example.com"]}, addressType="FQDN"),
    )

    assert (made.family, made.endpoints) == (None, ())


@pytest.mark.parametrize(
    ("fields", "local"),
    [
        ({"type": "NodePort"}, True),
        ({"type": "LoadBalancer"}, True),
        ({"type": "ClusterIP"}, False),
        ({"type": "ClusterIP", "externalIPs": ["192.0.2.9"]}, True),
    ],
)
def test_where_external_policy_local_has_an_effect(fields, local):
    made = from_builtins(service(externalTrafficPolicy="Local", **fields))

    assert made.external_local is local


@pytest.mark.parametrize(
    ("fields", "port"),
    [
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}, 32000),
        ({"type": "LoadBalancer"}, 0),
        ({"type": "NodePort", "externalTrafficPolicy": "Local"}, 0),
    ],
)
def test_which_service_has_a_health_check_port(fields, port):
    made = from_builtins(service(healthCheckNodePort=32000, **fields))

    assert made.health_check_node_port == port


@pytest.mark.parametrize(
    ("entries", "addresses"),
    [
        ([{"ip": "203.0.113.1"}], ("203.0.113.1",)),
        ([{"ip": "203.0.113.1", "ipMode": "VIP"}, {"hostname": "x"}], ("203.0.113.1",)),
        ([{"ip": "203.0.113.1", "ipMode": "Proxy"}], ()),
        ([{"ip": "203.0.113.1"}, {"ip": "203.0.113.001"}], ("203.0.113.1",)),
        ([{"ip": "169.254.7.1"}, {"ip": "fe80::7"}], ("169.254.7.1", "fe80::7")),
    ],
)
def test_which_load_balancer_addresses_count(entries, addresses):
    """Only the status counts, of a Service of any type."""
    document = service() | {"status": {"loadBalancer": {"ingress": entries}}}

    made = from_builtins(document)
    assert (made.load_balancer_ips, made.unusable) == (addresses, ())


@pytest.mark.parametrize("own", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "224.0.0.251", "::1", "::"])
def test_a_load_balancer_address_that_is_the_node_s_own_is_left_out_alone(own):
    """Minikube's tunnel says 127.0.0.1, of Services that are served otherwise."""
    entries = [{"ip": own}, {"ip": "203.0.113.1"}, {"ip": own}]
    made = from_builtins(service() | {"status": {"loadBalancer": {"ingress": entries}}})

    assert (made.load_balancer_ips, made.unusable) == (("203.0.113.1",), (own,))
    assert made.cluster_ips == ("10.96.0.1",)
    elsewhere = [{"ip": own, "ipMode": "Proxy"}]
    assert (
        from_builtins(service() | {"status": {"loadBalancer": {"ingress": elsewhere}}}).unusable
        == ()
    )


@pytest.mark.parametrize(
    "address", ["169.254.64.10", "127.0.5.1", "224.0.0.1", "0.0.0.1", "fe80::a", "::1", "ff02::1"]
)
def test_a_cluster_ip_may_be_any_address_that_a_service_cidr_can_hold(address):
    assert from_builtins(service(clusterIP=address)).cluster_ips == (address,)


def test_endpoints_without_address_and_ports_without_name_or_number_are_left_out():
    made = from_builtins(
        endpoint_slice(
            {"addresses": []},
            {},
            {"addresses": ["10.1.0.1", "not read"]},
            ports=[{"name": None, "port": 1}, {"name": "a"}, {"name": "b", "port": 0}, {"port": 2}],
        )
    )

    assert [each.address for each in made.endpoints] == ["10.1.0.1"]
    assert made.ports == (EndpointPort("", Protocol.TCP, 2),)


def test_a_node_is_reduced_to_what_decides():
    made = from_builtins(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n1.example.com", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"podCIDR": "10.1.0.0/24"},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "ExternalIP", "address": "203.0.113.1"},
                    {"type": "InternalIP", "address": "192.0.2.1"},
                    {"type": "InternalIP", "address": "2001:DB8::1"},
                    {"type": "InternalIP", "address": "n1.example.com"},
                    {"type": "ExternalIP", "address": ""},
                ]
            },
        }
    )

    assert made.addresses == ("192.0.2.1", "2001:db8::1", "203.0.113.1")
    assert made.unusable == ("n1.example.com", "")
    assert made.address(Family.IPV6) == "2001:db8::1"
    assert (made.zone, made.deleting) == ("a", False)
    assert made.pod_cidrs == (ipaddress.ip_network("10.1.0.0/24"),)


@pytest.mark.parametrize(
    ("document", "deleting"),
    [
        (node(), False),
        (node(taints=[{"key": "other"}]), False),
        (node(taints=[{"key": "ToBeDeletedByClusterAutoscaler"}]), True),
        (changed(node(), ("metadata", "deletionTimestamp"), "2026-01-01T00:00:00Z"), True),
    ],
)
def test_when_a_node_is_about_to_go(document, deleting):
    assert from_builtins(document).deleting is deleting


def test_a_service_cidr_may_have_both_families():
    made = from_builtins(service_cidr("10.96.0.0/16", "fd00:96::/112"))

    networks = tuple(map(ipaddress.ip_network, ("10.96.0.0/16", "fd00:96::/112")))
    assert made == ServiceCIDR(ObjectKey("", "kubernetes"), networks)


def test_a_node_and_a_service_cidr_may_lack_everything_but_their_name():
    for version, kind in (("v1", "Node"), ("networking.k8s.io/v1", "ServiceCIDR")):
        made = from_builtins({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}})
        assert made.key == ObjectKey("", "x")
