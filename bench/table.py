"""Write the table of numbers in README.md again, from bench/results/*.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.record import RESULTS, Row

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- numbers: `make numbers` writes what follows -->", "<!-- end of numbers -->"

_CORE = {
    "parse_s": ("read all objects", "s"),
    "compile_s": ("compile all", "s"),
    "render_s": ("render all (iptables)", "s"),
    "one_change_parse_ms": ("read one slice", "ms"),
    "one_change_compile_ms": ("compile one endpoint's change", "ms"),
    "one_change_render_ms": ("render one endpoint's change", "ms"),
}


def main() -> None:
    """Replace what stands between the markers."""
    text = README.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{README}: the markers of the numbers are missing")
    numbers = "\n".join(sections())
    README.write_text(f"{head}{begin}\n\n{numbers}\n{end}{tail}", encoding="utf-8")


def sections() -> Iterator[str]:
    """Return the lines of all tables."""
    names = ("sync", "api", "pace", "connections", "core")
    sync, api, pace, connections, core = (_read(name) for name in names)
    if sync:
        yield from _sync(sync)
    if api:
        yield from _api(api)
    if pace:
        yield from _pace(pace)
    if connections:
        yield from _connections(connections)
    if core:
        yield from _core(core)


def _sync(document: Row) -> Iterator[str]:
    parameters = document["parameters"]
    yield (
        f"The agent: {parameters['endpoints']} endpoints a Service, manifests of "
        f"{parameters['services_per_file']} Services a file. A change moves one endpoint; it is "
        "over when a client's packets reach the new address."
    )
    yield ""
    yield from _table(
        (
            "iptables variant",
            "Services",
            "first sync, s",
            "one change, ms (median, max)",
            "CPU for one change, ms",
            "memory, MB (RSS, PSS)",
            "peak with children, MB (PSS)",
        ),
        [
            (
                row["variant"],
                f"{row['services']:,}",
                row["first_sync_s"],
                f"{row['change_ms']['median']:.0f}, {row['change_ms']['max']:.0f}",
                f"{row['cpu_per_change_ms']:.0f}",
                f"{row['steady_rss_mb']:.0f}, {row['steady_pss_mb']:.0f}",
                f"{row['peak_with_children_pss_mb']:.0f}",
            )
            for row in document["results"]
        ],
    )
    yield from _source(document)


def _api(document: Row) -> Iterator[str]:
    parameters = document["parameters"]
    yield (
        f"The agent of a cluster: {parameters['services']:,} Services with "
        f"{parameters['endpoints']} endpoints each from a real API server, which shares its cores. "
        "A change is over when packets reach an address that was stored at its beginning."
    )
    yield ""
    alone, *agents = document["results"]
    yield from _table(
        (
            "iptables variant",
            "all in hand, s",
            "first sync, s",
            "one change, ms (median, max)",
            "memory, MB (RSS, PSS)",
            "peak with children, MB (PSS)",
        ),
        [
            (
                row["what"],
                row["in_hand_s"],
                row["first_sync_s"],
                f"{row['change_ms']['median']:.0f}, {row['change_ms']['max']:.0f}",
                f"{row['steady_rss_mb']:.0f}, {row['steady_pss_mb']:.0f}",
                f"{row['peak_with_children_pss_mb']:.0f}",
            )
            for row in agents
        ],
    )
    yield (
        f"Following and compiling alone, without a kernel: in hand after "
        f"{alone['in_hand_s']['median']} s (median of {alone['in_hand_s']['count']} starts), "
        f"{alone['steady_rss_mb']:.0f} MB, {alone['cores']:.2f} cores at 200 changes a second."
    )
    yield ""
    yield from _source(document)


def _pace(document: Row) -> Iterator[str]:
    parameters = document["parameters"]
    soonest_s, latest_s = parameters["between_s"]
    yield (
        f"Changes that come {soonest_s} to {latest_s} s after one another, at random, and 1,000 of "
        f"them at 100 a second, with {parameters['endpoints']} endpoints a Service, from a real "
        "API server:"
    )
    yield ""
    yield from _table(
        (
            "iptables variant",
            "Services",
            "one change, ms (median, 90 %, max)",
            "CPU for 1,000 changes, s",
        ),
        [
            (
                row["variant"],
                f"{row['services']:,}",
                ", ".join(f"{row['change_ms'][each]:.0f}" for each in ("median", "p90", "max")),
                row["storm_cpu_s"],
            )
            for row in document["results"]
        ],
    )
    yield from _source(document)


def _connections(document: Row) -> Iterator[str]:
    many = f"{document['parameters']['services']:,} Services"
    yield "New TCP connections, forwarded by the node, one client without a pause:"
    yield ""
    yield from _table(
        ("iptables variant", "path", "connections/s, median", "ratio to a single Service"),
        [
            (
                row["variant"],
                row["path"].replace("many", many),
                f"{row['per_second']['median']:,.0f}",
                f"{row['ratio_to_1_service']:.2f}",
            )
            for row in document["results"]
        ],
    )
    yield from _source(document)


def _core(document: Row) -> Iterator[str]:
    parameters = document["parameters"]
    size = f"{parameters['services']:,} Services with {parameters['endpoints']} endpoints each"
    yield f"CPU time of the pure parts at {size}:"
    yield ""
    rows = {row["what"]: row for row in document["results"]}
    yield from _table(
        ("what", "median"),
        [
            (title, f"{rows[name]['median']:.2f} {unit}")
            for name, (title, unit) in _CORE.items()
            if name in rows
        ],
    )
    yield from _source(document)


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""


def _source(document: Row) -> Iterator[str]:
    yield (
        f"Measured on {document['date']} at {document['commit']}: Linux {document['kernel']}, "
        f"{document['cores']} cores ({document['cpu']}), {document['iptables']}."
    )
    yield ""


def _read(name: str) -> Row | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


if __name__ == "__main__":
    main()
