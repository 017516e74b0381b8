"""Whatever a document holds, it is a valid object or an invalid one; JSON and YAML agree."""

import copy
import datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.objects import KIND_OF, InvalidObject
from kproxy.core.parse import from_builtins, from_json, kind_of
from tests.support.effort import examples
from tests.unit.core.documents import EVERYTHING

INTERESTING = st.sampled_from(
    ["", "None", "0.0.0.0", "::1", "fd00::1", "10.1.0.1", "10.0.0.0/8", "::/0", "::ffff:1.2.3.4",
     "TCP", "UDP", "Local", "ClientIP", "ExternalName", "FQDN", "IPv6", "Proxy", "a`b", "[0].x",
     "\n", "\x00", "\ud800", 0, 1, 65535, 65536, -1, 10**30]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | INTERESTING,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FROM_YAML = JSON | st.binary(max_size=3) | st.dates() | st.just(datetime.datetime(2026, 1, 1)) | (
    st.dictionaries(st.integers() | st.none() | st.booleans(), st.none(), max_size=2)
) | st.sampled_from([float("nan"), float("inf"), {1, 2}])  # fmt: skip


def places(value, path=()):
    """Every path into a document."""
    yield path
    steps = value.items() if isinstance(value, dict) else ()
    for step, inner in steps if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, step))
        else:
            yield (*path, step)


@st.composite
def mutated(draw, values):
    """A valid document of some kind in which some places hold something else, or nothing."""
    document = copy.deepcopy(draw(st.sampled_from(EVERYTHING)))
    for _ in range(draw(st.integers(1, 3))):
        paths = [
            path for path in places(document) if path and path[0] not in ("apiVersion", "kind")
        ]
        if not paths:
            break
        path = draw(st.sampled_from(paths))
        place = document
        for step in path[:-1]:
            place = place[step]
        match draw(st.sampled_from(["set", "delete", "double"])):
            case "set":
                place[path[-1]] = draw(values)
            case "delete":
                del place[path[-1]]
            case "double" if isinstance(place, list):
                place.append(copy.deepcopy(place[path[-1]]))
    return document


def outcome(parse):
    """What parsing gave: the object, or what was wrong."""
    try:
        return parse()
    except InvalidObject as error:
        told = (error.kind, error.key, error.field, error.why)
    assert all(told)
    assert told[1].name
    return told


@examples(300)
@given(mutated(FROM_YAML))
def test_a_document_is_an_object_or_an_invalid_object(document):
    made = outcome(lambda: from_builtins(document))

    if not isinstance(made, tuple):
        assert KIND_OF[type(made)] is kind_of(document)
        assert hash(made) == hash(outcome(lambda: from_builtins(document)))


@examples(200)
@given(mutated(JSON))
def test_json_and_plain_values_agree(document):
    try:
        raw = msgspec.json.encode(document)
    except UnicodeEncodeError:  # a lone surrogate is no JSON
        return
    as_json = outcome(lambda: from_json(kind_of(document), raw))
    as_builtins = outcome(lambda: from_builtins(msgspec.json.decode(raw)))

    if isinstance(as_json, tuple) and isinstance(as_builtins, tuple):
        # The reasons differ in what msgspec calls a number beyond 64 bits.
        as_json, as_builtins = as_json[:3], as_builtins[:3]
    assert as_json == as_builtins


@examples(200)
@given(st.data())
def test_damaged_json_is_an_object_or_an_invalid_object(data):
    document = data.draw(st.sampled_from(EVERYTHING))
    raw = bytearray(msgspec.json.encode(document))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        raw[start : start + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=4))

    outcome(lambda: from_json(kind_of(document), bytes(raw)))
