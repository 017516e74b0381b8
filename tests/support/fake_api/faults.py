"""Bad days: what can go wrong with an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.fake_api.statuses import Status, expired


@dataclass(frozen=True, slots=True)
class Answer:
    """This instead of what the API would have answered."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Hang:
    """The request is taken and never answered."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection ends without an answer, if `late` after what was asked has been done."""

    reset: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class Silence:
    """The body stops after so many bytes; the connection stays open."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends after so many bytes of the body, within whatever they belong to."""

    after: int
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Trickle:
    """The body comes a byte at a time."""

    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Edit:
    """What is sent goes through a function: an answer as a whole, a watch by whole lines."""

    change: Callable[[bytes], bytes]


Fault = Answer | Hang | Drop | Silence | Cut | Trickle | Edit


@dataclass(slots=True)
class Rule:
    """A fault and where it strikes. None stands for any, and for ever in `left`."""

    fault: Fault
    resource: str | None
    verb: str | None
    left: int | None
    used: int = field(default=0, init=False)

    def strikes(self, resource: str, verb: str) -> bool:
        return self.left != 0 and self.resource in (None, resource) and self.verb in (None, verb)

    def use(self) -> Fault:
        self.used += 1
        if self.left is not None:
            self.left -= 1
        return self.fault


def refused(status: Status) -> Answer:
    """Return what a refusal looks like on the wire."""
    again = (("Retry-After", str(status.retry_after_s)),) if status.retry_after_s else ()
    return Answer(status.code, status.body(), headers=again)


def gone() -> Answer:
    """Return a version that is too old, said before the watch began, as servers once did."""
    return refused(expired("too old resource version: 1 (2)"))


def too_many_requests(retry_after_s: int) -> Answer:
    """Return what API priority and fairness answers to a request that it drops."""
    text = b"Too many requests, please try again later.\n"
    return plain(429, text, ("Retry-After", str(retry_after_s)))


def unavailable(retry_after_s: int | None = None) -> Answer:
    """Return what an aggregator or a balancer answers while nobody is behind it."""
    again = () if retry_after_s is None else (("Retry-After", str(retry_after_s)),)
    return plain(503, b"service unavailable\n", *again)


def internal_error() -> Answer:
    """Return what a request ends in when the storage is in trouble."""
    return refused(Status(500, "InternalError", "Internal error occurred: etcdserver: no leader"))


def html(status: int) -> Answer:
    """Return the page of a proxy that stands between."""
    page = b"<!DOCTYPE html>\n<html><head><title>Please log in</title></head></html>\n"
    return Answer(status, page, "text/html; charset=utf-8")


def redirect(location: str) -> Answer:
    """Return the advice to ask somebody else."""
    return plain(307, b"", ("Location", location))


def plain(status: int, text: bytes, *headers: tuple[str, str]) -> Answer:
    return Answer(status, text, "text/plain; charset=utf-8", headers)
