"""bpf(2), and what its refusals look like. Layouts: linux/bpf.h, union bpf_attr."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from enum import IntEnum
from types import TracebackType
from typing import Self

from kproxy.ports.data_path import BackendError

# A system call has its number by architecture: asm/unistd.h, and asm-generic/unistd.h for most.
_NUMBERS = {"x86_64": 321, "ppc64le": 361, "s390x": 351}
_GENERIC_NUMBER = 280

ENOTSUPP = 524
"""What the kernel says of an operation that this type of object lacks: not known to errno(3)."""

_PASSING = {
    *(errno.EAGAIN, errno.EBUSY, errno.EINTR),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}

_libc = ctypes.CDLL(None, use_errno=True)
_number = _NUMBERS.get(os.uname().machine, _GENERIC_NUMBER)


class Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    MAP_DELETE = 3
    MAP_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    OBJ_INFO = 15
    PROG_QUERY = 16
    BTF_LOAD = 18
    BTF_BY_ID = 19
    MAP_LOOKUP_AND_DELETE = 21
    BTF_NEXT_ID = 23
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class KernelRefusal(BackendError):
    """bpf(2) failed; `number` is the errno."""

    def __init__(self, doing: str, number: int, explanation: str = "") -> None:
        detail = error_text(number) + (f": {explanation}" if explanation else "")
        super().__init__(doing, detail, transient=number in _PASSING)
        self.number = number


def error_text(number: int) -> str:
    """Return the name and the meaning of an errno."""
    if number == ENOTSUPP:
        return "ENOTSUPP (Operation not supported by this kernel for this type)"
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"


def bpf(command: Command, attributes: bytearray) -> tuple[int, int]:
    """Call bpf(2); return its result and 0, or -1 and the errno.

    What the kernel answers is then in `attributes`.
    """
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result: int = _libc.syscall(
        ctypes.c_long(_number), ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes))
    )
    return (result, 0) if result >= 0 else (-1, ctypes.get_errno())


def demand(command: Command, attributes: bytearray, doing: str) -> int:
    """Call bpf(2) and return its result. Raises KernelRefusal."""
    result, number = bpf(command, attributes)
    if number:
        raise KernelRefusal(doing, number)
    return result


def address(buffer: bytes | bytearray | mmap.mmap) -> int:
    """Return where a buffer is in memory: valid while it lives and keeps its size."""
    if isinstance(buffer, bytes):
        return ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p).value or 0
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if buffer else 0


class Descriptor:
    """A file descriptor of the kernel's object, held until it is closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def close(self) -> None:
        """Let go of the object, which stays while anything else holds it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
