"""A load that is killed: either version is in force then, and the next load makes the rest good."""

import itertools
import os

import pytest

from backends.ebpf.driver import loader
from backends.kernel.bpf import bpffs as file_system
from backends.kernel.bpf import maps, objects, programs
from kproxy.core.addresses import Family
from tests.support.ebpf.versions import FLOW, NEWER, OPENED, PACKET, SOURCE, Place

pytestmark = pytest.mark.kernel


@pytest.fixture
def place(bpffs, sources):
    return Place(bpffs, sources)


def killed_at(step, monkeypatch, body):
    """Run the body in a child that dies before its `step`-th call that alters something."""
    calls = itertools.count()

    def dying(function):
        def called(*arguments, **options):
            if next(calls) == step:
                os._exit(9)
            return function(*arguments, **options)

        return called

    child = os.fork()
    if not child:
        status = 1
        try:
            with monkeypatch.context() as patch:
                for module, name in (
                    *((os, name) for name in ("mkdir", "rmdir", "rename", "unlink")),
                    *((maps, "create"), (programs, "load"), (objects, "pin")),
                    (file_system, "exchange"),
                ):
                    patch.setattr(module, name, dying(getattr(module, name)))
                body()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_kill_at_any_moment_of_the_first_load_is_made_good(place, monkeypatch):
    seen = set()
    for step in itertools.count():
        status = killed_at(step, monkeypatch, lambda: place.put_in_force(NEWER))
        is_published = loader.is_published(place.bpffs, Family.IPV4)
        seen.add(place.verdict() if is_published else None)

        place.put_in_force(NEWER)
        assert place.verdict() == 3
        assert [path.name for path in place.folder.iterdir()] == ["current"], f"step {step}"
        loader.unload(place.folder)
        if status == 0:
            break
        assert status == 9
    assert step > 15
    assert seen == {None, 3}


@pytest.mark.parametrize("retire", [False, True])
def test_a_kill_at_any_moment_of_an_upgrade_leaves_the_old_version_or_the_new_one(
    place, monkeypatch, retire
):
    seen = set()
    for step in itertools.count():
        place.put_in_force(SOURCE)
        attached = place.program("ingress")
        with place.table("flows") as flows:
            flows.update(FLOW, OPENED)
        status = killed_at(step, monkeypatch, lambda: place.put_in_force(NEWER, retire=retire))
        seen.add(place.verdict())

        version = place.open(NEWER)
        version.publish()
        if not retire:  # what was attached runs as before, until the next start replaces it
            assert programs.run(attached, PACKET).verdict == 2, f"step {step}"
        version.retire()
        version.close()
        attached.close()
        assert place.verdict() == 3
        assert [path.name for path in place.folder.iterdir()] == ["current"], f"step {step}"
        with place.table("flows") as flows:
            assert flows.lookup(FLOW) is not None
        loader.unload(place.folder)
        if status == 0:
            break
        assert status == 9
    assert step > 15
    assert seen == {2, 3}
