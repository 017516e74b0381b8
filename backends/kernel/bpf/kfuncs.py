"""Functions of the kernel that a program may call besides helpers: known by their types alone.

A call names the function's type by its number, and whose type information (BTF) has it: that of
the kernel itself, or of a module. The kernel promises none of them. Layouts: linux/btf.h.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from backends.kernel.bpf import btf
from backends.kernel.bpf.syscall import Descriptor
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)

_TYPES = Path("/sys/kernel/btf")
_KERNEL = "vmlinux"

_HEADER = struct.Struct("=4xIIIII")  # its size, then offsets and sizes of types and names
_TYPE_WORDS = 3  # name; kind and number of members; size or type
_FUNCTION = 12
# How many words follow a type, by its kind, and how many more for each member.
_MORE_WORDS = {1: 1, 3: 3, 14: 1, 17: 1}
_WORDS_OF_MEMBER = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}
_KINDS = 32


@dataclass(frozen=True, slots=True)
class Kfunc:
    """A function by the number of its type, in a module's type information or the kernel's own."""

    type: int
    module: Descriptor | None


def offered(names: Iterable[str]) -> dict[str, str]:
    """Return which of these functions the kernel has now, each with the module that it is of."""
    missing, found = set(names), {}
    for owner, types in _owners():
        if not missing:
            break
        here = {name for name in missing if _quoted(name) in types}
        found.update(dict.fromkeys(here, owner))
        missing -= here
    return found


@contextmanager
def opened(names: Iterable[str]) -> Iterator[dict[str, Kfunc]]:
    """Provide these functions to programs that are loaded in the body, those that may be had."""
    found: dict[str, Kfunc] = {}
    owners = offered(names)
    with ExitStack() as stack:
        kernel = _types(_KERNEL) if owners else b""
        count, own = _functions(kernel, _of(_KERNEL, owners))
        found.update({name: Kfunc(number, None) for name, number in own.items()})
        for module in sorted({*owners.values()} - {_KERNEL}):
            try:
                descriptor = stack.enter_context(btf.of_module(module))
            except BackendError as error:
                log.warning("functions of the module %s are not called: %s", module, error)
                continue
            wanted = _of(module, owners)
            _, numbers = _functions(_types(module), wanted, after=count, base=_names_size(kernel))
            found.update({name: Kfunc(number, descriptor) for name, number in numbers.items()})
        yield found


def _owners() -> Iterator[tuple[str, bytes]]:
    """Yield what has type information, the kernel before its modules."""
    yield _KERNEL, _types(_KERNEL)
    for path in sorted(_TYPES.glob("*")):
        if path.name != _KERNEL:
            yield path.name, _types(path.name)


def _types(owner: str) -> bytes:
    """Return type information; none where the kernel has none, or the module left."""
    try:
        return (_TYPES / owner).read_bytes()
    except OSError:
        return b""


def _of(owner: str, owners: Mapping[str, str]) -> list[str]:
    return [name for name, whose in owners.items() if whose == owner]


def _quoted(name: str) -> bytes:
    return b"\0" + name.encode() + b"\0"


def _names_size(types: bytes) -> int:
    return int(_HEADER.unpack_from(types)[4]) if types else 0


def _functions(
    types: bytes, names: Iterable[str], *, after: int = 0, base: int = 0
) -> tuple[int, dict[str, int]]:
    """Return how many types there are, and the numbers of functions among them.

    Those of a module are numbered `after` the kernel's, and names are found past `base` bytes of
    the kernel's.
    """
    if not types:
        return after, {}
    header, first, size, names_at, _ = _HEADER.unpack_from(types)
    offsets = {
        base + types.find(_quoted(name), header + names_at) + 1 - header - names_at: name
        for name in names
    }
    more = [_MORE_WORDS.get(kind, 0) + _TYPE_WORDS for kind in range(_KINDS)]
    each = [_WORDS_OF_MEMBER.get(kind, 0) for kind in range(_KINDS)]
    words = memoryview(types)[header + first : header + first + size].cast("I")
    found, number, at = {}, after, 0
    while at < len(words):  # some 100,000 types: 30 ms
        number += 1
        information = words[at + 1]
        kind = information >> 24 & _KINDS - 1
        if kind == _FUNCTION and words[at] in offsets:
            found[offsets[words[at]]] = number
        at += more[kind] + each[kind] * (information & 0xFFFF)
    return number, found
