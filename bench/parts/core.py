"""What compiling and rendering cost, in CPU time: all of it, and one endpoint's change.

Nothing of the kernel is involved. Each run is a fresh process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time
from collections.abc import Iterable, Iterator, Sequence

from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from bench.bed import Bed
from bench.cluster import Cluster
from bench.objects import compiler as new_compiler
from bench.objects import lists, raw
from bench.parameters import Parameters, Size
from bench.part import Finding, Found, Measure, Part, Visit, circumstances, largest
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.parse import from_json
from kproxy.core.store import Upserted
from kproxy.core.table import TableChanges
from kproxy.node import heap

_CHANGES = 1000


MEASURES = {
    "parse_s": Measure("read all objects", "s", "less"),
    "compile_s": Measure("compile all", "s", "less"),
    "render_s": Measure("render all (iptables)", "s", "less"),
    "one_change_parse_ms": Measure("read one slice", "ms", "less"),
    "one_change_compile_ms": Measure("compile one endpoint's change", "ms", "less"),
    "one_change_render_ms": Measure("render one endpoint's change", "ms", "less"),
}


class Core(Part):
    """The pure parts."""

    name = "core"
    about = "CPU of reading, compiling and rendering, without a kernel"
    measures = tuple(MEASURES.values())
    warms_up = False

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return the one that they cost most at."""
        return largest(parameters)

    @contextlib.contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Run each time in a fresh process."""
        context = multiprocessing.get_context("spawn")

        def go() -> Iterable[Finding]:
            with context.Pool(1) as pool:
                figures = pool.apply(one_run, bed.size)
            return [Found(MEASURES[name], value) for name, value in figures.items()]

        yield [Visit("kproxy", circumstances(bed.size), go)]


def one_run(services: int, endpoints: int) -> dict[str, float]:
    """Measure everything once, with the garbage collector set as the agent sets it.

    Times are in the unit that the name ends with.
    """
    with heap.loading():
        return _one_run(services, endpoints)


def _one_run(services: int, endpoints: int) -> dict[str, float]:
    cluster = Cluster(services, endpoints)
    texts = [raw(document) for document in cluster.objects()]
    figures: dict[str, float] = {}
    before = time.process_time()
    objects = [from_json(kind, text) for kind, text in texts]
    figures["parse_s"] = time.process_time() - before
    del texts

    compiler = new_compiler()
    before = time.process_time()
    compiler.apply(lists(objects))
    figures["compile_s"] = time.process_time() - before

    renderer = Renderer(Family.IPV4, Options())
    before = time.process_time()
    _render(renderer, compiler.tables[Family.IPV4].everything())
    figures["render_s"] = time.process_time() - before

    heap.loaded()
    figures.update(_one_change(cluster, compiler, renderer))
    return figures


def _one_change(cluster: Cluster, compiler: Compiler, renderer: Renderer) -> dict[str, float]:
    """Move one endpoint of many Services, one after the other."""
    chance = random.Random(1)
    spent = {"parse": 0.0, "compile": 0.0, "render": 0.0}
    for moved in range(_CHANGES):
        document = cluster.endpoint_slice(chance.randrange(cluster.services), moved)
        kind, text = raw(document)
        at = [time.process_time()]
        new = from_json(kind, text)
        at.append(time.process_time())
        changes = compiler.apply((Upserted(new),))
        at.append(time.process_time())
        _render(renderer, changes[Family.IPV4])
        at.append(time.process_time())
        for name, start, end in zip(spent, at, at[1:], strict=False):
            spent[name] += end - start
    return {f"one_change_{name}_ms": 1000 * total / _CHANGES for name, total in spent.items()}


def _render(renderer: Renderer, changes: TableChanges) -> None:
    """Render the changed chains to text, as a commit does."""
    for key, value in renderer.update(changes).items():
        assert isinstance(key, str)
        if value is not None and not key.startswith(("jump/", "set/")):
            renderer.chain(key)
