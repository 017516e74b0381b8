"""A kind that the API server does not have, or does not let us see."""

import logging

import pytest

from kproxy.core.objects import Kind
from kproxy.core.store import Replaced
from kproxy.ports.source import SourceState
from tests.support.fake_api import faults
from tests.support.fake_api.samples import service, service_cidr

AWAY = ["forbid", "remove"]
BACK = {"forbid": "permit", "remove": "restore"}


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("how", AWAY)
def test_service_cidrs_that_are_not_to_be_had_are_none(fake, follow, caplog, how):
    getattr(fake.fake, how)("servicecidrs")
    cidrs = follow(Kind.SERVICE_CIDR)

    cidrs.until_state(SourceState.OFF)
    cidrs.until(lambda each: len(fake.fake.asked("servicecidrs")) >= 3)
    assert cidrs.objects == {}
    assert cidrs.batches == [(Replaced(Kind.SERVICE_CIDR, ()),)], "told once"
    (said,) = warnings(caplog)
    assert said.endswith("going on as if there were none")
    assert cidrs.status.detail in said
    if how == "forbid":
        assert "may not watch servicecidrs.networking.k8s.io (403)" in said
        assert "grant it to system:serviceaccount:kube-system:kube-proxy" in said


@pytest.mark.parametrize("how", AWAY)
def test_they_are_there_once_they_are_to_be_had(fake, follow, caplog, how):
    getattr(fake.fake, how)("servicecidrs")
    cidrs = follow(Kind.SERVICE_CIDR)
    cidrs.until_state(SourceState.OFF)

    getattr(fake.fake, BACK[how])("servicecidrs")
    cidrs.until_names("kubernetes")
    assert cidrs.status.state is SourceState.FOLLOWING
    assert "ServiceCIDR: the API server lets us see them now" in caplog.messages
    fake.fake.put("servicecidrs", service_cidr("more", "10.97.0.0/16"))
    cidrs.until_names("kubernetes", "more")


@pytest.mark.parametrize("how", AWAY)
def test_they_are_gone_when_they_are_no_longer_to_be_had(fake, follow, how):
    cidrs = follow(Kind.SERVICE_CIDR)
    cidrs.until_names("kubernetes")
    getattr(fake.fake, how)("servicecidrs")
    fake.fake.end("servicecidrs")

    cidrs.until_names()
    cidrs.until_state(SourceState.OFF)


@pytest.mark.parametrize("how", AWAY)
def test_a_server_that_denies_what_it_has_shown_is_not_believed_at_once(fake, follow, how):
    """A real one does so for a second or two after a restart."""
    cidrs = follow(Kind.SERVICE_CIDR, doubted_s=30.0)
    cidrs.until_names("kubernetes")
    getattr(fake.fake, how)("servicecidrs")
    fake.fake.end("servicecidrs")

    cidrs.until_state(SourceState.FAILING)
    asked = len(fake.fake.asked("servicecidrs"))
    cidrs.until(lambda each: len(fake.fake.asked("servicecidrs")) >= asked + 2)
    assert cidrs.objects.keys() == {"kubernetes"}
    getattr(fake.fake, BACK[how])("servicecidrs")
    cidrs.until_state(SourceState.FOLLOWING)


def test_they_are_asked_for_rarely(fake, follow):
    fake.fake.remove("servicecidrs")
    cidrs = follow(Kind.SERVICE_CIDR, missing_first_s=30.0)
    cidrs.until_state(SourceState.OFF)

    cidrs.close()
    assert len(fake.fake.asked("servicecidrs")) == 1


def test_a_server_in_trouble_is_no_server_without_them(fake, follow):
    cidrs = follow(Kind.SERVICE_CIDR)
    cidrs.until_names("kubernetes")
    with fake.fake.during("servicecidrs", faults.unavailable()):
        fake.fake.end("servicecidrs")
        cidrs.until_state(SourceState.FAILING)
        assert cidrs.objects.keys() == {"kubernetes"}


@pytest.mark.parametrize("how", AWAY)
def test_services_that_are_not_to_be_had_are_a_failure(fake, follow, caplog, how):
    fake.fake.put("services", service("a"))
    services = follow(Kind.SERVICE)
    services.until_names("a")
    getattr(fake.fake, how)("services")
    fake.fake.end("services")

    services.until_state(SourceState.FAILING)
    assert services.objects.keys() == {"a"}
    (said, *_) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "services" in said
    getattr(fake.fake, BACK[how])("services")
    services.until_state(SourceState.FOLLOWING)
