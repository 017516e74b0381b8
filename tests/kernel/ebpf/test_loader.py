"""Versions of programs below a BPF file system: made, published, carried over, interrupted."""

import errno
import itertools
import os
import struct

import pytest

from backends.ebpf.driver import loader
from backends.ebpf.driver import objects as held_objects
from backends.ebpf.render import crc32c
from backends.kernel.bpf import bpffs as file_system
from backends.kernel.bpf import maps, objects, programs
from backends.kernel.bpf.programs import VerifierRefusal
from backends.kernel.bpf.syscall import KernelRefusal
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

pytestmark = pytest.mark.kernel

SOURCE = """
#include <uapi/linux/bpf.h>

struct flow { u64 packets; };

BPF_F_TABLE("hash", u64, struct flow, flows, 1000, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", u32, u64, frontends_of_all_services, 1000, BPF_F_NO_PREALLOC);
BPF_PROG_ARRAY(stages, 16);

enum stage { STAGE_FIRST, STAGE_SECOND, STAGES };

int ingress(struct __sk_buff *skb)
{
	u64 key = 1;
	struct flow *flow = flows.lookup(&key);

	if (flow)
		__sync_fetch_and_add(&flow->packets, 1);
	stages.call(skb, STAGE_SECOND);
	return 100;
}

int stage_first(struct __sk_buff *skb)
{
	return 1;
}

int stage_second(struct __sk_buff *skb)
{
	return 2;
}
"""
NEWER = SOURCE.replace("return 2;", "return 3;")
OTHER_FLOWS = NEWER.replace("u64 packets;", "u64 packets; u64 bytes;")
REFUSED = NEWER.replace("return 100;", "return *(u64 *)(0L + skb->mark);")
PACKET = bytes(64)
FLOW, ONCE = struct.pack("=Q", 1), struct.pack("=Q", 1)
OPENED = struct.pack("=Q", 0)


@pytest.fixture
def place(bpffs, sources):
    return Place(bpffs, sources)


class Place:
    """A BPF file system with versions in it."""

    def __init__(self, bpffs, sources):
        self.bpffs = bpffs
        self.sources = sources
        self.folder = loader.family_folder(bpffs, Family.IPV4)

    def open(self, text, sizes=()):
        unit = self.sources.unit(text)
        return loader.open_version(self.bpffs, Family.IPV4, [unit], dict(sizes))

    def put_in_force(self, text, sizes=()):
        """Return what is in force then: the numbers of its maps and programs."""
        version = self.open(text, sizes)
        version.publish()
        version.retire()
        numbers = numbers_of(version)
        version.close()
        return numbers

    def pinned(self, kind, name):
        kinds = {"maps": maps.pinned, "programs": programs.pinned}
        return kinds[kind](self.folder / "current" / kind / name)

    def verdict(self):
        with self.pinned("programs", "ingress") as program:
            return programs.run(program, PACKET).verdict

    def everything(self):
        return {
            str(path.relative_to(self.bpffs))
            for path in self.bpffs.rglob("*")
            if not path.name.endswith(".debug")
        }


def numbers_of(version):
    return {
        name: objects.number(each) for name, each in {**version.maps, **version.programs}.items()
    }


def test_nothing_is_in_force_before_it_is_published(place):
    version = place.open(SOURCE)
    assert not version.is_published
    assert version.mend() == 0
    assert not loader.is_published(place.bpffs, Family.IPV4)
    assert loader.published_map(place.bpffs, Family.IPV4, "flows") is None
    version.maps["flows"].update(FLOW, OPENED)  # the agent fills its maps meanwhile

    version.publish()
    version.close()
    assert loader.is_published(place.bpffs, Family.IPV4)
    assert place.verdict() == 2
    with loader.published_map(place.bpffs, Family.IPV4, "flows") as flows:
        assert flows.lookup(FLOW) == ONCE
    names = {path.rpartition("/")[2] for path in place.everything() if "/current/" in path}
    assert {"ingress", "stage_first", "stage_second", "flows", "stages"} < names


def test_what_is_in_force_is_not_loaded_again(place):
    before = place.put_in_force(SOURCE)
    everything = place.everything()
    version = place.open(SOURCE)

    assert version.is_published
    assert numbers_of(version) == before
    version.publish()
    assert (version.retire(), version.mend()) == (0, 0)
    assert place.everything() == everything
    version.close()


def test_flows_go_over_into_the_next_version(place):
    before = place.put_in_force(SOURCE)
    with place.pinned("maps", "flows") as flows:
        flows.update(FLOW, OPENED)
    place.verdict()
    after = place.put_in_force(NEWER)

    assert place.verdict() == 3
    same = {name for name in before if before[name] == after[name]}
    assert same == {"flows", "frontends_of_all_services"}
    with place.pinned("maps", "flows") as flows:
        assert flows.lookup(FLOW) == struct.pack("=Q", 2)


@pytest.mark.parametrize(
    ("text", "sizes"), [(OTHER_FLOWS, {}), (SOURCE, {"flows": 2000})], ids=["value", "entries"]
)
def test_a_map_of_another_shape_is_another_map(place, text, sizes):
    before = place.put_in_force(SOURCE)
    with place.pinned("maps", "flows") as flows:
        flows.update(FLOW, OPENED)
    version = place.open(text, sizes)

    assert version.maps["flows"].lookup(FLOW) is None
    with place.pinned("maps", "flows") as flows:
        assert objects.number(flows) == before["flows"]
    version.publish()
    version.close()
    with place.pinned("maps", "flows") as flows:
        assert flows.shape.max_entries == sizes.get("flows", 1000)
        assert flows.lookup(FLOW) is None


def test_old_programs_find_their_stages_until_they_are_said_to_be_replaced(place):
    place.put_in_force(SOURCE)
    attached = place.pinned("programs", "ingress")
    version = place.open(NEWER)
    version.publish()
    version.close()
    assert programs.run(attached, PACKET).verdict == 2

    # A start that finds the new version in force may find the old programs attached.
    version = place.open(NEWER)
    assert version.is_published
    assert programs.run(attached, PACKET).verdict == 2
    assert version.retire() > 0
    assert [each for each in place.everything() if "former" in each or "next" in each] == []
    version.close()
    attached.close()


def test_a_refused_program_leaves_what_is_in_force(place):
    before = place.put_in_force(SOURCE)
    everything = place.everything()
    with pytest.raises(VerifierRefusal, match="loading the program ingress: EACCES"):
        place.open(REFUSED)

    assert place.everything() == everything
    assert place.put_in_force(SOURCE) == before


def test_what_cannot_be_pinned_leaves_nothing_half(place, monkeypatch):
    place.put_in_force(SOURCE)
    everything = place.everything()
    pinned = []

    def refusing(descriptor, path):
        if len(pinned) == 3:
            raise KernelRefusal(f"pinning to {path}", errno.ENOSPC)
        pinned.append(path)
        pin(descriptor, path)

    pin = objects.pin
    monkeypatch.setattr(objects, "pin", refusing)
    with pytest.raises(KernelRefusal, match="/next/programs/ingress: ENOSPC"):
        place.open(NEWER)
    assert place.everything() == everything


@pytest.mark.parametrize("missing", ["maps/flows", "programs/ingress", "version-*"])
def test_a_version_that_somebody_damaged_is_made_anew_with_its_flows(place, missing):
    place.put_in_force(SOURCE)
    with place.pinned("maps", "frontends_of_all_services") as table:
        table.update(bytes(4), OPENED)
    (found,) = (place.folder / "current").glob(missing)
    found.rmdir() if found.is_dir() else found.unlink()
    version = place.open(SOURCE)

    assert not version.is_published
    version.publish()
    version.close()
    assert place.verdict() == 2
    with place.pinned("maps", "frontends_of_all_services") as table:
        assert table.lookup(bytes(4)) == OPENED


def test_what_somebody_unpinned_or_exchanged_is_mended(place):
    place.put_in_force(SOURCE)
    version = place.open(SOURCE)
    before, current = place.everything(), place.folder / "current"
    (current / "maps/flows").unlink()
    (current / "programs/ingress").unlink()
    objects.pin(version.programs["stage_first"], current / "programs/ingress")
    version.maps["stages"].delete(struct.pack("=I", 1))
    first = struct.pack("=I", version.programs["stage_second"].fileno())
    version.maps["stages"].update(struct.pack("=I", 0), first)

    assert (version.mend(), version.mend()) == (4, 0)
    assert place.everything() == before
    assert place.verdict() == 2
    file_system.remove(place.bpffs / "kproxy")
    assert version.mend() > 0
    assert place.everything() == before
    version.close()


def test_tables_of_numbers_are_filled_and_kept_as_they_must_be(place):
    table = "struct table { u32 numbers[1024]; };\nBPF_ARRAY(crc_shifts, struct table, 16);\n"
    version = place.open(SOURCE + table)
    numbers = version.maps["crc_shifts"]
    assert dict(numbers.items()) == crc32c.shift_tables()

    version.publish()
    numbers.update(struct.pack("=I", 3), bytes(4096))
    assert (version.mend(), version.mend()) == (1, 0)
    assert dict(numbers.items()) == crc32c.shift_tables()
    version.close()


def test_everything_is_unloaded_and_nothing_of_others(place):
    place.put_in_force(SOURCE)
    place.open(NEWER).close()
    other = loader.open_version(place.bpffs, Family.IPV6, [place.sources.unit(SOURCE)], {})
    objects.pin(other.maps["flows"], place.bpffs / "foreign")
    pins = sum(1 for path in place.folder.rglob("*") if path.is_file())

    assert loader.unload(place.bpffs, Family.IPV4) == pins == 12
    assert loader.unload(place.bpffs, Family.IPV4) == 0
    assert "kproxy/ipv6/next/maps/flows" in place.everything()
    loader.unload(place.bpffs, Family.IPV6)
    assert place.everything() == {"foreign"}
    other.close()


def test_a_folder_of_another_file_system_is_refused_with_the_remedy(tmp_path, sources):
    with pytest.raises(BackendError, match="no BPF file system; mount one: mount -t bpf bpf /"):
        loader.open_version(tmp_path, Family.IPV4, [sources.unit(SOURCE)], {})
    assert not (tmp_path / "kproxy").exists()


def test_programs_are_tried_apart_from_all_that_is_pinned(place):
    before = place.put_in_force(SOURCE)
    everything = place.everything()
    with held_objects.private([place.sources.unit(NEWER)], {"flows": 10}) as tried:
        assert programs.run(tried.programs["ingress"], PACKET).verdict == 3
        assert tried.maps["flows"].shape.max_entries == 10
        assert not set(numbers_of(tried).values()) & set(before.values())
    assert place.everything() == everything


def test_units_share_a_map_by_its_name_and_agree_on_its_shape(place):
    hook = """
#include <uapi/linux/bpf.h>
BPF_F_TABLE("hash", u64, u64, flows, 1000, BPF_F_NO_PREALLOC);
int connect4(struct bpf_sock_addr *ctx) { u64 key = 1; return !flows.lookup(&key); }
"""
    units = [place.sources.unit(SOURCE), place.sources.unit(hook, name="hook.bpf.c")]
    with held_objects.private(units, {}) as tried:
        assert set(tried.programs) == {"ingress", "stage_first", "stage_second", "connect4"}
    units[1] = place.sources.unit(hook.replace("u64, u64", "u64, u32"), name="hook.bpf.c")
    with pytest.raises(ValueError, match=r"hook\.bpf\.c for IPv4 wants flows as"):
        held_objects.private(units, {})


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


@pytest.fixture
def upgrade(place):
    """Put a version in force, as far as is told."""

    def put(text, retire=True):
        version = place.open(text)
        version.publish()
        if retire:
            version.retire()
        version.close()

    return put


def test_a_kill_at_any_moment_of_the_first_load_is_made_good(place, upgrade, monkeypatch):
    seen = set()
    for step in itertools.count():
        status = killed_at(step, monkeypatch, lambda: upgrade(NEWER))
        is_published = loader.is_published(place.bpffs, Family.IPV4)
        seen.add(place.verdict() if is_published else None)

        upgrade(NEWER)
        assert place.verdict() == 3
        assert [path.name for path in place.folder.iterdir()] == ["current"], f"step {step}"
        loader.unload(place.bpffs, Family.IPV4)
        if status == 0:
            break
        assert status == 9
    assert step > 15
    assert seen == {None, 3}


@pytest.mark.parametrize("retire", [False, True])
def test_a_kill_at_any_moment_of_an_upgrade_leaves_the_old_version_or_the_new_one(
    place, upgrade, monkeypatch, retire
):
    seen = set()
    for step in itertools.count():
        upgrade(SOURCE)
        attached = place.pinned("programs", "ingress")
        with place.pinned("maps", "flows") as flows:
            flows.update(FLOW, OPENED)
        status = killed_at(step, monkeypatch, lambda: upgrade(NEWER, retire=retire))
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
        with place.pinned("maps", "flows") as flows:
            assert flows.lookup(FLOW) is not None
        loader.unload(place.bpffs, Family.IPV4)
        if status == 0:
            break
        assert status == 9
    assert step > 15
    assert seen == {2, 3}
