"""Ipsets whose elements are ours to keep: made once, then changed and read element by element.

Layouts: linux/netfilter/ipset/ip_set.h.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backends.kernel.ipset import (
    CREATE_FLAGS,
    CREATE_SET,
    DATA,
    ELEMENTS,
    FAMILY,
    LIST_SETS,
    MAX_ELEMENTS,
    NAME,
    NETWORK_ORDER,
    PORT,
    PROTOCOL,
    REVISION,
    SUBSYSTEM,
    TYPE,
    TYPE_OF,
    headers,
    number,
    reason,
    request,
)
from backends.kernel.netlink import (
    ACK,
    AF,
    CREATE,
    DUMP,
    NESTED,
    Attributes,
    Netlink,
    NetlinkRefusal,
    attribute,
    attributes,
    nested,
    text,
    text_attribute,
)
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

# The first revision of each type whose elements can carry marks (Linux 3.19).
_REVISIONS = {"hash:ip": 4, "hash:ip,port": 5, "hash:ip,port,net": 7, "bitmap:port": 3}

# Elements of a hash; the kernel takes memory for those that are there.
MOST_ELEMENTS = 1 << 22

_ADD, _REMOVE = (SUBSYSTEM | each for each in (9, 10))
_LINE = 9
_COUNT = 24
_ADDRESS, _LAST_PORT, _NETWORK, _LENGTH, _MARK = 1, 5, 20, 21, 27
_ADDRESS_KINDS = {Family.IPV4: 1, Family.IPV6: 2}
_WITH_MARKS = 1 << 6
_OLDEST_REVISION = 10
_NO_SUCH_TYPE = 4098  # IPSET_ERR_FIND_TYPE
_EVERY_BIT = 0xFFFFFFFF
_LAST_OF_ALL_PORTS = 65535
_IN_ONE_MESSAGE = (
    500  # the length of a list of elements has 16 bits, and each takes up to 100 bytes
)


class ElementSet(NamedTuple):
    """A set; in one with `marks` each element carries the mark that packets to it get."""

    name: str
    type: str
    family: Family
    marks: bool = False


class Element(NamedTuple):
    """An element, in the fields that its set's type has; addresses are packed."""

    address: bytes = b""
    protocol: int = 0
    port: int | None = None
    network: bytes = b""
    length: int = 0
    mark: int | None = None


def observe(prefix: str) -> dict[str, tuple[str, bool]]:
    """Return the type of each set whose name begins with a prefix, and whether it has marks.

    Raises BackendError.
    """
    return {
        text(header[NAME]): (text(header[TYPE]), _has_marks(header)) for header in headers(prefix)
    }


def sizes(prefix: str) -> dict[str, int]:
    """Return how many elements each set has whose name begins with a prefix. Raises BackendError.

    As told without them: of the types here the kernel keeps count.
    """
    return {
        text(header[NAME]): int.from_bytes(attributes(header[DATA])[_COUNT], "big")
        for header in headers(prefix)
    }


def why_impossible(type_of: str, family: Family) -> str:
    """Return why there can be no set of a type here, "" if there can. Makes none.

    The kernel loads the module of the type for it. Raises BackendError.
    """
    wanted = text_attribute(TYPE, type_of) + attribute(FAMILY, bytes([_family(type_of, family)]))
    with Netlink("asking for types of ipsets") as netlink:
        netlink.send(request(TYPE_OF, 0, wanted))
        try:
            answer = attributes(next(netlink.answers()))
        except NetlinkRefusal as error:
            return f"the kernel lacks ipsets of type {type_of}: {reason(error.number)}"
    oldest, newest = (answer[each][0] for each in (_OLDEST_REVISION, REVISION))
    if oldest <= _REVISIONS[type_of] <= newest:
        return ""
    return f"the kernel lacks the revision {_REVISIONS[type_of]} of ipsets of type {type_of}"


def make(wanted: Iterable[ElementSet]) -> None:
    """Make these sets exist; one that does keeps its elements. Raises BackendError."""
    for each in wanted:
        doing = f"creating the ipset {each.name}"
        with Netlink(doing) as netlink:
            netlink.send(_creation(each))
            code = netlink.status()
        if code == _NO_SUCH_TYPE:
            detail = f"the kernel lacks the type {each.type}, or its elements have no marks"
            raise BackendError(doing, detail, transient=False)
        if code == errno.EEXIST:
            raise BackendError(doing, "a set of another shape has this name", transient=False)
        if code:
            raise _refusal(doing, code)


def add(to: ElementSet, elements: Iterable[Element]) -> None:
    """Put elements into a set; one that is there gets the mark. Raises BackendError."""
    _change(_ADD, f"adding to the ipset {to.name}", to, elements)


def remove(to: ElementSet, elements: Iterable[Element]) -> None:
    """Take elements out of a set, as far as they are there. Raises BackendError."""
    _change(_REMOVE, f"removing from the ipset {to.name}", to, elements)


def elements(of: ElementSet) -> Iterator[Element]:
    """Return what is in a set. Raises BackendError."""
    return read(told(of))


def told(of: ElementSet) -> bytes:
    """Return what is in a set as the kernel tells it, for `read`. Raises BackendError.

    That takes a fifteenth of the time, for who wants to know if it is the same as before.
    """
    with Netlink(f"listing the ipset {of.name}") as netlink:
        netlink.send(request(LIST_SETS, DUMP, text_attribute(NAME, of.name)))
        return b"".join(attributes(answer).get(ELEMENTS, b"") for answer in netlink.answers())


def read(content: bytes) -> Iterator[Element]:
    """Yield the elements that the kernel told of."""
    return map(_element, nested(content))


def _change(command: int, doing: str, to: ElementSet, changed: Iterable[Element]) -> None:
    encoded = [attribute(DATA | NESTED, _encoded(to.family, each)) for each in changed]
    with Netlink(doing) as netlink:
        for at in range(0, len(encoded), _IN_ONE_MESSAGE):
            some = attribute(ELEMENTS | NESTED, b"".join(encoded[at : at + _IN_ONE_MESSAGE]))
            content = text_attribute(NAME, to.name) + number(_LINE, 0) + some
            netlink.send(request(command, ACK, content))
            code = netlink.status()
            if code:
                raise _refusal(doing, code)


def _creation(wanted: ElementSet) -> bytes:
    """Return the request that makes a set; the same one that exists already is no error."""
    options = number(CREATE_FLAGS, _WITH_MARKS) if wanted.marks else b""
    if wanted.type.startswith("bitmap:"):
        options += _port(PORT, 0) + _port(_LAST_PORT, _LAST_OF_ALL_PORTS)
    else:
        options += number(MAX_ELEMENTS, MOST_ELEMENTS)
    return request(
        CREATE_SET,
        ACK | CREATE,
        text_attribute(NAME, wanted.name)
        + text_attribute(TYPE, wanted.type)
        + attribute(REVISION, bytes([_REVISIONS[wanted.type]]))
        + attribute(FAMILY, bytes([_family(wanted.type, wanted.family)]))
        + attribute(DATA | NESTED, options),
    )


def _family(type_of: str, family: Family) -> int:
    """Return the family of a set as the kernel has it: one of ports has none."""
    return 0 if type_of.startswith("bitmap:") else int(AF[family])


def _encoded(family: Family, element: Element) -> bytes:
    content = b""
    if element.address:
        content += _address(_ADDRESS, family, element.address)
    if element.port is not None:
        content += _port(PORT, element.port)
    if element.protocol:
        content += attribute(PROTOCOL, bytes([element.protocol]))
    if element.network:
        content += _address(_NETWORK, family, element.network)
        content += attribute(_LENGTH, bytes([element.length]))
    if element.mark is not None:
        mark = element.mark << 32 | _EVERY_BIT
        content += attribute(_MARK | NETWORK_ORDER, mark.to_bytes(8, "big"))
    return content


def _element(member: Attributes) -> Element:
    mark = int.from_bytes(member[_MARK], "big") >> 32 if _MARK in member else None
    return Element(
        address=_address_of(member.get(_ADDRESS)),
        protocol=member[PROTOCOL][0] if PROTOCOL in member else 0,
        port=int.from_bytes(member[PORT], "big") if PORT in member else None,
        network=_address_of(member.get(_NETWORK)),
        length=member[_LENGTH][0] if _LENGTH in member else 0,
        mark=mark,
    )


def _address(kind: int, family: Family, address: bytes) -> bytes:
    return attribute(kind | NESTED, attribute(_ADDRESS_KINDS[family] | NETWORK_ORDER, address))


def _address_of(content: bytes | None) -> bytes:
    return b"" if content is None else next(iter(attributes(content).values()))


def _port(kind: int, port: int) -> bytes:
    return attribute(kind | NETWORK_ORDER, port.to_bytes(2, "big"))


def _refusal(doing: str, code: int) -> BackendError:
    return BackendError(doing, reason(code), transient=code in (errno.EAGAIN, errno.ENOMEM))


def _has_marks(header: Attributes) -> bool:
    flags = attributes(header[DATA]).get(CREATE_FLAGS, b"\0")
    return bool(int.from_bytes(flags, "big") & _WITH_MARKS)
