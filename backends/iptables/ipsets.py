"""The ipsets that remember clients for session affinity, over netlink."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterable, Iterator

from pyroute2 import IPSet
from pyroute2.netlink.exceptions import IPSetError
from pyroute2.netlink.nfnetlink.ipset import IPSET_ERR_BUSY, IPSET_FLAG_LIST_HEADER, ipset_msg

from backends.iptables.rules import SET_PREFIX, AffinitySet, set_key
from kproxy.backend import BackendError
from kproxy.core.addresses import Family
from kproxy.core.image import Key

# A full set would stop remembering; with `forceadd` it forgets an old client for a new one.
_MAX_CLIENTS = 1 << 20

_FAMILY = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_FAMILY_NAME = {socket.AF_INET: "inet", socket.AF_INET6: "inet6"}

_PROTOCOL_BY_SUFFIX = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP}

# nf_tables lets go of a deleted rule's set only after all CPUs have left the old ruleset.
_RELEASE_TRIES = 200
_RELEASE_PAUSE_S = 0.01


def observe(family: Family) -> dict[Key, bytes]:
    """Return the image of our sets of one family; their members are the kernel's own."""
    return {
        set_key(answer.get_attr("IPSET_ATTR_SETNAME")): _value(answer)
        for answer in _headers(SET_PREFIX)
        if answer.get_attr("IPSET_ATTR_FAMILY") == _FAMILY[family]
    }


def names(prefix: str) -> list[str]:
    """Return the names of all sets, of any type and family, that begin with a prefix."""
    return [answer.get_attr("IPSET_ATTR_SETNAME") for answer in _headers(prefix)]


def ports(names: Iterable[str]) -> list[tuple[int, int]]:
    """Return the (protocol number, port) members of sets of ports.

    A bitmap:port set knows no protocol; kube-proxy puts it at the end of the name.
    """
    found: list[tuple[int, int]] = []
    with _refusals("listing ports in ipsets"), IPSet() as ipset:
        for name in names:
            implied = _PROTOCOL_BY_SUFFIX.get(name.rpartition("-")[2])
            for answer in ipset.list(name):
                for entry in answer.get_attr("IPSET_ATTR_ADT").get_attrs("IPSET_ATTR_DATA"):
                    protocol = entry.get_attr("IPSET_ATTR_PROTO") or implied
                    if protocol is not None:
                        found.append((protocol, entry.get_attr("IPSET_ATTR_PORT_FROM")))
    return found


def ensure(wanted: Iterable[AffinitySet]) -> None:
    """Make these sets exist as wanted. One of another shape is swapped for an empty one."""
    with _refusals("creating ipsets"), IPSet() as ipset:
        for affinity in wanted:
            try:
                _create(ipset, affinity, affinity.name)
            except IPSetError as error:
                if error.code != errno.EEXIST:
                    raise
                _swap(ipset, affinity)


def destroy(unwanted: Iterable[str], *, skip_referenced: bool = False) -> int:
    """Remove sets and return how many there were.

    A set that rules refer to cannot go: BackendError, or nothing with `skip_referenced`.
    """
    removed = 0
    with _refusals("removing ipsets"), IPSet() as ipset:
        for name in unwanted:
            removed += _destroy(ipset, name, skip_referenced=skip_referenced)
    return removed


def _create(ipset: IPSet, affinity: AffinitySet, name: str) -> None:
    ipset.create(
        name,
        stype="hash:ip",
        family=_FAMILY[affinity.family],
        timeout=affinity.timeout_s,
        maxelem=_MAX_CLIENTS,
        forceadd=True,
    )


def _swap(ipset: IPSet, affinity: AffinitySet) -> None:
    # Rules hold the set by its index, so a set in use can be exchanged but not made again.
    spare = f"{SET_PREFIX}spare"
    with contextlib.suppress(IPSetError):
        ipset.destroy(spare)
    _create(ipset, affinity, spare)
    try:
        ipset.swap(spare, affinity.name)
    finally:
        ipset.destroy(spare)


def _destroy(ipset: IPSet, name: str, *, skip_referenced: bool) -> bool:
    for attempt in range(_RELEASE_TRIES):
        if attempt:
            time.sleep(_RELEASE_PAUSE_S)
        try:
            ipset.destroy(name)
        except IPSetError as error:
            if error.code == errno.ENOENT:
                return False
            if error.code != IPSET_ERR_BUSY:
                raise
        else:
            return True
    if skip_referenced:
        return False
    raise BackendError("removing ipsets", f"rules still refer to {name}", transient=True)


def _headers(prefix: str) -> list[ipset_msg]:
    with _refusals("listing ipsets"), IPSet() as ipset:
        return [
            answer
            for answer in ipset.list(flags=IPSET_FLAG_LIST_HEADER)
            if answer.get_attr("IPSET_ATTR_SETNAME").startswith(prefix)
        ]


def _value(header: ipset_msg) -> bytes:
    kind = header.get_attr("IPSET_ATTR_TYPENAME")
    family = _FAMILY_NAME[header.get_attr("IPSET_ATTR_FAMILY")]
    timeout = header.get_attr("IPSET_ATTR_DATA").get_attr("IPSET_ATTR_TIMEOUT")
    return f"{kind}:{family}:{timeout}".encode()


@contextlib.contextmanager
def _refusals(doing: str) -> Iterator[None]:
    try:
        yield
    except IPSetError as error:
        raise BackendError(doing, str(error), transient=error.code == errno.EAGAIN) from error
    except OSError as error:
        raise BackendError(doing, str(error), transient=True) from error
