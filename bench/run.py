"""`python -m bench run`: what is measured, of whom, and where it goes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console

from bench.bed import chosen
from bench.load.frames import LEAST_BYTES, MOST_BYTES, MOST_FLOWS
from bench.load.talk import PORTS
from bench.machine import run_inside
from bench.model import Writer
from bench.parameters import PRESETS, Parameters, Size
from bench.parts import PARTS
from bench.peers import KPROXY, PEERS
from bench.progress import Display
from bench.runner import Run, planned
from bench.surroundings import described
from bench.traffic import WAYS
from tests.support.fetched import Unavailable

_INTERRUPTED, _FAILED = 130, 1
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FOLDER = Path("build")


class Names(click.ParamType[tuple[str, ...]]):
    """Names that are known, with commas between them."""

    name = "names"

    def __init__(self, known: Iterable[str]) -> None:
        self._known = tuple(known)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names. Fails by naming all that there are."""
        names = tuple(filter(None, (name.strip() for name in str(value).split(","))))
        for name in names:
            if name not in self._known:
                self.fail(f"{name!r} is none of {', '.join(self._known)}", param, ctx)
        return names


class Sizes(click.ParamType[tuple[Size, ...]]):
    """Sizes of cluster: 1000x10 is 1,000 Services with 10 endpoints each."""

    name = "sizes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Size, ...]:
        """Return the sizes."""
        try:
            pairs = [map(int, size.split("x")) for size in str(value).split(",")]
            sizes = tuple(Size(*pair) for pair in pairs)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not like 100x10,1000x10", param, ctx)
        if not all(1 <= size.services <= 10_000 and 1 <= size.endpoints <= 100 for size in sizes):
            self.fail("1 to 10,000 Services, 1 to 100 endpoints each", param, ctx)
        return sizes


def _help(text: str, known: Iterable[str]) -> str:
    return f"{text} Any of: {', '.join(known)}."


_PARTS = "\n".join(f"  {part.name:14} {part.about}" for part in PARTS.values())
_EPILOG = f"""\
\b
Parts:
{_PARTS}

\b
Peers:
  routing        a node that only routes: the physical limit
  straight       a node that also tracks connections, as each that filters does;
                 through both, clients call endpoints
  kube-proxy-…   the real one, in one of its modes

\b
Paths:
  clusterip      from a pod of the node to a clusterIP, endpoints elsewhere
  nodeport       from outside to a NodePort, endpoints elsewhere
  nodeport-local from outside to a NodePort, the endpoint a pod of the node
  no-service     from a pod of the node to an address that is no Service's

\b
Examples:
  python -m bench run                              everything, in 5 minutes
  python -m bench run --preset full                everything, in 40
  python -m bench run --parts packets --flows 1    is one flow faster?
  python -m bench run --data-paths ebpf --peers routing --parts connections

Ctrl-C ends a run at once: the host is left clean, and what was measured is in the file.
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="quick",
    show_default=True,
    help="What the other options are if they are not given: under 5 minutes, or under 40.",
)
@click.option("--parts", type=Names(PARTS), help="What is measured: see below. Default: all.")
@click.option(
    "--data-paths", type=Names(KPROXY), help=_help("Of kproxy; those that this kernel has.", KPROXY)
)
@click.option("--peers", type=Names(PEERS), help=_help("Measured in the same rounds.", PEERS))
@click.option("--sizes", type=Sizes(), help="Services x endpoints of each: 100x10,10000x10.")
@click.option("--paths", type=Names(WAYS), help="Ways through the node: see below.")
@click.option("--protocols", type=Names(("TCP", "UDP")), help="TCP,UDP")
@click.option("--families", type=Names(("IPv4", "IPv6")), help="Of packets and requests.")
@click.option("--flows", type=click.IntRange(1, MOST_FLOWS), help="Of packets; 10,000 by default.")
@click.option(
    "--packet-size",
    type=click.IntRange(LEAST_BYTES, MOST_BYTES),
    help="Bytes of a packet on the wire; 64 by default.",
)
@click.option(
    "--requests", type=click.IntRange(1, PORTS), help="Of a visit, each from a port of its own."
)
@click.option("--requests-per-s", type=click.IntRange(1, 20_000), help="Their pace.")
@click.option("--seconds", type=click.FloatRange(0.02, 60), help="Of load in each visit.")
@click.option("--repeats", type=click.IntRange(1, 1000), help="Rounds, in which all are visited.")
@click.option("--changes", type=click.IntRange(1, 1000), help="Timed one by one, of each start.")
@click.option(
    "--slow-repeats",
    type=click.IntRange(1, 100),
    help="Rounds of control, disruption and programs, whose visits take long.",
)
@click.option(
    "--machine",
    is_flag=True,
    help="On Debian's kernel, which has ipvs, in a virtual machine. It is emulated: only ratios of "
    "one run mean something there.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="A new file; build/bench-TIME.jsonl by default.",
)
@click.pass_context
def run(
    context: click.Context, /, *, preset: str, machine: bool, to: Path | None, **given: Any
) -> None:
    """Measure data paths of kproxy and its peers, side by side.

    All stand on nodes of their own, made of network namespaces and alike, and follow one API
    server with the same Services. They are visited in rounds, each round in another order: only
    what one run measured is comparable, as this machine is shared.

    The results are JSON lines: what is measured is written at once, sample by sample.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    parameters = replace(PRESETS[preset], **wanted)
    parameters = replace(parameters, parts=parameters.parts or tuple(PARTS))
    if os.geteuid() != 0 and not machine:
        raise click.ClickException("network namespaces need root: use `make bench`, or sudo")
    file = to or _FOLDER / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        raise click.ClickException(f"{file} is there already: results are never overwritten")
    _listen()
    if not machine:
        sys.exit(_measured(preset, parameters, file))
    try:
        sys.exit(run_inside([f"--preset={preset}", *_as_given(context)], file))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Unavailable as error:
        raise click.ClickException(str(error)) from error


def _as_given(context: click.Context) -> Iterator[str]:
    """Return the options that say what is measured, as they stood on the command line."""
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if option.name not in ("preset", "machine", "to") and value is not None:
            several = isinstance(value, tuple)
            yield f"{option.opts[0]}={','.join(map(str, value)) if several else value}"


def _measured(preset: str, parameters: Parameters, file: Path) -> int:
    """Measure into a file; return the exit code."""
    console = Console(stderr=True)
    peers = chosen(parameters)
    parts = [part for name, part in PARTS.items() if name in parameters.parts]
    names = [part.name for _, at_size in planned(parts, parameters) for part in at_size]
    with (
        Writer(file, described(preset, parameters, peers)) as writer,
        Display(names, console) as display,
    ):
        for peer in peers:
            if lacking := peer.lacks():
                display.say(f"without {peer.name}: {lacking}")
        measuring = Run(parts, parameters, writer=writer, progress=display)
        try:
            measuring.measure()
        except KeyboardInterrupt:
            display.say(f"interrupted; what was measured is in {file}")
            return _INTERRUPTED
        display.say(f"measured: {file}")
    return _FAILED if measuring.failed else 0


def _listen() -> None:
    """Let whatever tells us to end interrupt the run."""
    for each in _ENDINGS:
        if each is not signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:  # by nohup
            signal.signal(each, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """End the run, once: neither we nor what cleans up for us is to be interrupted in that."""
    for each in _ENDINGS:
        signal.signal(each, signal.SIG_IGN)
    os.write(2, b"cleaning up\n")  # whoever was interrupted may be writing there
    raise KeyboardInterrupt
