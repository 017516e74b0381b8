"""Which addresses a listener is reached at."""

import errno
import socket

import pytest

from kproxy.run.http.sockets import Address, bind_any_family, bind_one_family
from tests.support.waiting import LONGEST_S

EVERYWHERE = ["127.0.0.1", "127.0.0.2", "::1"]


def reached_at(bound, *hosts):
    """Return those of `hosts` at which a listening socket is reached."""
    bound.listen()
    port = bound.getsockname()[1]
    return [host for host in hosts if _connects(host, port)]


def _connects(host, port):
    try:
        socket.create_connection((host, port), timeout=LONGEST_S).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_unspecified_address_of_either_family_means_both_families(free_ports, host):
    (port,) = free_ports(1)
    with bind_any_family(Address(host, port)) as bound:
        assert reached_at(bound, *EVERYWHERE) == EVERYWHERE


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2"]),
        ("::", ["::1"]),
        ("127.0.0.2", ["127.0.0.2"]),
        ("::1", ["::1"]),
    ],
)
def test_an_address_of_one_family_means_that_family(free_ports, host, reached):
    (port,) = free_ports(1)
    with bind_one_family(Address(host, port)) as bound:
        assert reached_at(bound, *EVERYWHERE) == reached


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_specific_address_means_itself(free_ports, host):
    (port,) = free_ports(1)
    with bind_any_family(Address(host, port)) as bound:
        assert reached_at(bound, "127.0.0.1", "::1") == [host]


def test_both_families_can_have_the_same_port(free_ports):
    (port,) = free_ports(1)
    with bind_one_family(Address("0.0.0.0", port)) as first:
        first.listen()
        with bind_one_family(Address("::", port)) as second:
            second.listen()


def test_a_port_is_free_again_while_old_connections_linger(free_ports):
    (port,) = free_ports(1)
    address = Address("127.0.0.1", port)
    with bind_one_family(address) as bound:
        bound.setblocking(True)
        bound.listen()
        client = socket.create_connection(address)
        bound.accept()[0].close()  # we close first, so TIME_WAIT is ours
        client.close()
    bind_one_family(address).close()


def test_a_taken_port_is_an_error_and_leaves_nothing_open():
    with bind_one_family(Address("127.0.0.1", 0)) as bound:
        bound.listen()
        taken = Address(*bound.getsockname())
        for bind in (bind_one_family, bind_any_family):
            with pytest.raises(OSError, match="in use") as caught:
                bind(taken)
            assert caught.value.errno == errno.EADDRINUSE


def test_without_ipv6_an_unspecified_address_means_ipv4(monkeypatch):
    class Without(socket.socket):
        def __init__(self, family, kind):
            if family is socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, kind)

    monkeypatch.setattr(socket, "socket", Without)
    with bind_any_family(Address("::", 0)) as bound:
        assert bound.family is socket.AF_INET


def test_another_failure_with_ipv6_is_not_hidden(monkeypatch):
    class Broken(socket.socket):
        def bind(self, address):
            if self.family is socket.AF_INET6:
                raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", Broken)
    with pytest.raises(PermissionError):
        bind_any_family(Address("::", 0)).close()


@pytest.mark.parametrize(
    ("address", "text"), [(Address("::1", 80), "[::1]:80"), (Address("1.2.3.4", 80), "1.2.3.4:80")]
)
def test_an_address_reads_as_usual(address, text):
    assert str(address) == text
