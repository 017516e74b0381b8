"""What is selected of the tests, on Debian 12's own kernel (6.1) in a virtual machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.ebpf.compiler import SOURCES, load_unit
from kproxy.core.addresses import Family
from tests.support.ebpf import devices
from tests.support.ebpf.sources import Sources
from tests.support.vm.guest import Guest
from tests.vm.selection import DEBIAN_12

# Whatever takes longer has come to a stop: beside the other tests it takes a third of an hour.
LONGEST_S = 2400.0

pytestmark = [pytest.mark.vm, pytest.mark.timeout(LONGEST_S + 900)]


@pytest.fixture(scope="module")
def _compiled(tmp_path_factory: pytest.TempPathFactory, bytecode: Path) -> None:
    """All that the tests load, as bytecode: in the machine compiling takes minutes."""
    own = Sources(tmp_path_factory.mktemp("sources"), bytecode)
    for family in Family:
        for source in sorted(SOURCES.glob("*.bpf.c")):
            load_unit(source, family, cache=bytecode)
        own.unit(devices.SOURCE, family, name="devices.bpf.c")


@pytest.fixture(scope="module")
def guest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _compiled: None
) -> Iterator[Guest]:
    """The machine, which runs everything that is asked for here."""
    wanted = {
        item.callspec.params["selected"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path
    }
    selected = [each for each in DEBIAN_12 if each in wanted]
    made = Guest(selected, tmp_path_factory.mktemp("vm"), request.config)
    yield made
    made.off()


@pytest.mark.parametrize("selected", DEBIAN_12, ids=lambda each: each.removeprefix("tests/"))
def test_there_too(guest: Guest, subtests: pytest.Subtests, selected: str) -> None:
    for name, reports in guest.reports(selected, within_s=LONGEST_S).items():
        with subtests.test(msg=name):
            bad = [each for each in reports if not each.passed]
            texts = [f"{each.when} of {each.head_line}: {each.longreprtext}" for each in bad]
            assert not bad, "\n".join([name, *texts, f"the console: {guest.console()}"])
