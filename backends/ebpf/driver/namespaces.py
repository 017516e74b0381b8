"""Network namespaces by the numbers that programs see, as far as processes in them can be seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from backends.kernel import namespaces

Answer = TypeVar("Answer")


_NONE_IN_SIGHT = "no process of a pod is in sight (hostPID is off)"
_MUST_NOT_LOOK = "other processes must not be looked at (without CAP_SYS_PTRACE)"
_MUST_NOT_ENTER = "other network namespaces must not be entered (without CAP_SYS_ADMIN)"


class Elsewhere(Exception):
    """No known process is in the namespace that was asked for, or none that we may look at."""


class Namespaces:
    """Finds namespaces by their processes, and asks in them.

    None is held open: a pod's devices would outlive it. Numbers of processes as programs report
    them are the host's; where this process sees other numbers, the search finds the namespace.

    - `hindrance`: why the last search may have missed namespaces, empty where nothing hinders.
    """

    def __init__(self, processes: Path = Path("/proc")) -> None:
        self._folder = processes
        self._processes: dict[int, int] = {}  # by cookie
        self.own = namespaces.cookie()
        self.hindrance = ""

    def ask(self, cookie: int, question: Callable[[], Answer], *, process: int = 0) -> Answer:
        """Return what a function returns in a namespace, `process` being in it perhaps.

        Raises Elsewhere where none of the known processes is in it (any more): `search` may help.
        Raises what the function raises.
        """
        if cookie == self.own:
            return question()
        candidates = dict.fromkeys((process, self._processes.get(cookie, 0)))
        for each in filter(None, candidates):
            try:
                answer = self._ask_at(each, cookie, question)
            except (FileNotFoundError, ProcessLookupError, PermissionError, Elsewhere):
                self._processes.pop(cookie, None)
                continue
            self._processes[cookie] = each
            return answer
        raise Elsewhere

    def search(self) -> None:
        """Look through all processes for the namespaces that they are in."""
        self.hindrance = ""
        processes = {self._path(process): process for process in self._one_of_each()}
        try:
            cookies = namespaces.cookies_at(processes)
        except PermissionError:
            self.hindrance = _MUST_NOT_ENTER
            self._processes = {}
            return
        self._processes = {cookie: processes[path] for path, cookie in cookies.items()}
        if not self.hindrance and not self._processes.keys() - {self.own}:
            self.hindrance = _NONE_IN_SIGHT

    def _one_of_each(self) -> Iterable[int]:
        """Return a process of each namespace."""
        by_inode: dict[int, int] = {}
        for name in filter(str.isdecimal, os.listdir(self._folder)):
            try:
                inode = os.stat(self._path(int(name))).st_ino
            except PermissionError:
                self.hindrance = _MUST_NOT_LOOK
            except OSError:
                continue  # it ended
            else:
                by_inode.setdefault(inode, int(name))
        return by_inode.values()

    def _ask_at(self, process: int, cookie: int, question: Callable[[], Answer]) -> Answer:
        def work() -> Answer:
            if namespaces.cookie() != cookie:
                raise Elsewhere
            return question()

        descriptor = os.open(self._path(process), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return namespaces.inside(descriptor, work)
        finally:
            os.close(descriptor)

    def _path(self, process: int) -> str:
        return f"{self._folder}/{process}/ns/net"
