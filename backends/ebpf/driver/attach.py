"""Attaching our programs to devices, in their places among those of others.

By tcx where the kernel has it. Not at the egress of a device with filters of others: they run
after whatever tcx holds, and ours must be last. Where two of ours are attached for a moment, the
second finds nothing to translate, so that every change is made before what it replaces goes.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Lock

from backends.ebpf.driver.clsact import ClsactFilters
from backends.ebpf.driver.sides import Place, Programs, Side
from backends.ebpf.driver.tcx import TcxLinks
from backends.ebpf.places import family_folder, shared_folder
from backends.kernel import links, traffic_control
from backends.kernel.bpf.programs import Program
from backends.kernel.bpf.syscall import KernelRefusal
from backends.kernel.netlink import NetlinkRefusal
from kproxy.core.addresses import Family

log = logging.getLogger(__name__)

_DEVICES = "devices"
_MOST_MOVES = 3  # of one program at one device: somebody else may insist as well


class Attacher:
    """Our programs at devices, for several threads. Any call may raise BackendError.

    `root` is a BPF file system; `by_tcx` asks for tcx, which the kernel must have.
    """

    def __init__(self, root: Path, *, by_tcx: bool) -> None:
        self._tcx = TcxLinks(_links(root))
        self._clsact = ClsactFilters(_qdiscs(root))
        self._by_tcx = by_tcx
        self._lock = Lock()
        self._moves: Counter[tuple[int, Side]] = Counter()
        self._told_of_others = False

    def attach(self, device: int, programs: Programs) -> bool:
        """Attach what a device lacks, in the right place; return whether the device is there."""
        try:
            with self._lock:
                for side in Side:
                    self._attach(device, side, programs.at(side))
                self._tell_of_others(device)
        except (KernelRefusal, NetlinkRefusal) as refused:
            if refused.number != errno.ENODEV:
                raise
            return False
        return True

    def disturbed(self, device: int) -> bool:
        """Say, cheaply, whether others took our programs off by tcx or came between.

        What happens to filters is told by netlink, and not looked at here.
        """
        if not self._by_tcx:
            return False
        try:
            with self._lock:
                return any(self._is_disturbed(device, side) for side in Side)
        except KernelRefusal as refused:
            if refused.number != errno.ENODEV:
                raise
            return False

    def detach(self, device: int) -> int:
        """Take our programs off a device; return how many kernel objects those were."""
        with self._lock:
            removed = sum(self._tcx.take_off(device, side) for side in Side)
            removed += sum(self._clsact.take_off(device, side) for side in Side)
            return removed + self._clsact.remove_qdisc(device)

    def forget(self, device: int) -> None:
        """Remove what is left of a device that is gone.

        Where one has its number, another thread may have attached that already.
        """
        with self._lock:
            if links.exists(device):
                return
            for side in Side:
                self._tcx.take_off(device, side)
                self._moves.pop((device, side), None)
            self._clsact.forget(device)

    def known(self) -> set[int]:
        """Return the devices that something is kept of, gone ones too."""
        with self._lock:
            pinned = {device for device, _ in self._tcx.pinned()}
            return pinned.union(self._clsact.noted())

    def _attach(self, device: int, side: Side, program: Program) -> None:
        if not self._by_tcx or self._is_behind_filters(device, side):
            move = self._may_move(device, side, self._clsact.place(device, side))
            self._clsact.put(device, side, program, move=move)
            self._tcx.take_off(device, side)
            return
        self._tcx.put(device, side, program)
        if self._may_move(device, side, self._tcx.place(device, side)):
            # No list of tcx takes a program twice, so that a filter bridges the gap.
            self._clsact.put(device, side, program, move=False)
            self._tcx.take_off(device, side)
            self._tcx.put(device, side, program)
        if self._clsact.take_off(device, side):
            self._clsact.remove_qdisc(device)

    def _is_disturbed(self, device: int, side: Side) -> bool:
        match self._tcx.place(device, side):
            case Place.RIGHT:
                return False
            case Place.OVERTAKEN:
                return self._moves[device, side] < _MOST_MOVES
            case Place.MISSING:
                return not self._is_behind_filters(device, side)

    def _is_behind_filters(self, device: int, side: Side) -> bool:
        return side is Side.EGRESS and self._clsact.beside_others(device, side)

    def _tell_of_others(self, device: int) -> None:
        """Tell once on what ours depend where they are last: it shows nowhere else."""
        if not self._told_of_others and (
            self._is_behind_filters(device, Side.EGRESS)
            or (self._by_tcx and self._tcx.beside_others(device, Side.EGRESS))
        ):
            self._told_of_others = True
            log.info(
                "programs of others run before ours where packets leave, as at the device"
                " number %d: they have to pass them on (TC_ACT_UNSPEC), or answers of Services"
                " stay untranslated there",
                device,
            )

    def _may_move(self, device: int, side: Side, place: Place) -> bool:
        """Say whether a program has to move, and is not to be left where it is."""
        if place is not Place.OVERTAKEN or self._moves[device, side] >= _MOST_MOVES:
            return False
        self._moves[device, side] += 1
        if self._moves[device, side] == _MOST_MOVES:
            log.warning(
                "another program insists on our place at the %s of the device number %d:"
                " ours is moved once more, and then stays where it is",
                *(side.value, device),
            )
        return True


def clean_up(root: Path) -> int:
    """Take our programs off all devices; return how many kernel objects those were.

    Raises BackendError.
    """
    attacher = Attacher(root, by_tcx=True)
    devices = attacher.known() | traffic_control.devices_with_clsact()
    removed = sum(map(attacher.detach, sorted(devices)))
    for folder in (_links(root), _qdiscs(root)):
        with suppress(OSError):  # what is still in use stays
            folder.rmdir()
    return removed


def remove_own_links(root: Path, family: Family) -> int:
    """Detach the links of a kproxy that had a program for each family at each device.

    Returns how many there were. Raises BackendError.
    """
    folder = family_folder(root, family) / _DEVICES
    own = TcxLinks(folder)
    removed = sum(own.take_off(device, side) for device, side in list(own.pinned()))
    with suppress(FileNotFoundError):
        folder.rmdir()
    return removed


def _links(root: Path) -> Path:
    return shared_folder(root) / _DEVICES


def _qdiscs(root: Path) -> Path:
    return shared_folder(root).parent / "qdiscs"
