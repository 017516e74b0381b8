"""The programs that packets meet at devices: one a side, which lead to those of each family.

They, the array by which they lead, and what attaches them are one for all families: a program more
at a device costs every packet. A family comes and goes, and changes its programs, by its entries in
that array, which goes over from version to version.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from backends.ebpf import places
from backends.ebpf.driver import attach, loader, tcx
from backends.ebpf.driver.attach import Attacher
from backends.ebpf.driver.loader import Version
from backends.ebpf.driver.objects import Objects, put_program, remove_program
from backends.ebpf.driver.sides import Programs, Side
from backends.ebpf.unit import Unit
from backends.kernel.bpf.maps import Map
from backends.kernel.bpf.programs import Program
from kproxy.core.addresses import Family

_ENTRIES = "entries"
_INDEX = {  # enum entry
    (Family.IPV4, Side.INGRESS): 0,
    (Family.IPV4, Side.EGRESS): 1,
    (Family.IPV6, Side.INGRESS): 2,
    (Family.IPV6, Side.EGRESS): 3,
}


class Gate:
    """What the families of a process share, each in a thread of its own.

    Held from the first `open` until each was followed by a `close`. Any call may raise
    BackendError; `root` is a BPF file system.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = Lock()
        self._opened: tuple[Version, Attacher] | None = None
        self._holders = 0

    def open(self, unit: Unit) -> None:
        """Take up the programs that are in force if they are these, else load these."""
        with self._lock:
            if self._opened is None:
                folder = places.shared_folder(self._root)
                attacher = Attacher(self._root, by_tcx=tcx.supported())
                self._opened = loader.open_version(self._root, folder, [unit], {}), attacher
            self._holders += 1

    def close(self) -> None:
        """Let go of them; what is attached stays."""
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._version.close()
                self._opened = None

    @property
    def is_published(self) -> bool:
        """Say whether these programs were in force before, or are by now."""
        return self._version.is_published

    @property
    def programs(self) -> Programs:
        """Return what is to be attached to devices."""
        return programs_of(self._version)

    @property
    def attacher(self) -> Attacher:
        """Return what attaches."""
        assert self._opened is not None
        return self._opened[1]

    def lead_to(self, family: Family, programs: Mapping[str, Program]) -> int:
        """Put what is to be attached in force, leading to `ingress` and `egress` of a family.

        Returns how many of the two it did not lead to before.
        """
        with self._lock:
            self._version.publish()
            return lead_to(self._version.maps, family, programs)

    def mend(self, family: Family, programs: Mapping[str, Program]) -> int:
        """Put right what others did to pins and to a family's entries; return how much."""
        with self._lock:
            return self._version.mend() + lead_to(self._version.maps, family, programs)

    def retire(self) -> None:
        """Remove former versions: what is attached is of this one at every device."""
        with self._lock:
            self._version.retire()

    @property
    def _version(self) -> Version:
        assert self._opened is not None
        return self._opened[0]


def programs_of(held: Objects | Version) -> Programs:
    """Return what is to be attached to devices."""
    return Programs(held.programs["gate_ingress"], held.programs["gate_egress"])


def lead_to(maps: Mapping[str, Map], family: Family, programs: Mapping[str, Program]) -> int:
    """Lead packets of a family to `ingress` and `egress` of its programs.

    Returns how many of the two they were not led to before. Raises KernelRefusal.
    """
    return sum(
        put_program(maps[_ENTRIES], _INDEX[family, side], programs[side.value]) for side in Side
    )


def leave(root: Path, family: Family) -> int:
    """Lead to a family's programs no more; who leaves last takes everything off all devices.

    Returns how many kernel objects went. Raises BackendError.
    """
    folder = places.shared_folder(root)
    entries = loader.map_in(folder, _ENTRIES)
    if entries is not None:
        with entries:
            for side in Side:
                remove_program(entries, _INDEX[family, side])
            if any(entries.items()):
                return 0
    return attach.clean_up(root) + loader.unload(folder)
