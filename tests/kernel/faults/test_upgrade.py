"""A newer version of the programs, started under traffic: nobody is cut, and the old one goes."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from backends.ebpf import compiler
from backends.ebpf.driver import loader
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
        # Others compile there meanwhile: what Python writes beside a source comes and goes.
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
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


def versions(node: Node) -> set[str]:
    """Return the marks of what is in force: of each family, and of what they share."""
    return {each for each in pins(node.place.bpffs) if "/current/version-" in each}


def wait_until_retired(node: Node) -> None:
    """Wait until nothing is left of versions that were in force before."""
    until(
        lambda: (
            not [each for each in pins(node.place.bpffs) if "/former" in each or "/next" in each]
        ),
        within_s=LONGEST_S,
        what="former versions are gone",
    )


def test_a_newer_version_takes_over_under_traffic(node, flowing_everywhere, newer):
    flowing = flowing_everywhere
    (agent,) = node.started
    before = versions(node)
    assert agent.stop() == 0
    node.tree = newer
    node.ready()
    wait_until_retired(node)
    assert len(versions(node)) == len(before)
    assert not versions(node) & before
    assert flowing.flow(2).new_met == flowing.lasting_met == {POD1}
    node.manifests.put("web", web_everywhere(POD2))
    until(lambda: flowing.flow(1).lasting_met == {POD1, POD2}, within_s=LONGEST_S, what="UDP moves")
    assert flowing.silenced == []


@pytest.mark.parametrize("entries", [1 << 17, 1 << 19], ids=["smaller", "larger"])
def test_connections_go_over_into_a_map_of_another_size(node, flowing_everywhere, entries):
    """Those that begin at that very moment may be lost."""
    flowing = flowing_everywhere
    (agent,) = node.started
    assert agent.stop() == 0
    node.configure(kproxy={"ebpf": {"flowEntries": entries}})
    node.ready()
    wait_until_retired(node)
    for family in Family:
        with loader.published_map(node.place.bpffs, family, "flows") as flows:
            assert flows.shape.max_entries == entries
    assert flowing.flow(2).new_met == flowing.lasting_met == {POD1}
    assert [line for line in flowing.silenced if "goes on" in line] == []
