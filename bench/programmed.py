"""A node that forwards for a cluster, and the programs in C that load it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.cluster import Cluster, Document
from bench.stage import IPTABLES, IPVS, Stage, apply_once, built_stage, of_manifests, running_agent

_HERE = Path(__file__).parent


@contextlib.contextmanager
def programmed(cluster: Cluster, data_path: str, more: Sequence[Document] = ()) -> Iterator[Stage]:
    """Yield a node that forwards for a cluster and more objects.

    Rules of iptables and virtual servers stand without an agent; in ebpf mode it runs, as it has to
    learn of pods.
    """
    with (
        tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
        built_stage() as stage,
        contextlib.ExitStack() as closing,
    ):
        manifests = Path(scratch) / "manifests"
        cluster.write(manifests)
        (manifests / "more.json").write_text(
            json.dumps({"apiVersion": "v1", "kind": "List", "items": list(more)})
        )
        if data_path in (*IPTABLES, IPVS):
            apply_once(stage, of_manifests(manifests), data_path)
        else:
            agent = running_agent(stage, of_manifests(manifests), data_path)
            closing.enter_context(agent).wait_for("ready: ")
        yield stage


def compiled(name: str, folder: Path) -> Path:
    """Compile a file of this folder, and return the program."""
    program = folder / name.removesuffix(".c")
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program)]
    subprocess.run([*command, str(_HERE / name)], check=True)
    return program
