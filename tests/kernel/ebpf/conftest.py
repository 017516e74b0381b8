"""Programs that several tests share: loaded once for each family."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.core.addresses import Family
from tests.support.ebpf.packets import PacketPrograms
from tests.support.ebpf.socket_hooks import HookedNetwork
from tests.support.ebpf.talking import (
    WIRES,
    Servers,
    Wire,
    drain,
    hooked_with_known_pods,
    serving,
)


@pytest.fixture(scope="module", params=list(Family), ids=lambda family: family.value)
def loaded_packet_programs(
    request: pytest.FixtureRequest, bytecode: Path
) -> Iterator[PacketPrograms]:
    """The programs about packets alone, loaded."""
    with PacketPrograms(request.param, bytecode) as programs:
        yield programs


@pytest.fixture
def packets(loaded_packet_programs: PacketPrograms) -> PacketPrograms:
    """The programs about packets alone, without orders."""
    loaded_packet_programs.forget()
    return loaded_packet_programs


@pytest.fixture(scope="module")
def hooked(bytecode: Path) -> Iterator[HookedNetwork]:
    """A network with socket hooks that know all pods."""
    with hooked_with_known_pods(bytecode) as network:
        yield network


@pytest.fixture(scope="module")
def bound_servers(hooked: HookedNetwork) -> Iterator[Servers]:
    """A UDP socket at each pod."""
    with serving(hooked) as made:
        yield made


@pytest.fixture
def servers(bound_servers: Servers) -> Servers:
    """A UDP socket at each pod, with nothing to read."""
    drain(bound_servers)
    return bound_servers


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Wire:
    """How a client's sockets speak."""
    return request.param


@pytest.fixture
def hooks(hooked, wire):
    """The hooks that such sockets meet."""
    return hooked.families[wire.family]
