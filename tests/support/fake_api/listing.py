"""Lists and their pages."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from tests.support.fake_api.options import EXACT, Options
from tests.support.fake_api.resources import Resource
from tests.support.fake_api.selectors import Selector
from tests.support.fake_api.statuses import Refusal, bad_request, expired, too_large_version
from tests.support.fake_api.store import Store

TOKEN_VERSION = "meta.k8s.io/v1"
LATEST = -1  # the version of a token that continues with whatever there is now
INCONSISTENT = (
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter, or use the continue token in this response "
    "to retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Token:
    """Where the next page begins: after `last`, in the list as it was at `version`."""

    version: int
    last: str

    def text(self) -> str:
        start = f"{self.last}\0"
        raw = msgspec.json.encode({"v": TOKEN_VERSION, "rv": self.version, "start": start})
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def list_objects(store: Store, resource: Resource, selector: Selector, options: Options) -> bytes:
    """Return the body of a list. Raises Refusal."""
    token = _token(options) if options.token else None
    version = _version(store, options, token)
    objects = store.objects(resource, version)
    if token is not None:
        objects = [o for o in objects if o.path > token.last]
    selected = [o for o in objects if o.selected(selector)]
    limit = 0 if options.version == "0" else options.limit
    metadata: dict[str, object] = {"resourceVersion": str(version)}
    if limit and len(selected) > limit:
        selected = selected[:limit]
        metadata["continue"] = Token(version, selected[-1].path).text()
        if selector.empty:
            metadata["remainingItemCount"] = len(objects) - limit
    head = {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": metadata,
    }
    items = b",".join(each.item() for each in selected)
    return msgspec.json.encode(head)[:-1] + b',"items":[' + items + b"]}\n"


def _version(store: Store, options: Options, token: Token | None) -> int:
    """Return the version that the list shows."""
    if token is not None:
        if token.version != LATEST and token.version < store.forgotten:
            rest = Token(LATEST, token.last).text()
            raise Refusal(expired(INCONSISTENT, {"continue": rest}))
        return store.version if token.version == LATEST else token.version
    if options.number > store.version:
        raise Refusal(too_large_version(options.number, store.version))
    exact = options.match == EXACT or (options.limit and not options.match)
    return options.number if exact and options.number else store.version


def _token(options: Options) -> Token:
    if options.version not in ("", "0"):
        raise Refusal(bad_request("specifying resource version is not allowed when using continue"))
    try:
        raw = base64.urlsafe_b64decode(options.token + "=" * (-len(options.token) % 4))
        content = msgspec.json.decode(raw)
        return Token(content["rv"], content["start"].rstrip("\0"))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        why = f"invalid continue token: continue key is not valid: {error}"
        raise Refusal(bad_request(why)) from error
