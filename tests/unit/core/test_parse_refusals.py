"""Invalid API objects: refused whole, and named with the field and the value that are wrong."""

import msgspec
import pytest

from kproxy.core.objects import InvalidObject, Kind, ObjectKey
from kproxy.core.parse import from_builtins, from_json, kind_of
from tests.unit.core.documents import changed, endpoint_slice, node, service, service_cidr, without

TWO_PORTS = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
ADDRESS = ("endpoints", 0, "addresses", 0)


def ingress(**entry):
    return service() | {"status": {"loadBalancer": {"ingress": [entry]}}}


def endpoint(**fields):
    return endpoint_slice({"addresses": ["10.1.0.1"], **fields})


def port(**fields):
    return service(ports=[{"port": 80, **fields}])


INVALID = [
    # Service: shape
    (service() | {"spec": None}, "spec", None),
    (without(service(), "spec"), "spec", None),
    (service() | {"spec": []}, "spec", None),
    (service(ports={}), "spec.ports", None),
    (service(ports=[{}]), "spec.ports[0].port", None),
    (service(ports=[{"port": 80}, {"port": "http"}]), "spec.ports[1].port", "http"),
    (service(ports=[{"port": 80.5}]), "spec.ports[0].port", 80.5),
    (service(ports=[{"port": True}]), "spec.ports[0].port", True),
    (port(protocol=5), "spec.ports[0].protocol", 5),
    (service(type=5), "spec.type", 5),
    (service(externalIPs="192.0.2.1"), "spec.externalIPs", "192.0.2.1"),
    # Service: values
    (service(type="Headless"), "spec.type", "Headless"),
    (service(ports=[{"port": 0}]), "spec.ports[0].port", 0),
    (service(ports=[{"port": 65536}]), "spec.ports[0].port", 65536),
    (service(ports=[{"port": -1}]), "spec.ports[0].port", -1),
    (port(nodePort=65536), "spec.ports[0].nodePort", 65536),
    (port(nodePort=-1), "spec.ports[0].nodePort", -1),
    (port(protocol="tcp"), "spec.ports[0].protocol", "tcp"),
    (port(name="Web"), "spec.ports[0].name", "Web"),
    (port(name="a b"), "spec.ports[0].name", "a b"),
    (port(name="a" * 64), "spec.ports[0].name", "a" * 64),
    (service(ports=[{"port": 80}] * 2), "spec.ports[1].name", ""),
    (service(ports=[{"name": "a", "port": 1}] * 2), "spec.ports[1].name", "a"),
    (changed(service(ports=TWO_PORTS), ("spec", "ports", 1, "port"), 80), "spec.ports[1].port", 80),
    (
        service(ports=[{**each, "nodePort": 30000} for each in TWO_PORTS]),
        "spec.ports[1].nodePort",
        30000,
    ),
    (service(clusterIP="10.96.0.256"), "spec.clusterIP", "10.96.0.256"),
    (service(clusterIP="none"), "spec.clusterIP", "none"),
    (service(clusterIP="0.0.0.0"), "spec.clusterIP", "0.0.0.0"),
    (service(clusterIPs=["10.96.0.1", "0::0"]), "spec.clusterIPs[1]", "0::0"),
    (service(clusterIPs=["10.96.0.1", "web"]), "spec.clusterIPs[1]", "web"),
    (
        service(clusterIPs=["10.96.0.1", "10.96.0.2"]),
        "spec.clusterIPs",
        "10.96.0.1, 10.96.0.2",
    ),
    (service(clusterIPs=["10.96.0.2"]), "spec.clusterIPs[0]", "10.96.0.2"),
    (service(externalIPs=["192.0.2.1", "x"]), "spec.externalIPs[1]", "x"),
    (service(externalIPs=["127.0.0.1"]), "spec.externalIPs[0]", "127.0.0.1"),
    (service(externalIPs=["0.0.0.0"]), "spec.externalIPs[0]", "0.0.0.0"),
    (service(externalIPs=["FE80::1"]), "spec.externalIPs[0]", "FE80::1"),
    (service(sessionAffinity="Cookie"), "spec.sessionAffinity", "Cookie"),
    (
        service(
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 86401}},
        ),
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        86401,
    ),
    (
        service(
            sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 0}}
        ),
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        0,
    ),
    (service(internalTrafficPolicy="local"), "spec.internalTrafficPolicy", "local"),
    (service(externalTrafficPolicy="Global"), "spec.externalTrafficPolicy", "Global"),
    (
        service(loadBalancerSourceRanges=["10.0.0.0/8", "10.0.0.0"]),
        "spec.loadBalancerSourceRanges[1]",
        "10.0.0.0",
    ),
    (service(healthCheckNodePort=70000), "spec.healthCheckNodePort", 70000),
    (ingress(ip="x"), "status.loadBalancer.ingress[0].ip", "x"),
    (ingress(ip="192.0.2.1", ipMode="NAT"), "status.loadBalancer.ingress[0].ipMode", "NAT"),
    # EndpointSlice
    (without(endpoint_slice(), "addressType"), "addressType", None),
    (endpoint_slice(addressType="IPv5"), "addressType", "IPv5"),
    (changed(endpoint(), ADDRESS, "10.1.0"), "endpoints[0].addresses[0]", "10.1.0"),
    (changed(endpoint(), ADDRESS, "fd00::1"), "endpoints[0].addresses[0]", "fd00::1"),
    (changed(endpoint(), ADDRESS, "127.0.0.1"), "endpoints[0].addresses[0]", "127.0.0.1"),
    (changed(endpoint(), ADDRESS, "0.0.0.0"), "endpoints[0].addresses[0]", "0.0.0.0"),
    (changed(endpoint(), ADDRESS, "169.254.0.1"), "endpoints[0].addresses[0]", "169.254.0.1"),
    (endpoint(conditions={"ready": "yes"}), "endpoints[0].conditions.ready", "yes"),
    (endpoint(nodeName=5), "endpoints[0].nodeName", 5),
    (endpoint(hints={"forZones": [{}]}), "endpoints[0].hints.forZones[0].name", None),
    (endpoint_slice(ports=[{"port": 65536}]), "ports[0].port", 65536),
    (endpoint_slice(ports=[{"port": -1}]), "ports[0].port", -1),
    (endpoint_slice(ports=[{"port": 1, "protocol": "ICMP"}]), "ports[0].protocol", "ICMP"),
    # Node, ServiceCIDR
    (node(podCIDRs=["10.1.0.0/24", "10.1.0.0"]), "spec.podCIDRs[1]", "10.1.0.0"),
    (node(podCIDR="10.1.0.0/40"), "spec.podCIDRs[0]", "10.1.0.0/40"),
    (node(taints=[{}]), "spec.taints[0].key", None),
    (service_cidr("10.96.0.0"), "spec.cidrs[0]", "10.96.0.0"),
]


def refusal(document):
    with pytest.raises(InvalidObject) as caught:
        from_builtins(document)
    return caught.value


@pytest.mark.parametrize(
    ("document", "field", "value"), INVALID, ids=[f"{n}-{row[1]}" for n, row in enumerate(INVALID)]
)
def test_an_invalid_object_is_named_with_field_and_value(document, field, value):
    told = refusal(document)

    names = {"Node": ObjectKey("", "n1"), "ServiceCIDR": ObjectKey("", "kubernetes")}
    names |= {"Service": ObjectKey("shop", "web"), "EndpointSlice": ObjectKey("shop", "web-1")}
    kind = document["kind"]
    assert (told.kind, told.key, told.field, told.value) == (kind, names[kind], field, value)
    assert told.why
    for part in (kind, str(told.key), field):
        assert part in str(told)


@pytest.mark.parametrize(
    ("document", "field", "value"), INVALID, ids=[f"{n}-{row[1]}" for n, row in enumerate(INVALID)]
)
def test_json_and_plain_values_are_refused_alike(document, field, value):
    with pytest.raises(InvalidObject) as caught:
        from_json(kind_of(document), msgspec.json.encode(document))

    assert (caught.value.field, caught.value.value) == (field, value)


@pytest.mark.parametrize(
    ("metadata", "key", "field"),
    [
        (None, "?", "metadata"),
        ([], "?", "metadata"),
        ({}, "default/?", "metadata.name"),
        ({"name": ""}, "default/?", "metadata.name"),
        ({"name": 5}, "default/?", "metadata.name"),
        ({"name": "Web"}, "default/Web", "metadata.name"),
        ({"name": "web.x"}, "default/web.x", "metadata.name"),
        ({"name": "web\n"}, "default/web\n", "metadata.name"),
        ({"name": "a" * 64}, "default/" + "a" * 64, "metadata.name"),
        ({"name": "web", "namespace": "a/b"}, "a/b/web", "metadata.namespace"),
        ({"name": "web", "namespace": 5}, "?/web", "metadata.namespace"),
        ({"name": "web", "labels": {"a": 5}}, "default/web", "metadata.labels.a"),
    ],
)
def test_a_broken_name_is_still_reported_under_what_there_is(metadata, key, field):
    told = refusal(service() | {"metadata": metadata})

    assert (str(told.key), told.field) == (key, field)


def test_a_cluster_scoped_object_has_no_namespace_even_if_it_says_so():
    stray = {"name": "n1", "namespace": "shop"}

    assert from_builtins(node("192.0.2.1") | {"metadata": stray}).key == ObjectKey("", "n1")
    assert refusal(node(podCIDR="x") | {"metadata": stray}).key == ObjectKey("", "n1")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[",
        b"5",
        b"null",
        b'{"metadata": 5, garbage',
        b'{"metadata": {"name": "\xff"}}',
        b'{"metadata": 5, "spec": "\xff"}',
        b'{"spec": ' + b"[" * 100_000,
        b'{"metadata": 5, "spec": 1e99999}',
        b'{"metadata": {"name": "\\ud800"}}',
    ],
)
@pytest.mark.parametrize("kind", Kind)
def test_what_is_no_json_object_of_that_kind_is_an_invalid_object(kind, raw):
    with pytest.raises(InvalidObject):
        from_json(kind, raw)


@pytest.mark.parametrize(
    ("version", "kind"),
    [("v1", "Pod"), ("v2", "Service"), ("discovery.k8s.io/v1beta1", "EndpointSlice"), (None, None),
     ("v1", ["Service"]), (1, "Service")],
)  # fmt: skip
def test_kinds_that_are_not_used_are_none(version, kind):
    assert from_builtins({"apiVersion": version, "kind": kind}) is None
