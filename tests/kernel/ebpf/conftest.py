"""Programs that several tests share: loaded once for each family."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.core.addresses import Family
from tests.support.ebpf.packets import PacketPrograms


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
