"""The iptables programs as child processes."""

from __future__ import annotations

import contextlib
import enum
import errno
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator

from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

# Ten times what 10,000 Services with ten endpoints each take; the wait for the lock is within it.
TIMEOUT_S = 60.0

# The legacy variant has one lock for both families, and the first write of 10,000 Services with
# ten endpoints each holds it for up to 5 s.
LOCK_WAIT_S = 10
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

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


def program(family: Family, variant: Variant, verb: str = "") -> str:
    """Return a program's name; `verb` is `save` or `restore`, empty for the one that edits."""
    stem = "iptables" if family is Family.IPV4 else "ip6tables"
    return "-".join(part for part in (stem, variant.value, verb) if part)


def installed(name: str) -> bool:
    """Say whether a program can be found."""
    return shutil.which(name, path=_environment()["PATH"]) is not None


def default_is_legacy(family: Family) -> bool:
    """Say whether the program that is called plain `iptables` writes to the legacy variant."""
    stem = "iptables" if family is Family.IPV4 else "ip6tables"
    path = shutil.which(f"{stem}-save", path=_environment()["PATH"])
    return path is not None and "legacy" in os.path.basename(os.path.realpath(path))


def restore(family: Family, variant: Variant, lines: Iterable[str]) -> None:
    """Feed one table's changes to the kernel, all or nothing.

    `lines` is streamed, and iterated again if one is refused: Raises BackendError with that line
    and its neighbours.
    """
    name = program(family, variant, "restore")
    doing = f"writing rules with {name}"
    argv = [name, "--noflush", "-w", str(LOCK_WAIT_S)]
    child = _start(doing, argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    with child, _Watched(child) as watched:
        _feed(child, lines)
        code = child.wait()
    if watched.expired:
        raise BackendError(doing, f"no answer within {TIMEOUT_S:.0f} s", transient=True)
    if code != 0:
        raise _refusal(doing, variant, code, watched.stderr, lines)


def save(family: Family, variant: Variant, table: str | None = None) -> Iterator[bytes]:
    """Yield the lines of a table's rules (all existing tables' without `table`) as they come.

    Raises BackendError, at the end at the latest, if the program failed: what was yielded is
    complete only if the iteration ends.
    """
    name = program(family, variant, "save")
    return _lines([name] if table is None else [name, "-t", table])


def _lines(argv: list[str]) -> Iterator[bytes]:
    doing = f"reading rules with {argv[0]}"
    child = _start(doing, argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child, _Watched(child) as watched:
        yield from child.stdout
        code = child.wait()
    if code != 0:
        raise BackendError(doing, _ending(code, watched.stderr), transient=code < 0)


def why_unknown(family: Family, variant: Variant, options: list[str]) -> str:
    """Return why the program does not know these matches and its target, "" if it does.

    Reads and writes nothing in the kernel's tables.
    """
    try:
        for _ in _lines([program(family, variant), *options, "--help"]):
            pass
    except BackendError as error:
        return error.detail
    return ""


class _Watched:
    """A child that is killed when its time is over, or when the block is left before it ended.

    What it complains about is read all the time, so that a talkative child never waits for us.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._expiry = threading.Timer(TIMEOUT_S, self._expire)
        self._drain = threading.Thread(target=self._read_complaints, daemon=True)
        self.expired = False
        self.stderr = b""

    def __enter__(self) -> _Watched:
        self._expiry.start()
        self._drain.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._expiry.cancel()
        self._child.kill()
        self._drain.join()

    def _expire(self) -> None:
        self.expired = True
        self._child.kill()

    def _read_complaints(self) -> None:
        assert self._child.stderr is not None
        self.stderr = self._child.stderr.read()


def _feed(child: subprocess.Popen[bytes], lines: Iterable[str]) -> None:
    """Write lines to a child; if it stops reading, its exit code tells why."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        for line in lines:
            child.stdin.write(line.encode() + b"\n")
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()


def _start(doing: str, argv: list[str], *, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
    environment = _environment()
    executable = shutil.which(argv[0], path=environment["PATH"])
    if executable is None:
        detail = f"{argv[0]} is not installed (Debian package iptables)"
        raise BackendError(doing, detail, transient=False)
    try:
        return subprocess.Popen(
            argv,
            executable=executable,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        raise BackendError(doing, str(error), transient=True) from error


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("XTABLES_")}
    return {**kept, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":" + SYSTEM_PATH}


def _refusal(
    doing: str, variant: Variant, code: int, stderr: bytes, lines: Iterable[str]
) -> BackendError:
    said = stderr.decode(errors="replace")
    named = [int(number) for number in _LINE_NUMBER.findall(said)]
    first, around = _around(lines, named[0]) if named else (1, [])
    detail = _ending(code, stderr)
    if around:
        detail += f"; {_shown(first, around, named[0])}"
    at_commit = bool(around) and around[named[0] - first] == "COMMIT"
    passing = code < 0 or _may_pass(variant, code, said, at_commit)
    return BackendError(doing, detail, transient=passing)


def _may_pass(variant: Variant, code: int, said: str, at_commit: bool) -> bool:
    """Say whether a refusal may be due to the moment.

    The legacy variant names no errno: a table refused as a whole (at COMMIT) may mean that
    somebody without the lock replaced it meanwhile, as processes of other containers do.
    """
    if variant is Variant.LEGACY:
        return code == _RESOURCE_PROBLEM or at_commit
    return any(reason in _PASSING for reason in _KERNEL_REASON.findall(said))


def _around(lines: Iterable[str], at_line: int) -> tuple[int, list[str]]:
    """Return a line with two before and two after it, and the number of the first of them.

    Nothing if there is no such line.
    """
    first = max(at_line - 2, 1)
    found = list(itertools.islice(lines, first - 1, at_line + 2))
    return first, found if len(found) > at_line - first >= 0 else []


def _shown(first: int, lines: list[str], at_line: int) -> str:
    return "; ".join(
        f"{number}{'*' if number == at_line else ''}: {line[:160]}"
        for number, line in enumerate(lines, start=first)
    )


def _ending(code: int, stderr: bytes) -> str:
    said = " ".join(stderr.decode(errors="replace").split())[:400]
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (f": {said}" if said else "")
    return f"exit code {code}: {said or 'no reason given'}"
