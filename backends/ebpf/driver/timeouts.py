"""How long a flow may be silent, by what it went through."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.ebpf.driver.flow_layout import STATES, TICK_NS, State

_SETTINGS = Path("/proc/sys/net/netfilter")
_FINS = State.FIN_FORWARD | State.FIN_REVERSE
_TICK_S = TICK_NS / 1e9

# The kernel's defaults (net/netfilter/nf_conntrack_proto_*.c), in seconds.
_DEFAULTS = {
    "tcp_timeout_syn_sent": 120,
    "tcp_timeout_syn_recv": 60,
    "tcp_timeout_established": 432000,
    "tcp_timeout_fin_wait": 120,
    "tcp_timeout_close_wait": 60,
    "tcp_timeout_time_wait": 120,
    "tcp_timeout_close": 10,
    "udp_timeout": 30,
    "udp_timeout_stream": 120,
    "sctp_timeout_closed": 10,
    "sctp_timeout_cookie_wait": 3,
    "sctp_timeout_cookie_echoed": 3,
    "sctp_timeout_established": 210,
    "sctp_timeout_shutdown_ack_sent": 3,
}

Limits = Mapping[int, list[int]]
"""By protocol: after how many ticks of silence a flow has expired, for each of its states."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The node's settings of connection tracking, under their names without `nf_conntrack_`.

    kproxy sets them as its configuration says, and other tools may: flows that the kernel tracks
    and those that we do thus live equally long.
    """

    seconds: Mapping[str, int]

    @classmethod
    def of_node(cls) -> Timeouts:
        """Read them; the kernel's defaults where it does not track, or cannot be read."""
        return cls({name: _setting(name, default) for name, default in _DEFAULTS.items()})

    def limits(self) -> Limits:
        """Return them as a sweep compares them."""
        by_protocol = {
            socket.IPPROTO_TCP: self._tcp,
            socket.IPPROTO_UDP: self._udp,
            socket.IPPROTO_SCTP: self._sctp,
        }
        return {
            protocol: [int(of(State(state)) / _TICK_S) + 1 for state in range(STATES)]
            for protocol, of in by_protocol.items()
        }

    def _tcp(self, state: State) -> int:
        seconds = self.seconds
        if state & State.RESET:
            return seconds["tcp_timeout_close"]
        if state & _FINS == _FINS:
            return seconds["tcp_timeout_time_wait"]
        if state & _FINS:
            return max(seconds["tcp_timeout_fin_wait"], seconds["tcp_timeout_close_wait"])
        if state & State.ACKNOWLEDGED:
            return seconds["tcp_timeout_established"]
        return seconds[f"tcp_timeout_syn_{'recv' if state & State.REPLIED else 'sent'}"]

    def _udp(self, state: State) -> int:
        return self.seconds["udp_timeout_stream" if state & State.REPLIED else "udp_timeout"]

    def _sctp(self, state: State) -> int:
        seconds = self.seconds
        if state & State.RESET:
            return seconds["sctp_timeout_closed"]
        if state & _FINS:
            return seconds["sctp_timeout_shutdown_ack_sent"]
        if state & State.ACKNOWLEDGED:
            return seconds["sctp_timeout_established"]
        return seconds[f"sctp_timeout_cookie_{'echoed' if state & State.REPLIED else 'wait'}"]


def _setting(name: str, default: int) -> int:
    try:
        return int((_SETTINGS / f"nf_conntrack_{name}").read_text())
    except (OSError, ValueError):
        return default
