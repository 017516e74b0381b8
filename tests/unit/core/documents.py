"""API documents as a person would write them, to be bent by the tests."""

import copy


def service(**spec):
    """A Service `shop/web` with one port; `spec` adds to its spec or replaces parts of it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], **spec},
    }


def endpoint_slice(*endpoints, **fields):
    """An IPv4 slice `shop/web-1` of the Service `shop/web`."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"port": 8080}],
        **fields,
    }


def node(*addresses, **spec):
    """A Node `n1` with these InternalIPs."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1"},
        "spec": spec,
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]},
    }


def service_cidr(*cidrs):
    """A ServiceCIDR `kubernetes`."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": list(cidrs)},
    }


def changed(document, path, value):
    """Return a copy of `document` with the value at `path` (keys and indexes) set."""
    result = copy.deepcopy(document)
    place = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return result


def without(document, *path):
    """Return a copy of `document` that lacks what is at `path`."""
    result = copy.deepcopy(document)
    place = result
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return result


EVERYTHING = (
    service(
        type="LoadBalancer",
        clusterIP="10.96.0.1",
        clusterIPs=["10.96.0.1", "fd00:96::1"],
        ipFamilies=["IPv4", "IPv6"],
        externalIPs=["192.0.2.9", "2001:db8::9"],
        ports=[
            {"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080, "targetPort": 80},
            {"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053},
        ],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
        internalTrafficPolicy="Local",
        externalTrafficPolicy="Local",
        loadBalancerSourceRanges=["198.51.100.0/24", " 2001:db8::/32"],
        healthCheckNodePort=32000,
    )
    | {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}]}}},
    endpoint_slice(
        {
            "addresses": ["10.1.0.1"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": "n1",
            "zone": "a",
            "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]},
        },
        ports=[{"name": "http", "protocol": "TCP", "port": 8080}],
    ),
    node("192.0.2.1", "2001:db8::1", podCIDR="10.1.0.0/24", podCIDRs=["10.1.0.0/24"])
    | {
        "metadata": {
            "name": "n1",
            "labels": {"topology.kubernetes.io/zone": "a"},
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        }
    },
    service_cidr("10.96.0.0/16", "fd00:96::/112"),
)
"""One valid document of each kind that sets every field that is read."""
