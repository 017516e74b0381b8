"""What kube-proxy sets on a node besides rules: connection tracking, and its own place in line
when memory runs out (reference 1.5)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kproxy.config.fields import Conntrack

_LARGEST_SCALED_MAX = 1 << 20  # upstream's bound for machines with many cores
_SYSCTLS = Path("proc/sys/net/netfilter")
_MAX = "nf_conntrack_max"
_HASH_SIZE = Path("sys/module/nf_conntrack/parameters/hashsize")
_ONLINE = Path("sys/devices/system/cpu/online")
_OOM_SCORE = Path("proc/self/oom_score_adj")


@dataclass(frozen=True, slots=True)
class Setting:
    """One number in a file below the root; `at_least`: a larger one there is as good."""

    file: Path
    value: int
    at_least: bool = False

    @property
    def name(self) -> str:
        """The name by which people know it."""
        return self.file.name


def conntrack_settings(conntrack: Conntrack, cpus: int) -> list[Setting]:
    """Return what a configuration wants of connection tracking, in the order to write it."""
    largest = _conntrack_max(conntrack, cpus)
    wanted = [Setting(_SYSCTLS / name, value) for name, value in _sysctls(conntrack, largest)]
    if largest:
        wanted.insert(1, Setting(_HASH_SIZE, largest // 4, at_least=True))
    return wanted


def _conntrack_max(conntrack: Conntrack, cpus: int) -> int:
    """Return how many connections to track, 0 to leave that alone."""
    if conntrack.max_per_core <= 0:
        return 0
    scaled = conntrack.max_per_core * cpus
    return _LARGEST_SCALED_MAX if scaled > _LARGEST_SCALED_MAX else max(scaled, conntrack.min)


def _sysctls(conntrack: Conntrack, largest: int) -> Iterator[tuple[str, int]]:
    values: Mapping[str, float] = {
        _MAX: largest,
        "nf_conntrack_tcp_timeout_established": conntrack.tcp_established_timeout_s,
        "nf_conntrack_tcp_timeout_close_wait": conntrack.tcp_close_wait_timeout_s,
        "nf_conntrack_tcp_be_liberal": conntrack.tcp_be_liberal,
        "nf_conntrack_udp_timeout": conntrack.udp_timeout_s,
        "nf_conntrack_udp_timeout_stream": conntrack.udp_stream_timeout_s,
    }
    yield from ((name, int(value)) for name, value in values.items() if value > 0)


def oom_score_setting(value: int) -> Setting:
    """Return this process's place in line when memory runs out, -1000 (last) to 1000 (first)."""
    return Setting(_OOM_SCORE, value)


def put_in_force(wanted: list[Setting], root: Path) -> tuple[list[Setting], dict[Setting, str]]:
    """Write the settings that differ; return those, and a line for each that cannot be had.

    A value that is right already is not written, so that a process without the privilege can run
    where a privileged one has set everything before it.
    """
    written: list[Setting] = []
    problems: dict[Setting, str] = {}
    for setting in wanted:
        file = root / setting.file
        try:
            have = int(file.read_text())
            if have == setting.value or (setting.at_least and have > setting.value):
                continue
            file.write_text(str(setting.value))
            written.append(setting)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it holds no number"
            problems[setting] = f"{setting.name} cannot be set to {setting.value}: {why}"
    return written, problems


def online_cpus(root: Path) -> int:
    """Return how many CPUs the node has, whatever part of them this process may use."""
    try:
        return _count((root / _ONLINE).read_text())
    except (OSError, ValueError):
        return os.cpu_count() or 1


def _count(ranges: str) -> int:
    """Return how many numbers a list such as `0-3,8` names."""
    total = 0
    for part in ranges.strip().split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total
