"""Compiles one C text by bcc, in a process of its own: read from stdin, told on stdout, in JSON.

Run by the interpreter that bcc is packaged for, with the standard library alone. bcc creates a
source's maps while it compiles, but here a function of ours stands in for bpf(2): so it takes no
privilege, no kernel memory, and no kernel with BPF (an image is built without). What it asked for
is exactly what a loader has to ask for later.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from collections.abc import Iterator

NO_COMPILER = 2
"""The status if bcc is missing, or cannot be used."""

MAP_CREATE, BTF_LOAD = 0, 18
# linux/bpf.h: type, sizes of key and value, entries, flags; then the name, which is cut off.
_MAP = struct.Struct("=5I")
_FIRST_STAND_IN = 1 << 20  # far from any descriptor of this process
_EPERM = 1

_DYNAMIC = struct.Struct("=qQ")
_RELOCATION = struct.Struct("=QQq")  # Elf64_Rela
_SYMBOL_BYTES = 24
_STRINGS, _SYMBOLS = 5, 6
_TABLES = ((23, 2), (7, 8))  # DT_JMPREL with DT_PLTRELSZ, DT_RELA with DT_RELASZ
_READ_WRITE = 3


class _Library(ctypes.Structure):
    """struct link_map (link.h)."""


_Library._fields_ = [
    ("base", ctypes.c_uint64),
    ("name", ctypes.c_char_p),
    ("dynamic", ctypes.c_void_p),
    ("next", ctypes.POINTER(_Library)),
]


class _Loaded(ctypes.Structure):
    """The beginning of struct r_debug (link.h): what the dynamic linker has loaded."""

    _fields_ = (("version", ctypes.c_int), ("first", ctypes.POINTER(_Library)))


_SYSCALL = ctypes.CFUNCTYPE(
    ctypes.c_long,
    *(ctypes.c_long, ctypes.c_long, ctypes.c_void_p),
    *(ctypes.c_long, ctypes.c_long, ctypes.c_long),
    use_errno=True,
)


class StandIn:
    """Answers bpf(2) in this process: all maps can be created, anything else is refused."""

    def __init__(self) -> None:
        self.maps: dict[int, tuple[int, ...]] = {}
        self._given = _FIRST_STAND_IN
        self._function = _SYSCALL(self._answer)

    def step_in(self) -> int:
        """Take the place of syscall(2) in bcc's libraries; return in how many places."""
        places = 0
        libc = ctypes.CDLL(None)
        function = ctypes.cast(self._function, ctypes.c_void_p).value or 0
        for slot in _slots(libc, b"syscall"):
            page = slot & -os.sysconf("SC_PAGESIZE")
            libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(8 + slot - page), _READ_WRITE)
            ctypes.c_uint64.from_address(slot).value = function
            places += 1
        return places

    def _answer(self, _: int, command: int, attributes: int, *__: int) -> int:
        if command not in (MAP_CREATE, BTF_LOAD):
            ctypes.set_errno(_EPERM)
            return -1
        self._given += 1
        if command == MAP_CREATE:
            self.maps[self._given] = _MAP.unpack(ctypes.string_at(attributes, _MAP.size))
        return self._given


def _slots(libc: ctypes.CDLL, symbol: bytes) -> Iterator[int]:
    """Yield where bcc's libraries keep the address of a function that they call."""
    found = _Loaded.in_dll(libc, "_r_debug").first
    while found:
        library = found.contents
        if b"libbcc" in library.name or b"libbpf" in library.name:
            yield from _slots_of(library, symbol)
        found = library.next


def _slots_of(library: _Library, symbol: bytes) -> Iterator[int]:
    entries: dict[int, int] = {}
    at = library.dynamic
    while 0 not in entries:
        tag, value = _DYNAMIC.unpack(ctypes.string_at(at, _DYNAMIC.size))
        entries[tag] = value
        at += _DYNAMIC.size
    for table, size in _TABLES:
        data = ctypes.string_at(entries[table], entries[size]) if table in entries else b""
        for offset, info, _ in _RELOCATION.iter_unpack(data):
            entry = entries[_SYMBOLS] + _SYMBOL_BYTES * (info >> 32)
            name = entries[_STRINGS] + ctypes.c_uint32.from_address(entry).value
            if ctypes.string_at(name) == symbol:
                yield library.base + offset


def main() -> int:
    """Compile what stdin asks for; what bcc has to say of it is on stderr."""
    try:
        from bcc import lib
    except (ImportError, OSError) as error:
        print(f"bcc is not there: {error}", file=sys.stderr)
        return NO_COMPILER
    asked = json.load(sys.stdin)
    stand_in = StandIn()
    if not stand_in.step_in():
        print("these libraries of bcc do not call bpf(2) through syscall(2)", file=sys.stderr)
        return NO_COMPILER
    options = [option.encode() for option in asked["options"]]
    flags = (ctypes.c_char_p * len(options))(*options)
    module = lib.bpf_module_create_c_from_string(
        asked["text"].encode(), 0, flags, len(options), False, None
    )
    if not module:
        return 1
    names = (lib.bpf_function_name(module, n) for n in range(lib.bpf_num_functions(module)))
    programs = {
        name.decode(): ctypes.string_at(
            lib.bpf_function_start(module, name), lib.bpf_function_size(module, name)
        ).hex()
        for name in names
    }
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_table_name.restype = ctypes.c_char_p
    tables = (lib.bpf_table_name(module, n) for n in range(lib.bpf_num_tables(module)))
    stand_ins = {name.decode(): lib.bpf_table_fd(module, name) for name in tables}
    maps = {name: (fd, stand_in.maps[fd]) for name, fd in stand_ins.items()}
    json.dump({"maps": maps, "programs": programs}, sys.stdout)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # bcc would close what was never opened
