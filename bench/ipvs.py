"""The ipvs data path beside iptables mode and the real kube-proxy, on a kernel that has ip_vs.

Where this one has not, all of it but the row of the host runs in a virtual machine (see `machine`).

- *connections*: as in `connections.py`, for one Service and for many.
- *one change*: as in `sync.py`; beside iptables mode, which is measured on the host too. That gives
  two measures of how much slower the machine is: this, and the parts that need no kernel. The CPU
  of a change in ipvs mode there, divided by each, is what it costs on the host's processor.
- *sent*: what goes to the kernel for one change.
- *first sync*: beside the real kube-proxy in mode ipvs, in turns (see `kube_proxy.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from bench import kube_proxy, machine
from bench.cluster import Cluster
from bench.connections import Way, measure_all
from bench.kube_proxy import KPROXY, KUBE_PROXY
from bench.one_change import pure, sent
from bench.record import Row, measured, write
from bench.stage import IPTABLES, IPVS
from bench.sync import measure

_REFERENCE = IPTABLES[1]
_PURE_CHANGES, _SENT_CHANGES = 100, 20
_WAYS = ("clusterIP", "NodePort")
_PARTS = ("sent", "first", "change", "connections")


@click.command()
@click.option("--services", default=1_000, show_default=True)
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--connections", default=500, show_default=True, help="In each visit.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--changes", default=10, show_default=True)
@click.option("--starts", default=2, show_default=True, help="Of each proxy.")
@click.option("--parts", default=",".join(_PARTS), show_default=True)
@click.option("--date", required=True, help="Written into the result.")
@click.option("--to", type=Path, help="Write the result there alone, without the host's.")
def main(
    *,
    services: int,
    endpoints: int,
    connections: int,
    rounds: int,
    changes: int,
    starts: int,
    parts: str,
    date: str,
    to: Path | None,
) -> None:
    """Measure mode ipvs against iptables mode and the real kube-proxy."""
    cluster = Cluster(services, endpoints)
    numbers = {
        "services": services,
        "endpoints": endpoints,
        "connections": connections,
        "rounds": rounds,
        "changes": changes,
        "starts": starts,
    }
    if to is None and machine.is_needed():
        arguments = [f"--{name}={value}" for name, value in numbers.items()]
        document = machine.run("bench.ipvs", [*arguments, f"--parts={parts}", f"--date={date}"])
        click.echo("ipvs: on the host", err=True)
        rows = _changes(cluster, changes, ()) if "change" in parts.split(",") else []
        document["host"] = measured("ipvs", date=date, parameters={}, results=rows)
        write(document)
        return
    document = measured("ipvs", date=date, parameters=numbers, results=())
    for rows in _rows(cluster, parts.split(","), numbers):
        document["results"] += rows
        if to is not None:
            to.write_text(json.dumps(document))  # after each part, as each may take long
    if to is None:
        write(document)


def _rows(cluster: Cluster, parts: Sequence[str], numbers: Row) -> Iterator[list[Row]]:
    """Measure part by part."""
    if "sent" in parts:
        click.echo("ipvs: what is sent", err=True)
        yield [sent(cluster, _SENT_CHANGES)]
    if "first" in parts:
        yield _first_syncs(cluster, numbers["starts"])
    if "change" in parts:
        yield _changes(cluster, numbers["changes"], (IPVS,))
    if "connections" in parts:
        found = measure_all(
            cluster.services,
            cluster.endpoints,
            (_REFERENCE, IPVS),
            rounds=numbers["rounds"],
            connections=numbers["connections"],
            among=_through_services,
        )
        yield [{"what": "connections", **row} for row in found]


def _changes(cluster: Cluster, changes: int, more: Sequence[str]) -> list[Row]:
    """Return what one change costs without a kernel, in iptables mode, and in others."""
    rows: list[Row] = [{"what": "pure", "cpu_ms": round(pure(cluster, _PURE_CHANGES), 2)}]
    for data_path in (_REFERENCE, *more):
        click.echo(f"ipvs: one change, {data_path}", err=True)
        rows.append({"what": "one change", **measure(cluster, data_path, changes)})
    return rows


def _first_syncs(cluster: Cluster, starts: int) -> list[Row]:
    seen: dict[str, list[kube_proxy.Started]] = {KPROXY: [], KUBE_PROXY: []}
    for _ in range(starts):
        for who, those in seen.items():
            click.echo(f"ipvs: first sync of {who}", err=True)
            those.append(kube_proxy.first_sync(cluster, who))
    return [kube_proxy.row_of(who, those) for who, those in seen.items()]


def _through_services(ways: list[Way]) -> list[Way]:
    """Return those through a Service, compared with the same in iptables mode too."""
    return [
        replace(way, baselines=(*way.baselines, f"{_REFERENCE}, {way.path}"))
        for way in ways
        if way.path.startswith(_WAYS)
    ]


if __name__ == "__main__":
    main()
