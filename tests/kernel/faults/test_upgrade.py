"""A newer version of the programs, started under traffic: nobody is cut, and the old one goes."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from backends.ebpf import compiler
from backends.kernel.bpf.maps import MapType
from kproxy.core.addresses import Family
from tests.support.ebpf.fixtures import bytecode_folder
from tests.support.ebpf.on_node import pins
from tests.support.net.plan import POD1, POD2
from tests.support.node.node import EBPF, Node
from tests.support.node.proxy import ROOT
from tests.support.node.web import web_everywhere
from tests.support.waiting import LONGEST_S, until

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("variant", [EBPF], indirect=True)]

SIZED = {MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE}  # programs take any size of these


@pytest.fixture(params=["as large", "half as large"])
def newer(request, tmp_path, monkeypatch):
    """A tree of sources with the bytecode of another version, whose maps are so large."""
    tree = tmp_path / "newer"
    tree.mkdir()
    (tree / "kproxy").symlink_to(ROOT / "kproxy")
    for name in ("backends", "ebpf"):
        shutil.copytree(ROOT / name, tree / name)
    for source in sorted(compiler.SOURCES.glob("*.bpf.c")):
        units = [compiler.load_unit(source, each, cache=bytecode_folder()) for each in Family]
        altered = tree / "ebpf" / source.name
        altered.write_text(source.read_text() + "/* newer */\n")
        for family, unit in zip(Family, units, strict=True):
            maps = unit.maps if request.param == "as large" else halved(unit.maps)
            digest = compiler.request(altered, family).digest
            shipped = msgspec.structs.replace(unit, digest=digest, maps=maps)
            compiler.keep(tree / "backends/ebpf/bytecode", shipped)
    return tree


def halved(maps):
    return {
        name: shape._replace(max_entries=shape.max_entries // 2) if shape.type in SIZED else shape
        for name, shape in maps.items()
    }


def in_force(node: Node, family: Family) -> tuple[str, set[str]]:
    """Return the mark of the version in force, and what there is besides it."""
    names = pins(node.place.bpffs, family)
    (version,) = (each for each in names if each.startswith("current/version-"))
    return version, {each for each in names if each.startswith(("former", "next"))}


def test_a_newer_version_takes_over_under_traffic(node, flowing_everywhere, newer):
    flowing = flowing_everywhere
    (agent,) = node.started
    before = {family: in_force(node, family) for family in Family}
    assert agent.stop() == 0
    node.tree = newer
    node.ready()
    for family in Family:
        until(lambda f=family: not in_force(node, f)[1], within_s=LONGEST_S, what="it is retired")
        assert in_force(node, family)[0] != before[family][0]
    assert flowing.flow(2).new_met == flowing.lasting_met == {POD1}
    node.manifests.put("web", web_everywhere(POD2))
    until(lambda: flowing.flow(1).lasting_met == {POD1, POD2}, within_s=LONGEST_S, what="UDP moves")
    assert flowing.silenced == []
