"""Write the tables of numbers in README.md again, from bench/results/."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import goals
from bench.model import read

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- numbers: `make numbers` writes what follows -->", "<!-- end of numbers -->"

RESULTS = Path(__file__).parent / "results"
FULL = RESULTS / "full.jsonl"  # of `python -m bench run --preset full`

Row = dict[str, Any]


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
    """Return the lines of all tables: the goals first, as the last full run answers them.

    Those of earlier programs tell what no part measures, or needs the kernel's ipvs.
    """
    if FULL.exists():
        yield from goals.lines(read(FULL))
    tables = {"sync": _sync, "api": _api, "ipvs": _ipvs}
    for name, table in tables.items():
        if document := _read(name):
            yield from table(document)


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
            "data path",
            "Services",
            "first sync, s",
            "one change, ms (median, max)",
            "CPU for one change, ms",
            "memory, MB (RSS, PSS)",
            "peak with children, MB (PSS)",
        ),
        [
            (
                _title(row["data_path"]),
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
    parameters, (alone,) = document["parameters"], document["results"]
    yield (
        f"Following {parameters['services']:,} Services with {parameters['endpoints']} endpoints "
        "each of a real API server, and compiling them, without a kernel: in hand after "
        f"{alone['in_hand_s']['median']} s (median of {alone['in_hand_s']['count']} starts), "
        f"{alone['steady_rss_mb']:.0f} MB, {alone['cores']:.2f} cores at 200 changes a second."
    )
    yield ""
    yield from _source(document)


def _ipvs(document: Row) -> Iterator[str]:
    parameters, (sent,) = document["parameters"], document["results"]
    yield (
        f"One change in mode ipvs at {parameters['services']:,} Services with "
        f"{parameters['endpoints']} endpoints each: {sent['messages']:.0f} netlink messages, "
        f"{sent['bytes']:,.0f} bytes, {sent['programs']:.0f} programs started."
    )
    yield ""
    yield from _source(document)


def _title(data_path: str) -> str:
    """Return what the page calls a data path."""
    return data_path.replace("-nft", ", nf_tables").replace("-", ", ")


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
