"""Who listens on this node, and when it is asked."""

import asyncio
import contextlib
import socket
import sys

import pytest

from kproxy.core.compile import Compiler
from kproxy.core.objects import Protocol
from kproxy.core.occupied import Occupant
from kproxy.core.settings import Settings
from kproxy.node.listening import listening
from kproxy.proxy.port_watch import PortWatch
from tests.support.core.things import HERE, a_port, a_service, listed

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
ROW = (
    "   {}: {} {} {} 00000000:00000000 00:00000000 00000000     0        0 5 1 0000 100 0 0 10 0\n"
)
NOBODY = "00000000:0000"


def word(*octets):
    """Four octets as the kernel of this machine prints them."""
    return f"{int.from_bytes(bytes(octets), sys.byteorder):08X}"


def table(*sockets):
    return HEAD + "".join(ROW.format(i, *each) for i, each in enumerate(sockets))


def test_what_listens_is_read_and_what_is_connected_is_not(tmp_path):
    peer = f"{word(198, 51, 100, 7)}:C000"
    ipv6 = "".join((word(0x20, 1, 0xD, 0xB8), word(0, 0, 0, 0), word(0, 0, 0, 0), word(0, 0, 0, 1)))
    mapped = "".join((word(0, 0, 0, 0), word(0, 0, 0, 0), word(0, 0, 255, 255), word(192, 0, 2, 1)))
    wildcard = "0" * 32
    (tmp_path / "tcp").write_text(
        table(
            (f"{word(0, 0, 0, 0)}:0016", NOBODY, "0A"),
            (f"{word(127, 0, 0, 1)}:2809", NOBODY, "0A"),
            (f"{word(192, 0, 2, 1)}:0016", peer, "01"),
            (f"{word(192, 0, 2, 1)}:0050", peer, "06"),
        )
    )
    (tmp_path / "tcp6").write_text(
        table(
            (f"{wildcard}:0016", f"{wildcard}:0000", "0A"),
            (f"{ipv6}:01BB", f"{wildcard}:0000", "0A"),
            (f"{mapped}:1F90", f"{wildcard}:0000", "0A"),
        )
    )
    (tmp_path / "udp").write_text(
        table(
            (f"{word(192, 0, 2, 1)}:D000", peer, "01"),
            (f"{word(0, 0, 0, 0)}:0035", NOBODY, "07"),
        )
    )
    assert listening(tmp_path) == {
        Occupant("", Protocol.TCP, 22, "what listens at port 22 of this node"),
        Occupant("127.0.0.1", Protocol.TCP, 10249, "what listens at 127.0.0.1:10249"),
        Occupant("2001:db8::1", Protocol.TCP, 443, "what listens at [2001:db8::1]:443"),
        Occupant("192.0.2.1", Protocol.TCP, 8080, "what listens at 192.0.2.1:8080"),
        Occupant("", Protocol.UDP, 53, "what listens at port 53 of this node"),
    }


def test_without_a_proc_nobody_is_known(tmp_path):
    assert listening(tmp_path) == frozenset()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_of_this_process_is_seen(host, kind):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as bound:
        try:
            bound.bind((host, 0))
        except OSError:
            return  # a machine without IPv6
        if kind is socket.SOCK_STREAM:
            bound.listen()
        protocol = Protocol.TCP if kind is socket.SOCK_STREAM else Protocol.UDP
        port = bound.getsockname()[1]
        assert (host, protocol, port) in {each[:3] for each in listening()}


class Scene:
    """A watch that is fed by hand, and what it did."""

    def __init__(self):
        self.compiler = Compiler(Settings(HERE))
        self.looked = asyncio.Event()
        self.looks = 0
        self.watch = PortWatch(
            self.compiler, self.listening, self.looked.set, pause_s=0, period_s=3600
        )

    def listening(self):
        self.looks += 1
        return frozenset({Occupant("", Protocol.TCP, 30080, "a program")})

    def take(self, *services):
        self.watch.compiled(self.compiler.apply(listed(*services)))

    async def look(self):
        await self.looked.wait()
        self.looked.clear()


def service(*numbers):
    ports = [a_port(number, name=f"p{number}", node_port=number) for number in numbers]
    return a_service(ports=ports)


@contextlib.asynccontextmanager
async def running(scene):
    task = asyncio.create_task(scene.watch.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_it_looks_when_there_is_a_new_node_port_and_not_at_every_change():
    async def story():
        scene = Scene()
        async with running(scene):
            scene.take(a_service())
            for _ in range(20):
                await asyncio.sleep(0)
            assert scene.looks == 0, "there is no NodePort that anybody could lose to"
            scene.take(service(30080))
            await scene.look()
            assert [each.loser for each in scene.compiler.conflicts()] == ["a program"]
            scene.take(a_service(ports=service(30080).ports, affinity_timeout_s=9))
            scene.take(service(30080, 30081))
            await scene.look()
            assert scene.looks == 2

    asyncio.run(story())


def test_a_single_look_needs_no_loop():
    scene = Scene()
    scene.take(service(30080))
    scene.watch.look()
    assert [each.loser for each in scene.compiler.conflicts()] == ["a program"]
    assert scene.looked.is_set()
