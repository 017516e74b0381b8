"""Makes the visits of all parts, round by round, and writes down what they find.

Whoever is measured is visited in every round, each round in another order, so that a noisy machine
disturbs all alike. A visit that fails costs its own figures: why is written down, and it is not
made again.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.bed import FAILURES, Bed, reason
from bench.load.frames import Frames
from bench.model import Distribution, Limit, Sample, Value, Writer
from bench.parameters import Parameters, Size
from bench.part import Finding, Found, Limited, Part, Rounds, Spread, Visit
from bench.progress import Progress

_SEED = 12
_EVERYBODY = "everybody"


def planned(parts: Sequence[Part], parameters: Parameters) -> list[tuple[Size, list[Part]]]:
    """Return the sizes of cluster and what is measured at each, in the order of a run."""
    wanted = {size for part in parts for size in part.sizes(parameters)}
    return [
        (size, [part for part in parts if size in part.sizes(parameters)])
        for size in sorted(wanted)
    ]


class Run:
    """One run: its parts at each size, after each other."""

    def __init__(
        self,
        parts: Sequence[Part],
        parameters: Parameters,
        *,
        writer: Writer,
        progress: Progress,
    ) -> None:
        self._plan = planned(parts, parameters)
        self._parameters = parameters
        self._writer = writer
        self._progress = progress
        self._chance = random.Random(_SEED)
        self._limits: set[tuple[str, str, str]] = set()
        self._found: dict[tuple[int, str], Rounds] = {}  # of a part, by visit and measure
        self.failed = 0

    def measure(self) -> None:
        """Measure all. Ends with everything taken away again, also by KeyboardInterrupt."""
        try:
            with Frames() as frames:
                for size, parts in self._plan:
                    self._measure_at(size, parts, frames)
        except BaseException:
            self._writer.end(datetime.now(UTC), complete=False)
            raise
        self._writer.end(datetime.now(UTC), complete=True)

    def _measure_at(self, size: Size, parts: Sequence[Part], frames: Frames) -> None:
        def limit(who: str, text: str) -> None:
            self.failed += 1
            for part in parts:
                self._limit(part, who, {"services": size.services}, text)

        with (
            tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
            Bed(self._parameters, size, folder=Path(scratch), limit=limit, frames=frames) as bed,
        ):
            for part in parts:
                self._progress.title = f"{part.name}, {size.services:,} x {size.endpoints}"
                try:
                    with part.visits(bed) as visits:
                        self._make_rounds(part, visits)
                except FAILURES as error:
                    self.failed += 1
                    text = f"it could not be measured: {reason(error)}"
                    self._limit(part, _EVERYBODY, {"services": size.services}, text)

    def _make_rounds(self, part: Part, visits: Sequence[Visit]) -> None:
        rounds = part.repeats(self._parameters)
        protocols = self._parameters.protocols
        left = [each for each in visits if each.where.get("protocol") in (None, *protocols)]
        self._found.clear()
        self._progress.begin(len(left), rounds + part.warms_up)
        for number in range(-1 if part.warms_up else 0, rounds):
            for visit in self._chance.sample(left, len(left)):
                began_s = time.monotonic()
                if not self._made(part, visit, number):
                    left.remove(visit)
                self._progress.made(time.monotonic() - began_s, left=len(left))
        for visit, limited in part.judged(list(self._found.values())):
            self._limit(part, visit.who, visit.where, limited.text)

    def _made(self, part: Part, visit: Visit, number: int) -> bool:
        """Make one visit; return whether it is worth another one."""
        try:
            for finding in visit.go():
                if number >= 0:
                    self._note(part, visit, number, finding)
        except FAILURES as error:
            self.failed += 1
            text = f"it could not be measured: {reason(error)}"
            self._limit(part, visit.who, visit.where, text)
            return False
        return True

    def _note(self, part: Part, visit: Visit, number: int, finding: Finding) -> None:
        match finding:
            case Found(measure, value):
                rounds = Rounds(visit, measure, {})
                rounds = self._found.setdefault((id(visit), measure.name), rounds)
                rounds.values[number] = value
                self._writer.add(
                    Sample(
                        part=part.name,
                        measure=measure.name,
                        unit=measure.unit,
                        better=measure.better,
                        who=visit.who,
                        where=visit.where,
                        round=number,
                        value=value,
                    )
                )
            case Spread(measure, quantiles):
                self._writer.add(
                    Distribution(
                        part=part.name,
                        measure=measure.name,
                        unit=measure.unit,
                        who=visit.who,
                        where=visit.where,
                        round=number,
                        quantiles=quantiles,
                    )
                )
            case Limited(text):
                self._limit(part, visit.who, visit.where, text)

    def _limit(self, part: Part, who: str, where: Mapping[str, Value], text: str) -> None:
        said = (part.name, who, f"{sorted(where.items())} {text}")
        if said not in self._limits:
            self._limits.add(said)
            self._writer.add(Limit(part=part.name, who=who, where=where, text=text))
            self._progress.say(f"{part.name}, {who}: {text}")
