"""The relay hands on what it gets, and fails in the ways that it is told to."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest
from pyroute2 import IPRoute

from tests.support.cluster.api import Api
from tests.support.cluster.relay import Relay
from tests.support.net.namespace import Namespace
from tests.support.ports import keep, port_of
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.cluster

_NAMESPACES = "/api/v1/namespaces"


@pytest.fixture
def relay(control_plane):
    with Relay(control_plane.port, port=0) as relay:
        yield relay


@pytest.fixture
def api(control_plane, relay):
    """The administrator at the other end of the relay."""
    with Api(relay.port, control_plane.identities.admin_context()) as api:
        yield api


def test_what_is_asked_through_it_is_answered_and_counted(relay, api, namespace):
    answer = api.list(_NAMESPACES)

    assert namespace in [each["metadata"]["name"] for each in answer]
    assert relay.accepted == 1
    assert relay.bytes_from_clients > 500
    assert relay.bytes_to_clients > len(str(answer)) / 2


def test_a_cut_resets_what_was_open_and_nothing_else(relay, api, namespace):
    with socket.create_connection(("127.0.0.1", relay.port), LONGEST_S) as client:
        api.list(_NAMESPACES)  # so the relay has taken the client too
        relay.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert api.list(_NAMESPACES)


def test_what_was_held_back_when_it_was_cut_never_arrives():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Relay(server.getsockname()[1], port=0) as relay,
    ):
        relay.hang()
        with socket.create_connection(("127.0.0.1", relay.port), LONGEST_S) as lost:
            lost.sendall(b"lost")
            until(lambda: relay.accepted, within_s=LONGEST_S, what="the relay has taken the client")
            relay.cut()
        relay.flow()
        with socket.create_connection(("127.0.0.1", relay.port), LONGEST_S) as client:
            client.sendall(b"sent")
            server.settimeout(LONGEST_S)
            arrived, _ = server.accept()
            with arrived:
                assert arrived.recv(4) == b"sent"


def test_while_it_refuses_only_open_connections_go_on(relay, api):
    api.list(_NAMESPACES)
    relay.refuse()
    assert api.list(_NAMESPACES)
    another = api.connect(LONGEST_S)
    with closing(another), pytest.raises(ConnectionRefusedError):
        another.connect()
    relay.admit()
    with closing(another):
        another.connect()


def test_what_it_held_back_arrives_later(relay, api, namespace):
    with closing(api.connect(LONGEST_S)) as connection:
        connection.connect()
        relay.hang()
        slow = api.connect(0.3)
        with closing(slow), pytest.raises(TimeoutError):
            slow.connect()
        connection.request("GET", _NAMESPACES)
        relay.flow()
        with closing(connection.getresponse()) as response:
            assert namespace.encode() in response.read()


def test_an_api_server_that_is_away_is_a_reset():
    with keep() as nobody, Relay(port_of(nobody), port=0) as relay:
        relay.hang()
        with socket.create_connection(("127.0.0.1", relay.port), LONGEST_S) as client:
            relay.flow()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


@pytest.mark.kernel
def test_it_leads_out_of_a_namespace_that_has_no_other_way(control_plane):
    with closing(Namespace("alone")) as alone:
        with alone.entered(), IPRoute() as netlink:
            netlink.link("set", index=1, state="up")
        api = Api(control_plane.port, control_plane.identities.admin_context())
        with api, alone.entered(), pytest.raises(ConnectionRefusedError):
            api.list(_NAMESPACES)
        with (
            Relay(control_plane.port, port=control_plane.port, entered=alone.entered) as relay,
            api,
        ):
            with alone.entered():
                assert api.list(_NAMESPACES)
            assert relay.accepted == 1
