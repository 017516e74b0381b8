"""Forwarding tables, and the objects that compile to such, as small as the tests allow."""

import dataclasses
import ipaddress

from kproxy.core.addresses import Family
from kproxy.core.objects import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Kind,
    ObjectKey,
    PortSpec,
    Protocol,
    Service,
)
from kproxy.core.store import Replaced, Upserted
from kproxy.core.table import (
    ForwardingTable,
    NodePort,
    NodeRules,
    ServicePort,
    ServicePortKey,
    TableChanges,
    Target,
    Undetected,
    Use,
    Via,
    Vip,
)

_PREFIX = {Family.IPV4: "10.96.0.", Family.IPV6: "fd00:96::"}
_PODS = {Family.IPV4: "10.1.0.", Family.IPV6: "fd00:1::"}
_EVERY = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}


def vip(family, number):
    return f"{_PREFIX[family]}{number}"


def pod(family, number):
    return f"{_PODS[family]}{number}"


def node_rules(family, *, masquerade_all=False):
    return NodeRules(
        local_pods=Undetected("not configured"),
        masquerade_all=masquerade_all,
        node_port_addresses=(ipaddress.ip_network(_EVERY[family]),),
        localhost_node_ports=(),
        service_cidrs=(),
        shared_ranges=(),
    )


def service_port(
    family, number, pods, *, name=None, protocol=Protocol.TCP, node_port=None, affinity_s=None
):
    """The service port `web-<number>` on the clusterIP with that number."""
    targets = tuple(sorted((Target(pod(family, each), 8080, False) for each in pods), key=str))
    use = Use.TARGETS if targets else Use.REJECT
    node_ports = (NodePort(node_port),) if node_port else ()
    return ServicePort(
        key=ServicePortKey("shop", name or f"web-{number}", "http", protocol),
        frontends=(Vip(Via.CLUSTER_IP, vip(family, number), 80), *node_ports),
        internal=use,
        external=use,
        external_local=False,
        targets=targets,
        local_targets=(),
        sources=None,
        affinity_timeout_s=affinity_s,
        serving=frozenset((target.address, target.port) for target in targets)
        if protocol is Protocol.UDP
        else frozenset(),
    )


def table(family, *service_ports, masquerade_all=False):
    made = ForwardingTable(family, node_rules(family, masquerade_all=masquerade_all))
    addresses = {f.address for s in service_ports for f in s.frontends if isinstance(f, Vip)}
    made.apply(
        TableChanges(
            family,
            service_ports={entry.key: entry for entry in service_ports},
            cluster_ips=dict.fromkeys(addresses, True),
        )
    )
    return made


def between(old, new):
    """Return what turns the table `old` into `new`; None for `old` is no table at all."""
    if old is None:
        return new.everything()
    ports = {
        key: new.service_ports.get(key)
        for key in old.service_ports | new.service_ports
        if old.service_ports.get(key) != new.service_ports.get(key)
    }
    return TableChanges(
        family=new.family,
        rules=None if old.rules == new.rules else new.rules,
        service_ports=ports,
        cluster_ips={a: a in new.cluster_ips for a in old.cluster_ips ^ new.cluster_ips},
    )


def some_tables(family):
    """Tables that differ in everything that a data path keeps for each service port."""
    first = service_port(family, 1, [1, 2])
    second = service_port(family, 2, [2, 3], node_port=30002)
    many = [service_port(family, number, range(1, number)) for number in range(3, 30)]
    idle = service_port(family, 40, [])
    return [
        table(family),
        table(family, first, second),
        table(family, service_port(family, 1, [2, 4]), second),
        table(family, service_port(family, 1, []), service_port(family, 2, [3])),
        table(family, first, service_port(family, 2, [2], name="took-over", node_port=30002)),
        table(family, service_port(family, 1, [1, 2], affinity_s=60), *many, idle),
        table(family, first, *many[::2], masquerade_all=True),
        table(family, service_port(family, 1, [1], protocol=Protocol.UDP), second),
    ]


def api_service(number):
    """A Service of both families; its endpoints come from `api_slices`."""
    return Service(
        key=ObjectKey("shop", f"web-{number}"),
        not_proxied=None,
        cluster_ips=(f"10.96.{number >> 8}.{number & 255}", f"fd00:96::{number:x}"),
        external_ips=(),
        load_balancer_ips=(),
        source_ranges=(),
        ports=(PortSpec("http", Protocol.TCP, 80, 0),),
        internal_local=False,
        external_local=False,
        affinity_timeout_s=None,
        health_check_node_port=0,
    )


def api_slices(number, version):
    """One slice for each family; each `version` has another endpoint."""
    addresses = {
        Family.IPV4: f"10.1.{version >> 8}.{version & 255}",
        Family.IPV6: f"fd00:1::{version:x}",
    }
    return tuple(
        EndpointSlice(
            key=ObjectKey("shop", f"web-{number}-{family.value.lower()}"),
            service=ObjectKey("shop", f"web-{number}"),
            family=family,
            endpoints=(Endpoint(address, "other-node", True, True, False, (), ()),),
            ports=(EndpointPort("http", Protocol.TCP, 8080),),
        )
        for family, address in addresses.items()
    )


def listed(*numbers):
    """The first lists of a cluster with these Services."""
    slices = tuple(each for number in numbers for each in api_slices(number, 0))
    services = tuple(api_service(number) for number in numbers)
    return Replaced(Kind.SERVICE, services), Replaced(Kind.ENDPOINT_SLICE, slices)


def as_udp(thing):
    """A Service or slice with its ports turned to UDP."""
    ports = tuple(port._replace(protocol=Protocol.UDP) for port in thing.ports)
    return dataclasses.replace(thing, ports=ports)


def listed_udp(*numbers):
    """The same as `listed`, but everything speaks UDP."""
    return tuple(
        Replaced(each.kind, tuple(as_udp(thing) for thing in each.objects))
        for each in listed(*numbers)
    )


def moved(number, version):
    """The endpoints of a Service change, in both families."""
    return tuple(Upserted(each) for each in api_slices(number, version))
