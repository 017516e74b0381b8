"""Versions of programs below a BPF file system: made, published, carried over, interrupted."""

import errno
import struct

import pytest

from backends.ebpf import places
from backends.ebpf.driver import loader
from backends.ebpf.driver import objects as held_objects
from backends.ebpf.render import crc32c
from backends.kernel.bpf import bpffs as file_system
from backends.kernel.bpf import kfuncs, objects, programs
from backends.kernel.bpf.programs import VerifierRefusal
from backends.kernel.bpf.syscall import KernelRefusal
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.ebpf.versions import (
    FLOW,
    NEWER,
    ONCE,
    OPENED,
    PACKET,
    SOURCE,
    Place,
    numbers_of,
)

pytestmark = pytest.mark.kernel

OTHER_FLOWS = NEWER.replace("u64 packets;", "u64 packets; u64 bytes;")
ONE_MORE = struct.pack("=Q", 2)
DECLARED = """
#define KFUNC(number) (void *)(0x6b660000 + number)
static int (*const bpf_of_some_kernels)(void) = KFUNC(1);
"""
ASKING = DECLARED + SOURCE.replace("return 1;", "return bpf_of_some_kernels();")
REFUSED = NEWER.replace("return 100;", "return *(u64 *)(0L + skb->mark);")


@pytest.fixture
def place(bpffs, sources):
    return Place(bpffs, sources)


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


def test_a_start_on_a_kernel_that_has_more_functions_makes_another_version(place, monkeypatch):
    place.put_in_force(ASKING)
    assert is_published(place, ASKING)
    monkeypatch.setattr(kfuncs, "offered", lambda names: dict.fromkeys(names, "vmlinux"))
    assert not is_published(place, ASKING)
    place.put_in_force(ASKING)
    assert is_published(place, ASKING)


def is_published(place, text):
    version = place.open(text)
    version.close()
    return version.is_published


def test_flows_go_over_into_the_next_version(place):
    before = place.put_in_force(SOURCE)
    with place.table("flows") as flows:
        flows.update(FLOW, OPENED)
    place.verdict()
    after = place.put_in_force(NEWER)

    assert place.verdict() == 3
    same = {name for name in before if before[name] == after[name]}
    assert same == {"flows", "frontends_of_all_services"}
    with place.table("flows") as flows:
        assert flows.lookup(FLOW) == struct.pack("=Q", 2)


def test_a_map_of_another_shape_is_another_map(place):
    before = place.put_in_force(SOURCE)
    with place.table("flows") as flows:
        flows.update(FLOW, OPENED)

    version = place.open(OTHER_FLOWS)
    with place.table("flows") as flows:
        assert objects.number(flows) == before["flows"]
    version.publish()
    version.close()
    with place.table("flows") as flows:
        assert flows.lookup(FLOW) is None


@pytest.mark.parametrize("catches_up", ["who publishes it", "a later start"])
def test_what_connections_need_is_copied_into_a_map_of_another_size(place, catches_up):
    place.put_in_force(SOURCE)
    with place.table("flows") as former, place.table("frontends_of_all_services") as frontends:
        former.update(FLOW, OPENED)
        frontends.update(bytes(4), ONCE)
        sizes = {"flows": 2000, "frontends_of_all_services": 2000}
        version = place.open(SOURCE, sizes)
        version.publish()
        with place.table("flows") as flows:
            assert flows.shape.max_entries == 2000
            assert list(flows.items()) == [(FLOW, OPENED)]
            flows.update(FLOW, ONCE)
            former.update(ONE_MORE, OPENED)  # by programs of before, in the last moment
            if catches_up == "a later start":
                version.close()
                version = place.open(SOURCE, sizes)
            else:
                version.catch_up()
                flows.delete(FLOW)
            version.retire()
            assert dict(flows.items()) == {ONE_MORE: OPENED} | (
                {FLOW: ONCE} if catches_up == "a later start" else {}
            )
        assert not list(version.maps["frontends_of_all_services"].items())
        version.close()


def test_a_smaller_map_takes_what_it_has_room_for(place):
    place.put_in_force(SOURCE)
    with place.table("flows") as flows:
        flows.update_many({struct.pack("=Q", number): OPENED for number in range(200)})
    version = place.open(SOURCE, {"flows": 64})
    version.publish()
    version.retire()
    assert 32 <= len(list(version.maps["flows"].items())) <= 64
    version.close()


def test_old_programs_find_their_stages_until_they_are_said_to_be_replaced(place):
    place.put_in_force(SOURCE)
    attached = place.program("ingress")
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
    with place.table("frontends_of_all_services") as table:
        table.update(bytes(4), OPENED)
    (found,) = (place.folder / "current").glob(missing)
    found.rmdir() if found.is_dir() else found.unlink()
    version = place.open(SOURCE)

    assert not version.is_published
    version.publish()
    version.close()
    assert place.verdict() == 2
    with place.table("frontends_of_all_services") as table:
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
    six = places.family_folder(place.bpffs, Family.IPV6)
    other = loader.open_version(place.bpffs, six, [place.sources.unit(SOURCE)], {})
    objects.pin(other.maps["flows"], place.bpffs / "foreign")
    pins = sum(1 for path in place.folder.rglob("*") if path.is_file())

    assert loader.unload(place.folder) == pins == 12
    assert loader.unload(place.folder) == 0
    assert "kproxy/ipv6/next/maps/flows" in place.everything()
    loader.unload(six)
    assert place.everything() == {"foreign"}
    other.close()


def test_a_folder_of_another_file_system_is_refused_with_the_remedy(tmp_path, sources):
    with pytest.raises(BackendError, match="no BPF file system; mount one: mount -t bpf bpf /"):
        loader.open_version(tmp_path, tmp_path / "ours", [sources.unit(SOURCE)], {})
    assert not (tmp_path / "kproxy").exists()


def test_programs_are_tried_apart_from_all_that_is_pinned(place):
    before = place.put_in_force(SOURCE)
    everything = place.everything()
    with held_objects.private([place.sources.unit(NEWER)], {"flows": 10}) as tried:
        assert programs.run(tried.programs["ingress"], PACKET).verdict == 3
        assert tried.maps["flows"].shape.max_entries == 10
        assert all(number != before[name] for name, number in numbers_of(tried).items())
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
    with pytest.raises(ValueError, match=r"hook\.bpf\.c wants flows as"):
        held_objects.private(units, {})
