"""The least type information that the kernel demands of a map. Layouts: linux/btf.h."""

from __future__ import annotations

import struct

from backends.kernel.bpf.syscall import Command, Descriptor, address, demand

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
