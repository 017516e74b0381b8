"""/healthz and /livez: whether the kernel keeps up, and whether load balancers should use the node.

The bodies, codes and headers are upstream's (pkg/proxy/healthcheck/proxy_health.go); `?verbose`
adds what kproxy knows beyond that.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from kproxy.core.objects import Node
from kproxy.ports.source import SourceStatus
from kproxy.run.http.message import JSON, NO_SNIFFING, Request, Response, Router, go_time, to_json
from kproxy.run.loop.status import FamilyStatus

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time
_NS = 1_000_000_000
_NAMED = 20  # so many service ports that are not in force have their reason in an answer
_MS = 1_000_000


class ProxyHealth:
    """Judges health anew at each request.

    A family is healthy while nothing has waited for the kernel longer than `patience_s`, so also
    while there is nothing to do, be it because the API server is away or not heard of yet. The
    node is eligible while its object is there and not on its way out. `clock` is the one that
    FamilyStatus counts in, `wall_ns` the time of day.
    """

    def __init__(
        self,
        *,
        statuses: Callable[[], Iterable[FamilyStatus]],
        node: Callable[[], Node | None],
        sources: Callable[[], Iterable[SourceStatus]],
        patience_s: float,
        clock: Callable[[], float],
        wall_ns: Callable[[], int],
    ) -> None:
        self._statuses = statuses
        self._node = node
        self._sources = sources
        self._patience_s = patience_s
        self._clock = clock
        self._wall_ns = wall_ns
        self._started_at = clock()
        self._healthz_answers: Counter[int] = Counter()
        self._livez_answers: Counter[int] = Counter()

    @property
    def healthz_answers(self) -> Mapping[int, int]:
        """How often /healthz gave each status code."""
        return self._healthz_answers

    @property
    def livez_answers(self) -> Mapping[int, int]:
        """How often /livez gave each status code."""
        return self._livez_answers

    def router(self) -> Router:
        """Return what the health server serves."""
        return Router({"/healthz": self.healthz, "/livez": self.livez})

    def healthy(self) -> bool:
        """Say whether every family keeps up."""
        now = self._clock()
        return all(status.healthy(now, self._patience_s) for status in self._statuses())

    def healthz(self, request: Request) -> Response:
        """Say whether this node should get traffic."""
        node = self._node()
        eligible = node is not None and not node.deleting
        return self._answer(request, eligible, self._healthz_answers)

    def livez(self, request: Request) -> Response:
        """Say whether this process does its work, whatever becomes of the node."""
        return self._answer(request, None, self._livez_answers)

    def _answer(self, request: Request, eligible: bool | None, answers: Counter[int]) -> Response:
        """Answer and count; `eligible` None leaves the node out of it."""
        now, wall_ns = self._clock(), self._wall_ns()
        statuses = tuple(self._statuses())
        written_ns = {each.family: self._written_ns(each, now, wall_ns) for each in statuses}
        healthy = self.healthy()
        ok = healthy and eligible is not False
        updated_ns = wall_ns if ok else max(written_ns.values(), default=None)
        body: dict[str, object] = {
            "lastUpdated": _NEVER if updated_ns is None else go_time(updated_ns),
            "currentTime": go_time(wall_ns),
            **({} if eligible is None else {"nodeEligible": eligible}),
            "healthy": healthy,
        }
        if statuses:
            body["status"] = {
                each.family.value: {
                    "lastUpdated": go_time(written_ns[each.family]),
                    "healthy": each.healthy(now, self._patience_s),
                }
                for each in statuses
            }
        if request.asks_for("verbose"):
            body["errors"] = {each.family.value: each.error for each in statuses if each.error}
            body["unheld"] = {each.family.value: _unheld(each) for each in statuses if each.unheld}
            body["sources"] = [_source(each) for each in self._sources()]
        status = 200 if ok else 503
        answers[status] += 1
        return Response(status, (JSON, NO_SNIFFING), to_json(body))

    def _written_ns(self, status: FamilyStatus, now: float, wall_ns: int) -> int:
        """Return when the kernel last was up to date; upstream counts the start as such a moment.

        To the millisecond: the two clocks are not read in one instant, and one moment should not
        look different from answer to answer.
        """
        at = self._started_at if status.applied_at is None else status.applied_at
        return (wall_ns - int((now - at) * _NS)) // _MS * _MS


def _unheld(status: FamilyStatus) -> dict[str, str]:
    """Return some of the service ports that are not in force as they are wished, with the reasons.

    A page of thousands would help nobody; the metrics have the number.
    """
    return {str(key): status.unheld[key] for key in itertools.islice(status.unheld, _NAMED)}


def _source(status: SourceStatus) -> dict[str, object]:
    return {
        "kind": status.kind.value,
        "state": status.state.value,
        "since": go_time(int(status.since * _NS)),
        "detail": status.detail,
        "lists": status.lists,
        "reconnects": status.reconnects,
        "refused": status.refused,
    }
