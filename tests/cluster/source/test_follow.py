"""What the source delivers, whichever server it follows."""

import dataclasses
import logging

import pytest

from kproxy.core.objects import Kind, ObjectKey
from kproxy.core.store import Deleted, Replaced, Upserted
from kproxy.ports.source import SourceState
from tests.support.fake_api.resources import SERVICE_CIDRS, SERVICES
from tests.support.fake_api.samples import (
    HEADLESS,
    OTHER_PROXY,
    endpoint_slice,
    node,
    service,
    service_cidr,
)
from tests.support.fake_api.source import (
    NODE,
    QUICK,
    held,
    log_lines,
    own_node,
    run,
)
from tests.support.waiting import LONGEST_S


@pytest.fixture(autouse=True)
def cluster(server):
    """Give every server a little to deliver, besides what must not be delivered."""
    server.put(
        own_node(),
        node("n2"),
        service("web", "10.96.1.1"),
        service("headless", "None"),
        service("other", "10.96.1.2", **{OTHER_PROXY: "istio"}),
        endpoint_slice("web-1", ["10.1.0.1", "10.1.0.2"]),
        endpoint_slice("headless-1", ["10.1.0.3"], of="headless", **{HEADLESS: ""}),
    )


def test_the_first_batch_lists_every_kind_as_far_as_it_concerns_a_proxy(server, tmp_path):
    async def story(follower):
        await follower.listed()
        first = follower.batches[0]
        assert {type(change) for change in first} == {Replaced}
        assert {change.kind for change in first} == set(Kind)
        assert follower.delivered() == held(server)
        assert follower.names(Kind.SERVICE) == {"web"}
        assert "web-1" in follower.names(Kind.ENDPOINT_SLICE)
        assert "headless-1" not in follower.names(Kind.ENDPOINT_SLICE)
        assert follower.names(Kind.NODE) == {NODE}

    run(server, tmp_path, story)


def test_what_is_added_changed_and_deleted_is_delivered_one_by_one(server, tmp_path):
    async def story(follower):
        await follower.listed()
        server.put(service("new", "10.96.1.3", port=1))
        await follower.until(lambda: follower.ports() == {"web": 80, "new": 1})
        server.put(service("new", "10.96.1.3", port=2))
        await follower.until(lambda: follower.ports() == {"web": 80, "new": 2})
        server.delete(service("web"))
        await follower.until(lambda: follower.ports() == {"new": 2})
        changes = [change for batch in follower.batches[1:] for change in batch]
        assert [type(change) for change in changes] == [Upserted, Upserted, Deleted]
        assert changes[2] == Deleted(Kind.SERVICE, ObjectKey("default", "web"))

    run(server, tmp_path, story)


def test_every_kind_is_followed(server, tmp_path):
    async def story(follower):
        await follower.listed()
        server.put(
            endpoint_slice("web-1", ["10.1.0.9"]),
            endpoint_slice("web-2", ["10.1.0.4"]),
            own_node(zone="z2"),
            service_cidr("more", "10.112.0.0/16"),
        )
        await follower.same()
        assert "more" in follower.names(Kind.SERVICE_CIDR)
        assert next(iter(follower.store.all(Kind.NODE))).zone == "z2"
        server.delete(endpoint_slice("web-1"), own_node())
        await follower.same()
        assert follower.names(Kind.NODE) == set()
        server.put(own_node())
        await follower.same()

    run(server, tmp_path, story)


def test_labels_take_objects_in_and_out(server, tmp_path):
    async def story(follower):
        await follower.listed()
        server.put(service("web", "10.96.1.1", **{OTHER_PROXY: "istio"}))
        server.put(service("other", "10.96.1.2"))
        await follower.until(lambda: follower.names() == {"other"})
        server.put(endpoint_slice("web-1", **{HEADLESS: ""}))
        await follower.same()

    run(server, tmp_path, story)


def test_a_watch_that_breaks_goes_on_where_it_was(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)

    async def story(follower):
        await follower.listed()
        await follower.following()
        before = follower.status()
        server.leave()
        server.put(service("web", "10.96.1.1", port=81), service("new", "10.96.1.3"))
        server.delete(endpoint_slice("web-1"))
        server.come_back()
        await follower.same()
        await follower.following()
        assert follower.status().lists == before.lists, "nothing was listed again"
        assert follower.status().reconnects > before.reconnects
        assert follower.ports() == {"web": 81, "new": 80}

    run(server, tmp_path, story)
    assert "Traceback" not in caplog.text


def test_after_a_gap_too_long_a_new_list_replaces_all_there_was(server, tmp_path):
    async def story(follower):
        await follower.listed()
        await follower.following()
        before = follower.status()
        server.leave()
        server.delete(service("web"), endpoint_slice("web-1"))
        server.put(service("new", "10.96.1.3"))
        server.forget_history()
        server.come_back()
        await follower.same()
        await follower.following()
        assert follower.names() == {"new"}, "what vanished in the gap is gone"
        assert follower.status().lists == before.lists + 1
        assert [type(c) for batch in follower.batches[1:] for c in batch if _about_services(c)] == [
            Replaced
        ]

    run(server, tmp_path, story)


def _about_services(change):
    return change.kind is Kind.SERVICE if isinstance(change, Replaced | Deleted) else False


def test_while_the_server_is_away_nothing_is_taken_back(server, tmp_path, caplog):
    async def story(follower):
        await follower.listed()
        delivered, batches = follower.delivered(), len(follower.batches)
        server.leave()
        await follower.until(lambda: follower.state() is SourceState.FAILING)
        since = follower.status().since
        await follower.until(lambda: len(log_lines(caplog, logging.ERROR)) > 4)
        assert follower.state() is SourceState.FAILING
        assert follower.status().since == since, "one failure, however often it is tried"
        assert "refuses the connection" in follower.status().detail
        assert (follower.delivered(), len(follower.batches)) == (delivered, batches)
        server.put(service("new", "10.96.1.3"))
        server.come_back()
        await follower.same()
        await follower.following()
        assert follower.status().detail == ""

    run(server, tmp_path, story)
    assert any("forwarding goes on with what is known" in line for line in log_lines(caplog))


def test_a_server_that_is_away_at_the_start_is_waited_for(server, tmp_path):
    async def story(follower):
        await follower.until(lambda: follower.state() is SourceState.FAILING)
        assert follower.batches == []
        server.come_back()
        await follower.same()

    kubeconfig = server.write_kubeconfig(tmp_path / "kubeconfig")
    server.leave()
    run(server, tmp_path, story, kubeconfig=kubeconfig)


def test_the_first_batch_waits_for_our_node(server, tmp_path):
    server.delete(own_node())

    async def story(follower):
        await follower.until(lambda: follower.status(Kind.ENDPOINT_SLICE).lists)
        await follower.until(lambda: follower.status(Kind.NODE).lists)
        assert follower.batches == []
        without_address = own_node()
        del without_address["status"]
        server.put(without_address)
        assert follower.batches == []
        server.delete(own_node())
        server.put(own_node())  # an update would leave the addresses out, being of the status
        await follower.listed()
        assert follower.names(Kind.NODE) == {NODE}
        (found,) = follower.store.all(Kind.NODE)
        assert found.addresses == ("192.0.2.1",)

    run(server, tmp_path, story, times=dataclasses.replace(QUICK, node_s=LONGEST_S))


def test_a_node_that_does_not_come_is_not_waited_for_for_ever(server, tmp_path, caplog):
    server.delete(own_node())

    async def story(follower):
        await follower.listed()
        assert follower.names() == {"web"}
        server.put(own_node())
        await follower.same()

    run(server, tmp_path, story, times=dataclasses.replace(QUICK, node_s=0.05))
    assert any("no Node named n1" in line for line in log_lines(caplog, logging.WARNING))


def test_service_cidrs_that_we_may_not_see_are_off_until_we_may(server, tmp_path, caplog):
    server.forbid(SERVICE_CIDRS)

    async def story(follower):
        await follower.listed()
        assert follower.state(Kind.SERVICE_CIDR) is SourceState.OFF
        assert "may not watch servicecidrs" in follower.status(Kind.SERVICE_CIDR).detail
        assert list(follower.store.all(Kind.SERVICE_CIDR)) == []
        assert follower.names() == {"web"}
        server.permit(SERVICE_CIDRS)
        await follower.same()
        await follower.following(Kind.SERVICE_CIDR)

    run(server, tmp_path, story)
    warnings = [line for line in log_lines(caplog, logging.WARNING) if "ServiceCIDR" in line]
    assert len(warnings) == 1, warnings


def test_a_denial_is_named_and_outlived(server, tmp_path, caplog):
    server.forbid(SERVICES)

    async def story(follower):
        await follower.until(lambda: follower.state() is SourceState.FAILING)
        detail = follower.status().detail
        assert "may not watch services (403)" in detail
        assert "system:serviceaccount:kube-system:kube-proxy" in detail
        assert "\n" not in detail
        assert follower.batches == []
        server.permit(SERVICES)
        await follower.same()

    run(server, tmp_path, story)
    assert any("may not watch services" in line for line in log_lines(caplog, logging.ERROR))


def test_a_token_that_is_refused_is_named_and_read_again(server, tmp_path, caplog):
    right = server.token
    server.token = "0123456789abcdef"
    kubeconfig = server.write_kubeconfig(tmp_path / "kubeconfig")
    server.token = right

    async def story(follower):
        await follower.until(lambda: follower.state() is SourceState.FAILING)
        assert "does not accept our credentials (401)" in follower.status().detail
        server.write_kubeconfig(kubeconfig)
        await follower.same()

    run(server, tmp_path, story, kubeconfig=kubeconfig)
    assert "0123456789abcdef" not in caplog.text
    assert right not in caplog.text
