"""A data path that forwards nothing: a kernel made of a dict, as strict as the real one.

It lets the loop run where nothing may be written, and it refuses what a kernel refuses: an object
that refers to a missing one, removing an object that is referred to, and whatever its script of
faults says.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from kproxy.core.addresses import Family, endpoint_text
from kproxy.core.flows import Destinations, Flow
from kproxy.core.image import Changes, Image, Key
from kproxy.core.table import Frontend, NodePort, ServicePort, ServicePortKey, TableChanges, Target
from kproxy.ports.data_path import BackendError, Metric, Sample

_OURS = "kproxy"
_KINDS = ("rules", "address", "target", "service", "frontend")  # each refers to earlier ones only
_SEPARATOR = b"\n"  # a value is a text, then one line for each object that it refers to


OBJECTS = Metric("kproxy_memory_objects", "Our objects in the kernel.", labels=("kind",))
STEPS = Metric(
    "kproxy_memory_steps_total",
    "Objects that we wrote or removed, IPv4 and IPv6 together.",
    total=True,
    by_family=False,
)


class Refused(Exception):
    """The kernel's answer to a request that would leave a dangling reference."""


class Bell:
    """A descriptor that is readable from each `ring` to the next `answer`."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK)

    def __enter__(self) -> Bell:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reading)
        os.close(self._writing)

    def fileno(self) -> int:
        return self._reading

    def ring(self) -> None:
        os.write(self._writing, b"!")

    def answer(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._reading, 4096)


class Kernel:
    """One family's named objects with references between them, and its tracked UDP flows.

    It outlives every `Memory` that writes to it, as a kernel outlives a process, and others may
    write to it too. `writes` counts every change that anybody made, `expired` what is to be
    tended; with a bell, the kernel tells when something expires.
    """

    def __init__(self, bell: Bell | None = None) -> None:
        self.bell = bell
        self.objects: dict[str, bytes] = {}
        self.flows: set[Flow] = set()
        self.expired = 0
        self.writes = 0
        self.has_room: Callable[[str, bytes], bool] = lambda name, value: True
        self._referrers: Counter[str] = Counter()

    def put(self, name: str, value: bytes) -> None:
        """Create or replace an object. Raises Refused if it refers to one that does not exist."""
        if not self.has_room(name, value):
            raise Refused(f"there is no room for {name}")
        references = _references(value)
        missing = [reference for reference in references if reference not in self.objects]
        if missing:
            raise Refused(f"{name} refers to {missing[0]}, which does not exist")
        self._referrers.subtract(_references(self.objects.get(name, b"")))
        self._referrers.update(references)
        self.objects[name] = value
        self.writes += 1

    def drop(self, name: str) -> None:
        """Remove an object. Raises Refused if it does not exist or is referred to."""
        if name not in self.objects:
            raise Refused(f"{name} does not exist")
        if self._referrers[name] > 0:
            raise Refused(f"{name} is in use")
        self._referrers.subtract(_references(self.objects.pop(name)))
        self.writes += 1

    def expire(self, count: int) -> None:
        """Let so many things expire."""
        self.expired += count
        if self.bell is not None:
            self.bell.ring()

    def flush(self, prefix: str) -> None:
        """Remove every object whose name begins with `prefix`, and what else refers to them."""
        doomed = {name for name in self.objects if name.startswith(prefix)}
        while True:
            more = {name for name, value in self.objects.items() if doomed & _references(value)}
            if more <= doomed:
                break
            doomed |= more
        for name in doomed:
            self._referrers.subtract(_references(self.objects.pop(name)))
        self.writes += 1


class Call(enum.Enum):
    """The calls of a Memory that a script of faults can make fail."""

    OBSERVE = "observe"
    COMMIT = "commit"
    DISTURBED = "disturbed"
    FLOWS = "flows"
    TEND = "tend"
    CLOSE = "close"


class Memory:
    """A data path of one family on a `Kernel`.

    `faults` maps a call to what happens each time it is made, in order: None lets it through, a
    number is the step (counted from 0) that is refused. Once used up, everything goes through.
    `calls` counts the calls that were made, `steps` the objects that commits wrote or removed.
    """

    def __init__(
        self,
        family: Family,
        kernel: Kernel,
        faults: Mapping[Call, Iterable[int | None]] | None = None,
    ) -> None:
        self.family = family
        self.calls: Counter[Call] = Counter()
        self.steps = 0
        self._kernel = kernel
        self._faults: dict[Call, Iterator[int | None]] = {
            call: iter(script) for call, script in (faults or {}).items()
        }
        self._seen = kernel.writes
        self._entries: dict[ServicePortKey, ServicePort] = {}
        self._target_users: Counter[Target] = Counter()

    def render(self, changes: TableChanges) -> Mapping[Key, bytes | None]:
        """Take table changes in; return the image entries that they alter, None where gone."""
        patch: dict[Key, bytes | None] = {}
        if changes.rules is not None:
            patch[_key("rules", "node")] = repr(changes.rules).encode()
        for address, known in changes.cluster_ips.items():
            patch[_key("address", address)] = b"known" if known else None
        touched: set[Target] = set()
        for key in changes.service_ports:
            touched |= self._remove(key, patch)
        for key, entry in changes.service_ports.items():
            if entry is not None:
                touched |= self._add(key, entry, patch)
        for target in touched:
            used = self._target_users[target] > 0
            patch[_target_key(target)] = b"" if used else None
        return patch

    def observe(self) -> Image:
        """Read back our own objects."""
        self._call(Call.OBSERVE)
        self._seen = self._kernel.writes
        objects = self._kernel.objects.items()
        return {name: value for name, value in objects if name.startswith(f"{_OURS}/")}

    def commit(self, changes: Changes) -> None:
        """Write one object after another: what is pointed at comes first and goes last."""
        refused_step = self._call(Call.COMMIT)
        steps: list[tuple[Key, bytes | None]] = [
            (key, changes.put[key]) for key in sorted(changes.put, key=_rank)
        ]
        steps += [(key, None) for key in sorted(changes.drop, key=_rank, reverse=True)]
        for step, (key, value) in enumerate(steps):
            if step == refused_step:
                raise BackendError(f"writing {key}", "refused by the script", transient=True)
            self._write(key, value)

    def disturbed(self) -> bool:
        """Say whether anybody else wrote since we last looked."""
        self._call(Call.DISTURBED)
        return self._kernel.writes != self._seen

    def flows(self, wanted: Destinations) -> Iterable[Flow]:
        """Return the tracked flows to `wanted`."""
        self._call(Call.FLOWS)
        return [flow for flow in self._kernel.flows if wanted.admit(flow)]

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Remove these flows; return how many still existed."""
        existing = self._kernel.flows & set(flows)
        self._kernel.flows -= existing
        return len(existing)

    def settle(self) -> None:
        """Do nothing: a commit leaves nothing undone here."""

    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Return nothing: what is rendered is all that was asked for."""
        return {}

    def owners(self, keys: Iterable[Key]) -> frozenset[ServicePortKey]:
        """Return the service ports of these objects; targets may be anybody's."""
        wanted = {str(key) for key in keys}
        return frozenset(key for key in self._entries if service_name(key) in wanted)

    def counters(self) -> Iterable[Sample]:
        """Return how many of our objects there are, and how many were written or removed."""
        names = [name.split("/") for name in self._kernel.objects]
        kinds = Counter(kind for owner, kind, *_ in names if owner == _OURS)
        yield from (Sample(OBJECTS, (kind,), float(kinds[kind])) for kind in _KINDS)
        yield Sample(STEPS, (), float(self.steps))

    def describe(self, key: Key) -> str:
        """Return what an object is."""
        assert isinstance(key, str)
        return key.removeprefix(f"{_OURS}/")

    def fileno(self) -> int | None:
        """Return the kernel's bell, if it has one."""
        return None if self._kernel.bell is None else self._kernel.bell.fileno()

    def tend(self, budget_s: float) -> bool:
        """Let go of one thing that expired, however much time there is."""
        self._call(Call.TEND)
        if self._kernel.bell is not None:
            self._kernel.bell.answer()
        self._kernel.expired -= min(1, self._kernel.expired)
        return self._kernel.expired > 0

    def close(self) -> None:
        """Note that nothing more is asked."""
        self._call(Call.CLOSE)

    def _call(self, call: Call) -> int | None:
        """Count a call and return the step to refuse; reads have a single step."""
        self.calls[call] += 1
        refused_step = next(self._faults.get(call, iter(())), None)
        if refused_step is not None and call is not Call.COMMIT:
            raise BackendError(call.value, "refused by the script", transient=True)
        return refused_step

    def _write(self, key: Key, value: bytes | None) -> None:
        try:
            if value is None:
                self._kernel.drop(key)
            else:
                self._kernel.put(key, value)
        except Refused as error:
            raise BackendError(f"writing {key}", str(error), transient=False) from error
        self.steps += 1
        self._seen += 1

    def _remove(self, key: ServicePortKey, patch: dict[Key, bytes | None]) -> set[Target]:
        entry = self._entries.pop(key, None)
        if entry is None:
            return set()
        patch[_key("service", _service_text(key))] = None
        for frontend in entry.frontends:
            patch[_frontend_key(key, frontend)] = None
        targets = {*entry.targets, *entry.local_targets}
        self._target_users.subtract(targets)
        return targets

    def _add(
        self, key: ServicePortKey, entry: ServicePort, patch: dict[Key, bytes | None]
    ) -> set[Target]:
        targets = {*entry.targets, *entry.local_targets}
        self._entries[key] = entry
        self._target_users.update(targets)
        service = _key("service", _service_text(key))
        text = "|".join(map(repr, (entry.internal, entry.external, entry.external_local)))
        text += f"|{entry.sources}|{entry.affinity_timeout_s}"
        patch[service] = _value(text, sorted(_target_key(target) for target in targets))
        for frontend in entry.frontends:
            patch[_frontend_key(key, frontend)] = _value(_via_text(frontend), [service])
        return targets


def _key(kind: str, rest: str) -> Key:
    return f"{_OURS}/{kind}/{rest}"


def _target_key(target: Target) -> Key:
    return _key("target", f"{target}{' local' if target.local else ''}")


def _frontend_key(key: ServicePortKey, frontend: Frontend) -> Key:
    if isinstance(frontend, NodePort):
        return _key("frontend", f"{key.protocol.value} *:{frontend.port}")
    where = endpoint_text(frontend.address, frontend.port)
    return _key("frontend", f"{key.protocol.value} {where}")


def service_name(key: ServicePortKey) -> str:
    """Return the name of the object that stands for a service port."""
    return str(_key("service", _service_text(key)))


def _service_text(key: ServicePortKey) -> str:
    return f"{key} {key.protocol.value}"


def _via_text(frontend: Frontend) -> str:
    return "nodePort" if isinstance(frontend, NodePort) else frontend.via.value


def _value(text: str, references: Iterable[Key]) -> bytes:
    return _SEPARATOR.join(part.encode() for part in (text, *references))


def _references(value: bytes) -> set[str]:
    return {line.decode() for line in value.split(_SEPARATOR)[1:]}


def _rank(key: Key) -> tuple[int, str]:
    """Order keys so that an object comes after all that it may refer to."""
    return _KINDS.index(key.split("/", 2)[1]), key
