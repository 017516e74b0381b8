"""The port that a data path implements: one object for all of it, and one for each IP family."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.image import Changes, Image, Key
from kproxy.core.table import ForwardingTable, NodeRules, ServicePortKey, TableChanges


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


class Former(Protocol):
    """One family of a data path that an earlier run may have used and this one does not.

    Calls come one at a time, and may raise BackendError.
    """

    @property
    def name(self) -> str:
        """What the log calls it."""

    def withdraw(self) -> bool:
        """Take no new connections; say whether no open one needs this data path any more.

        For when the rules of another one are in force, and asked again until it says so. Open
        connections go on meanwhile. Where nothing of it is there, the answer is True at once.
        """

    def clean_up(self) -> int:
        """Remove everything of it; return how many kernel objects there were."""


class Backend(Protocol):
    """A data path of one family that can be brought in line with a forwarding table.

    Calls come from one thread, one at a time; those to another family's come from another thread,
    at the same time. Any of them but `render`, `unheld`, `owners`, `describe`, `counters`, `fileno`
    and `close` may raise BackendError.
    """

    family: Family

    def render(self, changes: TableChanges) -> Mapping[Key, bytes | None]:
        """Take table changes in; return the image entries that they alter, None where gone.

        Pure: the image depends on the sum of all changes so far, not on their order, and on the
        settings of the host that `disturbed` saw last.
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

        True is a reason to observe, not a proof. It is asked before every write: what takes longer
        than a moment is looked at by `tend`, and told here.
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

    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Return the service ports that `render` leaves out, or renders without something, and why.

        All else is as asked once it is committed. What a refused commit showed to be impossible
        appears here, and the next `render` returns what it alters; `settle` looks whether it has
        become possible again, and the `render` after that returns it and takes it from here.
        """

    def owners(self, keys: Iterable[Key]) -> Collection[ServicePortKey]:
        """Return the service ports that these kernel objects are made for, as far as that shows.

        They are the ones to try without, if a commit of these objects is refused.
        """

    def describe(self, key: Key) -> str:
        """Return what a kernel object is, for logs: of any key that was rendered or observed."""

    def fileno(self) -> int | None:
        """Return the descriptor that gets readable when there is something to tend, if any.

        It may be another one after each `tend`.
        """

    def tend(self, budget_s: float) -> bool:
        """Do what no table asks for: follow devices, let go of what has expired or drained.

        Asked first after a first commit, then when `fileno` is readable and, in any case, each
        second. Ends soon after `budget_s`, so that no change waits for it. Returns whether there
        is more to do: then it is asked again at once.
        """

    def close(self) -> None:
        """Let go of what this process holds: the last call. The kernel's objects stay."""


class DataPath(Protocol):
    """A data path around its families' backends; it is made from options of its own.

    Any method but `preview` may raise BackendError. `backend` and `in_force` are called in the
    family's thread, at the same time as for another family.
    """

    def backend(self, family: Family) -> Backend:
        """Return the data path of a family."""

    def prepare(self, family: Family, rules: NodeRules) -> int:
        """Set what only a privileged process may, for one that has CAP_NET_ADMIN alone.

        Rules of an earlier run stay as they are. Returns how many kernel objects were missing.
        """

    def in_force(self, family: Family) -> None:
        """Remove what would contradict a family's rules, now that the kernel holds them.

        That is, if the options say so, what kube-proxy left, in every mode of its.
        """

    def former(self, family: Family) -> Iterable[Former]:
        """Return the parts of it that no backend of this process writes to.

        One that opened no backend returns everything that it can be made of.
        """

    def preview(self, table: ForwardingTable) -> str:
        """Return what would be programmed for a table."""

    def check(self, family: Family) -> list[Finding]:
        """Return what this host offers to it."""

    def clean_up(self, family: Family) -> int:
        """Remove everything of ours; return how many kernel objects there were."""
