"""Valid objects, each as short as a test can say it."""

import ipaddress

from kproxy.core.addresses import Family, family_of
from kproxy.core.objects import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Kind,
    Node,
    ObjectKey,
    PortSpec,
    Protocol,
    Service,
    ServiceCIDR,
)
from kproxy.core.store import Replaced

HERE, THERE = "n1", "n2"
NODE_ADDRESS = "192.0.2.1"


def networks(*texts):
    return tuple(map(ipaddress.ip_network, texts))


def key(name):
    return ObjectKey("shop", name)


def a_port(number=80, *, name="", protocol=Protocol.TCP, node_port=0):
    return PortSpec(name, protocol, number, node_port)


def a_service(name="web", *, ports=None, sources=(), **fields):
    """A Service on 10.96.0.1 with one TCP port 80."""
    return Service(
        **{
            "key": key(name),
            "not_proxied": None,
            "cluster_ips": ("10.96.0.1",),
            "external_ips": (),
            "load_balancer_ips": (),
            "source_ranges": networks(*sources),
            "ports": (a_port(),) if ports is None else tuple(ports),
            "internal_local": False,
            "external_local": False,
            "affinity_timeout_s": None,
            "health_check_node_port": 0,
            **fields,
        }
    )


def an_endpoint(
    address, *, node="", ready=True, serving=None, terminating=False, zones=(), nodes=()
):
    """An endpoint; it serves if it is ready, unless said otherwise."""
    return Endpoint(
        address,
        node,
        ready,
        ready if serving is None else serving,
        terminating,
        tuple(zones),
        tuple(nodes),
    )


def draining(address, **fields):
    """An endpoint that still serves while its pod terminates."""
    return an_endpoint(address, ready=False, serving=True, terminating=True, **fields)


def a_slice(*endpoints, name="web-1", service="web", ports=((8080, ""),), protocol=Protocol.TCP):
    """A slice; an endpoint may be given as its address alone."""
    made = tuple(an_endpoint(e) if isinstance(e, str) else e for e in endpoints)
    return EndpointSlice(
        key=key(name),
        service=key(service),
        family=family_of(made[0].address) if made else Family.IPV4,
        endpoints=made,
        ports=tuple(EndpointPort(named, protocol, number) for number, named in ports),
    )


def a_node(*addresses, zone="", pod_cidrs=(), name=HERE):
    return Node(ObjectKey("", name), zone, addresses, networks(*pod_cidrs), False)


def a_cidr(*cidrs, name="kubernetes"):
    return ServiceCIDR(ObjectKey("", name), networks(*cidrs))


def listed(*objects):
    """The first complete lists of a cluster that holds these objects."""
    kinds = {
        Service: Kind.SERVICE,
        EndpointSlice: Kind.ENDPOINT_SLICE,
        Node: Kind.NODE,
        ServiceCIDR: Kind.SERVICE_CIDR,
    }
    return [
        Replaced(kind, tuple(each for each in objects if isinstance(each, made)))
        for made, kind in kinds.items()
    ]
