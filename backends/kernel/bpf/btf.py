"""Type information: the least that the kernel demands of a map, and that of modules.

Layouts: linux/btf.h, and struct bpf_btf_info in linux/bpf.h.
"""

from __future__ import annotations

import errno
import struct

from backends.kernel.bpf.syscall import (
    Command,
    Descriptor,
    KernelRefusal,
    address,
    bpf,
    demand,
)

KEY_TYPE, VALUE_TYPE = 1, 3
"""The numbers of a map's types in what `load` loads."""

_HEADER = struct.Struct("=HBBIIIII")  # magic, version, flags, sizes and offsets of both sections
_TYPE = struct.Struct("=III")  # name, kind, size or type
_ARRAY = struct.Struct("=III")  # type, type of the index, number
_INT, _ARRAY_KIND = 1 << 24, 3 << 24
_MAGIC, _VERSION = 0xEB9F, 1
_NAMES = b"\0int\0byte\0"
_INT_NAME, _BYTE_NAME = 1, 5

_ATTRIBUTES = struct.Struct("=QQIII4x")
_NUMBER = struct.Struct("=III")  # where to begin, or which; the next one; flags
_INFO = struct.Struct("=IIQ")  # descriptor, length, address
_OF_BTF = struct.Struct("=QIIQII")  # data and its size; number; name and its size; the kernel's?
_NAME_BYTES = 64


def load(value_bytes: int) -> Descriptor:
    """Load the types of a map whose key is an int and whose value is so many bytes.

    A socket's storage needs this (bpf_sk_storage_map_check_btf). Raises KernelRefusal.
    """
    types = (
        _TYPE.pack(_INT_NAME, _INT, 4)
        + struct.pack("=I", 32)  # bits
        + _TYPE.pack(_BYTE_NAME, _INT, 1)
        + struct.pack("=I", 8)
        + _TYPE.pack(0, _ARRAY_KIND, 0)
        + _ARRAY.pack(2, KEY_TYPE, value_bytes)
    )
    sizes = (0, len(types), len(types), len(_NAMES))
    data = _HEADER.pack(_MAGIC, _VERSION, 0, _HEADER.size, *sizes) + types + _NAMES
    attributes = bytearray(_ATTRIBUTES.pack(address(data), 0, len(data), 0, 0))
    return Descriptor(demand(Command.BTF_LOAD, attributes, "loading the types of a map"))


def of_module(name: str) -> Descriptor:
    """Open the type information of a module of the kernel. Raises KernelRefusal.

    It takes CAP_SYS_ADMIN.
    """
    doing = f"opening the type information of the module {name}"
    at = 0
    while True:
        attributes = bytearray(_NUMBER.pack(at, 0, 0))
        demand(Command.BTF_NEXT_ID, attributes, doing)  # ENOENT: it was none of them
        at = _NUMBER.unpack(attributes)[1]
        fd, number = bpf(Command.BTF_BY_ID, bytearray(_NUMBER.pack(at, 0, 0)))
        if number == errno.ENOENT:  # that of a program which ended meanwhile
            continue
        if number:
            raise KernelRefusal(doing, number)
        descriptor = Descriptor(fd)
        if _kernels_name(descriptor, doing) == name:
            return descriptor
        descriptor.close()


def _kernels_name(descriptor: Descriptor, doing: str) -> str | None:
    """Return whose type information it is: a module's name; None where it is a program's."""
    name = bytearray(_NAME_BYTES)
    info = bytearray(_OF_BTF.pack(0, 0, 0, address(name), len(name), 0))
    demand(
        Command.OBJ_INFO,
        bytearray(_INFO.pack(descriptor.fileno(), len(info), address(info))),
        doing,
    )
    is_kernels = _OF_BTF.unpack(info)[-1]
    return name.rstrip(b"\0").decode() if is_kernels else None
