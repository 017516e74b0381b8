"""Programs attached by tcx (Linux 6.6): links that live by their pins, in a place of a list."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from backends.ebpf.driver.sides import Place, Side
from backends.kernel.bpf import links, objects
from backends.kernel.bpf.links import Attached, Attachments, Link, Order
from backends.kernel.bpf.programs import AttachType, Program
from backends.kernel.bpf.syscall import KernelRefusal

_TYPES = {Side.INGRESS: AttachType.TCX_INGRESS, Side.EGRESS: AttachType.TCX_EGRESS}
_ORDERS = {Side.INGRESS: Order.BEFORE, Side.EGRESS: Order.AFTER}
_LOOPBACK = 1  # its ifindex in every network namespace


def supported() -> bool:
    """Say whether this kernel has tcx. Raises BackendError."""
    try:
        links.attached(_LOOPBACK, AttachType.TCX_INGRESS)
    except KernelRefusal as refused:
        if refused.number == errno.EINVAL:
            return False
        raise
    return True


class TcxLinks:
    """Our links, pinned in a folder by device and side. Any call may raise BackendError.

    A device that is gone is a KernelRefusal with ENODEV.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: dict[tuple[int, Side], int] = {}  # what we attached last
        self._seen: dict[tuple[int, Side], Attachments] = {}  # and found right

    def pinned(self) -> Iterator[tuple[int, Side]]:
        """Yield what is pinned, whether or not its device is there."""
        with suppress(FileNotFoundError):
            for path in sorted(self._folder.iterdir()):
                device, _, side = path.name.partition("-")
                yield int(device), Side(side)

    def put(self, device: int, side: Side, program: Program) -> None:
        """Attach a program, or put it in the place of an earlier one in one step."""
        path = self._path(device, side)
        number = self._programs[device, side] = program.number
        link = _opened(path)
        if link is not None:
            with link:
                found = link.info()
                if found.target == device:
                    if found.program != number:
                        link.update(program)
                    return
            path.unlink()  # its device is gone, and another one has the number
        self._folder.mkdir(parents=True, exist_ok=True)
        with links.attach_to_device(program, device, _TYPES[side], _ORDERS[side]) as link:
            objects.pin(link, path)

    def place(self, device: int, side: Side) -> Place:
        """Say how our program stands to those of others; cheap where nothing changed."""
        found = links.attached(device, _TYPES[side])
        if self._seen.get((device, side)) == found:
            return Place.RIGHT
        self._seen.pop((device, side), None)
        ours = Attached(self._programs.get((device, side), 0), _number(self._path(device, side)))
        if ours not in found.programs:
            return Place.MISSING
        if found.programs[0 if side is Side.INGRESS else -1] != ours:
            return Place.OVERTAKEN
        self._seen[device, side] = found
        return Place.RIGHT

    def beside_others(self, device: int, side: Side) -> bool:
        """Say whether programs of others are there too."""
        numbers = {each.link for each in links.attached(device, _TYPES[side]).programs}
        return bool(numbers - {_number(self._path(device, side))})

    def take_off(self, device: int, side: Side) -> bool:
        """Detach our program; say whether there was one."""
        self._seen.pop((device, side), None)
        self._programs.pop((device, side), None)
        path = self._path(device, side)
        link = _opened(path)
        if link is None:
            return False
        with link, suppress(KernelRefusal):  # its device is gone, and the link hangs on nothing
            link.detach()  # which the end of a pin brings about only later
        path.unlink(missing_ok=True)
        return True

    def _path(self, device: int, side: Side) -> Path:
        return self._folder / f"{device}-{side.value}"


def _opened(path: Path) -> Link | None:
    try:
        return links.pinned(path)
    except KernelRefusal as refused:
        if refused.number == errno.ENOENT:
            return None
        raise


def _number(path: Path) -> int:
    """Return the number of a pinned link, or one that no link has."""
    link = _opened(path)
    if link is None:
        return 0
    with link:
        return link.info().number
