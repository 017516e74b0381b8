"""The ipsets that the rules ask: as many for ten thousand Services as for one. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from backends.kernel.xtables.wording import set_key
from kproxy.core.addresses import Family
from kproxy.core.image import Key

SET_PREFIX = "kproxy-ipvs-"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a set is made of.

    - `marks`: each of its elements carries a packet mark.
    - `rendered`: the table says what is in it; else the driver keeps it for itself.
    """

    name: str
    type: str
    marks: bool = False
    rendered: bool = True


class SetKind(enum.Enum):
    """What the elements of a set have in common.

    Every frontend of ours is in exactly one of the first three, and every virtual server but those
    of a mark is at one that is neither in REFUSED nor in DROPPED: so each is known as ours after a
    crash too. Those whose frontend is gone or refuses are in LEAVING until their last connection
    has ended, and so long their addresses may have to stay on our link: those are in
    LEAVING_ADDRESSES.
    """

    CLUSTER_IP = Shape("cluster-ip", "hash:ip,port")
    CLUSTER_POLICY = Shape("external", "hash:ip,port")
    LOCAL_POLICY = Shape("external-local", "hash:ip,port", marks=True)
    REFUSED = Shape("refused", "hash:ip,port")
    DROPPED = Shape("dropped", "hash:ip,port")
    RESTRICTED = Shape("restricted", "hash:ip,port")
    ADMITTED = Shape("admitted", "hash:ip,port,net")
    CLUSTER_ADDRESSES = Shape("cluster-addresses", "hash:ip")
    STEERED_ADDRESSES = Shape("steered-addresses", "hash:ip")
    HEALTH = Shape("health", "bitmap:port")
    LEAVING = Shape("leaving", "hash:ip,port", rendered=False)
    LEAVING_ADDRESSES = Shape("leaving-addresses", "hash:ip", rendered=False)

    __hash__ = object.__hash__  # an Enum's own is written in Python


AT_FRONTENDS = (SetKind.CLUSTER_IP, SetKind.CLUSTER_POLICY, SetKind.LOCAL_POLICY)
"""The sets of which one has each frontend."""

WITHOUT_SERVER = (SetKind.REFUSED, SetKind.DROPPED)
"""The sets of frontends at which there is no virtual server."""


def set_name(family: Family, kind: SetKind) -> str:
    """Return a set's name (31 characters at most); both families share one namespace."""
    return f"{SET_PREFIX}{'4' if family is Family.IPV4 else '6'}-{kind.value.name}"


def sets(family: Family) -> Mapping[Key, bytes]:
    """Return the image of the sets themselves."""
    return {
        set_key(set_name(family, kind)): shape_value(
            family, kind.value.type, marks=kind.value.marks
        )
        for kind in SetKind
    }


def shape_value(family: Family, type_of: str, *, marks: bool) -> bytes:
    """Return the image value of a set: what the kernel says of it."""
    inet = "inet" if family is Family.IPV4 else "inet6"
    of = "" if type_of.startswith("bitmap:") else f":{inet}"
    return f"{type_of}{of}{':marks' if marks else ''}".encode()
