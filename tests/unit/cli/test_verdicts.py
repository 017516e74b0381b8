"""What `explain` understands, and how it words an answer."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.cli.verdicts import answer, describe, parse_flow, parse_packet
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Drop, Forward, Packet, Pass, Reject
from kproxy.core.table import ServicePortKey, Target, Via

WEB = ServicePortKey("default", "web", "http", Protocol.TCP)
UNNAMED = ServicePortKey("default", "web", "", Protocol.TCP)
PACKET = Packet("10.1.0.5", "10.96.0.10", 80, Protocol.TCP)


def forward(*targets, masquerade=False, hairpin=(), affinity_timeout_s=None):
    return Forward(WEB, Via.NODE_PORT, targets, masquerade, hairpin, affinity_timeout_s, "because")


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (
            forward(Target("10.1.0.9", 80, True), Target("10.1.0.10", 80, False), masquerade=True),
            ["forward", "default/web:http", "nodePort", ["10.1.0.10:80", "10.1.0.9:80"], True],
        ),
        (
            forward(Target("fd00::2", 80, False)),
            ["forward", "default/web:http", "nodePort", ["[fd00::2]:80"], False],
        ),
        (
            Reject(UNNAMED, Via.CLUSTER_IP, "because"),
            ["reject", "default/web", "clusterIP", [], False],
        ),
        (Reject(None, Via.CLUSTER_IP, "because"), ["reject", None, "clusterIP", [], False]),
        (
            Drop(WEB, Via.LOAD_BALANCER, "because"),
            ["drop", "default/web:http", "loadBalancer", [], False],
        ),
        (Drop(None, None, "because"), ["drop", None, None, [], False]),
        (Pass("because"), ["pass", None, None, [], False]),
    ],
)
def test_json_always_has_all_six_fields(verdict, expected):
    found = json.loads(msgspec.json.encode(answer(verdict)))
    names = ["verdict", "service", "via", "endpoints", "masquerade", "reason"]
    assert list(found) == names
    assert list(found.values()) == [*expected, "because"]


def test_a_forward_in_words():
    target = Target("10.1.0.9", 80, True)
    verdict = forward(
        target, Target("10.2.0.1", 80, False), hairpin=(target,), affinity_timeout_s=60
    )
    assert describe(PACKET, verdict).splitlines() == [
        "10.1.0.5 -> 10.96.0.10:80 tcp: FORWARD to one of the endpoints below",
        "  service     default/web:http",
        "  via         nodePort",
        "  endpoints   10.1.0.9:80  (on this node)",
        "              10.2.0.1:80",
        "  masquerade  no, save where the source itself is chosen",
        "  affinity    a client keeps its endpoint for 60 s",
        "  why         because",
    ]


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (Reject(WEB, Via.CLUSTER_IP, "r"), "REJECT"),
        (Drop(None, None, "r"), "DROP"),
        (Pass("r"), "PASS"),
    ],
)
def test_what_is_not_forwarded_says_why(verdict, word):
    first, *_, last = describe(PACKET, verdict).splitlines()
    assert word in first
    assert last == "  why         r"


def test_nothing_that_strangers_named_reaches_the_terminal_as_it_is():
    packet = Packet("10.1.0.5", "10.96.0.10", 80, Protocol.TCP, "eth0\x1b[2J")
    assert all(line.isprintable() for line in describe(packet, Pass("a\nb")).splitlines())
    assert len(describe(packet, Pass("a\nb")).splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            {"from": "10.1.0.005", "to": "10.96.0.10:80", "protocol": "tcp"},
            Packet("10.1.0.5", "10.96.0.10", 80, Protocol.TCP),
        ),
        (
            {"from": "FD00::5", "to": "[fd00:0::1]:53", "protocol": "UDP", "in_interface": "eth0"},
            Packet("fd00::5", "fd00::1", 53, Protocol.UDP, "eth0"),
        ),
        (
            {"from": "1.1.1.1", "to": "2.2.2.2:65535", "protocol": "sctp", "in_interface": None},
            Packet("1.1.1.1", "2.2.2.2", 65535, Protocol.SCTP),
        ),
    ],
)
def test_a_flow_is_read(line, expected):
    assert parse_flow(json.dumps(line).encode()) == expected


@pytest.mark.parametrize(
    ("source", "to", "protocol", "expected"),
    [
        ("web", "10.0.0.1:80", "tcp", "from: expected an IP address, not 'web'"),
        ("fe80::1%eth0", "[::1]:80", "tcp", "from: expected an IP address"),
        ("10.0.0.1", "10.0.0.2", "tcp", "to: expected IP:PORT"),
        ("10.0.0.1", "10.0.0.2:", "tcp", "to: expected a port"),
        ("10.0.0.1", "10.0.0.2:0", "tcp", "to: expected a port from 1 to 65535"),
        ("10.0.0.1", "10.0.0.2:65536", "tcp", "to: expected a port from 1 to 65535"),
        ("10.0.0.1", "10.0.0.2:٨٠", "tcp", "to: expected a port"),
        ("10.0.0.1", "10.0.0.2:8x", "tcp", "to: expected a port"),
        ("10.0.0.1", "[10.0.0.2]:80", "tcp", "to: brackets are for IPv6"),
        ("10.0.0.1", "web:80", "tcp", "to: expected an IP address before the port"),
        ("::1", "::1:80", "tcp", "to: expected IP:PORT, an IPv6 address in brackets"),
        ("::1", "[::1%lo]:80", "tcp", "to: expected an IP address"),
        ("::1", "10.0.0.2:80", "tcp", "from and to must be of one IP family, not IPv6 and IPv4"),
        ("10.0.0.1", "10.0.0.2:80", "icmp", "protocol: must be one of tcp, udp, sctp, not 'icmp'"),
        ("10.0.0.1", "10.0.0.2:80", "", "protocol: must be one of tcp, udp, sctp, not ''"),
    ],
)
def test_a_packet_that_cannot_be_is_refused(source, to, protocol, expected):
    with pytest.raises(ValueError, match=r"from|to|protocol") as caught:
        parse_packet(source, to, protocol, None)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"from": 1}',
        b"\xff",
        b'{"from":' + b"[" * 100000,
        b'{"from": "1.1.1.1", "to": "1.1.1.1:1", "protocol": "tcp", "typo": 1}',
    ],
)
def test_a_line_that_is_no_flow_is_a_value_error(line):
    with pytest.raises(ValueError, match=r"."):
        parse_flow(line)


FLOWS = st.fixed_dictionaries(
    {},
    optional={
        "from": st.ip_addresses().map(str) | st.text(max_size=8),
        "to": st.text(alphabet="0123456789abcdef.:[]%", max_size=12) | st.just("10.0.0.1:80"),
        "protocol": st.sampled_from(["tcp", "udp", "sctp", "TCP", ""]) | st.text(max_size=4),
        "in_interface": st.none() | st.text(max_size=16),
    },
)


def _check_words(error):
    assert str(error)


@given(FLOWS.map(json.dumps).map(str.encode) | st.binary(max_size=60))
def test_any_line_is_a_packet_or_a_value_error(line):
    try:
        assert isinstance(parse_flow(line), Packet)
    except ValueError as error:
        _check_words(error)
