"""When the change happened that led to an EndpointSlice: told, and of no consequence."""

import json

import pytest

from kproxy.core.objects import InvalidObject, Kind
from kproxy.core.parse import from_json
from kproxy.core.store import Replaced, Store, Upserted
from tests.unit.core.documents import EVERYTHING, endpoint_slice

ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"


def slice_of(text):
    document = endpoint_slice({"addresses": ["10.1.0.1"]})
    document["metadata"]["annotations"] = {ANNOTATION: text, "other": "ignored"}
    return from_json(Kind.ENDPOINT_SLICE, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00.25Z", 60.25),
        ("1970-01-01T01:01:00.250000000+01:00", 60.25),
    ],
)
def test_the_time_is_read_as_the_endpoint_slice_controller_writes_it(text, seconds):
    assert slice_of(text).triggered_at == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "1970-01-01", "1970-01-01T00:01:00", "60"])
def test_a_time_that_cannot_be_read_costs_nothing_but_the_time(text):
    made = slice_of(text)

    assert made.triggered_at is None
    assert made.endpoints


def test_no_time_is_none():
    assert (
        from_json(
            Kind.ENDPOINT_SLICE, json.dumps(endpoint_slice({"addresses": ["10.1.0.1"]})).encode()
        ).triggered_at
        is None
    )


def test_the_time_alone_changes_nothing():
    store = Store()
    store.apply(Replaced(Kind.ENDPOINT_SLICE, (slice_of("1970-01-01T00:01:00Z"),)))

    assert store.apply(Upserted(slice_of("1970-01-01T00:02:00Z"))) == []


@pytest.mark.parametrize("document", EVERYTHING, ids=lambda document: document["kind"])
def test_an_object_of_another_kind_is_refused_by_that_field(document):
    kind = Kind(document["kind"])

    with pytest.raises(InvalidObject) as refused:
        from_json(kind, json.dumps({**document, "kind": "Pod"}).encode())

    assert refused.value.field == "kind"
    assert refused.value.key.name == document["metadata"]["name"]


@pytest.mark.parametrize("document", EVERYTHING, ids=lambda document: document["kind"])
def test_the_items_of_a_list_need_not_say_their_kind(document):
    kind = Kind(document["kind"])
    bare = {name: value for name, value in document.items() if name not in ("kind", "apiVersion")}

    assert from_json(kind, json.dumps(bare).encode()) == from_json(
        kind, json.dumps(document).encode()
    )
