"""Which endpoints are used: readiness, draining, topology hints, duplicates, odd slices."""

from __future__ import annotations

from tests.support.net.plan import CLIENT, FAR1, FAR2, NODE, POD1, POD2, POD3
from tests.support.packets.objects import (
    draining,
    endpoint,
    endpoint_slice,
    node,
    service,
    slice_port,
    unready,
)
from tests.support.packets.table import DROP, REJECT, Case, Group, forward, masquerade

_here, _there = f"{POD1}:8080", f"{FAR1}:8080"

_readiness = (
    service("defaults", "10.96.0.20"),
    endpoint_slice("defaults", {"addresses": [POD1]}),
    service("mixed", "10.96.0.21"),
    endpoint_slice("mixed", POD1, unready(POD2), draining(FAR1)),
    service("all-draining", "10.96.0.22"),
    endpoint_slice("all-draining", draining(POD1), draining(FAR1), unready(POD2)),
    service("unready", "10.96.0.23"),
    endpoint_slice("unready", unready(POD1), unready(FAR1)),
    service("serving-only", "10.96.0.24"),
    endpoint_slice("serving-only", endpoint(POD1, ready=False, serving=True, terminating=False)),
    service("gone", "10.96.0.25"),
    endpoint_slice("gone", endpoint(POD1, ready=False, serving=False, terminating=True)),
    service("serving-unset", "10.96.0.26"),
    endpoint_slice("serving-unset", endpoint(POD1, ready=False, terminating=True)),
    service("ready-and-terminating", "10.96.0.27"),
    endpoint_slice("ready-and-terminating", endpoint(POD1, ready=True, terminating=True)),
)


def _hinted(name: str, cluster_ip: str, *endpoints: dict[str, object], **spec: object):
    return service(name, cluster_ip, **spec), endpoint_slice(name, *endpoints)


_hints = (
    *_hinted(
        "same-zone",
        "10.96.0.30",
        endpoint(POD1, zones=("zone-a",)),
        endpoint(FAR1, zones=("zone-b",)),
        endpoint(FAR2, zones=("zone-b", "zone-a")),
    ),
    *_hinted("one-without-zone", "10.96.0.31", endpoint(POD1, zones=("zone-a",)), endpoint(FAR1)),
    *_hinted(
        "other-zones",
        "10.96.0.32",
        endpoint(POD1, zones=("zone-b",)),
        endpoint(FAR1, zones=("zone-c",)),
    ),
    *_hinted(
        "same-node",
        "10.96.0.33",
        endpoint(POD1, nodes=("node2",), zones=("zone-a",)),
        endpoint(FAR1, nodes=("node",), zones=("zone-b",)),
    ),
    *_hinted(
        "one-without-node",
        "10.96.0.34",
        endpoint(POD1, nodes=("node",), zones=("zone-b",)),
        endpoint(FAR1, zones=("zone-a",)),
    ),
    *_hinted(
        "other-nodes",
        "10.96.0.35",
        endpoint(POD1, nodes=("node2",), zones=("zone-a",)),
        endpoint(FAR1, nodes=("node3",), zones=("zone-b",)),
    ),
    *_hinted(
        "unready-without-hint",
        "10.96.0.36",
        endpoint(POD1, zones=("zone-a",)),
        endpoint(FAR1, zones=("zone-b",)),
        unready(FAR2),
    ),
    *_hinted(
        "all-draining-hinted",
        "10.96.0.37",
        {**draining(POD1), "hints": {"forZones": [{"name": "zone-b"}]}},
        {**draining(FAR1), "hints": {"forZones": [{"name": "zone-a"}]}},
    ),
    *_hinted(
        "local-and-hinted-away",
        "10.96.0.38",
        endpoint(POD1, zones=("zone-b",)),
        endpoint(FAR1, zones=("zone-a",)),
        internalTrafficPolicy="Local",
    ),
)

_duplicates = (
    service("twice", "10.96.0.40"),
    endpoint_slice("twice", POD1, suffix="a"),
    endpoint_slice("twice", POD1, FAR1, suffix="b"),
    service("ready-first", "10.96.0.41"),
    endpoint_slice("ready-first", POD1, suffix="a"),
    endpoint_slice("ready-first", draining(POD1), suffix="b"),
    service("ready-last", "10.96.0.42"),
    endpoint_slice("ready-last", draining(POD1), suffix="a"),
    endpoint_slice("ready-last", POD1, suffix="b"),
    service("two-addresses", "10.96.0.43"),
    endpoint_slice("two-addresses", {"addresses": [POD2, POD3]}),
    service("no-addresses", "10.96.0.44"),
    endpoint_slice("no-addresses", {"addresses": []}, POD2),
    service("two-ports-one-pod", "10.96.0.45"),
    endpoint_slice("two-ports-one-pod", POD1, suffix="a"),
    endpoint_slice("two-ports-one-pod", POD1, ports=(slice_port("", 8081),), suffix="b"),
    service("unknown-node", "10.96.0.46", internalTrafficPolicy="Local"),
    endpoint_slice("unknown-node", {"addresses": [POD1]}),
)

GROUPS = (
    Group(
        "readiness",
        (node(), *_readiness),
        (
            Case("without conditions an endpoint is ready", POD3, "10.96.0.20:80", forward(_here)),
            Case("ready ones alone", POD3, "10.96.0.21:80", forward(_here)),
            Case("none ready: draining ones", POD3, "10.96.0.22:80", forward(_here, _there)),
            Case(
                "none ready: also for outsiders", CLIENT, "10.96.0.22:80", masquerade(_here, _there)
            ),
            Case("no ready, no draining one", POD3, "10.96.0.23:80", REJECT),
            Case("no ready, no draining one: the node", NODE, "10.96.0.23:80", REJECT),
            Case("serving alone is not usable", POD3, "10.96.0.24:80", REJECT),
            Case("draining without serving is not usable", POD3, "10.96.0.25:80", REJECT),
            Case("serving defaults to true", POD3, "10.96.0.26:80", forward(_here)),
            Case("ready counts even if terminating", POD3, "10.96.0.27:80", forward(_here)),
        ),
    ),
    Group(
        "topology hints",
        (node(), *_hints),
        (
            Case(
                "those hinted to this zone", POD3, "10.96.0.30:80", forward(_here, f"{FAR2}:8080")
            ),
            Case("for every client", NODE, "10.96.0.30:80", masquerade(_here, f"{FAR2}:8080")),
            Case("one without a zone: all", POD3, "10.96.0.31:80", forward(_here, _there)),
            Case("none for this zone: all", POD3, "10.96.0.32:80", forward(_here, _there)),
            Case("a node hint beats a zone hint", POD3, "10.96.0.33:80", forward(_there)),
            Case("one without a node: zones decide", POD3, "10.96.0.34:80", forward(_there)),
            Case("none for this node: zones decide", POD3, "10.96.0.35:80", forward(_here)),
            Case("unready ones need no hint", POD3, "10.96.0.36:80", forward(_here)),
            Case("draining ones: hints are ignored", POD3, "10.96.0.37:80", forward(_here, _there)),
            Case("the Local policy ignores hints", POD3, "10.96.0.38:80", forward(_here)),
        ),
    ),
    Group(
        "topology hints on a node without a zone",
        (node(zone=""), *_hints),
        (
            Case(
                "zone hints are ignored",
                POD3,
                "10.96.0.30:80",
                forward(_here, _there, f"{FAR2}:8080"),
            ),
            Case("node hints are not", POD3, "10.96.0.33:80", forward(_there)),
            Case(
                "other nodes' hints fall back to all", POD3, "10.96.0.35:80", forward(_here, _there)
            ),
        ),
    ),
    Group(
        "duplicates and odd slices",
        (node(), *_duplicates),
        (
            Case("an endpoint in two slices is one", POD3, "10.96.0.40:80", forward(_here, _there)),
            Case("ready in one, draining in the next", POD3, "10.96.0.41:80", forward(_here)),
            Case("draining in one, ready in the next", POD3, "10.96.0.42:80", forward(_here)),
            Case("the first address alone", POD1, "10.96.0.43:80", forward(f"{POD2}:8080")),
            Case("an endpoint without address", POD1, "10.96.0.44:80", forward(f"{POD2}:8080")),
            Case("two ports of one pod", POD3, "10.96.0.45:80", forward(_here, f"{POD1}:8081")),
            Case(
                "hairpin to both ports of one pod",
                POD1,
                "10.96.0.45:80",
                masquerade(_here, f"{POD1}:8081"),
            ),
            Case("without a node name it is not local", POD3, "10.96.0.46:80", DROP),
        ),
    ),
)
