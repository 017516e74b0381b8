"""Ipsets over netlink: those that remember addresses for some time, and what others left.

Layouts: linux/netfilter/ipset/ip_set.h; attributes are those of its IPSET_ATTR_* enums.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from backends.kernel import raw_sockets
from backends.kernel.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    NESTED,
    REQUEST,
    Attributes,
    Netlink,
    attribute,
    attributes,
    nested,
    netfilter,
    text,
    text_attribute,
)
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

# A full set would stop remembering; with `forceadd` it forgets an old client for a new one.
MAX_CLIENTS = 1 << 20

_KIND = "hash:ip"
_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_FAMILY_NAME: dict[int, str] = {socket.AF_INET: "inet", socket.AF_INET6: "inet6"}

_PROTOCOL_BY_SUFFIX = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP}

SUBSYSTEM = 6 << 8  # NFNL_SUBSYS_IPSET
_SPEAK, CREATE_SET, _DESTROY, _SWAP, LIST_SETS, TYPE_OF = (
    SUBSYSTEM | each for each in (1, 2, 3, 6, 7, 13)
)
_VERSION, NAME, TYPE, REVISION, FAMILY, _FLAGS, DATA, ELEMENTS = range(1, 9)
_OTHER_NAME = TYPE
PORT, _TIMEOUT, PROTOCOL, CREATE_FLAGS, MAX_ELEMENTS = 4, 6, 7, 8, 19
NETWORK_ORDER = 0x4000
_HEADERS_ALONE, _FORCE_ADD = 1 << 2, 1 << 5
_PROTOCOL_VERSION = 6  # since Linux 3.1, and still spoken
_HASH_IP_REVISION = 4  # the first with `forceadd`, Linux 3.14

# What nfnetlink answers for a subsystem that the kernel does not have.
_NO_IPSETS = (errno.EINVAL, errno.EOPNOTSUPP)

_BUSY = 4100  # IPSET_ERR_BUSY: rules refer to the set
_OF_IPSET = {
    4098: "the kernel lacks the type hash:ip, or its revision 4 (Linux 3.14)",
    4099: "there are too many sets",
    _BUSY: "rules refer to the set",
    4102: "a set of another type has this name",
}

# nf_tables lets go of a deleted rule's set only after all CPUs have left the old ruleset.
RELEASE_TRIES = 200
_RELEASE_PAUSE_S = 0.01

_BATCH = 64  # requests at once; their answers fit into the smallest receive buffer


# One for each family: both may swap at the same time.
_SPARE = {Family.IPV4: "kproxy-4-spare", Family.IPV6: "kproxy-6-spare"}

_Item = TypeVar("_Item")


class TimedSet(Protocol):
    """A set of addresses, each of which stays for `timeout_s` seconds."""

    @property
    def name(self) -> str:
        """Return the name, of 31 characters at most; both families share one namespace."""

    @property
    def family(self) -> Family:
        """Return the family of its addresses."""

    @property
    def timeout_s(self) -> int:
        """Return how long an address stays."""


def observe(prefix: str, family: Family) -> dict[str, bytes]:
    """Return the sets of one family whose names begin with a prefix, each with its shape.

    The shape is `type:family:timeout`; the members are the kernel's own.
    """
    return {
        text(header[NAME]): _value(header)
        for header in headers(prefix)
        if header[FAMILY][0] == _AF[family]
    }


def why_unusable(family: Family) -> str:
    """Return why rules cannot have sets of clients here, "" if they can. Makes none."""
    wanted = text_attribute(TYPE, _KIND) + attribute(FAMILY, bytes([_AF[family]]))
    with Netlink("asking for ipsets") as netlink:
        netlink.send(request(TYPE_OF, ACK, wanted))
        code = netlink.status()
    if code:
        return f"the kernel lacks ipsets of clients: {reason(code)}"
    return why_unnamed()


def why_unnamed() -> str:
    """Return why rules cannot name sets, "" if they can.

    The programs speak to the kernel about sets through a raw socket.
    """
    return "" if raw_sockets.permitted() else "rules that name ipsets need CAP_NET_RAW"


def names(prefix: str) -> list[str]:
    """Return the names of all sets, of any type and family, that begin with a prefix."""
    return [text(header[NAME]) for header in headers(prefix)]


def ports(names: Iterable[str]) -> list[tuple[int, int]]:
    """Return the (protocol number, port) members of sets of ports.

    A bitmap:port set knows no protocol; kube-proxy puts it at the end of the name.
    """
    found: list[tuple[int, int]] = []
    with Netlink("listing ports in ipsets") as netlink:
        for name in names:
            implied = _PROTOCOL_BY_SUFFIX.get(name.rpartition("-")[2])
            netlink.send(request(LIST_SETS, DUMP, text_attribute(NAME, name)))
            for answer in netlink.answers():
                for member in nested(attributes(answer).get(ELEMENTS, b"")):
                    protocol = member[PROTOCOL][0] if PROTOCOL in member else implied
                    if protocol is not None:
                        found.append((protocol, int.from_bytes(member[PORT], "big")))
    return found


def ensure(wanted: Iterable[TimedSet]) -> dict[str, str]:
    """Make these sets exist as wanted; return the names of those that cannot be had, and why.

    One of another shape is swapped for an empty one. Raises BackendError if nobody answers.
    """
    refused: dict[str, str] = {}
    with Netlink("creating ipsets") as netlink:
        for batch in batches(wanted):
            codes = send(netlink, [_creation(each, each.name) for each in batch])
            for each, code in zip(batch, codes, strict=True):
                if code == errno.EEXIST:
                    code = _swap(netlink, each)
                if code:
                    refused[each.name] = reason(code)
    return refused


def destroy(unwanted: Iterable[str]) -> int:
    """Remove sets and return how many there were; those that rules name stay."""
    removed = 0
    left = list(unwanted)
    for attempt in range(RELEASE_TRIES):
        if attempt:
            time.sleep(_RELEASE_PAUSE_S)
        removed_now, left = remove_unnamed(left)
        removed += removed_now
        if not left:
            break
    return removed


def remove_unnamed(unwanted: Iterable[str]) -> tuple[int, list[str]]:
    """Remove those sets that no rule names; return how many there were, and the other ones."""
    removed, named = 0, []
    doing = "removing ipsets"
    with Netlink(doing) as netlink:
        for batch in batches(unwanted):
            for name, code in zip(batch, send(netlink, map(_removal, batch)), strict=True):
                if code == _BUSY:
                    named.append(name)
                elif code not in (0, errno.ENOENT):
                    raise refusal(doing, code)
                removed += not code
    return removed, named


def _swap(netlink: Netlink, wanted: TimedSet) -> int:
    """Put an empty set in the place of one of another shape; return the kernel's error number."""
    # Rules hold the set by its index, so a set in use can be exchanged but not made again.
    spare = _SPARE[wanted.family]
    exchange = text_attribute(NAME, spare) + text_attribute(_OTHER_NAME, wanted.name)
    swapping = request(_SWAP, ACK, exchange)
    steps = [_removal(spare), _creation(wanted, spare), swapping, _removal(spare)]
    _, *codes = send(netlink, steps)
    return next(filter(None, codes), 0)


def _creation(wanted: TimedSet, name: str) -> bytes:
    """Return the request that makes a set; the same one that exists already is no error."""
    options = (
        number(_TIMEOUT, wanted.timeout_s)
        + number(MAX_ELEMENTS, MAX_CLIENTS)
        + number(CREATE_FLAGS, _FORCE_ADD)
    )
    return request(
        CREATE_SET,
        ACK | CREATE,
        text_attribute(NAME, name)
        + text_attribute(TYPE, _KIND)
        + attribute(REVISION, bytes([_HASH_IP_REVISION]))
        + attribute(FAMILY, bytes([_AF[wanted.family]]))
        + attribute(DATA | NESTED, options),
    )


def _removal(name: str) -> bytes:
    """Return the request that removes a set; that there is none is an error."""
    return request(_DESTROY, ACK | EXCLUSIVE, text_attribute(NAME, name))


def headers(prefix: str) -> list[Attributes]:
    with Netlink("listing ipsets") as netlink:
        netlink.send(request(_SPEAK, ACK, b""))
        if netlink.status() in _NO_IPSETS:
            return []
        netlink.send(request(LIST_SETS, DUMP, number(_FLAGS, _HEADERS_ALONE)))
        begin = prefix.encode()
        found = map(attributes, netlink.answers())
        return [header for header in found if header[NAME].startswith(begin)]


def _value(header: Attributes) -> bytes:
    timeout = attributes(header[DATA]).get(_TIMEOUT)
    timeout_s = None if timeout is None else int.from_bytes(timeout, "big")
    return f"{text(header[TYPE])}:{_FAMILY_NAME[header[FAMILY][0]]}:{timeout_s}".encode()


def request(command: int, flags: int, content: bytes) -> bytes:
    version = attribute(_VERSION, bytes([_PROTOCOL_VERSION]))
    return netfilter(command, REQUEST | flags, socket.AF_INET, version + content)


def number(kind: int, value: int) -> bytes:
    return attribute(kind | NETWORK_ORDER, value.to_bytes(4, "big"))


def send(netlink: Netlink, requests: Iterable[bytes]) -> list[int]:
    """Send requests and return the error number of each, 0 for success."""
    sent = list(requests)
    netlink.send(b"".join(sent))
    return netlink.statuses(len(sent))


def batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    left = iter(items)
    while batch := list(itertools.islice(left, _BATCH)):
        yield batch


def refusal(doing: str, code: int) -> BackendError:
    return BackendError(doing, reason(code), transient=code == errno.EAGAIN)


def reason(code: int) -> str:
    return _OF_IPSET.get(code) or os.strerror(code)
