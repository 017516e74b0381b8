"""What Python packs about the node is what the programs read of it."""

import re
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from backends.ebpf.driver import device_layout as layout
from backends.ebpf.driver.device_layout import DeviceFlag, Host, HostFlag, SocketHooks
from kproxy.core.addresses import Family

INCLUDE = Path(__file__).parents[3] / "ebpf" / "include"
HEADER = (INCLUDE / "kproxy" / "device_layout.h").read_text()
NUMBERS = {Family.IPV4: 4, Family.IPV6: 6}
ADDRESS = {Family.IPV4: ip_address("192.0.2.1").packed, Family.IPV6: ip_address("2001::2").packed}
HOST = Host(
    netns_cookie=0x0102030405060708,
    flags=HostFlag.WITHDRAWN,
    mark=0x4000,
    local_ports=(32768, 60999),
    node_ports=(30000, 32767),
    socket_hooks=SocketHooks.OFF,
)
IN_C = """
struct device device = {
	.flags = DEVICE_POD | DEVICE_ETHERNET, .bridge = 7, .mac = { 2, 3, 4, 5, 6, 7 },
};
struct own_address own_address = { .device = 9 };
struct own_network_key own_network_key = { .bits = 24 };
struct masquerade_key masquerade_key = { .bits = 32 + 24, .device = 9 };
struct host host = {
	.netns_cookie = 0x0102030405060708, .flags = HOST_WITHDRAWN, .mark = 0x4000,
	.local_ports_first = 32768, .local_ports_last = 60999,
	.node_ports_first = 30000, .node_ports_last = 32767, .socket_hooks = SOCKET_HOOKS_OFF,
};
"""


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_every_struct_is_packed_as_in_c(family, tmp_path):
    address = ADDRESS[family]
    in_python = {
        "device": layout.device(DeviceFlag.POD | DeviceFlag.ETHERNET, 7, bytes(range(2, 8))),
        "own_address": layout.number(9),
        "own_network_key": layout.network_key(24, address),
        "masquerade_key": layout.masquerade_key(9, 24, address),
        "host": layout.host(HOST),
    }
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    set_address = "".join(f"raw[{at}] = {byte};" for at, byte in enumerate(address))
    dump = "".join(f"dump(&{name}, sizeof({name}));" for name in in_python)
    source.write_text(
        "#include <linux/types.h>\n#include <stdio.h>\n#include <string.h>\n"
        f"#include <kproxy/device_layout.h>\n{IN_C}\n"
        "static void dump(const void *p, size_t n) {"
        ' for (size_t i = 0; i < n; i++) printf("%02x", ((const unsigned char *)p)[i]);'
        ' puts(""); }\n'
        f"int main(void) {{ unsigned char raw[sizeof(struct address)]; {set_address}"
        "memcpy(&own_network_key.address, raw, sizeof(raw));"
        f"memcpy(&masquerade_key.towards, raw, sizeof(raw)); {dump} return 0; }}\n"
    )
    flags = ["-Wall", "-Werror", "-Wpadded", f"-DKPROXY_FAMILY={NUMBERS[family]}"]
    subprocess.run(["gcc", *flags, "-I", INCLUDE, source, "-o", program], check=True)
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()

    assert dict(zip(in_python, lines, strict=True)) == {
        name: value.hex() for name, value in in_python.items()
    }


def test_a_host_is_read_as_it_was_packed():
    assert layout.parse_host(layout.host(HOST)) == HOST


@pytest.mark.parametrize(
    ("prefix", "members"),
    [("DEVICE", DeviceFlag), ("HOST", HostFlag), ("SOCKET_HOOKS", SocketHooks)],
)
def test_the_values_of_enums_are_those_of_c(prefix, members):
    explicit = dict(re.findall(rf"\b{prefix}_([A-Z_]+) = (\d+)", HEADER))
    if not explicit:
        listed = re.findall(rf"\b{prefix}_([A-Z_]+)[,\s]", HEADER)
        explicit = {name: str(number) for number, name in enumerate(listed)}
    assert {name: int(value) for name, value in explicit.items()} == {
        each.name: each.value for each in members
    }
