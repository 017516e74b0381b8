"""Socket hooks: attached to a control group, by links that are pinned and outlive the agent."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from backends.kernel.bpf import links, objects
from backends.kernel.bpf.programs import AttachType, Code, Program
from backends.kernel.bpf.syscall import KernelRefusal
from kproxy.ports.data_path import BackendError


class Hooks:
    """The links of one family's hooks, in a folder with one pin for each program."""

    def __init__(self, folder: Path, cgroup: Path) -> None:
        self._folder = folder
        self._cgroup = cgroup
        self._programs: dict[str, tuple[Program, AttachType]] = {}
        self._numbers: dict[str, int] = {}

    def attach(self, programs: Mapping[str, Program], codes: Mapping[str, Code]) -> int:
        """Have these programs called, in the places of former ones; return how many links it took.

        Programs of other types are of no interest. Raises BackendError.
        """
        names = sorted((name for name in codes if codes[name].attach_type), key=_serves_connected)
        self._programs = {
            name: (programs[name], AttachType(codes[name].attach_type))
            for name in reversed(names)  # what serves connected sockets is there before them
        }
        self._numbers = {name: each.number for name, (each, _) in self._programs.items()}
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = self.repair()
        for name in set(os.listdir(self._folder)) - self._programs.keys():
            _remove(self._folder / name)
        return made

    def repair(self) -> int:
        """Attach again what somebody detached, exchanged or unpinned; return how many links.

        Cheap where nothing is wrong. Raises BackendError.
        """
        wrong = [name for name in self._programs if not self._holds(name)]
        if wrong:
            with _opened(self._cgroup) as cgroup:
                for name in wrong:
                    self._restore(name, cgroup)
        return len(wrong)

    def _holds(self, name: str) -> bool:
        """Say whether a program is attached and pinned."""
        try:
            with links.pinned(self._folder / name) as link:
                found = link.info()
        except KernelRefusal:
            return False
        return bool(found.target) and found.program == self._numbers[name]

    def _restore(self, name: str, cgroup: int) -> None:
        program, attach_type = self._programs[name]
        pin = self._folder / name
        if self._update(pin, program, cgroup):
            return
        _remove(pin)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with links.attach_to_cgroup(program, cgroup, attach_type) as link:
            objects.pin(link, pin)

    def _update(self, pin: Path, program: Program, cgroup: int) -> bool:
        """Exchange the program of a link that is in force; say whether there was one."""
        try:
            with links.pinned(pin) as link:
                if link.info().target != os.fstat(cgroup).st_ino:
                    return False
                link.update(program)
        except KernelRefusal:
            return False
        return True


def remove(folder: Path) -> int:
    """Detach and unpin all hooks of a folder; return how many there were. Raises BackendError."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0
    for name in sorted(names, key=_serves_connected):
        _remove(folder / name)
    folder.rmdir()
    return len(names)


def _remove(pin: Path) -> None:
    """Detach a link at once (without a pin it would go after a while), and unpin it."""
    try:
        with links.pinned(pin) as link:
            link.detach()
    except KernelRefusal as error:
        if error.number != errno.ENOENT and pin.exists():
            pin.unlink()
            raise
    pin.unlink(missing_ok=True)


def _serves_connected(name: str) -> bool:
    return name.startswith(("recvmsg", "getpeername", "release"))


@contextmanager
def _opened(cgroup: Path) -> Iterator[int]:
    try:
        descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        doing = f"opening the control group {cgroup}"
        raise BackendError(doing, str(error), transient=False) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
