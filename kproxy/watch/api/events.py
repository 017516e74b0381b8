"""Posts events about this proxy, for `kubectl describe node` and `kubectl get events`."""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from kproxy.watch.api.access import Api
from kproxy.watch.api.errors import ApiError, Doing
from kproxy.watch.api.times import Backoff, Times

MAX_WAITING = 100
MAX_NOTE_BYTES = 1024  # the API takes no more
SERIES_S = 360.0  # what happens again within this time is the same series (client-go's number)
_TRIES = 5  # with the pauses of Backoff: about half a minute
_MAX_SERIES = 200
_MAX_INSTANCE = 128  # the API takes no more
_MAX_NAME = 230  # of the object in an event's name, which has room for 253
_MAY_PASS = (0, 401, 429, 500, 502, 503, 504)
ANSWER_S = 10.0
PAUSE_S = 300.0  # after "no" from a server that may say something else once it has its roles


class _Happening(NamedTuple):
    """What makes two events the same but for their time and their words."""

    kind: str
    namespace: str
    name: str
    uid: str
    type: str
    reason: str
    action: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.reason} of {self.kind} {where}{self.name}"


class _Series:
    """One event in the API, and how often it happened."""

    def __init__(self, path: str, at: float) -> None:
        self.path = path
        self.count = 1
        self.last_at = at


class Events:
    """Takes events from any thread and never keeps it waiting.

    They are posted by a thread of its own, which starts with the first one. What cannot be posted
    in a few tries is dropped with a line in the log, and so is what comes faster than it goes. If
    none may be posted, the next one is tried after a pause. An event that repeats itself is counted
    in the API, at its second, fourth and eighth time.
    """

    def __init__(
        self,
        api: Api,
        *,
        node_name: str,
        log: logging.Logger,
        now: Callable[[], float] = time.time,
        times: Times | None = None,
    ) -> None:
        self._session = api.session()
        self._instance = f"kube-proxy-{node_name}"[:_MAX_INSTANCE]
        self._log = log
        self._now = now
        self._times = times or Times()
        self._waiting: queue.Queue[tuple[_Happening, str, float] | None]
        self._waiting = queue.Queue(MAX_WAITING)
        self._series: dict[_Happening, _Series] = {}
        self._lock = threading.Lock()
        self._started = False
        self._full = False
        self._off = threading.Event()

    def post(
        self,
        *,
        kind: str,
        namespace: str,
        name: str,
        type: str,
        reason: str,
        action: str,
        note: str,
        uid: str = "",
    ) -> None:
        """Let the API know what happened to an object, `kind` "Node" or "Service".

        `type` is "Normal" or "Warning"; `reason` and `action` are words in camel case.
        """
        if self._off.is_set():
            return
        happening = _Happening(kind, namespace, name, uid, type, reason, action)
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._serve, name="post events", daemon=True).start()
            try:
                self._waiting.put_nowait((happening, note, self._now()))
                self._full = False
            except queue.Full:
                if not self._full:
                    self._log.warning("event %s is dropped: too many are waiting", happening)
                self._full = True

    def close(self) -> None:
        """Drop what was not posted yet. From any thread."""
        self._off.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._session.close()

    def _serve(self) -> None:
        while not self._off.is_set():
            waiting = self._waiting.get()
            if waiting is not None:
                self._deliver(*waiting)

    def _deliver(self, happening: _Happening, note: str, at: float) -> None:
        """Write an event, again if it failed for a reason that may pass."""
        series = self._series.get(happening)
        if series is not None and at - series.last_at > SERIES_S:
            series = None
        if series is not None:
            series.count += 1
            series.last_at = at
            if series.count & (series.count - 1):
                return
        event = self._event(happening, note, at)
        backoff = Backoff(
            self._times.backoff_first_s,
            self._times.backoff_most_s,
            clock=time.monotonic,
            chance=random.random,
        )
        for left in reversed(range(_TRIES)):
            try:
                self._write(happening, event, at, series)
                return
            except ApiError as error:
                if self._off.is_set() or not self._may_pass(error, happening, last=not left):
                    return
                self._off.wait(max(backoff.next_s(), error.retry_after_s))

    def _may_pass(self, error: ApiError, happening: _Happening, *, last: bool) -> bool:
        """Say whether to try again; if not, say why in the log."""
        no_namespace = error.about == "namespaces" or "NamespaceTerminating" in error.causes
        if error.status in (403, 404) and not no_namespace:
            self._log.warning(
                "event %s is dropped, and none is posted for %.0f s: %s", happening, PAUSE_S, error
            )
            self._off.wait(PAUSE_S)
        elif last or error.status not in _MAY_PASS:
            self._log.warning("event %s is dropped: %s", happening, error)
        else:
            return True
        return False

    def _write(
        self, happening: _Happening, event: dict[str, Any], at: float, series: _Series | None
    ) -> None:
        if series is not None:
            patch = {"series": {"count": series.count, "lastObservedTime": _micro_time(at)}}
            try:
                self._send("patch", "PATCH", series.path, patch, "application/merge-patch+json")
                return
            except ApiError as error:
                if error.status != 404:
                    raise
        path = f"/apis/events.k8s.io/v1/namespaces/{event['metadata']['namespace']}/events"
        try:
            self._send("create", "POST", path, event, "application/json")
        except ApiError as error:
            if error.status != 409:  # there already: the last try has reached the server after all
                raise
        while len(self._series) >= _MAX_SERIES:
            del self._series[next(iter(self._series))]
        self._series[happening] = _Series(f"{path}/{event['metadata']['name']}", at)

    def _send(
        self, verb: str, method: str, path: str, document: dict[str, Any], content_type: str
    ) -> None:
        response = self._session.request(
            Doing(verb, "events.events.k8s.io"),
            path,
            answer_s=ANSWER_S,
            method=method,
            body=msgspec.json.encode(document),
            content_type=content_type,
        )
        response.close()

    def _event(self, happening: _Happening, note: str, at: float) -> dict[str, Any]:
        kind, namespace, name, uid, type_, reason, action = happening
        regarding = {"apiVersion": "v1", "kind": kind, "name": name}
        if namespace:
            regarding["namespace"] = namespace
        if uid:
            regarding["uid"] = uid
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{name[:_MAX_NAME].rstrip('-.')}.{time.time_ns():x}",
                "namespace": namespace or "default",  # where the events of Nodes live
            },
            "eventTime": _micro_time(at),
            "reportingController": "kube-proxy",
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "regarding": regarding,
            "note": _shortened(note),
            "type": type_,
        }


def _shortened(note: str) -> str:
    data = note.encode(errors="replace")
    return data[:MAX_NOTE_BYTES].decode(errors="ignore")


def _micro_time(at: float) -> str:
    """Return a time as the API's MicroTime, which is always six digits long."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
