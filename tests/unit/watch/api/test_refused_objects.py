"""Objects that are not valid: those alone are left out."""

import logging

import pytest

from kproxy.core.objects import InvalidObject, Kind, ObjectKey
from kproxy.ports.source import SourceState
from kproxy.watch.api.condition import MAX_REPORTED, Condition, refusal
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.samples import endpoint_slice, service

BAD = ["10.1.0.1", "127.0.0.1"]  # no API server of today takes the second one


@pytest.fixture(params=[Streaming.SERVED, Streaming.FORBIDDEN], ids=lambda each: each.name)
def slices(request, fake, follow):
    """Slices, one of which is invalid, as they were listed."""
    fake.fake.serve_streaming_lists(request.param)
    fake.fake.put(
        "endpointslices",
        endpoint_slice("a"),
        endpoint_slice("bad", BAD),
        endpoint_slice("c"),
    )
    following = follow(Kind.ENDPOINT_SLICE)
    following.until_names("a", "c")
    following.until(lambda each: fake.fake.watching("endpointslices") == 1)
    return following


def errors(caplog):
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    return [r.getMessage() for r in records if r.levelno >= logging.ERROR]


def test_an_invalid_object_is_left_out_of_a_list_and_told_in_one_line(slices, caplog):
    (said,) = errors(caplog)

    assert said == (
        "EndpointSlice default/bad: endpoints[1].addresses[0]: must not be a zero, loopback or "
        "link-local address (value '127.0.0.1'); it is left out, as if it did not exist"
    )
    assert slices.status.refused == 1
    assert slices.status.state is SourceState.FOLLOWING


def test_it_is_back_when_it_is_put_right(fake, slices, caplog):
    fake.fake.put("endpointslices", endpoint_slice("bad", ["10.1.0.1", "10.1.0.2"]))

    slices.until_names("a", "bad", "c")
    assert slices.status.refused == 0
    assert "EndpointSlice default/bad: is valid now" in caplog.messages


def test_it_is_forgotten_when_it_is_deleted(fake, slices, caplog):
    fake.fake.delete("endpointslices", "default", "bad")

    slices.until(lambda each: each.status.refused == 0)
    assert "is valid now" not in caplog.text


def test_it_is_not_told_again_as_long_as_it_is_the_same(fake, slices, caplog):
    fake.fake.put("endpointslices", endpoint_slice("bad", BAD, again="1"))
    fake.fake.put("endpointslices", endpoint_slice("bad", [*BAD, "10.1.0.3"]))
    fake.forget_history()
    fake.fake.say("endpointslices", b"garbage\n")
    slices.until(lambda each: each.status.lists == 2)
    fake.fake.put("endpointslices", endpoint_slice("d"))
    slices.until_names("a", "c", "d")

    assert len([line for line in errors(caplog) if "default/bad" in line]) == 1
    fake.fake.put("endpointslices", endpoint_slice("bad", ["10.1.0.1", "169.254.1.1"]))
    slices.until(lambda each: "169.254.1.1" in errors(caplog)[-1])


def test_an_object_that_becomes_invalid_is_taken_away(fake, slices):
    fake.fake.put("endpointslices", endpoint_slice("a", BAD))

    slices.until_names("c")
    assert slices.status.refused == 2
    fake.fake.put("endpointslices", endpoint_slice("a"))
    slices.until_names("a", "c")
    assert slices.status.refused == 1


def test_one_put_right_while_nobody_watched_is_told_of(fake, slices, caplog):
    fake.fake.freeze("endpointslices")
    fake.fake.put("endpointslices", endpoint_slice("bad"), endpoint_slice("e", BAD))
    fake.forget_history()
    fake.fake.say("endpointslices", b"")
    fake.fake.stop()
    fake.fake.start()

    slices.until_names("a", "bad", "c")
    assert "EndpointSlice default/bad: is valid now" in caplog.messages
    assert slices.status.refused == 1


def test_names_from_strangers_do_not_reach_the_log_as_they_are(fake, follow, caplog):
    """The API would not store this name, but it is the API server that we distrust here."""
    fake.fake.put("services", service("evil\x1b[31m\nname"), service("good", "10.96.1.2"))
    services = follow(Kind.SERVICE)
    services.until_names("good")

    assert errors(caplog)[0].isprintable()


def a_refusal(name):
    key = ObjectKey("default", name)
    return key, refusal(InvalidObject("Service", key, "spec.type", "Odd", "must be known"))


def test_thousands_of_invalid_objects_do_not_flood_the_log(caplog):
    condition = Condition(Kind.SERVICE, log=logging.getLogger("test"), now=lambda: 0.0)
    condition.listed([], dict(a_refusal(f"s{number}") for number in range(MAX_REPORTED + 7)))

    assert len(errors(caplog)) == MAX_REPORTED + 1
    assert errors(caplog)[-1].startswith("7 more Service objects are invalid")
    assert condition.status.refused == MAX_REPORTED + 7
