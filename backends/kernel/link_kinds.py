"""Whether the kernel has links of a kind, asked without making one. Layout: linux/if_link.h."""

from __future__ import annotations

import errno
import socket
import struct

from backends.kernel.netlink import (
    ACK,
    CREATE,
    EXCLUSIVE,
    NESTED,
    REQUEST,
    Netlink,
    NetlinkProtocol,
    attribute,
    message,
    text_attribute,
)

_NEW_LINK = 16  # RTM_NEWLINK
_NO_LINK = struct.pack("=BxHiII", 0, 0, 0, 0, 0)  # struct ifinfomsg: none that exists
_ADDRESS, _INFORMATION, _KIND = 1, 18, 1  # IFLA_*, IFLA_INFO_KIND
_IMPOSSIBLE = bytes(6)


def has_dummies() -> bool:
    """Say whether there can be dummy links; the kernel loads their module for it.

    None is made: one with an address of zeros is refused, but not before its kind was found
    (dummy_validate). Raises BackendError.
    """
    kind = attribute(_INFORMATION | NESTED, text_attribute(_KIND, "dummy"))
    wanted = _NO_LINK + attribute(_ADDRESS, _IMPOSSIBLE) + kind
    with Netlink("asking for dummy links", NetlinkProtocol(socket.NETLINK_ROUTE, 0)) as netlink:
        netlink.send(message(_NEW_LINK, REQUEST | ACK | CREATE | EXCLUSIVE, wanted))
        code = netlink.status()
        if code not in (errno.EADDRNOTAVAIL, errno.EOPNOTSUPP):
            raise netlink.refusal(code)
    return code == errno.EADDRNOTAVAIL
