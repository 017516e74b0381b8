"""What the compiler makes of one C source for an IP family, or for all, as kept and shipped."""

from __future__ import annotations

import hashlib

import msgspec

from backends.kernel.bpf.maps import Shape
from backends.kernel.bpf.programs import Code

# The format's number goes up when Unit, Shape or Code change.
_MAGIC = b"kproxy bytecode 2\n"
_DIGEST_BYTES = 32

STAGE_PREFIX = "stage_"
"""With what the names of programs begin that others reach by a tail call."""


class Unit(msgspec.Struct, frozen=True):
    """Programs, and the maps that they share with each other and with the agent.

    `digest` is that of the source text with its options; sizes of maps are the source's, and so is
    the order of programs.
    """

    name: str
    digest: str
    compiler: str
    maps: dict[str, Shape]
    programs: dict[str, Code]

    @property
    def stages(self) -> list[str]:
        """Return the programs that others call by their place in this list: `enum stage`."""
        return [name for name in self.programs if name.startswith(STAGE_PREFIX)]

    @property
    def kfuncs(self) -> set[str]:
        """Return the functions of the kernel that programs call where there are any."""
        return {name for code in self.programs.values() for name in code.kfuncs.values()}


# Made before there are threads: two that decode a type first, at once, end the process by a signal.
_UNITS = msgspec.msgpack.Decoder(Unit)


def encode(unit: Unit) -> bytes:
    """Return the content of a file that keeps a unit."""
    content = msgspec.msgpack.encode(unit)
    return _MAGIC + hashlib.sha256(content).digest() + content


def decode(data: bytes) -> Unit | None:
    """Return the unit that a file keeps, None where it is not as it was written."""
    start = len(_MAGIC) + _DIGEST_BYTES
    if data[: len(_MAGIC)] != _MAGIC:
        return None
    if hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
        return None
    try:
        return _UNITS.decode(data[start:])
    except msgspec.MsgspecError:
        return None  # it was written by a kproxy that keeps something else under this number
