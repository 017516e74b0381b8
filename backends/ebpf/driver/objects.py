"""The maps and programs that units ask for, held by descriptors."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from backends.ebpf.render import crc32c
from backends.ebpf.unit import Unit
from backends.kernel.bpf import kfuncs, maps, programs
from backends.kernel.bpf.kfuncs import Kfunc
from backends.kernel.bpf.maps import Map, Shape
from backends.kernel.bpf.programs import Code, Program
from backends.kernel.bpf.syscall import KernelRefusal

log = logging.getLogger(__name__)

STAGES = "stages"
"""The array through which a unit's programs call its stages."""

CONSTANTS: Mapping[str, Callable[[], Mapping[bytes, bytes]]] = {
    "crc_shifts": crc32c.shift_tables,
}
"""What is in maps that are tables of numbers, by their names."""

_INDEX = struct.Struct("=I")


class Objects(ExitStack):
    """Maps and programs by their names; what is not pinned or attached ends with `close`."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: dict[str, Map] = {}
        self.programs: dict[str, Program] = {}

    def hold_map(self, name: str, table: Map) -> None:
        """Hold a map until the end."""
        self.maps[name] = self.enter_context(table)

    def hold_program(self, name: str, program: Program) -> None:
        """Hold a program until the end; its name is its own among all units."""
        if name in self.programs:
            raise ValueError(f"two programs have the name {name}")
        self.programs[name] = self.enter_context(program)

    def make(self, units: Sequence[Unit], shapes: Mapping[str, Shape]) -> None:
        """Create the maps that are missing, and load all programs over them.

        Raises KernelRefusal; of a program, VerifierRefusal.
        """
        for name, shape in shapes.items():
            if name not in self.maps:
                self.hold_map(name, maps.create(name, shape))
        self.fill_constants()
        with kfuncs.opened(name for unit in units for name in unit.kfuncs) as functions:
            for unit in units:
                for name, code in unit.programs.items():
                    self.hold_program(name, self._load(code, functions))
                self.fill_stages(unit)

    def _load(self, code: Code, functions: Mapping[str, Kfunc]) -> Program:
        """Load a program, without functions of the kernel where it is refused with them.

        A kernel may alter them, or let nobody call them. Raises KernelRefusal, VerifierRefusal.
        """
        try:
            return programs.load(code, self.maps, functions)
        except KernelRefusal as error:
            if not functions.keys() & code.kfuncs.values():
                raise
            loaded = programs.load(code, self.maps)
            log.warning("%s: loaded without functions of the kernel", error)
            return loaded

    def fill_constants(self) -> int:
        """Write what programs look up and nobody changes; return how many entries differed."""
        differing = 0
        for name in CONSTANTS.keys() & self.maps.keys():
            wanted, there = CONSTANTS[name](), dict(self.maps[name].items())
            wrong = {key: value for key, value in wanted.items() if there.get(key) != value}
            self.maps[name].update_many(wrong)
            differing += len(wrong)
        return differing

    def fill_stages(self, unit: Unit) -> int:
        """Put a unit's stages where its programs look for them; return how many were not there."""
        return sum(
            put_program(self.maps[STAGES], index, self.programs[name])
            for index, name in enumerate(unit.stages)
        )


def put_program(array: Map, index: int, program: Program) -> bool:
    """Let an array of programs lead to one; say whether it did not. Raises KernelRefusal."""
    key = _INDEX.pack(index)
    if array.lookup(key) == _INDEX.pack(program.number):
        return False
    array.update(key, _INDEX.pack(program.fileno()))
    return True


def remove_program(array: Map, index: int) -> bool:
    """Let an array of programs lead nowhere; say whether it did. Raises KernelRefusal."""
    return array.delete(_INDEX.pack(index))


def private(units: Sequence[Unit], sizes: Mapping[str, int]) -> Objects:
    """Return what units ask for, apart from all that is pinned: to try the programs.

    Raises KernelRefusal; of a program, VerifierRefusal.
    """
    objects = Objects()
    try:
        objects.make(units, shapes(units, sizes))
    except BaseException:
        objects.close()
        raise
    return objects


def shapes(units: Sequence[Unit], sizes: Mapping[str, int]) -> dict[str, Shape]:
    """Return the maps of units, those that are named with so many entries."""
    merged: dict[str, Shape] = {}
    for unit in units:
        for name, shape in unit.maps.items():
            sized = shape._replace(max_entries=sizes.get(name, shape.max_entries))
            if merged.setdefault(name, sized) != sized:
                raise ValueError(f"{unit.name} wants {name} as {sized}, others {merged[name]}")
    return merged


def may_be_carried_over(name: str) -> bool:
    """Say whether programs of two versions may share a map: not where it names the programs."""
    return name != STAGES
