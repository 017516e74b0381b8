"""Links: what attaches a program to a control group or a device, until the last pin goes."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import NamedTuple

from backends.kernel.bpf import objects
from backends.kernel.bpf.programs import AttachType, Program
from backends.kernel.bpf.syscall import Command, Descriptor, KernelRefusal, address, bpf, demand

_CREATE = struct.Struct("=4II4xQ16x")  # program, target, type, flags, relative, revision
_UPDATE = struct.Struct("=4I")  # link, program, flags, old program
_QUERY = struct.Struct("=4IQI4xQQQQ")
_INFO = struct.Struct("=3I4x")  # type, number, program
_CGROUP_INFO = struct.Struct("=QI")  # cgroup, attach type
_DEVICE_INFO = struct.Struct("=II")  # device, attach type
_CGROUP_LINK, _TCX_LINK = 3, 11  # enum bpf_link_type
_MOST_PROGRAMS = 64  # BPF_MPROG_MAX, and of a control group

_TCX = {AttachType.TCX_INGRESS, AttachType.TCX_EGRESS}


class Order(IntFlag):
    """Where among a device's programs ours goes; alone, BEFORE is first and AFTER is last."""

    BEFORE = 1 << 3
    AFTER = 1 << 4


class LinkInfo(NamedTuple):
    """What the kernel tells of a link; `target` is a device or a control group, 0 if it went."""

    number: int
    program: int
    target: int
    attach_type: int


class Attached(NamedTuple):
    """A program that is attached, by its number and its link's; 0 where it has no link."""

    program: int
    link: int


@dataclass(frozen=True, slots=True)
class Attachments:
    """What is attached at a place, in the order in which it runs."""

    programs: tuple[Attached, ...]
    revision: int  # of the list: another number after each change, 0 where the kernel keeps none


class Link(Descriptor):
    """An attached program."""

    def update(self, program: Program) -> None:
        """Put another program in place, in one step. Raises KernelRefusal."""
        attributes = bytearray(_UPDATE.pack(self._fd, program.fileno(), 0, 0))
        demand(Command.LINK_UPDATE, attributes, "putting another program into a link")

    def detach(self) -> None:
        """Take the program off, though the link has other holders. Raises KernelRefusal."""
        demand(Command.LINK_DETACH, bytearray(struct.pack("=I", self._fd)), "detaching a link")

    def info(self) -> LinkInfo:
        """Return what the kernel tells of the link. Raises KernelRefusal."""
        data = objects.info(self, "a link")
        kind, number, program = _INFO.unpack_from(data)
        if kind == _CGROUP_LINK:
            return LinkInfo(number, program, *_CGROUP_INFO.unpack_from(data, _INFO.size))
        return LinkInfo(number, program, *_DEVICE_INFO.unpack_from(data, _INFO.size))


def attach_to_cgroup(program: Program, cgroup: int, attach_type: AttachType) -> Link:
    """Attach a program to the control group of an open folder. Raises KernelRefusal."""
    attributes = _CREATE.pack(program.fileno(), cgroup, attach_type, 0, 0, 0)
    doing = f"attaching {attach_type.name} to the control group {_path(cgroup)}"
    return Link(demand(Command.LINK_CREATE, bytearray(attributes), doing))


def attach_to_device(program: Program, device: int, attach_type: AttachType, order: Order) -> Link:
    """Attach a program to a device by tcx (Linux 6.6). Raises KernelRefusal.

    A kernel without it says EINVAL.
    """
    attributes = _CREATE.pack(program.fileno(), device, attach_type, order, 0, 0)
    doing = f"attaching {attach_type.name} to the device number {device}"
    return Link(demand(Command.LINK_CREATE, bytearray(attributes), doing))


def attached(target: int, attach_type: AttachType) -> Attachments:
    """Return what is attached to a device, or to the control group of an open folder.

    Raises KernelRefusal.
    """
    programs, links = bytearray(4 * _MOST_PROGRAMS), bytearray(4 * _MOST_PROGRAMS)
    with_links = attach_type in _TCX  # a control group names its programs alone
    attributes = bytearray(
        _QUERY.pack(
            *(target, attach_type, 0, 0, address(programs), _MOST_PROGRAMS),
            *(0, address(links) if with_links else 0, 0, 0),
        )
    )
    _, number = bpf(Command.PROG_QUERY, attributes)
    if number and number != errno.ENOENT:
        raise KernelRefusal(f"asking what is attached as {attach_type.name}", number)
    *_, count, _, _, _, revision = _QUERY.unpack(attributes)
    numbers = zip(
        struct.unpack_from(f"={count}I", programs),
        struct.unpack_from(f"={count}I", links),
        strict=True,
    )
    return Attachments(tuple(Attached(*each) for each in numbers), revision)


def pinned(path: Path) -> Link:
    """Open a link by its pin. Raises KernelRefusal: ENOENT where there is none."""
    return Link(objects.get(path).fileno())


def _path(cgroup: int) -> str:
    return os.readlink(f"/proc/self/fd/{cgroup}")
