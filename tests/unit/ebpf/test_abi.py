"""The bytes that Python packs are the structs that the programs read."""

import re
import subprocess
from pathlib import Path

import pytest

from backends.ebpf.render import layout as abi
from backends.ebpf.render.layout import Record, TableMap, layout
from backends.ebpf.render.service_port import service_digest
from kproxy.core.addresses import Family
from kproxy.core.decision import Origin

INCLUDE = Path(__file__).parents[3] / "ebpf" / "include"
HEADER = (INCLUDE / "kproxy" / "service.h").read_text()
MAPS = (INCLUDE / "kproxy" / "service_maps.h").read_text()

ENUMS = {
    "USE_": abi.Use,
    "VIA_": abi.Via,
    "UNCLAIMED_": abi.Unclaimed,
    "PODS_": {
        "UNDETECTED": abi.LocalPodsBy.UNDETECTED,
        "BY_NETWORK": abi.LocalPodsBy.NETWORK,
        "BY_DEVICE": abi.LocalPodsBy.DEVICE,
    },
    "FROM_": {origin.name: n for n, origin in enumerate(Origin)},
}


def records(family):
    shapes = layout(family)
    names = {*vars(shapes), *vars(type(shapes))}
    return {name: each for name in names if isinstance(each := getattr(shapes, name), Record)}


def enum_values():
    for prefix, members in ENUMS.items():
        named = members.items() if isinstance(members, dict) else members.__members__.items()
        for name, value in named:
            yield f"{prefix}{name}", int(value)
    yield "TARGETS_PER_CHUNK", abi.TARGETS_PER_CHUNK
    yield "FRONTEND_SOURCES", abi.FRONTEND_SOURCES
    yield "sizeof(struct chunk)", layout(Family.IPV4).chunk_size


def expected(family):
    """Return C expressions and their values by Python."""
    for name, record in records(family).items():
        yield f"sizeof(struct {name})", record.size
        for field, offset in record.offsets():
            yield f"offsetof(struct {name}, {field})", offset
    yield from dict(enum_values(), **{"sizeof(struct chunk)": layout(family).chunk_size}).items()


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_every_struct_has_its_size_and_its_fields_where_python_puts_them(family, tmp_path):
    values = dict(expected(family))
    prints = "".join(f'printf("%lu\\n", (unsigned long)({each}));' for each in values)
    source = tmp_path / "abi.c"
    source.write_text(
        "#include <linux/types.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        f"#include <kproxy/service.h>\nint main(void) {{ {prints} return 0; }}\n"
    )
    number = {Family.IPV4: 4, Family.IPV6: 6}[family]
    program = tmp_path / "abi"
    subprocess.run(
        ["gcc", "-Wall", "-Werror", f"-DKPROXY_FAMILY={number}", "-I", INCLUDE, source,
         "-o", program],
        check=True,
    )  # fmt: skip
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()

    assert dict(zip(values, map(int, lines), strict=True)) == values


def fields_in_c():
    """Return the fields of each struct of the header but what pads, by the struct's name."""
    code = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)
    structs = re.findall(r"^struct (\w+) \{\n(.*?)^\};", code, re.MULTILINE | re.DOTALL)
    return {
        name: [field for field in re.findall(r"(\w+)(?:\[[^;]*\])?;", body) if field != "pad"]
        for name, body in structs
    }


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_python_packs_every_field_of_every_struct(family):
    known = {name: [field for field, _ in each.offsets()] for name, each in records(family).items()}
    assert {**known, "chunk": ["targets"]} == fields_in_c()


def test_every_map_is_known_by_its_name():
    declared = re.findall(r"BPF_(?:F_)?TABLE\(\"\w+\", [\w ]+, [\w ]+, (\w+),", MAPS)
    assert declared == [each.map_name for each in TableMap]


def test_no_value_of_an_enum_is_missing():
    in_c = set(re.findall(r"\b((?:USE|VIA|UNCLAIMED|PODS|FROM)_[A-Z_]+)\b", HEADER))
    assert in_c == {name for name, _ in enum_values() if name.isupper()} - {
        "TARGETS_PER_CHUNK",
        "FRONTEND_SOURCES",
    }


@pytest.mark.parametrize("address", ["::", "::1", "fd00:1::", "1:2:3:4:5:6:7:8", "192.0.2.1"])
def test_an_address_is_in_network_order(address):
    from ipaddress import ip_address

    assert abi.packed(address) == ip_address(address).packed


def test_no_two_service_ports_share_a_digest():
    from kproxy.core.objects import Protocol
    from kproxy.core.table import ServicePortKey

    names = [("a", "b-c", ""), ("a-b", "c", ""), ("a", "b", "c"), ("a", "bc", "")]
    keys = [ServicePortKey(*name, protocol) for name in names for protocol in Protocol]
    assert len({service_digest(key) for key in keys}) == len(keys)
