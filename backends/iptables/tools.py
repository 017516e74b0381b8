"""The iptables programs as child processes."""

from __future__ import annotations

import enum
import errno
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import IO

from kproxy.backend import BackendError
from kproxy.core.addresses import Family

# Ten times what 10,000 Services with ten endpoints each take; the wait for the lock is within it.
TIMEOUT_S = 60.0

_LOCK_WAIT_S = 5
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Exit code of the xtables programs for a resource that they could not get: RESOURCE_PROBLEM in
# xtables.h. The legacy variant means its lock by it, nf_tables every refusal by the kernel.
_RESOURCE_PROBLEM = 4

_LINE_NUMBER = re.compile(r"\bline:? (\d+)\b")
_KERNEL_REASON = re.compile(r"failed \(([^()]+)\)")

# What another writer or a short memory causes: the same transaction may pass a moment later.
# The tools give the reason in words only; under LC_ALL=C those are the C library's for the errno.
_PASSING = frozenset(
    os.strerror(code)
    for code in (errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.ENOBUFS, errno.ERESTART)
)


class Variant(enum.Enum):
    """Which of the kernel's two table implementations the iptables programs write to."""

    LEGACY = "legacy"
    NF_TABLES = "nft"


def program(family: Family, variant: Variant, verb: str) -> str:
    """Return a program's name; `verb` is `save` or `restore`."""
    stem = "iptables" if family is Family.IPV4 else "ip6tables"
    return f"{stem}-{variant.value}-{verb}"


def installed(name: str) -> bool:
    """Say whether a program can be found."""
    return shutil.which(name, path=_environment()["PATH"]) is not None


def default_is_legacy(family: Family) -> bool:
    """Say whether the program that is called plain `iptables` writes to the legacy variant."""
    stem = "iptables" if family is Family.IPV4 else "ip6tables"
    path = shutil.which(f"{stem}-save", path=_environment()["PATH"])
    return path is not None and "legacy" in os.path.basename(os.path.realpath(path))


def restore(family: Family, variant: Variant, text: bytes) -> None:
    """Feed one table's changes to the kernel, all or nothing.

    Raises BackendError with the refused line and its neighbours.
    """
    name = program(family, variant, "restore")
    doing = f"writing rules with {name}"
    child = _start(doing, [name, "--noflush", "-w", str(_LOCK_WAIT_S)], stdin=subprocess.PIPE)
    with child:
        try:
            _, stderr = child.communicate(text, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            child.kill()
            detail = f"no answer within {TIMEOUT_S:.0f} s"
            raise BackendError(doing, detail, transient=True) from late
    if child.returncode != 0:
        raise _refusal(doing, variant, child.returncode, stderr, text)


def save(family: Family, variant: Variant, table: str | None = None) -> Iterator[bytes]:
    """Yield the lines of a table's rules (all existing tables' without `table`) as they come.

    Raises BackendError, at the end at the latest, if the program failed: what was yielded is
    complete only if the iteration ends.
    """
    name = program(family, variant, "save")
    doing = f"reading rules with {name}"
    argv = [name] if table is None else [name, "-t", table]
    with _start(doing, argv, stdin=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        expiry = threading.Timer(TIMEOUT_S, child.kill)
        expiry.start()
        complaint = _Drain(child.stderr)
        try:
            yield from child.stdout
            code = child.wait()
        finally:
            expiry.cancel()
            child.kill()
            complaint.join()
    if code != 0:
        raise BackendError(doing, _ending(code, complaint.text()), transient=code < 0)


class _Drain(threading.Thread):
    """Reads a pipe empty, so that a talkative child never waits for us."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        assert pipe is not None
        self._pipe = pipe
        self._data = b""
        self.start()

    def run(self) -> None:
        self._data = self._pipe.read()

    def text(self) -> bytes:
        """Return what was read; the thread must have ended."""
        return self._data


def _start(doing: str, argv: list[str], *, stdin: int) -> subprocess.Popen[bytes]:
    environment = _environment()
    executable = shutil.which(argv[0], path=environment["PATH"])
    if executable is None:
        detail = f"{argv[0]} is not installed (Debian package iptables)"
        raise BackendError(doing, detail, transient=False)
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            argv, executable=executable, stdin=stdin, stdout=pipe, stderr=pipe, env=environment
        )
    except OSError as error:
        raise BackendError(doing, str(error), transient=True) from error


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("XTABLES_")}
    return {**kept, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":" + _SYSTEM_PATH}


def _refusal(doing: str, variant: Variant, code: int, stderr: bytes, text: bytes) -> BackendError:
    said = stderr.decode(errors="replace")
    lines = text.split(b"\n")
    numbers = [int(number) for number in _LINE_NUMBER.findall(said)]
    at_line = next((number for number in numbers if number <= len(lines)), None)
    detail = _ending(code, stderr)
    if at_line is not None:
        detail += f"; {_around(lines, at_line)}"
    return BackendError(
        doing,
        detail,
        transient=code < 0 or _may_pass(variant, code, said, _is_commit(lines, at_line)),
    )


def _may_pass(variant: Variant, code: int, said: str, at_commit: bool) -> bool:
    """Say whether a refusal may be due to the moment.

    The legacy variant names no errno: a table refused as a whole (at COMMIT) may mean that
    somebody without the lock replaced it meanwhile, as processes of other containers do.
    """
    if variant is Variant.LEGACY:
        return code == _RESOURCE_PROBLEM or at_commit
    return any(reason in _PASSING for reason in _KERNEL_REASON.findall(said))


def _is_commit(lines: list[bytes], at_line: int | None) -> bool:
    return at_line is not None and lines[at_line - 1] == b"COMMIT"


def _around(lines: list[bytes], at_line: int) -> str:
    first = max(at_line - 3, 0)
    shown = lines[first : at_line + 2]
    return "; ".join(
        f"{number}{'*' if number == at_line else ''}: {line.decode(errors='replace')[:160]}"
        for number, line in enumerate(shown, start=first + 1)
        if line
    )


def _ending(code: int, stderr: bytes) -> str:
    said = " ".join(stderr.decode(errors="replace").split())[:400]
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (f": {said}" if said else "")
    return f"exit code {code}: {said or 'no reason given'}"
