"""The port that a data path implements: one object for each IP family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.image import Changes, Image, Key
from kproxy.core.table import TableChanges


class BackendError(Exception):
    """The kernel refused. `transient` means that the same call may work later."""

    def __init__(self, doing: str, detail: str, *, transient: bool) -> None:
        super().__init__(f"{doing}: {detail}")
        self.doing = doing
        self.detail = detail
        self.transient = transient


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the host check; `remedy` is empty where nothing is wrong.

    A miss with which the data path can work all the same is not `blocking`.
    """

    subject: str
    ok: bool
    detail: str
    remedy: str = ""
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity that a data path keeps, under the name that the metrics give it.

    - `total`: it only grows, as long as the process lives; such a name ends in `_total`.
    - `by_family`: it is told for IPv4 and IPv6 apart. Else their samples add up.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    total: bool = False
    by_family: bool = True


class Sample(NamedTuple):
    """What a quantity is at the moment; `labels` are values, in the order of the metric's names."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


class Backend(Protocol):
    """A data path of one family that can be brought in line with a forwarding table.

    Calls come from one thread, one at a time. Any of them but `render` may raise BackendError.
    """

    family: Family

    def render(self, changes: TableChanges) -> Mapping[Key, bytes | None]:
        """Take table changes in; return the image entries that they alter, None where gone.

        Pure: the image depends on the sum of all changes so far, not on their order.
        """

    def observe(self) -> Image:
        """Read back our own kernel objects, and only ours. Never writes."""

    def commit(self, changes: Changes) -> None:
        """Write the changes, all or nothing where the kernel allows it.

        Must never leave a frontend that points at a missing target: create what is pointed at
        first, delete it last. `changes.put` names rendered keys, the texts are the backend's.
        """

    def settle(self) -> None:
        """Try again what the last commit left undone, and without which the rules are in force.

        For a setting of the node that only a more privileged process could change.
        """

    def disturbed(self) -> bool:
        """Say, cheaply, whether somebody else may have changed our objects since we last looked.

        True is a reason to observe, not a proof.
        """

    def flows(self, wanted: Destinations) -> Iterable[Flow]:
        """Return the UDP flows to `wanted` that the kernel tracks for this family, others never.

        May be read while they are being forgotten, and may then name one twice.
        """

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Remove these flows from connection tracking; return how many still existed."""

    def counters(self) -> Iterable[Sample]:
        """Return what the metrics shall tell of this data path; cheap, as it is asked each second.

        Leaves out what cannot be read, and raises nothing.
        """
