"""The forwarding tables of a folder of manifests, as they are at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kproxy.core.addresses import Family, Network
from kproxy.core.compile import Compiler
from kproxy.core.diagnosis import Diagnosis
from kproxy.core.settings import Settings
from kproxy.core.store import Connected
from kproxy.core.table import ForwardingTable
from kproxy.proxy.failures import BadUsage
from kproxy.proxy.remarks import conflict_lines, node_lines, overlap_lines, service_lines
from kproxy.watch.manifests.source import FolderLost, load, missing_node


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a folder says. `remarks` are lines about what is wrong, missing or claimed twice."""

    tables: dict[Family, ForwardingTable]
    diagnosis: Diagnosis
    remarks: tuple[str, ...]


def take_snapshot(folder: Path, settings: Settings, connected: frozenset[Network]) -> Snapshot:
    """Read and compile a folder of manifests; invalid objects are left out and remarked upon.

    `connected` are the networks that the node is directly connected to.
    Raises BadUsage if the folder cannot be read.
    """
    try:
        loaded = load(folder)
    except FolderLost as error:
        raise BadUsage(str(error)) from error
    compiler = Compiler(settings)
    compiler.apply((Connected(connected), *loaded.changes()))
    missing = missing_node(settings.node_name, loaded.objects)
    remarks = [problem.text() for problem in loaded.problems]
    remarks += [] if missing is None else [missing]
    remarks += node_lines(compiler.node)
    remarks += service_lines(compiler.services())
    remarks += overlap_lines(compiler.tables)
    remarks += conflict_lines(compiler.conflicts())
    diagnosis = Diagnosis(compiler, settings.node_name, loaded.left_out)
    return Snapshot(compiler.tables, diagnosis, tuple(remarks))
