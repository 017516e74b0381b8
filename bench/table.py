"""Write the tables of numbers in README.md again, from bench/results/."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import goals
from bench.model import read
from bench.record import RESULTS, Row, ratio

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- numbers: `make numbers` writes what follows -->", "<!-- end of numbers -->"

FULL = RESULTS / "full.jsonl"  # of `python -m bench run --preset full`

_REFERENCE = "iptables-nft"  # of mode ipvs

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
    """Return the lines of all tables: the goals first, as the last full run answers them."""
    if FULL.exists():
        yield from goals.lines(read(FULL))
    tables = {
        "sync": _sync,
        "api": _api,
        "pace": _pace,
        "connections": _connections,
        "forwarding": _forwarding,
        "ipvs": _ipvs,
        "programs": _programs,
        "core": _core,
    }
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
    parameters = document["parameters"]
    yield (
        f"The agent of a cluster: {parameters['services']:,} Services with "
        f"{parameters['endpoints']} endpoints each from a real API server, which shares its cores."
    )
    yield ""
    alone, *agents = document["results"]
    yield from _table(
        (
            "data path",
            "all in hand, s",
            "first sync, s",
            "memory, MB (RSS, PSS)",
            "peak with children, MB (PSS)",
        ),
        [
            (
                _title(row["what"]),
                row["in_hand_s"]["median"],
                row["first_sync_s"]["median"],
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
    soonest_s, latest_s = parameters["alone_s"]
    yield (
        f"One change of {parameters['services']:,} Services with {parameters['endpoints']} "
        "endpoints each, from its being stored in a real API server until packets follow: alone, "
        f"{soonest_s} to {latest_s} s after the last, and while 100 others a second come:"
    )
    yield ""
    yield from _table(
        (
            "data path",
            "alone, ms (median, 99 %)",
            "at 100 a second, ms (median, 99 %)",
            "CPU for 1,000 changes, s",
        ),
        [
            (
                _title(row["data_path"]),
                _median_and_p99(row["change_ms"]),
                _median_and_p99(row["storm_change_ms"]),
                row["storm_cpu_s"],
            )
            for row in document["results"]
        ],
    )
    yield from _source(document)


def _median_and_p99(values: Row) -> str:
    return f"{values['median']:.0f}, {values['p99']:.0f}"


def _connections(document: Row) -> Iterator[str]:
    many = f"{document['parameters']['services']:,} Services"
    yield (
        "New TCP connections, one client without a pause: from a pod of the node straight to an "
        "endpoint or to a clusterIP, from outside to a NodePort whose endpoints are remote:"
    )
    yield ""
    yield from _table(
        ("data path", "way", "connections/s, median", "ratio"),
        [
            (
                _title(row["data_path"]),
                row["path"].replace("many", many),
                f"{row['per_second']['median']:,.0f}",
                "; ".join(
                    f"{ratio:.2f} of {_baseline(name, row['data_path']).replace('many', many)}"
                    for name, ratio in row["ratios"].items()
                ),
            )
            for row in document["results"]
        ],
    )
    yield from _source(document)


def _forwarding(document: Row) -> Iterator[str]:
    parameters = document["parameters"]
    yield (
        f"What a node with {parameters['services']:,} Services forwards from one sender: UDP of "
        f"64 bytes in {parameters['flows']:,} flows that are no Service's, and one TCP stream to a "
        "pod of the node, through a NodePort; without kproxy straight to the pod:"
    )
    yield ""
    yield from _table(
        ("what", "data path", "rate, median", "ratio to a node without kproxy"),
        [
            (
                row["what"],
                _title(row["data_path"]),
                f"{row['rate']['median']:,.0f}",
                f"{row['ratio_to_no_kproxy']:.2f}",
            )
            for row in document["results"]
        ],
    )
    yield from _source(document)


def _ipvs(document: Row) -> Iterator[str]:
    parameters = document["parameters"]
    size = f"{parameters['services']:,} Services with {parameters['endpoints']} endpoints each"
    where = ", in a virtual machine, which is emulated: only ratios mean something there"
    yield f"Mode ipvs at {size}{where if 'host' in document else ''}:"
    yield ""
    yield from _table(("what", "ratio", "measured"), list(_ipvs_rows(document)))
    yield from _source(document)


def _ipvs_rows(document: Row) -> Iterator[tuple[str, str, str]]:
    many = f"{document['parameters']['services']:,} Services"
    for row in (each for each in document["results"] if each["what"] == "connections"):
        if row["data_path"] == "ipvs" and row["ratios"]:
            yield (
                f"new connections/s, {row['path'].replace('many', many)}",
                "; ".join(
                    f"{value:.2f} of {_baseline(name, 'ipvs').replace('many', many)}"
                    for name, value in row["ratios"].items()
                ),
                f"{row['per_second']['median']:,.0f}",
            )
    firsts = {each["who"]: each for each in document["results"] if each["what"] == "first sync"}
    for name, unit in (("first_sync_s", "first sync"), ("cpu_s", "CPU of the first sync")):
        if firsts:
            ours, theirs = (firsts[who][name] for who in ("kproxy", "kube-proxy"))
            yield (
                f"{unit}, from a fake API server",
                f"{ratio(ours, theirs):.2f} of kube-proxy in mode ipvs",
                f"{_seconds(ours)}; kube-proxy {_seconds(theirs)}",
            )
    yield from _ipvs_change(document)


def _seconds(values: Sequence[float]) -> str:
    return f"{', '.join(f'{value:.1f}' for value in values)} s"


def _ipvs_change(document: Row) -> Iterator[tuple[str, str, str]]:
    sent = next((each for each in document["results"] if each["what"] == "sent"), None)
    if sent:
        yield (
            "one change, to the kernel",
            "",
            f"{sent['messages']:.0f} netlink messages, {sent['bytes']:,.0f} bytes, "
            f"{sent['programs']:.0f} programs started",
        )
    there = _costs(document)
    here = _costs(document.get("host") or document)
    if "ipvs" not in there:
        return
    for name, title in (("pure", "reading, compiling, rendering"), (_REFERENCE, "iptables mode")):
        slower = there[name] / here[name]
        yield (
            f"CPU of one change, as this host's processor is faster at {title}",
            f"{slower:.1f} times",
            f"{there['ipvs'] / slower:.0f} ms ({there['ipvs']:.0f} ms there)",
        )


def _costs(document: Row) -> dict[str, float]:
    """Return the milliseconds of CPU of one change by data path, and of what needs no kernel."""
    costs = {}
    for row in document["results"]:
        if row["what"] == "one change":
            costs[row["data_path"]] = row["cpu_per_change_ms"]
        if row["what"] == "pure":
            costs["pure"] = row["cpu_ms"]
    return costs


def _programs(document: Row) -> Iterator[str]:
    parameters = document["parameters"]
    yield (
        f"The eBPF programs by themselves, at {parameters['services']:,} Services: one run at "
        "ingress by test run, and what the kernel charges for the maps of IPv4:"
    )
    yield ""
    yield from _table(
        ("what", "median"),
        [
            (row["what"], f"{row['ns']['median']:,.0f} ns" if "ns" in row else _size(row["bytes"]))
            for row in document["results"]
        ],
    )
    yield from _source(document)


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count:.0f} bytes"


def _title(data_path: str) -> str:
    """Return what the page calls a data path."""
    return data_path.replace("-nft", ", nf_tables").replace("-", ", ")


def _baseline(name: str, seen_from: str) -> str:
    data_path, _, path = name.partition(", ")
    return path if data_path == seen_from else f"{path} ({_title(data_path)})"


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
