"""C sources that a test writes itself."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from backends.ebpf.compiler import load_unit
from backends.ebpf.unit import Unit
from backends.kernel.bpf import maps, programs
from kproxy.core.addresses import Family


class Sources:
    """Compiles texts, each once on this machine."""

    def __init__(self, folder: Path, bytecode: Path) -> None:
        self._folder = folder
        self._bytecode = bytecode

    def file(self, text: str, name: str = "sample.bpf.c") -> Path:
        """Write a source."""
        path = self._folder / name
        path.write_text(text)
        return path

    def unit(self, text: str, family: Family = Family.IPV4, name: str = "sample.bpf.c") -> Unit:
        """Compile a source."""
        return load_unit(self.file(text, name), family, cache=self._bytecode)


class Loaded(ExitStack):
    """The maps and programs of a unit, on their own; let go of at the end."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.maps = {
            name: self.enter_context(maps.create(name, shape)) for name, shape in unit.maps.items()
        }
        self.programs = {
            name: self.enter_context(programs.load(code, self.maps))
            for name, code in unit.programs.items()
        }
