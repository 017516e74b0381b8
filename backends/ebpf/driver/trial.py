"""A trial of new programs over maps of their own, before one of them meets a real packet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from backends.ebpf.driver import gate, hook_trial, objects
from backends.ebpf.driver.objects import Objects
from backends.ebpf.driver.sides import Side
from backends.ebpf.unit import Unit
from backends.kernel.bpf import programs
from backends.kernel.bpf.maps import MapType
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_PASSED_ON = 0xFFFFFFFF  # TC_ACT_UNSPEC
_ENTRIES = 64
_HASHES = (MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE)

# UDP from 192.0.2.1 to 192.0.2.2, and from 2001:db8::1 to 2001:db8::2: none of a Service.
_MACS = bytes(12)
_UDP = bytes.fromhex("9c40 9c41 0008 0000")
_FOREIGN = {
    Family.IPV4: _MACS
    + bytes.fromhex("0800 4500 001c 0001 0000 4011 0000 c0000201 c0000202")
    + _UDP,
    Family.IPV6: _MACS
    + bytes.fromhex("86dd 60000000 0008 1140")
    + bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02")
    + _UDP,
}


def try_out(
    family: Family,
    entrance: Unit,
    at_devices: Unit,
    in_sockets: Unit | None,
    cgroup: Path | None,
) -> None:
    """Load programs over maps of their own and see them do right; nothing of it stays.

    Those at devices are met through `entrance` (gate.py). Socket hooks are called in a group below
    `cgroup`. Raises BackendError.
    """
    units = [each for each in (in_sockets, at_devices, entrance) if each is not None]
    with objects.private(units, dict(_small(units))) as held:
        if in_sockets is not None and cgroup is not None:
            hook_trial.try_hooks(family, held, in_sockets.programs, cgroup)
        _pass(family, held)
        gate.lead_to(held.maps, family, held.programs)
        _pass(family, held)


def _pass(family: Family, held: Objects) -> None:
    """See that a packet of no Service passes at both sides. Raises BackendError."""
    packet = _FOREIGN[family]
    for side in Side:
        seen = programs.run(gate.programs_of(held).at(side), packet)
        if (seen.verdict, seen.data) != (_PASSED_ON, packet):
            detail = f"a packet of no Service got verdict {seen.verdict}, or was altered"
            raise BackendError(f"trying the program {side.value}", detail, transient=False)


def _small(units: Iterable[Unit]) -> Mapping[str, int]:
    return {
        name: min(shape.max_entries, _ENTRIES)
        for unit in units
        for name, shape in unit.maps.items()
        if shape.type in _HASHES
    }
