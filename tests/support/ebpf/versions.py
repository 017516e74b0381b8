"""Versions of small programs of a test's own, put in force below a BPF file system."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from backends.ebpf import places
from backends.ebpf.driver import loader
from backends.ebpf.driver.loader import Version
from backends.ebpf.driver.objects import Objects
from backends.kernel.bpf import maps, objects, programs
from backends.kernel.bpf.maps import Map
from backends.kernel.bpf.programs import Program
from kproxy.core.addresses import Family
from tests.support.ebpf.sources import Sources

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
PACKET = bytes(64)
FLOW, ONCE = struct.pack("=Q", 1), struct.pack("=Q", 1)
OPENED = struct.pack("=Q", 0)


class Place:
    """A BPF file system with versions in it."""

    def __init__(self, bpffs: Path, sources: Sources) -> None:
        self.bpffs = bpffs
        self.sources = sources
        self.folder = places.family_folder(bpffs, Family.IPV4)

    def open(self, text: str, sizes: Mapping[str, int] | None = None) -> Version:
        """Return a version of this source, as the loader finds or makes it."""
        return loader.open_version(self.bpffs, self.folder, [self.sources.unit(text)], sizes or {})

    def put_in_force(self, text: str, *, retire: bool = True) -> dict[str, int]:
        """Return what is in force then: the numbers of its maps and programs."""
        version = self.open(text)
        version.publish()
        if retire:
            version.retire()
        numbers = numbers_of(version)
        version.close()
        return numbers

    def table(self, name: str) -> Map:
        """Open a map of the version in force."""
        return maps.pinned(self.folder / "current/maps" / name)

    def program(self, name: str) -> Program:
        """Open a program of the version in force."""
        return programs.pinned(self.folder / "current/programs" / name)

    def verdict(self) -> int:
        """Return what the entry program in force says to a packet."""
        with self.program("ingress") as program:
            return programs.run(program, PACKET).verdict

    def everything(self) -> set[str]:
        """Return all that has a name in the file system."""
        return {
            str(path.relative_to(self.bpffs))
            for path in self.bpffs.rglob("*")
            if not path.name.endswith(".debug")
        }


def numbers_of(held: Version | Objects) -> dict[str, int]:
    """Return by which numbers the kernel knows what is held."""
    return {name: objects.number(each) for name, each in {**held.maps, **held.programs}.items()}
