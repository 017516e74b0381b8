"""Every address that the API server stores is used, and what of the rest is read all the same."""

from __future__ import annotations

import enum
import itertools
import json
from functools import partial
from http import HTTPStatus

import pytest

from kproxy.core.addresses import canonical_address, canonical_network
from kproxy.core.objects import InvalidObject, Kind
from kproxy.core.parse import from_json
from tests.support.cluster.api import ApiError
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.cluster


class Fate(enum.Enum):
    """What becomes of a value; an object with one that is refused is refused whole."""

    USED = "stored and used"
    OMITTED = "stored and left out, the rest of the object is used"
    OLDER = "refused by this API server, but used, as older ones stored it"
    REFUSED = "refused by both"


USED, OMITTED, OLDER, REFUSED = Fate
_LABEL = "kubernetes.io/service-name"
# Whatever a ServiceCIDR holds is allocated, but for its first address and IPv4's last one.
_RANGES = (
    *("169.254.64.0/24", "127.0.5.0/24", "224.0.0.0/24", "240.0.0.0/24", "0.0.0.0/24"),
    *("fe80::64:0/112", "ff02::/112", "::/112"),
)
_SPECIAL_IPV4 = ("0.0.0.0", "127.0.0.1", "127.9.9.9", "169.254.7.1", "224.0.0.251")
_SPECIAL_IPV6 = ("::", "::1", "fe80::1", "ff02::fb")
_ORDINARY_IPV4 = ("203.0.113.7", "0.0.0.1", "169.253.0.1", "224.0.1.1", "240.0.0.1")
_ORDINARY_IPV6 = ("2001:db8::7", "::7", "fec0::1", "ff05::1")
_BROKEN = ("1.2.3", "1.2.3.256", "1.2.3.4.5", "fe80::1%eth0", "1::2::3", " 1.2.3.4", "a.b")
_NETWORKS = ("10.0.0.0/8", "203.0.113.7/32", "0.0.0.0/0", "169.254.0.0/16", "127.0.0.0/8")
_BROKEN_NETWORKS = ("10.0.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fd00::/129", "x/8", "/8")


def _all(field, fate, *values):
    return [(field, value, fate) for value in values]


def _of_networks(field):
    """Return rows of a field whose networks were read leniently by older API servers."""
    yield from _all(field, USED, *_NETWORKS, "fd00::/64", "::/0")
    yield from _all(field, OLDER, "10.1.2.3/8", "010.0.0.0/8", "10.0.0.0/08", "fd00::1/64")
    yield from _all(field, OLDER, "::ffff:10.0.0.0/104")
    yield from _all(field, REFUSED, *_BROKEN_NETWORKS)


ROWS = [
    *_all("clusterIP", USED, "169.254.64.10", "127.0.5.1", "224.0.0.251", "240.0.0.1", "0.0.0.1"),
    *_all("clusterIP", USED, "fe80::64:a", "FE80::64:B", "ff02::fb", "::1", "10.96.7.7"),
    *_all("clusterIP", USED, "fd00:96::7"),
    *_all("clusterIP", OLDER, "169.254.064.011", "::ffff:169.254.64.12"),
    *_all("clusterIP", REFUSED, "0.0.0.0", "::", *_BROKEN),
    *_all("externalIPs", USED, *_ORDINARY_IPV4, *_ORDINARY_IPV6, "2001:DB8::8"),
    *_all("externalIPs", OLDER, "203.0.113.007", "::ffff:203.0.113.8"),
    *_all("externalIPs", REFUSED, *_SPECIAL_IPV4, *_SPECIAL_IPV6, *_BROKEN),
    *_all("ingress", USED, *_ORDINARY_IPV4, *_ORDINARY_IPV6, "169.254.7.1", "fe80::1"),
    *_all("ingress", OMITTED, *(a for a in _SPECIAL_IPV4 if not a.startswith("169."))),
    *_all("ingress", OMITTED, *(a for a in _SPECIAL_IPV6 if not a.startswith("fe80"))),
    *_all("ingress", OLDER, "203.0.113.007", "::ffff:203.0.113.8"),
    *_all("ingress", REFUSED, *_BROKEN),
    *_of_networks("loadBalancerSourceRanges"),
    *_all("loadBalancerSourceRanges", USED, " 192.0.2.0/24 "),
    *_of_networks("podCIDRs"),
    *_all("cidrs", USED, "10.200.0.0/24", "203.0.113.0/24", "169.254.9.0/24", "fd00:9::/112"),
    *_all("cidrs", OLDER, "10.200.1.2/24", "010.200.2.0/24", "::ffff:10.200.3.0/120"),
    *_all("cidrs", OLDER, "FD00:A::/112", "fd00:a::1/112", "10.200.4.0/024"),
    *_all("cidrs", REFUSED, *_BROKEN_NETWORKS),
    *_all("IPv4 endpoint", USED, *_ORDINARY_IPV4),
    *_all("IPv4 endpoint", OLDER, "203.0.113.007", "::ffff:203.0.113.8"),
    *_all("IPv4 endpoint", REFUSED, *_SPECIAL_IPV4, *_SPECIAL_IPV6, *_ORDINARY_IPV6, *_BROKEN),
    *_all("IPv6 endpoint", USED, *_ORDINARY_IPV6),
    *_all("IPv6 endpoint", OLDER, "2001:DB8::8"),
    *_all("IPv6 endpoint", REFUSED, *_SPECIAL_IPV4, *_SPECIAL_IPV6, *_ORDINARY_IPV4, *_BROKEN),
    *_all("IPv6 endpoint", REFUSED, "::ffff:203.0.113.8"),
    *_all("Node address", USED, *_ORDINARY_IPV4, *_ORDINARY_IPV6, *_SPECIAL_IPV4, *_SPECIAL_IPV6),
    *_all("Node address", USED, "203.0.113.007", "::ffff:203.0.113.8"),
    *_all("Node address", OMITTED, *_BROKEN),
]


def _service(**spec):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "it", "namespace": "default"},
        "spec": {"ports": [{"port": 80}], **spec},
    }


def _in_cluster_ip(value):
    family = "IPv6" if ":" in value and "." not in value else "IPv4"
    families = {"ipFamilies": [family], "ipFamilyPolicy": "SingleStack"}
    return _service(clusterIP=value, clusterIPs=[value], **families)


def _in_ingress(value):
    status = {"loadBalancer": {"ingress": [{"ip": value, "ipMode": "VIP"}]}}
    return {**_service(type="LoadBalancer"), "status": status}


def _in_slice(family, value):
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "it", "namespace": "default", "labels": {_LABEL: "it"}},
        "addressType": family,
        "endpoints": [{"addresses": [value]}],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }


def _in_node(spec=None, addresses=()):
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "it"},
        "spec": spec or {},
        "status": {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]},
    }


def _in_service_cidr(value, name="it"):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": name},
        "spec": {"cidrs": [value]},
    }


# How an object with the value in that field is written, and where it is after reading.
FIELDS = {
    "clusterIP": (_in_cluster_ip, lambda read: read.cluster_ips),
    "externalIPs": (lambda v: _service(externalIPs=[v]), lambda read: read.external_ips),
    "ingress": (_in_ingress, lambda read: read.load_balancer_ips),
    "loadBalancerSourceRanges": (
        lambda v: _service(type="LoadBalancer", loadBalancerSourceRanges=[v]),
        lambda read: read.source_ranges,
    ),
    "podCIDRs": (lambda v: _in_node({"podCIDRs": [v]}), lambda read: read.pod_cidrs),
    "cidrs": (_in_service_cidr, lambda read: read.cidrs),
    "IPv4 endpoint": (
        lambda v: _in_slice("IPv4", v),
        lambda read: tuple(each.address for each in read.endpoints),
    ),
    "IPv6 endpoint": (
        lambda v: _in_slice("IPv6", v),
        lambda read: tuple(each.address for each in read.endpoints),
    ),
    "Node address": (lambda v: _in_node(addresses=[v]), lambda read: read.addresses),
}


def _stored(api, document):
    """Return the object as the API server gives it to a watcher, None if it refuses it."""
    try:
        stored = api.create({key: part for key, part in document.items() if key != "status"})
        if "status" in document:
            stored = api.apply(document)
    except ApiError as error:
        if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        return None
    finally:
        api.delete(document)
        _let_go(api, document)
    return stored


def _let_go(api, document):
    """Let a ServiceCIDR end, as no controller here does; it is gone already if it had no reason."""
    if document["kind"] == "ServiceCIDR":
        try:
            api.patch(document, {"metadata": {"finalizers": None}})
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise


def _read(document):
    try:
        return from_json(Kind(document["kind"]), json.dumps(document).encode())
    except InvalidObject:
        return None


def _fate(api, field, value):
    """Return what becomes of a value, in words if it is none of the fates."""
    write, find = FIELDS[field]
    document = write(value)
    stored = _stored(api, document)
    read = _read(document if stored is None else stored)
    if read is None:
        return REFUSED if stored is None else "stored, and refused by kproxy"
    try:
        wanted = canonical_network(value.strip()) if "/" in value else canonical_address(value)
    except ValueError:
        wanted = None
    found = find(read)
    if found == (wanted,):
        return OLDER if stored is None else USED
    if found == () and value in read.unusable:
        return "refused, and left out by kproxy" if stored is None else OMITTED
    return f"read as {found}"


def test_what_the_api_server_stores_is_used(control_plane):
    api = control_plane.api
    for number, cidr in enumerate(_RANGES):
        api.create(_in_service_cidr(cidr, f"range-{number}"))
        *_, inside = itertools.islice(canonical_network(cidr), 200)
        probe = _in_cluster_ip(str(inside))
        until(partial(_stored, api, probe), within_s=LONGEST_S, what=f"{cidr} is allocated from")

    rows = [(field, value, fate, _fate(api, field, value)) for field, value, fate in ROWS]
    wrong = [f"{f} {value!r}: {seen}, not {fate}" for f, value, fate, seen in rows if seen != fate]
    assert not wrong, "\n".join(wrong)
