"""Raw sockets, through which some programs and interfaces of the kernel are asked."""

from __future__ import annotations

import socket


def permitted() -> bool:
    """Say whether this process may open one, for which it needs CAP_NET_RAW."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except PermissionError:
        return False
    return True
