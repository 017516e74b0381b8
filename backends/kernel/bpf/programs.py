"""Programs: loading, with what the verifier says, and running them on a packet of ours."""

from __future__ import annotations

import errno
import mmap
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from backends.kernel.bpf import objects
from backends.kernel.bpf.kfuncs import Kfunc
from backends.kernel.bpf.syscall import Command, Descriptor, KernelRefusal, address, bpf, demand

_LOAD = struct.Struct("=IIQQIIQII16sII48xQ16x")
_TEST_RUN = struct.Struct("=4I2Q4I2Q3I4x")

_LICENSE = b"GPL\0"
_NAME_CHARACTERS = 15
_ATTEMPTS = 5
_LOG_BYTES = 1 << 26  # of memory that is taken as it is written
_STATISTICS = ("processed ", "verification time", "stack depth", "max_states")
_TRACE = re.compile(r"\d+: ")
_MOST_LINES = 4

_NONE: Mapping[str, Kfunc] = {}

INSTRUCTION_BYTES = 8
_WIDE_LOAD, _PSEUDO_MAP = 0x18, 1  # BPF_LD | BPF_IMM | BPF_DW; BPF_PSEUDO_MAP_FD
_INSTRUCTION = struct.Struct("=BBhi")  # code, registers, offset, constant
_CALL, _PSEUDO_KFUNC = 0x85, 2  # BPF_JMP | BPF_CALL; BPF_PSEUDO_KFUNC_CALL
_RETURN_0 = _INSTRUCTION.pack(0xB7, 0, 0, 0)  # BPF_ALU64 | BPF_MOV | BPF_K


class ProgramType(IntEnum):
    """enum bpf_prog_type: those that kproxy has a use for."""

    TC = 3
    XDP = 6
    CGROUP_SOCKET = 9
    CGROUP_ADDRESS = 18


class AttachType(IntEnum):
    """enum bpf_attach_type."""

    CONNECT4 = 10
    CONNECT6 = 11
    SENDMSG4 = 14
    SENDMSG6 = 15
    RECVMSG4 = 19
    RECVMSG6 = 20
    GETPEERNAME4 = 29
    GETPEERNAME6 = 30
    RELEASE = 34
    TCX_INGRESS = 46
    TCX_EGRESS = 47


@dataclass(frozen=True, slots=True)
class Code:
    """A program as the kernel takes it, but for maps and functions of the kernel.

    `maps` and `kfuncs` have their names by instruction.
    """

    name: str
    type: int
    attach_type: int
    instructions: bytes
    maps: Mapping[int, str]
    kfuncs: Mapping[int, str] = field(default_factory=dict)


class VerifierRefusal(KernelRefusal):
    """The verifier refused a program; `text` is all that it said."""

    def __init__(self, doing: str, number: int, text: str) -> None:
        super().__init__(doing, number, _essence(text))
        self.text = text


class Program(Descriptor):
    """A loaded program."""

    @property
    def number(self) -> int:
        """Return the number by which the kernel knows the program."""
        return objects.number(self)


class Run(NamedTuple):
    """What a test run came to; `duration_ns` is the mean of all repeats."""

    verdict: int
    data: bytes
    context: bytes
    duration_ns: int


def load(
    code: Code, maps: Mapping[str, Descriptor], kfuncs: Mapping[str, Kfunc] = _NONE
) -> Program:
    """Load a program over these maps. Raises VerifierRefusal, KernelRefusal.

    A call of what is not among `kfuncs` returns 0.
    """
    modules = _modules(kfuncs)
    instructions = with_kfuncs(code, with_maps(code, maps), kfuncs)
    doing = f"loading the program {code.name}"
    fd, number = _load(code, instructions, modules, log=None)
    if not number:
        return Program(fd)
    with mmap.mmap(-1, _LOG_BYTES) as log:  # only now: to write it costs time
        fd, _ = _load(code, instructions, modules, log=log)
        if fd >= 0:
            return Program(fd)
        text = log[: log.find(b"\0")].decode(errors="replace")
    if not text:  # it was refused before the verifier saw it
        raise KernelRefusal(doing, number)
    raise VerifierRefusal(doing, number, text)


def with_maps(code: Code, maps: Mapping[str, Descriptor]) -> bytes:
    """Return the instructions with the descriptors of the maps in their places."""
    patched = bytearray(code.instructions)
    for index, name in code.maps.items():
        at = index * INSTRUCTION_BYTES
        operation, registers, offset, _ = _INSTRUCTION.unpack_from(patched, at)
        if operation != _WIDE_LOAD:
            raise ValueError(f"{code.name}: instruction {index} loads no map")
        source = (registers & 0x0F) | _PSEUDO_MAP << 4
        _INSTRUCTION.pack_into(patched, at, operation, source, offset, maps[name].fileno())
    return bytes(patched)


def with_kfuncs(code: Code, instructions: bytes, kfuncs: Mapping[str, Kfunc]) -> bytes:
    """Return the instructions with calls of functions that are there, and 0 for those of others.

    A call names a module by its place in what `_modules` returns.
    """
    patched, modules = bytearray(instructions), _modules(kfuncs)
    for index, name in code.kfuncs.items():
        at = index * INSTRUCTION_BYTES
        if patched[at] != _CALL:
            raise ValueError(f"{code.name}: instruction {index} calls nothing")
        call = _RETURN_0
        if name in kfuncs:
            place = modules.index(kfuncs[name].module)
            call = _INSTRUCTION.pack(_CALL, _PSEUDO_KFUNC << 4, place, kfuncs[name].type)
        patched[at : at + INSTRUCTION_BYTES] = call
    return bytes(patched)


def _modules(kfuncs: Mapping[str, Kfunc]) -> list[Descriptor | None]:
    """Return whose functions there are: the kernel's own first, which is none."""
    return [None, *dict.fromkeys(each.module for each in kfuncs.values() if each.module)]


def _load(
    code: Code, instructions: bytes, modules: Sequence[Descriptor | None], log: mmap.mmap | None
) -> tuple[int, int]:
    logging = (0, 0, 0) if log is None else (1, len(log), address(log))
    fds = struct.pack(f"={len(modules)}I", *(each.fileno() if each else 0 for each in modules))
    attributes = _LOAD.pack(
        *(code.type, len(instructions) // INSTRUCTION_BYTES),
        *(address(instructions), address(_LICENSE), *logging, 0, 0),
        *(code.name.encode()[:_NAME_CHARACTERS], 0, code.attach_type, address(fds)),
    )
    for _ in range(_ATTEMPTS):  # a signal interrupts the verifier (libbpf tries as often)
        fd, number = bpf(Command.PROG_LOAD, bytearray(attributes))
        if number != errno.EAGAIN:
            break
    return fd, number


def _essence(text: str) -> str:
    """Return what the verifier did not like: the last instruction, and what it says of that."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(_STATISTICS)]
    at = max((n for n, line in enumerate(said) if _TRACE.match(line)), default=0)
    return " / ".join(said[at:][:_MOST_LINES])


def pinned(path: Path) -> Program:
    """Open a program by its pin. Raises KernelRefusal: ENOENT where there is none."""
    return Program(objects.get(path).fileno())


def run(
    program: Program,
    data: bytes,
    *,
    context: bytes = b"",
    repeat: int = 1,
    room_bytes: int = 256,
) -> Run:
    """Run a program on a packet; its answer may be longer by `room_bytes`. Raises KernelRefusal.

    `context` is what the program sees beside the packet (struct __sk_buff).
    """
    answer, context_answer = bytearray(len(data) + room_bytes), bytearray(len(context))
    attributes = bytearray(
        _TEST_RUN.pack(
            *(program.fileno(), 0, len(data), len(answer)),
            *(address(data), address(answer), repeat, 0, len(context), len(context_answer)),
            *(address(context) if context else 0, address(context_answer) if context else 0),
            *(0, 0, 0),
        )
    )
    demand(Command.PROG_TEST_RUN, attributes, "running a program for a test")
    verdict, size, duration, context_size = _answer(attributes)
    return Run(verdict, bytes(answer[:size]), bytes(context_answer[:context_size]), duration)


def _answer(attributes: bytearray) -> tuple[int, int, int, int]:
    """Return verdict, size, duration and size of the context from struct test of bpf_attr."""
    verdict, _, size = struct.unpack_from("=III", attributes, 4)
    _, duration, _, context_size = struct.unpack_from("=4I", attributes, 32)
    return verdict, size, duration, context_size
