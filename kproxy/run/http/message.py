"""What a handler gets and what it gives; and the encodings that clients of kube-proxy know."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
PLAIN_TEXT = ("Content-Type", "text/plain; charset=utf-8")
JSON = ("Content-Type", "application/json")

_NS = 1_000_000_000

# What Go's encoder escapes beyond the JSON grammar, so that a page may embed the text.
_EMBEDDABLE = str.maketrans(
    {char: f"\\u{ord(char):04x}" for char in ("<", ">", "&", "\u2028", "\u2029")}
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body, which no page here looks at.

    `path` is decoded. `query` still is the text after the question mark; `accept` is the Accept
    header, empty if there is none.
    """

    method: str
    path: str
    query: str = ""
    accept: str = ""

    def asks_for(self, word: str) -> bool:
        """Say whether the query has the parameter `word`, with or without a value."""
        return word in parse_qs(self.query, keep_blank_values=True)


@dataclass(frozen=True, slots=True)
class Response:
    """A status code, the headers besides length and date, and the body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


Handler = Callable[[Request], Response]


def read_target(method: str, target: str, accept: str) -> Request:
    """Return the request for a target in origin form or absolute form (RFC 9112, section 3.2)."""
    if target.startswith("/"):
        path, _, query = target.partition("?")
    else:
        try:
            parts = urlsplit(target)
        except ValueError:  # brackets that hold no IPv6 address
            return Request(method, target, accept=accept)
        path, query = parts.path, parts.query
    return Request(method, unquote(path) or "/", query, accept)


def text_answer(text: str, status: int = 200) -> Response:
    """Return `text` as it is."""
    return Response(status, (PLAIN_TEXT, NO_SNIFFING), text.encode())


def not_found() -> Response:
    """Return what Go's router says of an unknown path."""
    return text_answer("404 page not found\n", 404)


def to_json(value: object) -> bytes:
    """Encode as Go does: no spaces, and no character that means something in HTML."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_EMBEDDABLE).encode(errors="replace")


def go_time(wall_ns: int) -> str:
    """Return a time as Go writes it in JSON (RFC 3339, no trailing zeros), in UTC."""
    seconds, rest = divmod(wall_ns, _NS)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


class Router:
    """Picks the handler by the exact path. Any method will do, as upstream."""

    def __init__(self, pages: Mapping[str, Handler]) -> None:
        self._pages = dict(pages)

    def __call__(self, request: Request) -> Response:
        """Answer a request."""
        page = self._pages.get(request.path)
        return not_found() if page is None else page(request)
