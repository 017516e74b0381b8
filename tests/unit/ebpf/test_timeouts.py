"""How long flows may be silent, and where the agent finds their entries."""

from __future__ import annotations

import socket

import pytest

from backends.ebpf.driver.flow_layout import LAYOUTS, TICK_NS, End, Entry, FlowFlag, Side, State
from backends.ebpf.driver.timeouts import Timeouts

OPEN = State.REPLIED | State.ACKNOWLEDGED
ONE_FIN = OPEN | State.FIN_REVERSE
TCP, UDP, SCTP = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP


@pytest.mark.parametrize(
    ("protocol", "state", "setting"),
    [
        (TCP, State(0), "tcp_timeout_syn_sent"),
        (TCP, State.REPLIED, "tcp_timeout_syn_recv"),
        (TCP, OPEN, "tcp_timeout_established"),
        (TCP, ONE_FIN, "tcp_timeout_close_wait"),
        (TCP, ONE_FIN | State.FIN_FORWARD, "tcp_timeout_time_wait"),
        (TCP, OPEN | State.RESET, "tcp_timeout_close"),
        (TCP, ONE_FIN | State.FIN_FORWARD | State.RESET, "tcp_timeout_close"),
        (UDP, State(0), "udp_timeout"),
        (UDP, State.REPLIED, "udp_timeout_stream"),
        (SCTP, State(0), "sctp_timeout_cookie_wait"),
        (SCTP, State.REPLIED, "sctp_timeout_cookie_echoed"),
        (SCTP, OPEN, "sctp_timeout_established"),
        (SCTP, OPEN | State.FIN_FORWARD, "sctp_timeout_shutdown_ack_sent"),
        (SCTP, OPEN | State.RESET, "sctp_timeout_closed"),
    ],
)
def test_each_state_has_the_time_that_the_node_gives_it(protocol: int, state: State, setting: str):
    of_node = Timeouts.of_node().seconds
    distinct = {name: 1000 * number for number, name in enumerate(of_node, start=1)}
    distinct["tcp_timeout_fin_wait"] = 1  # the longer of two holds where one end closed

    ticks = Timeouts(distinct).limits()[protocol][state]

    assert 0 <= ticks - distinct[setting] * 1e9 / TICK_NS <= 1


@pytest.mark.parametrize("wide", [4, 16])
@pytest.mark.parametrize(
    ("flags", "sides"),
    [
        (FlowFlag(0), 2),
        (FlowFlag.MASQUERADED, 3),
        (FlowFlag.AT_ONCE, 2),
        (FlowFlag.AT_ONCE | FlowFlag.MASQUERADED, 2),
        (FlowFlag.KERNELS, 1),
    ],
)
def test_an_entry_names_all_of_its_flow(wide: int, flags: FlowFlag, sides: int):
    (layout,) = (layout for layout in LAYOUTS.values() if layout.wide == wide)
    client, frontend, endpoint, node = (
        End(bytes([number]) * wide, bytes([number, number])) for number in range(1, 5)
    )
    entry = Entry(
        state=State.REPLIED,
        stamp=5,
        id=6,
        client=client,
        frontend=frontend,
        endpoint=endpoint,
        node=node,
        stack_port=b"\7\7",
        side=Side.STACK,
        flags=flags,
    )

    assert layout.entry(layout.encode(entry)) == entry
    keys = layout.keys(entry, TCP)
    assert len(set(keys)) == sides
    assert keys[0] == layout.key(frontend, client, TCP)
    assert {layout.protocol(key) for key in keys} == {TCP}
