"""What one run of the bench measured, and the file that holds it: JSON, one record a line.

The first line says what ran where, the last one that the run came to its end; between them stands
a line for each sample. Each is written at once, so a run that was interrupted keeps what it had.

A figure is what is measured again and again: a measure of one part, of one proxy or peer, under
circumstances that `where` names. It has one sample a round. Rounds are shared by all figures of a
part, so figures are compared round by round.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self, TypeVar

import msgspec

from kproxy.text.escaping import printable, shown

Better = Literal["more", "less"]
Value = str | int | float
Where = Mapping[str, Value]
Quantile = tuple[Annotated[float, msgspec.Meta(ge=0, le=1)], float]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]

QUANTILES = {0.5: "p50", 0.99: "p99", 0.999: "p99.9"}  # which figures are made of distributions

_PLACE = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


class BadResults(Exception):
    """A file, or a record, that says nothing to rely on. One line: file, line, field and value."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What has a sample in each round. `where` is sorted, so equal figures compare equal."""

    part: str
    measure: str
    unit: str
    who: str
    where: tuple[tuple[str, Value], ...]


class _Record(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"
):
    """A line of the file."""


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the run was measured on."""

    cpu: str
    cores: int
    memory_gb: float


class Run(_Record, frozen=True, kw_only=True, tag="run"):
    """What ran where. `dirty` says that files differed from the commit."""

    started: _Moment
    commit: str
    dirty: bool
    preset: str
    parameters: Mapping[str, object]
    machine: Machine
    kernel: str
    versions: Mapping[str, str]


class _Measured(_Record, frozen=True, kw_only=True):
    part: str
    measure: str
    unit: str
    who: str
    where: Where
    round: int

    @property
    def figure(self) -> Figure:
        """What this was measured of."""
        return Figure(
            self.part, self.measure, self.unit, self.who, tuple(sorted(self.where.items()))
        )


class Sample(_Measured, frozen=True, kw_only=True, tag="sample"):
    """What one round measured of a figure."""

    better: Better
    value: float


class Distribution(_Measured, frozen=True, kw_only=True, tag="distribution"):
    """How one round's many values of a figure are spread: pairs of a quantile and its value."""

    quantiles: tuple[Quantile, ...]


class Limit(_Record, frozen=True, kw_only=True, tag="limit"):
    """What kept the figures of a part from being better, in a sentence."""

    part: str
    who: str
    where: Where
    text: str


class End(_Record, frozen=True, kw_only=True, tag="end"):
    """The last line. Without it, or without `complete`, the run was interrupted."""

    finished: _Moment
    complete: bool


Record = Run | Sample | Distribution | Limit | End


@dataclass(frozen=True, slots=True)
class Results:
    """All that a file holds."""

    run: Run
    samples: tuple[Sample, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    limits: tuple[Limit, ...] = ()
    end: End | None = None

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return self.end is not None and self.end.complete

    def figures(self) -> dict[Figure, Rounds]:
        """Return the samples of each figure, figures in the order of the file.

        The usual quantiles of a distribution are figures too, named as in "latency, p99".
        """
        found: dict[Figure, Rounds] = {}
        for sample in self.samples:
            rounds = found.setdefault(sample.figure, Rounds(sample.better))
            rounds.values[sample.round] = sample.value
        for each in self.distributions:
            for quantile, value in each.quantiles:
                if name := QUANTILES.get(quantile):
                    figure = replace(each.figure, measure=f"{each.measure}, {name}")
                    found.setdefault(figure, Rounds("less")).values[each.round] = value
        return found


@dataclass(frozen=True, slots=True)
class Rounds:
    """The samples of a figure by their round."""

    better: Better
    values: dict[int, float] = field(default_factory=dict)


class Writer:
    """Writes a new file, each record at once."""

    def __init__(self, path: Path, run: Run) -> None:
        """Begin the file. Raises FileExistsError: results are never overwritten."""
        self._checked = _Checked(str(path))
        self._file = path.open("xb", buffering=0)
        self._write(run)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, record: Sample | Distribution | Limit) -> None:
        """Append a record. Raises BadResults, and writes nothing, where no reader would take it."""
        self._write(record)

    def end(self, finished: datetime, *, complete: bool) -> None:
        """Append the last line."""
        self._write(End(finished=finished, complete=complete))

    def _write(self, record: Record) -> None:
        line = msgspec.json.encode(record)
        self._checked.add(line)
        self._file.write(line + b"\n")


def read(path: Path) -> Results:
    """Return what a file holds; a last line that was cut off is left out. Raises BadResults."""
    checked = _Checked(str(path))
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BadResults(f"{path}: {error.strerror}") from error
    for line in lines:
        checked.add(line)
    if rest and _is_whole(rest):
        checked.add(rest)
    return checked.results()


def _is_whole(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


class _Checked:
    """Takes lines in their order, and refuses what could not be relied on."""

    def __init__(self, name: str) -> None:
        self._name = printable(name)
        self._records: list[Record] = []
        self._better: dict[Figure, Better] = {}
        self._seen: set[tuple[str, Figure, int]] = set()

    def add(self, line: bytes) -> None:
        """Take the next line. Raises BadResults."""
        record = self._decoded(line)
        if problem := self._problem(record):
            raise self._refused(problem)
        self._records.append(record)
        if isinstance(record, Sample):
            self._better[record.figure] = record.better
        if isinstance(record, Sample | Distribution):
            self._seen.add(_identity(record))

    def results(self) -> Results:
        """Return everything that was taken. Raises BadResults if that is nothing."""
        if not self._records:
            raise BadResults(f"{self._name}: is empty: it holds not even a first line")
        run = self._records[0]
        assert isinstance(run, Run), "nothing else is taken as the first line"
        last = self._records[-1]
        return Results(
            run,
            tuple(_of(Sample, self._records)),
            tuple(_of(Distribution, self._records)),
            tuple(_of(Limit, self._records)),
            last if isinstance(last, End) else None,
        )

    def _decoded(self, line: bytes) -> Record:
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._refused(f"no JSON: {error}: {shown(line)}") from error
        try:
            record: Record = msgspec.convert(value, Record)
        except msgspec.ValidationError as error:
            raise self._refused(_explained(str(error), value)) from error
        return record

    def _problem(self, record: Record) -> str:
        """Return why a record cannot stand here, "" if it can."""
        if self._records and isinstance(self._records[-1], End):
            return "something stands after the line that ends the run"
        if isinstance(record, Run) == bool(self._records):
            return "type: a run is the first line, and no other"
        if isinstance(record, Sample | Distribution) and _identity(record) in self._seen:
            measured = f"{shown(record.measure)}, {shown(record.who)}"
            return f"round: {record.round} is there twice of {measured}"
        if isinstance(record, Sample):
            before = self._better.get(record.figure, record.better)
            if before != record.better:
                return (
                    f"better: {record.better!r}, but {before!r} in an earlier sample of the figure"
                )
        if isinstance(record, Distribution) and not _is_rising(record.quantiles):
            return f"quantiles: do not rise: {shown(record.quantiles)}"
        return ""

    def _refused(self, why: str) -> BadResults:
        return BadResults(f"{self._name}:{len(self._records) + 1}: {printable(why)}")


def _identity(record: Sample | Distribution) -> tuple[str, Figure, int]:
    return type(record).__name__, record.figure, record.round


def _is_rising(quantiles: tuple[Quantile, ...]) -> bool:
    return bool(quantiles) and all(
        one[0] < other[0] and one[1] <= other[1] for one, other in itertools.pairwise(quantiles)
    )


_Kind = TypeVar("_Kind", bound=_Record)


def _of(kind: type[_Kind], records: list[Record]) -> Iterator[_Kind]:
    return (each for each in records if isinstance(each, kind))


def _explained(message: str, line: object) -> str:
    """Return what msgspec says of a line, with the value that it names by a path only."""
    place = _PLACE.search(message)
    if place is None:
        return f"{message}: {shown(line)}"
    value = line
    for name, index in _STEP.findall(place[1]):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list):
            value = value[int(index)]
    return f"{place[1].removeprefix('.')}: {message[: place.start()]}: {shown(value) or 'null'}"
