"""What programs, maps and links have in common: pins, numbers, what the kernel tells of them."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from backends.kernel.bpf.syscall import Command, Descriptor, address, demand

_PATH = struct.Struct("=QII")  # path, descriptor, flags
_INFO = struct.Struct("=IIQ")  # descriptor, length, address
_INFO_BYTES = 256
_IDENTITY = slice(0, 24)  # type and number; of a program its tag, of a map its sizes


def pin(descriptor: Descriptor, path: Path) -> None:
    """Give an object a name in a BPF file system, which keeps it. Raises KernelRefusal.

    Dots are refused in any part of the path that is made there.
    """
    name = os.fsencode(path) + b"\0"
    attributes = bytearray(_PATH.pack(address(name), descriptor.fileno(), 0))
    demand(Command.OBJ_PIN, attributes, f"pinning to {path}")


def get(path: Path) -> Descriptor:
    """Return the object that has a name. Raises KernelRefusal: ENOENT where there is none."""
    name = os.fsencode(path) + b"\0"
    attributes = bytearray(_PATH.pack(address(name), 0, 0))
    return Descriptor(demand(Command.OBJ_GET, attributes, f"opening the pin {path}"))


def info(descriptor: Descriptor, what: str) -> bytearray:
    """Return what the kernel tells of an object: struct bpf_{map,prog,link}_info."""
    answer = bytearray(_INFO_BYTES)
    attributes = bytearray(_INFO.pack(descriptor.fileno(), len(answer), address(answer)))
    demand(Command.OBJ_INFO, attributes, f"looking at {what}")
    return answer


def is_same(one: Descriptor, other: Descriptor) -> bool:
    """Say whether both hold one object; a program and a map may have the same number."""
    what = "a BPF object"
    return info(one, what)[_IDENTITY] == info(other, what)[_IDENTITY]


def number(descriptor: Descriptor) -> int:
    """Return the number by which the kernel knows a program, map or link."""
    return int.from_bytes(info(descriptor, "a BPF object")[4:8], sys.byteorder)
