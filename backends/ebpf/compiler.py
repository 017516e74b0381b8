"""C sources to units: compiled by bcc once, then kept by the digest of what was compiled.

Run as a program, with a folder to fill: an image ships bytecode, and needs no compiler then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.ebpf import headers
from backends.ebpf.bcc_child import NO_COMPILER
from backends.ebpf.unit import STAGE_PREFIX, Unit, decode, encode
from backends.kernel.bpf.maps import Shape
from backends.kernel.bpf.programs import INSTRUCTION_BYTES, AttachType, Code, ProgramType
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parents[2] / "ebpf"
SHIPPED = Path(__file__).parent / "bytecode"
CACHE = Path("/var/cache/kproxy/ebpf")

# Debian packages bcc for this interpreter only.
_INTERPRETER = "/usr/bin/python3"
BCC_VERSION = Path("/usr/lib/python3/dist-packages/bcc/version.py")
_CHILD = Path(__file__).with_name("bcc_child.py")
_TIMEOUT_S = 120
_LINUX_VERSION = 6 << 16 | 1 << 8
_OPTIONS = ("-Wall", "-Werror", "-Wno-unused-function")  # not every hook needs all of a header
_FAMILY = "KPROXY_FAMILY"
_NUMBER = {Family.IPV4: 4, Family.IPV6: 6}

_INCLUDE = re.compile(r"#include <kproxy/([\w/]+\.h)>")
_PROGRAM = re.compile(r"^int (\w+)\(struct (\w+) \*", re.MULTILINE)
_CONTEXTS = {
    "__sk_buff": ProgramType.TC,
    "xdp_md": ProgramType.XDP,
    "bpf_sock_addr": ProgramType.CGROUP_ADDRESS,
    "bpf_sock": ProgramType.CGROUP_SOCKET,
}
_STAGES = re.compile(r"^enum stage \{([^}]*)\}", re.MULTILINE)
_HOOK = re.compile(r"(?:connect|sendmsg|recvmsg|getpeername)[46]|release")
_INSTRUCTION = struct.Struct("=BBhi")
_WIDE_LOAD, _CALL = 0x18, 0x85
_KFUNC = re.compile(r"\(\*const (\w+)\)\([^;]*\)\s*=\s*KFUNC\((\d+)\);")  # kproxy/kfunc.h
_FIRST_KFUNC = 0x6B660000
_ERROR = re.compile(r"^.*\b(?:error|fatal error): .*$", re.MULTILINE)


class CompileError(BackendError):
    """A source was not compiled; `text` is all that the compiler said."""

    def __init__(self, doing: str, detail: str, text: str) -> None:
        super().__init__(doing, detail, transient=False)
        self.text = text


# Each takes 150 MB, and both families' threads may need one.
_one_compiler = threading.Lock()


@dataclass(frozen=True, slots=True)
class Request:
    """What the compiler is asked for: the same request always comes to the same bytecode."""

    name: str
    text: str
    options: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Return the digest by which the answer is kept."""
        content = "\0".join((self.name, *self.options, self.text))
        return hashlib.sha256(content.encode()).hexdigest()


def request(source: Path, family: Family) -> Request:
    """Return what to ask for to have a source for a family; it is one for all if they share it."""
    text = flatten(source)
    if _FAMILY not in text:
        return Request(source.name, text, _OPTIONS)
    options = (f"-D{_FAMILY}={_NUMBER[family]}", *_OPTIONS)
    return Request(f"{source.name} for {family.value}", text, options)


def load_unit(source: Path, family: Family, *, cache: Path) -> Unit:
    """Return what a source comes to for a family: as shipped, as kept, or compiled and kept.

    Raises BackendError.
    """
    wanted = request(source, family)
    unit = _kept(wanted, cache)
    if unit is not None:
        return unit
    with _one_compiler:
        unit = _kept(wanted, cache)  # by another family's thread, if they share it
        if unit is None:
            unit = compile_unit(wanted, headers.find(cache / "headers", os.environ))
            _try_to_keep(cache, unit)
    return unit


def _try_to_keep(cache: Path, unit: Unit) -> None:
    """Keep a unit for later starts, or say that it cannot be."""
    try:
        keep(cache, unit)
    except OSError as error:
        log.warning("%s: not kept in %s, compiled at each start: %s", unit.name, cache, error)


def kept(source: Path, family: Family, *, cache: Path) -> bool:
    """Say whether `load_unit` would find a source compiled."""
    return _kept(request(source, family), cache) is not None


def compile_unit(wanted: Request, tree: Path) -> Unit:
    """Compile with the headers of a kernel's source tree. Raises BackendError."""
    doing = f"compiling {wanted.name}"
    environment = {
        "BCC_KERNEL_SOURCE": str(tree),
        "BCC_LINUX_VERSION_CODE": str(_LINUX_VERSION),
        "PATH": os.defpath,
    }
    try:
        child = subprocess.run(
            [_INTERPRETER, "-I", str(_CHILD)],
            input=json.dumps({"text": wanted.text, "options": wanted.options}),
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(doing, str(error), transient=True) from error
    if child.returncode == NO_COMPILER:
        detail = f"{child.stderr.strip()}; install python3-bpfcc, or use an image with bytecode"
        raise BackendError(doing, detail, transient=False)
    if child.returncode:
        raise CompileError(doing, _essence(child.stderr, child.returncode), child.stderr)
    answer = json.loads(child.stdout)
    return Unit(
        name=wanted.name,
        digest=wanted.digest,
        compiler=_installed() or "",
        maps={name: Shape(*shape) for name, (_, shape) in answer["maps"].items()},
        programs=_programs(wanted, answer),
    )


def flatten(source: Path) -> str:
    """Return a source with our own headers in their places, each once.

    bcc rewrites accesses to maps in the main file alone.
    """
    return "".join(_flattened(source, source.name, set()))


def _flattened(file: Path, name: str, seen: set[str]) -> Iterator[str]:
    yield f'#line 1 "{name}"\n'
    for number, line in enumerate(file.read_text().splitlines(keepends=True), start=1):
        included = _INCLUDE.match(line)
        if not included:
            yield line
        elif included[1] not in seen:
            seen.add(included[1])
            header = f"kproxy/{included[1]}"
            yield from _flattened(SOURCES / "include" / header, header, seen)
            yield f'#line {number + 1} "{name}"\n'
        else:
            yield "\n"


def _programs(wanted: Request, answer: dict[str, Any]) -> dict[str, Code]:
    """Return the programs in the order of the source. Raises BackendError."""
    maps = {stand_in: name for name, (stand_in, _) in answer["maps"].items()}
    compiled, declared = answer["programs"], _kfuncs(wanted.text)
    programs = {
        name: _code(name, _CONTEXTS[context], bytearray.fromhex(compiled[name]), maps, declared)
        for name, context in _PROGRAM.findall(wanted.text)
        if name in compiled and context in _CONTEXTS
    }
    unknown = sorted(compiled.keys() - programs.keys())
    if unknown:
        detail = f"no context by which to know the type of {', '.join(unknown)}"
        raise BackendError(f"compiling {wanted.name}", detail, transient=False)
    stages = [name for name in programs if name.startswith(STAGE_PREFIX)]
    numbered = [name for name in _numbered(wanted.text) if name.startswith(STAGE_PREFIX)]
    if stages != numbered:
        detail = f"enum stage numbers {numbered}, the programs stand as {stages}"
        raise BackendError(f"compiling {wanted.name}", detail, transient=False)
    return programs


def _numbered(text: str) -> list[str]:
    """Return the names of `enum stage` in their order, as programs are written."""
    found = _STAGES.search(text)
    return re.findall(r"\w+", found[1].lower()) if found else []


def kfuncs(source: Path) -> set[str]:
    """Return the functions of the kernel that a source declares."""
    return {*_kfuncs(flatten(source)).values()}


def _kfuncs(text: str) -> dict[int, str]:
    """Return declared functions of the kernel by what stands in for them."""
    return {_FIRST_KFUNC + int(number): name for name, number in _KFUNC.findall(text)}


def _code(
    name: str,
    type_: ProgramType,
    instructions: bytearray,
    maps: dict[int, str],
    declared: dict[int, str],
) -> Code:
    """Return a program, with no map in it but by name, and so its functions of the kernel."""
    hook = _HOOK.match(name)
    attach_type = 0
    if hook and type_ is not ProgramType.TC:
        attach_type = AttachType[hook[0].upper()]
    references, calls = {}, {}
    for at in range(0, len(instructions), INSTRUCTION_BYTES):
        operation, registers, offset, constant = _INSTRUCTION.unpack_from(instructions, at)
        if operation == _WIDE_LOAD and registers >> 4:
            references[at // INSTRUCTION_BYTES] = maps[constant]
            _INSTRUCTION.pack_into(instructions, at, operation, registers & 0x0F, offset, 0)
        elif operation == _CALL and constant in declared:
            calls[at // INSTRUCTION_BYTES] = declared[constant]
    return Code(name, type_, attach_type, bytes(instructions), references, calls)


def _essence(text: str, status: int) -> str:
    """Return what the compiler did not like first."""
    found = _ERROR.search(text)
    if found:
        return found[0].strip()
    return text.strip().partition("\n")[0] or f"the compiler ended with status {status}"


def _installed() -> str | None:
    """Return the compiler that is on this machine."""
    try:
        found = re.search(r"'(.+)'", BCC_VERSION.read_text())
    except OSError:
        return None
    return f"bcc {found[1]}" if found else None


def _kept(wanted: Request, cache: Path) -> Unit | None:
    unit = _read(SHIPPED, wanted)
    if unit is None:
        unit = _read(cache, wanted)
        if unit is not None and _installed() not in (None, unit.compiler):
            return None  # another compiler may know better
    return unit


def _read(folder: Path, wanted: Request) -> Unit | None:
    """Return what the folder keeps, None where that is not what was asked for."""
    try:
        unit = decode((folder / wanted.digest).read_bytes())
    except OSError:
        return None
    return unit if unit is not None and unit.digest == wanted.digest else None


def keep(folder: Path, unit: Unit) -> None:
    """Write a unit into a folder, under its digest: whole, or not at all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, new = tempfile.mkstemp(dir=folder, prefix=".new-")
    try:
        with open(descriptor, "wb") as file:
            file.write(encode(unit))
        os.replace(new, folder / unit.digest)
    except BaseException:
        os.unlink(new)
        raise


def main(arguments: Sequence[str]) -> None:
    """Compile every source for every family into a folder, to be shipped."""
    (folder,) = arguments
    Path(folder).mkdir(parents=True, exist_ok=True)  # for everybody to read, unlike a cache
    with tempfile.TemporaryDirectory() as made:
        tree = headers.find(Path(made), os.environ)
        sources = sorted(SOURCES.glob("*.bpf.c"))
        asked = [request(source, family) for source in sources for family in Family]
        for wanted in dict.fromkeys(asked):
            unit = compile_unit(wanted, tree)
            keep(Path(folder), unit)
            os.chmod(Path(folder) / unit.digest, 0o644)
            print(f"{unit.digest[:12]} {unit.name}, by {unit.compiler}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BackendError as error:
        sys.exit(f"{error}\n{error.text if isinstance(error, CompileError) else ''}".strip())
