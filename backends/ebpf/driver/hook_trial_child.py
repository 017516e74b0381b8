"""Makes the calls of a trial of socket hooks, from a control group that its parent puts it in.

Run by the interpreter alone, with the standard library. It listens on loopback, and calls ports of
loopback that nobody listens on: without hooks no packet of it goes any farther.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import socket
import struct
import sys

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71
_SET_FLAGS, _UP = 0x8914, 1  # SIOCSIFFLAGS, IFF_UP
_TIMEOUT_S = 2.0
_LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def leave_namespace() -> None:
    """Go to a network namespace of our own, if we may: nobody's rules are there."""
    if ctypes.CDLL(None).unshare(_CLONE_NEWNET):
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback:
        request = struct.pack("16sh14x", b"lo", _UP)
        fcntl.ioctl(loopback, _SET_FLAGS, request)


def bound(family: int, kind: int) -> socket.socket:
    """Return a socket that holds a port of loopback."""
    made = socket.socket(family, kind)
    made.settimeout(_TIMEOUT_S)
    made.bind((_LOOPBACK[family], 0))
    return made


def try_tcp(domain: int, frontend: tuple[str, int], listener: socket.socket) -> None:
    """Connect to a frontend: the endpoint gets it, and the frontend is the peer."""
    with socket.socket(domain, socket.SOCK_STREAM) as caller:
        caller.settimeout(_TIMEOUT_S)
        caller.connect(frontend)
        expect("the peer of a TCP socket", caller.getpeername(), frontend)
    listener.accept()[0].close()


def try_udp(domain: int, frontend: tuple[str, int], server: socket.socket) -> None:
    """Ask a frontend by a connected socket and by one that is not: it is what answers."""
    for connected in (True, False):
        with socket.socket(domain, socket.SOCK_DGRAM) as caller:
            caller.settimeout(_TIMEOUT_S)
            if connected:
                caller.connect(frontend)
                expect("the peer of a UDP socket", caller.getpeername(), frontend)
                caller.send(b"question")
            else:
                caller.sendto(b"question", frontend)
            content, client = server.recvfrom(100)
            server.sendto(content, client)
            expect("the sender of an answer", caller.recvfrom(100)[1], frontend)


def try_refusal(domain: int, kind: int, frontend: tuple[str, int]) -> None:
    """Connect to a frontend without endpoints."""
    with socket.socket(domain, kind) as caller, contextlib.suppress(ConnectionRefusedError):
        caller.connect(frontend)
        raise AssertionError(f"{frontend} did not refuse")


def expect(what: str, found: tuple[object, ...], wanted: tuple[str, int]) -> None:
    """Compare an address."""
    if found[:2] != wanted:
        raise AssertionError(f"{what} is {found[:2]}, not {wanted}")


def main(version: int) -> str:
    """Tell where we listen, and make the calls when we are told to; return what went wrong."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    leave_namespace()
    with contextlib.ExitStack() as held:
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        endpoints = [held.enter_context(bound(family, kind)) for kind in kinds]
        # Held, so that the ports of the frontends are nobody's.
        frontends = [held.enter_context(bound(family, kind)) for kind in kinds * 2]
        endpoints[0].listen()
        cookie = endpoints[0].getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        ports = [each.getsockname()[1] for each in (*endpoints, *frontends)]
        print(json.dumps([int.from_bytes(cookie, sys.byteorder), ports]), flush=True)
        sys.stdin.readline()
        try:
            make_calls(family, ports[2:], endpoints)
        except (AssertionError, OSError) as error:
            return str(error)
    return ""


def socket_family_exists(family: int) -> bool:
    """Say whether the kernel has sockets of a family: IPv6 may be off."""
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def make_calls(family: int, ports: list[int], endpoints: list[socket.socket]) -> None:
    """Call the frontends: the first two have endpoints, the others none."""
    domains = [(family, _LOOPBACK[family])]
    if family == socket.AF_INET and socket_family_exists(socket.AF_INET6):
        domains.append((socket.AF_INET6, "::ffff:127.0.0.1"))
    for domain, address in domains:
        served_tcp, served_udp, refused_tcp, refused_udp = ((address, port) for port in ports)
        try_tcp(domain, served_tcp, endpoints[0])
        try_udp(domain, served_udp, endpoints[1])
        try_refusal(domain, socket.SOCK_STREAM, refused_tcp)
        try_refusal(domain, socket.SOCK_DGRAM, refused_udp)


if __name__ == "__main__":
    sys.stdin.readline()  # until then we are in our parent's control group
    print(main(int(sys.argv[1])), flush=True)
