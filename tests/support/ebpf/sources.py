"""C sources that a test writes itself."""

from __future__ import annotations

from pathlib import Path

from backends.ebpf.compiler import load_unit
from backends.ebpf.driver.objects import Objects, shapes
from backends.ebpf.unit import Unit
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


class Loaded(Objects):
    """The maps and programs of a unit, on their own; let go of at the end."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.make([unit], shapes([unit], {}))
