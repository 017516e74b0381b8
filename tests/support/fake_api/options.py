"""What a list or watch request asks for, and what an API server refuses to be asked."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.fake_api.statuses import (
    Cause,
    Refusal,
    Status,
    bad_request,
    forbidden_field,
    invalid_options,
)

EXACT, NOT_OLDER = "Exact", "NotOlderThan"


class Streaming(enum.Enum):
    """What the server makes of `sendInitialEvents`."""

    SERVED = "as since 1.34"
    FORBIDDEN = "known, but its feature gate is off: 1.27 to 1.33"
    UNKNOWN = "never heard of: before 1.27"
    BROKEN = "accepted, but the storage cannot tell its progress"


@dataclass(frozen=True, slots=True)
class Options:
    """The query of a list or watch. Empty text is what was not given."""

    watch: bool
    limit: int
    token: str
    version: str
    match: str
    send_initial: bool | None
    bookmarks: bool
    timeout_s: int | None

    @property
    def number(self) -> int:
        """Return the version asked for, 0 for none."""
        try:
            return int(self.version or 0)
        except ValueError:
            raise Refusal(self._bad_version()) from None

    def _bad_version(self) -> Status:
        why = (
            f'resourceVersion: Invalid value: "{self.version}": strconv.ParseUint: '
            f'parsing "{self.version}": invalid syntax'
        )
        if self.watch:
            return Status(500, "", why)
        return bad_request(f"invalid resource version: {why}")


def parse(query: Mapping[str, str], streaming: Streaming) -> Options:
    """Return the options of a query, with the server's defaults. Raises Refusal."""
    initial = query.get("sendInitialEvents") if streaming is not Streaming.UNKNOWN else None
    options = Options(
        watch=_boolean(query.get("watch", "")),
        limit=_number(query.get("limit", "0")),
        token=query.get("continue", ""),
        version=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        send_initial=None if initial is None else _boolean(initial),
        bookmarks=_boolean(query.get("allowWatchBookmarks", "")),
        timeout_s=_number(query["timeoutSeconds"]) if "timeoutSeconds" in query else None,
    )
    causes = _watch_causes(options, streaming) if options.watch else _list_causes(options)
    if causes:
        raise Refusal(invalid_options(*causes))
    return options


def _list_causes(options: Options) -> list[Cause]:
    match, causes = "resourceVersionMatch", []
    if options.match and not options.version:
        why = f"{match} is forbidden unless resourceVersion is provided"
        causes.append(forbidden_field(match, why))
    if options.match and options.token:
        causes.append(forbidden_field(match, f"{match} is forbidden when continue is provided"))
    if options.match == EXACT and options.version == "0":
        why = f'{match} "exact" is forbidden for resourceVersion "0"'
        causes.append(forbidden_field(match, why))
    if options.send_initial is not None:
        name = "sendInitialEvents"
        causes.append(forbidden_field(name, f"{name} is forbidden for list"))
    return causes


def _watch_causes(options: Options, streaming: Streaming) -> list[Cause]:
    match, initial, causes = "resourceVersionMatch", "sendInitialEvents", []
    if streaming is Streaming.UNKNOWN:
        if options.match:
            causes.append(forbidden_field(match, f"{match} is forbidden for watch"))
        return causes
    if options.send_initial is not None:
        if options.match != NOT_OLDER:
            why = f"{initial} requires setting {match} to {NOT_OLDER}"
            causes.append(forbidden_field(match, why))
        if streaming is Streaming.FORBIDDEN:
            why = f"{initial} is forbidden for watch unless the WatchList feature gate is enabled"
            causes.append(forbidden_field(initial, why))
    elif options.match:
        why = f"{match} is forbidden for watch unless {initial} is provided"
        causes.append(forbidden_field(match, why))
    return causes


def _boolean(text: str) -> bool:
    """Return what the server takes for true: everything but nothing, false and 0."""
    return text.lower() not in ("", "false", "0")


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Refusal(bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')) from None
