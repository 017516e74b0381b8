"""healthCheckNodePorts in numbers: each is a listening socket of the process."""

from __future__ import annotations

import socket

import pytest

from tests.support.net import plan
from tests.support.net.plan import POD1
from tests.support.packets.objects import endpoint_slice, port, service
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

NUMBERS = range(400)
FEW_FILES = ("prlimit", "--nofile=128:4096")


def edge(number):
    name = f"edge{number}"
    return (
        service(
            name,
            f"10.96.{1 + number // 250}.{1 + number % 250}",
            port(80, node_port=30100 + number),
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            healthCheckNodePort=31000 + number,
        ),
        endpoint_slice(name, POD1),
    )


@pytest.mark.parametrize("variant", ["nft"])
def test_hundreds_answer_although_few_files_may_be_open(node):
    node.manifests.put("edges", [each for number in NUMBERS for each in edge(number)])
    proxy = node.start(prefix=FEW_FILES)
    proxy.wait_for("ready: ")
    until(
        lambda: {answer(node, 31000 + number) for number in NUMBERS} == {b"HTTP/1.1 200 OK"},
        within_s=LONGEST_S,
        what="every port answers",
    )
    assert "Too many open files" not in proxy.said()


def answer(node, port):
    try:
        with node.network.node.entered():
            connection = socket.create_connection((plan.LOOPBACK, port), LONGEST_S)
    except ConnectionRefusedError:
        return b"not yet"
    with connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return connection.recv(4096).partition(b"\r\n")[0]
