"""What `kproxy render` prints works as it stands, and makes what the data path makes itself."""

import socket
from dataclasses import replace

import pytest

from backends.ipvs.path import IpvsPath
from backends.ipvs.render.entries import packed
from backends.kernel.virtual_servers import (
    Destination,
    Server,
    Settings,
    Timeouts,
    VirtualServers,
)
from backends.kernel.xtables.tools import Variant, program
from kproxy.core.addresses import Family, family_of
from kproxy.core.image import diff
from tests.support.commands import output_of
from tests.support.ipvs.options import PLAIN
from tests.support.ipvs.shop import shop
from tests.support.waiting import LONGEST_S

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

PROTOCOLS = {
    "-t": socket.IPPROTO_TCP,
    "-u": socket.IPPROTO_UDP,
    "--sctp-service": socket.IPPROTO_SCTP,
}
OPTIONS = replace(PLAIN, variant=Variant.NF_TABLES, timeouts=Timeouts(800, 90, 40))


def ipvsadm(kernel, words):
    """Do what ipvsadm(8) does with these words, without being it: few machines have it."""
    match words:
        case ["--set", tcp_s, tcp_fin_s, udp_s]:
            kernel.set_timeouts(Timeouts(int(tcp_s), int(tcp_fin_s), int(udp_s)))
        case ["-A", *rest]:
            server, options = named(rest)
            values = dict(zip(options[::2], options[1::2], strict=True))
            persistent_s = int(values.pop("-p", "0"))
            scheduler = values.pop("-s")
            assert not values
            settings = Settings(scheduler, 1 if persistent_s else 0, persistent_s)
            kernel.put_servers([(server, settings)])
        case ["-a", *rest]:
            server, options = named(rest)
            flag, behind, *method = options
            assert (flag, method[:2]) == ("-r", ["-m", "-w"])
            address, port = place(behind)
            pair = (server, Destination(packed(address), port))
            kernel.put_destinations([pair], weight=int(method[2]))
        case _:
            raise AssertionError(words)


def named(words):
    """The virtual server that words begin with, and the rest of them."""
    match words:
        case ["-f", mark, "-6", *rest]:
            return Server(Family.IPV6, mark=int(mark, 0)), rest
        case ["-f", mark, *rest]:
            return Server(Family.IPV4, mark=int(mark, 0)), rest
    flag, at, *rest = words
    address, port = place(at)
    return Server(family_of(address), PROTOCOLS[flag], packed(address), port), rest


def place(text):
    """An address and a port."""
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_it_makes_what_the_data_path_makes(family):
    path = IpvsPath(OPTIONS)
    table = shop(family)
    printed = path.preview(table).splitlines()
    with VirtualServers("running what was printed") as kernel:
        for line in printed:
            match line.split():
                case ["#", "ipvsadm", *words]:
                    ipvsadm(kernel, words)
                case ["#", *words]:
                    output_of(*words, timeout_s=LONGEST_S)
    restored = "".join(f"{line}\n" for line in printed if not line.startswith("#"))
    restore = program(family, Variant.NF_TABLES, "restore")
    output_of(restore, "--noflush", stdin=restored, timeout_s=LONGEST_S)

    backend = path.backend(family)
    wanted = {
        key: value for key, value in backend.render(table.everything()).items() if value is not None
    }
    altered = diff(backend.observe(), wanted)
    assert [backend.describe(key) for key in (*altered.put, *altered.drop)] == []
    backend.close()
