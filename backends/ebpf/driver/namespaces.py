"""Network namespaces by the numbers that programs see, as far as processes in them can be seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from backends.kernel import namespaces
from kproxy.ports.data_path import BackendError

Answer = TypeVar("Answer")


class Elsewhere(Exception):
    """A process is gone, or is in another namespace than it was."""


class Namespaces:
    """Finds namespaces by their processes, and asks in them.

    None is held open: a pod's devices would outlive it. Numbers of processes as programs report
    them are the host's; where this process sees other numbers, the search finds the namespace.
    """

    def __init__(self, processes: Path = Path("/proc")) -> None:
        self._folder = processes
        self._processes: dict[int, int] = {}  # by cookie
        self.own = namespaces.cookie()

    @property
    def sees_others(self) -> bool:
        """Whether the last search saw any namespace but this one."""
        return any(cookie != self.own for cookie in self._processes)

    def ask(self, cookie: int, question: Callable[[], Answer], *, process: int = 0) -> Answer:
        """Return what a function returns in a namespace, `process` being in it perhaps.

        Raises Elsewhere where none of the known processes is in it (any more): `search` may help.
        Raises what the function raises, and BackendError where the namespace cannot be entered.
        """
        if cookie == self.own:
            return question()
        candidates = dict.fromkeys((process, self._processes.get(cookie, 0)))
        for each in filter(None, candidates):
            try:
                answer = self._ask_at(each, cookie, question)
            except (FileNotFoundError, ProcessLookupError, Elsewhere):
                self._processes.pop(cookie, None)
                continue
            self._processes[cookie] = each
            return answer
        raise Elsewhere

    def search(self) -> None:
        """Look through all processes for the namespaces that they are in."""
        by_inode: dict[int, int] = {}
        for name in os.listdir(self._folder):
            if name.isdecimal():
                try:
                    inode = os.stat(self._path(int(name))).st_ino
                except OSError:
                    continue  # it ended, or is none of our business
                by_inode.setdefault(inode, int(name))
        processes = {self._path(process): process for process in by_inode.values()}
        cookies = namespaces.cookies_at(processes)
        self._processes = {cookie: processes[path] for path, cookie in cookies.items()}

    def _ask_at(self, process: int, cookie: int, question: Callable[[], Answer]) -> Answer:
        def work() -> Answer:
            if namespaces.cookie() != cookie:
                raise Elsewhere
            return question()

        try:
            return self._enter(process, work)
        except PermissionError as error:
            doing = f"entering the network namespace of process {process}"
            raise BackendError(doing, str(error), transient=False) from error

    def _enter(self, process: int, work: Callable[[], Answer]) -> Answer:
        descriptor = os.open(self._path(process), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return namespaces.inside(descriptor, work)
        finally:
            os.close(descriptor)

    def _path(self, process: int) -> str:
        return f"{self._folder}/{process}/ns/net"
