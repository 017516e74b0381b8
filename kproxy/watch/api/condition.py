"""How following one kind goes: for whoever asks, and in the log, each thing once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace

from kproxy.core.objects import InvalidObject, Kind, ObjectKey
from kproxy.ports.source import SourceState, SourceStatus
from kproxy.text.escaping import printable, shown

MAX_REPORTED = 50  # refused objects of one list; the rest is counted


class Condition:
    """The status of one kind. Changed by the thread that follows it, read by any."""

    def __init__(self, kind: Kind, *, log: logging.Logger, now: Callable[[], float]) -> None:
        self.status = SourceStatus(kind, SourceState.STARTING, now())
        self._kind = kind.value
        self._log = log
        self._now = now
        self._failures = 0
        self._silences = 0
        self._said_off = ""
        self._refused: dict[ObjectKey, str] = {}

    def listed(self, keys: Collection[ObjectKey], refused: dict[ObjectKey, str]) -> None:
        """Note that a complete list was taken: `keys`, besides the objects that are refused."""
        new = [text for key, text in refused.items() if self._refused.get(key) != text]
        for text in new[:MAX_REPORTED]:
            self._say_refused(text)
        if len(new) > MAX_REPORTED:
            more = len(new) - MAX_REPORTED
            self._log.error("%d more %s objects are invalid and left out", more, self._kind)
        for key in self._refused:
            if key in keys:
                self._say_valid(key)
        self._refused = refused
        self.connected()
        self._answered()
        lists = self.status.lists
        level = logging.DEBUG if lists else logging.INFO
        self._log.log(level, "%s: listed, %d objects", self._kind, len(keys))
        self.status = replace(self.status, lists=lists + 1, refused=len(refused))

    def connected(self) -> None:
        """Note that the server answers. What it says decides whether that is worth a line."""
        self._turn(SourceState.FOLLOWING, "")

    def heard(self) -> None:
        """Note that a watch said something sensible."""
        self._answered()
        self._silences = 0

    def _answered(self) -> None:
        if self._failures:
            self._log.info("%s: in touch again after %d failures", self._kind, self._failures)
        if self._said_off:
            self._log.info("%s: the API server lets us see them now", self._kind)
        self._failures = 0
        self._said_off = ""

    def reconnecting(self) -> None:
        """Note that a watch ended, and is opened again."""
        self.status = replace(self.status, reconnects=self.status.reconnects + 1)

    def outdated(self) -> None:
        """Note that the changes since the last one are no longer to be had."""
        self._log.info("%s: missed too much to catch up, listing again", self._kind)

    def silent(self, seconds: float) -> None:
        """Note that a watch said nothing for so long."""
        self._silences += 1
        if _is_power_of_two(self._silences):
            self._log.warning(
                "%s: the API server has said nothing for %.0f s (%d times in a row); asking again",
                self._kind,
                seconds,
                self._silences,
            )

    def failing(self, why: str, retry_s: float) -> None:
        """Note a failure; say so at the first of several in a row, the second, the fourth."""
        self._failures += 1
        if _is_power_of_two(self._failures):
            known = self.status.lists > 0
            self._log.error(
                "%s: %s; %s, trying again in %.1f s",
                self._kind,
                why,
                "forwarding goes on with what is known" if known else "not listed yet",
                retry_s,
            )
        self._turn(SourceState.FAILING, why)

    def off(self, why: str) -> None:
        """Note that the server does not have this kind, or does not let us see it."""
        if why != self._said_off:
            self._log.warning("%s: %s; going on as if there were none", self._kind, why)
        self._failures = 0
        self._said_off = why
        self._turn(SourceState.OFF, why)

    def refuse(self, error: InvalidObject) -> None:
        """Note that an object is left out."""
        text = refusal(error)
        if self._refused.get(error.key) != text:
            self._say_refused(text)
            self._refused[error.key] = text
            self.status = replace(self.status, refused=len(self._refused))

    def accept(self, key: ObjectKey, *, exists: bool) -> None:
        """Note that an object is valid, or gone."""
        if self._refused and self._refused.pop(key, None) is not None:
            if exists:
                self._say_valid(key)
            self.status = replace(self.status, refused=len(self._refused))

    def _say_valid(self, key: ObjectKey) -> None:
        self._log.info("%s %s: is valid now", self._kind, key)

    def _say_refused(self, text: str) -> None:
        self._log.error("%s; it is left out, as if it did not exist", text)

    def _turn(self, state: SourceState, detail: str) -> None:
        status = self.status
        if state is not status.state:
            self.status = replace(status, state=state, since=self._now(), detail=detail)
        elif detail != status.detail:
            self.status = replace(status, detail=detail)


def refusal(error: InvalidObject) -> str:
    """Return one line that says which object is refused, and why."""
    field = "" if error.field.startswith("(") else f"{error.field}: "
    value = shown(error.value)
    text = f"{error.kind} {error.key}: {field}{error.why}" + (f" (value {value})" if value else "")
    return printable(text)


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
