"""Attaching socket hooks: tried first, pinned, exchanged in place, and repaired."""

import os

import pytest

from backends.ebpf.compiler import SOURCES, load_unit
from backends.ebpf.driver import hooks
from backends.ebpf.driver.hook_trial import try_hooks
from backends.ebpf.driver.hooks import Hooks
from backends.ebpf.driver.objects import private
from backends.kernel.bpf import links
from backends.kernel.bpf.programs import AttachType
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

pytestmark = pytest.mark.kernel

_HOOKS = {
    Family.IPV4: {
        *(AttachType.CONNECT4, AttachType.CONNECT6, AttachType.SENDMSG4, AttachType.RECVMSG4),
        *(AttachType.RECVMSG6, AttachType.GETPEERNAME4, AttachType.GETPEERNAME6),
        AttachType.RELEASE,
    },
    Family.IPV6: {
        *(AttachType.CONNECT6, AttachType.SENDMSG6),
        *(AttachType.RECVMSG6, AttachType.GETPEERNAME6, AttachType.RELEASE),
    },
}
_SIZES = {"frontends": 64, "chunks": 64, "members": 64, "affinity": 64, "own_addresses": 64}


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture
def unit(family, bytecode):
    return load_unit(SOURCES / "sock.bpf.c", family, cache=bytecode)


@pytest.fixture
def held(unit):
    with private([unit], _SIZES) as objects:
        yield objects


@pytest.fixture
def folder(bpffs):
    return bpffs / "links"


def attached(cgroup):
    """Return the programs that are attached to a group, by their hooks."""
    descriptor = os.open(cgroup, os.O_RDONLY)
    try:
        found = {
            each: links.attached(descriptor, each)
            for each in _HOOKS[Family.IPV4] | _HOOKS[Family.IPV6]
        }
    finally:
        os.close(descriptor)
    return {each: [one.program for one in at.programs] for each, at in found.items() if at.programs}


def test_every_hook_is_attached_and_outlives_who_attached_it(family, unit, held, folder, cgroup):
    Hooks(folder, cgroup).attach(held.programs, unit.programs)
    before = attached(cgroup)
    held.close()
    assert before == attached(cgroup)
    assert before.keys() == _HOOKS[family]
    hooks.remove(folder)


def test_other_programs_take_the_places_of_former_ones(unit, held, folder, cgroup):
    Hooks(folder, cgroup).attach(held.programs, unit.programs)
    numbers = [links.pinned(folder / name).info().number for name in sorted(os.listdir(folder))]
    with private([unit], _SIZES) as later:
        Hooks(folder, cgroup).attach(later.programs, unit.programs)
        now = [links.pinned(folder / name).info().number for name in sorted(os.listdir(folder))]
        expected = {later.programs[name].number for name in unit.programs}
        assert {number for found in attached(cgroup).values() for number in found} == expected
    assert now == numbers
    hooks.remove(folder)


def test_a_hook_that_is_no_more_is_taken_off(unit, held, folder, cgroup):
    Hooks(folder, cgroup).attach(held.programs, unit.programs)
    fewer = dict(list(unit.programs.items())[1:])
    Hooks(folder, cgroup).attach(held.programs, fewer)
    assert len(attached(cgroup)) == len(fewer)
    hooks.remove(folder)


@pytest.mark.parametrize("harm", ["detached", "unpinned", "exchanged"])
def test_what_somebody_took_is_put_back(unit, held, folder, cgroup, harm):
    own = Hooks(folder, cgroup)
    own.attach(held.programs, unit.programs)
    want = attached(cgroup)
    assert own.repair() == 0
    name = next(iter(unit.programs))
    with private([unit], _SIZES) as other, links.pinned(folder / name) as link:
        if harm == "exchanged":
            link.update(other.programs[name])
        else:
            link.detach()
        if harm == "unpinned":
            (folder / name).unlink()
    assert own.repair() == 1
    assert attached(cgroup) == want
    assert own.repair() == 0
    hooks.remove(folder)


def test_links_are_put_back_whose_folder_somebody_removed(unit, held, folder, cgroup):
    own = Hooks(folder, cgroup)
    own.attach(held.programs, unit.programs)
    want = attached(cgroup).keys()
    hooks.remove(folder)
    assert own.repair() == len(unit.programs)
    assert attached(cgroup).keys() == want
    hooks.remove(folder)


def test_removal_leaves_nothing_attached_at_once(unit, held, folder, cgroup):
    Hooks(folder, cgroup).attach(held.programs, unit.programs)
    assert hooks.remove(folder) == len(unit.programs)
    assert attached(cgroup) == {}
    assert not folder.exists()
    assert hooks.remove(folder) == 0


def test_working_hooks_pass_their_trial_and_leave_nothing(family, unit, held, cgroup):
    try_hooks(family, held, unit.programs, cgroup)
    assert [each for each in cgroup.iterdir() if each.is_dir()] == []


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("connect", "refused|peer"),
        ("sendmsg", "timed out"),
        ("recvmsg", "the sender of an answer"),
        ("getpeername", "the peer of"),
        ("release", "closed sockets stay in the map tcp_sockets"),
    ],
)
def test_a_hook_that_does_nothing_fails_its_trial(family, unit, held, cgroup, missing, told):
    fewer = {name: code for name, code in unit.programs.items() if not name.startswith(missing)}
    with pytest.raises(BackendError, match=told):
        try_hooks(family, held, fewer, cgroup)
    assert [each for each in cgroup.iterdir() if each.is_dir()] == []
