"""A legacy table read through python-iptables: no child process, the same answer as from one.

Only its thin layer over libiptc is used (chains, entries, targets). Its Rule objects would load
the extension of every foreign rule, and fail on one that they do not know.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import itertools
import re
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from typing import Protocol

from backends.kernel.xtables.ours import Ours
from backends.kernel.xtables.saved import ALTERED, Seen
from backends.kernel.xtables.wording import COMMENT_PREFIX, chain_key, jump_key
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

# struct xt_entry_match, struct xt_entry_target (linux/netfilter/x_tables.h): u16 size, name, u8
# revision, then the extension's data. A standard target has the empty name and a verdict.
_NAME_AT, _REVISION_AT = 2, 31

_FINGERPRINT = re.compile(re.escape(COMMENT_PREFIX.encode()) + rb"([0-9a-z]+:[0-9]+)")


# Both families' threads read, and neither python-iptables nor libiptc promises to be safe for that.
_one_reader = threading.Lock()


class _Chain(Protocol):
    name: str


class _Table(Protocol):
    """What is used of iptc.Table and iptc.Table6."""

    chains: list[_Chain]

    def refresh(self) -> None: ...
    def close(self) -> None: ...
    def builtin_chain(self, chain: str) -> bool: ...
    def first_rule(self, chain: str) -> ctypes.Structure | None: ...
    def next_rule(self, prev_rule: ctypes.Structure) -> ctypes.Structure | None: ...
    def get_target(self, entry: ctypes.Structure) -> bytes: ...


@functools.cache
def available() -> bool:
    """Say whether python-iptables finds what it wraps: it asks ldconfig, and loads libiptc."""
    try:
        with _one_reader, no_setuptools():
            importlib.import_module("iptc")  # not before it is needed, because it runs modprobe
    except (ImportError, OSError, AttributeError):
        return False
    return True


def read(family: Family, table: str, ours: Ours) -> Seen:
    """Return what is ours in a table that exists (asking for any other one creates it).

    Only if `available`. Raises BackendError.
    """
    import iptc

    kind = iptc.Table if family is Family.IPV4 else iptc.Table6
    with _one_reader:
        try:
            handle: _Table = kind(table, autocommit=False)
            handle.refresh()  # the object is cached for each name, with what it read the last time
        except iptc.IPTCError as error:
            doing = f"reading the legacy table {table}"
            raise BackendError(doing, str(error), transient=True) from error
        try:
            return _read(handle, table, ours)
        finally:
            handle.close()


@contextlib.contextmanager
def no_setuptools() -> Iterator[None]:
    """Let python-iptables (1.2) do without distutils.

    It asks that for one path and has another way to find it. Where setuptools is installed, the
    question would load it whole, and hold 14 MB for good.
    """
    unknown = "distutils" not in sys.modules
    if unknown:
        sys.modules["distutils"] = types.ModuleType("distutils")  # without distutils.sysconfig
    try:
        yield
    finally:
        if unknown:
            del sys.modules["distutils"]


def _read(handle: _Table, table: str, ours: Ours) -> Seen:
    seen = Seen()
    for name in [chain.name for chain in handle.chains]:
        entries = _entries(handle, name)
        if ours.has(name):
            _take_chain(seen, table, name, list(entries))
        elif handle.builtin_chain(name):
            for content, target, fingerprint in entries:
                if ours.has(target):
                    seen.add_jump(jump_key(table, name, target), fingerprint, content)
    return seen


def _take_chain(
    seen: Seen, table: str, name: str, entries: list[tuple[bytes, str, bytes | None]]
) -> None:
    key = chain_key(table, name)
    if not entries:
        seen.image[key] = ALTERED
        return
    content = b"".join(content for content, _, _ in entries)
    seen.add_chain(key, len(entries), entries[0][2], content)


def _entries(handle: _Table, chain: str) -> Iterator[tuple[bytes, str, bytes | None]]:
    """Yield each rule's content, target and fingerprint.

    The content leaves out what changes by itself: counters, the kernel's own mark and, of a
    standard target, the offset that its chain has at the moment.
    """
    entry = handle.first_rule(chain)
    while entry:
        kind = type(entry)
        matches_at, target_at = ctypes.sizeof(kind), entry.target_offset
        data = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
        target = (handle.get_target(entry) or b"").decode(errors="replace")
        matches = list(_matches(data[matches_at:target_at]))
        content = [data[: kind.comefrom.offset], target.encode()]
        content += itertools.chain.from_iterable(matches)
        if data[target_at + _NAME_AT]:
            content.append(data[target_at + _REVISION_AT :])
        yield b"\0".join(content), target, _fingerprint(matches)
        entry = handle.next_rule(entry)


def _matches(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each match's name and what follows it; the kernel leaves the name's rest unset."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], sys.byteorder)
        name = data[at + _NAME_AT : at + _REVISION_AT].partition(b"\0")[0]
        yield name, data[at + _REVISION_AT : at + size]
        at += size


def _fingerprint(matches: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    for name, content in matches:
        found = name == b"comment" and _FINGERPRINT.fullmatch(content[1:].partition(b"\0")[0])
        if found:
            return found[1]
    return None
