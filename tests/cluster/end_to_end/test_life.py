"""From the API server to packets, in good days and bad ones."""

from __future__ import annotations

import pytest

from tests.support.net.plan import FAR1, NODE, POD1, POD2
from tests.support.node.cluster import both
from tests.support.node.node import LEFT, REFUSED
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, holds, until

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

PORTS = (port(80, node_port=30020),)
OLD = both("web", "10.96.0.20", POD1, ports=PORTS)
NEW = both("web", "10.96.0.20", POD2, ports=PORTS)
OTHER = both("other", "10.96.0.30", FAR1)
BEFORE = {"10.96.0.20:80": frozenset({POD1}), f"{NODE}:30020": frozenset({POD1})}
AFTER = {"10.96.0.20:80": frozenset({POD2}), f"{NODE}:30020": frozenset({POD2})}


def follows(place, expected):
    until(lambda: place.node.answers(expected) == [], within_s=LONGEST_S, what=str(expected))


def test_packets_follow_the_api_server(place):
    place.apply(OLD)
    proxy = place.ready()
    assert place.node.answers(BEFORE) == []
    place.apply(NEW)
    follows(place, AFTER)
    place.apply(OTHER)
    follows(place, {"10.96.0.30:80": frozenset({FAR1})})
    place.delete(OTHER)
    follows(place, {"10.96.0.30:80": frozenset({"silent", LEFT, "never arrived"})})
    place.delete(NEW[1:])
    follows(place, {"10.96.0.20:80": frozenset({REFUSED})})
    assert proxy.stop() == 0, proxy.said()
    assert "error" not in proxy.said()


def test_it_writes_what_a_folder_with_the_same_objects_would(place):
    place.apply([*OLD, *OTHER])
    own = list(kubernetes(place))
    assert place.ready().stop() == 0
    from_cluster = place.node.ours()
    assert list(kubernetes(place)) == own, "it changed in between"
    place.node.manifests.put("all", (*OLD, *OTHER, *place_cidrs(place), *own))
    place.node.once()
    assert place.node.ours() == from_cluster


def place_cidrs(place):
    return tuple(
        {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", **each}
        for each in place.plane.api.list("/apis/networking.k8s.io/v1/servicecidrs")
    )


def kubernetes(place):
    """Return the Service of the API server itself, and its endpoints."""
    yield from (
        {"apiVersion": "v1", "kind": "Service", **each}
        for each in place.plane.api.list("/api/v1/namespaces/default/services")
        if each["metadata"]["name"] == "kubernetes"
    )
    yield from (
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **each}
        for each in place.plane.api.list(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        )
        if each["metadata"]["name"] == "kubernetes"
    )


@pytest.mark.parametrize("variant", ["nft"])
def test_the_log_names_at_the_start_what_time_will_not_heal_and_nothing_else(place):
    service, *slices = OLD
    misnamed = [{**each, "ports": [{**each["ports"][0], "name": "http"}]} for each in slices]
    place.apply([service, *misnamed, OTHER[0]])
    proxy = place.ready()
    place.apply(OLD)
    follows(place, BEFORE)
    place.apply(misnamed)
    follows(place, {"10.96.0.20:80": frozenset({REFUSED})})
    said = [line for line in proxy.said().splitlines() if "no usable endpoint" in line]
    assert len(said) == 2, said
    for family, line in zip(("IPv4", "IPv6"), said, strict=True):
        assert f"Service default/web: port 80 TCP, {family}: no usable endpoint" in line
        assert line.endswith("it has 'http' TCP: name both alike")


@pytest.mark.parametrize("variant", ["nft"])
def test_without_the_api_server_forwarding_goes_on_and_then_catches_up(place):
    place.apply([*OLD, *OTHER])
    proxy = place.ready()
    place.plane.api_server.kill()  # it would wait a minute for open watches to end
    proxy.wait_for("forwarding goes on with what is known")
    holds(lambda: place.node.answers(BEFORE) == [], for_s=0.5, what="the old answers")
    until(
        lambda: {each["state"] for each in place.health()["sources"]} == {"failing"},
        within_s=LONGEST_S,
        what="every kind is out of touch",
    )
    assert place.health()["code"] == "200"
    assert 'kproxy_source_state{kind="Service",state="failing"} 1.0' in place.asked(
        10249, "/metrics"
    )

    place.relay.hang()  # each attempt in vain would double the pause after it
    place.plane.start_api_server()
    place.apply(NEW)
    place.delete(OTHER)
    place.relay.flow()
    follows(place, AFTER)
    follows(place, {"10.96.0.30:80": frozenset({"silent", LEFT, "never arrived"})})
    until(
        lambda: {each["state"] for each in place.health()["sources"]} == {"following"},
        within_s=LONGEST_S,
        what="in touch again",
    )


def test_a_start_without_the_api_server_keeps_the_rules_of_the_last_run(place):
    place.apply(OLD)
    assert place.ready().stop() == 0
    place.relay.cut()
    place.relay.refuse()
    proxy = place.start()
    proxy.wait_for("trying again in")
    assert place.node.answers(BEFORE) == []
    place.relay.admit()
    place.apply(NEW)
    follows(place, AFTER)


@pytest.mark.parametrize("variant", ["nft"])
def test_a_denied_list_is_named_and_nothing_is_written_until_it_is_granted(place):
    place.apply(OLD)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "end-to-end"},
    }
    granted = place.plane.api.get(role)
    place.plane.api.delete(role)
    until(lambda: not place.is_allowed(), within_s=LONGEST_S, what="it is denied")
    proxy = place.start()
    proxy.wait_for("may not watch endpointslices")
    assert "system:serviceaccount:kube-system:kube-proxy" in proxy.said()
    assert place.node.ours() == []
    place.plane.api.create({**role, "roleRef": granted["roleRef"], "subjects": granted["subjects"]})
    follows(place, BEFORE)


@pytest.mark.parametrize("variant", ["nft"])
def test_a_token_that_is_no_good_is_named_and_a_new_one_is_taken(place):
    place.apply(OLD)
    good = place.kubeconfig.with_name("kubeconfig.conf.token").read_text()
    place.put_token("no-good")
    proxy = place.start()
    proxy.wait_for("does not accept our credentials (401)")
    assert "no-good" not in proxy.said()
    place.put_token(good)
    follows(place, BEFORE)


@pytest.mark.parametrize("variant", ["nft"])
def test_a_changed_configuration_ends_it_and_an_invalid_one_does_not(place):
    place.apply(OLD)
    proxy = place.ready()
    place.configure(mode="fastest")
    proxy.wait_for("is not valid; what was read before stays in force")
    place.configure(iptables={"masqueradeAll": True})
    assert proxy.ended() == 0, proxy.said()
    assert "has other values for iptables.masqueradeAll" in proxy.said()
    assert place.node.answers(BEFORE) == []


@pytest.mark.parametrize("variant", ["nft"])
def test_a_second_one_waits_until_the_first_has_gone(place):
    place.apply(OLD)
    first = place.ready()
    second = place.start()
    second.wait_for("waiting until it ends")
    assert "ready: " not in second.said()
    assert first.stop() == 0
    second.wait_for("ready: ")
    third = place.start()
    third.wait_for("waiting until it ends")
    assert third.stop() == 0
    assert "nothing was written" in third.said()


@pytest.mark.parametrize("variant", ["nft"])
def test_the_start_is_told_to_the_cluster(place):
    place.ready()

    def events():
        return [
            (each["involvedObject"]["name"], each["reportingComponent"], each["type"])
            for each in place.plane.api.list("/api/v1/events")
            if each["reason"] == "Starting"
        ]

    until(
        lambda: events() == [("node", "kube-proxy", "Normal")], within_s=LONGEST_S, what="the event"
    )


def test_init_only_prepares_what_a_process_without_privileges_cannot(place):
    place.apply(OLD)
    prepared = place.start("--init-only")
    assert prepared.ended() == 0, prepared.said()
    assert "Node: listed, 1 objects" in prepared.said()
    assert "Service: " not in prepared.said(), "it needs the Node alone"
    assert place.node.run("sysctl -n net.ipv4.conf.all.route_localnet").strip() == "1"
    assert (
        place.node.run("sysctl -n net.netfilter.nf_conntrack_tcp_timeout_established") == "86400\n"
    )
    assert not any("-A KPROXY-SERVICES" in line for line in place.node.ours())
    again = place.start("--init-only")
    assert again.ended() == 0
    assert "0 settings and rules were missing" in again.said()


def test_init_only_waits_for_a_running_proxy_and_writes_nothing_meanwhile(place):
    place.configure(iptables={"localhostNodePorts": False})
    place.apply(OLD)
    proxy = place.ready()
    before = place.node.ours()
    # A file of its own: whoever runs already would end when its own changes.
    place.config = place.config.with_name("changed.conf")
    place.configure(conntrack={"maxPerCore": 0, "udpTimeout": "77s"})
    waiting = place.start("--init-only")
    waiting.wait_for("waiting until it ends")
    assert place.node.ours() == before
    assert place.node.run("sysctl -n net.netfilter.nf_conntrack_udp_timeout") != "77\n"
    assert waiting.stop() == 0
    assert "nothing was written" in waiting.said()

    waiting = place.start("--init-only")
    waiting.wait_for("waiting until it ends")
    assert proxy.stop() == 0
    assert waiting.ended() == 0, waiting.said()
    assert place.node.run("sysctl -n net.netfilter.nf_conntrack_udp_timeout") == "77\n"
    assert any("KPROXY-LOCALNET" in line for line in place.node.ours())


def test_cleanup_removes_everything_and_says_when_a_proxy_still_runs(place):
    place.apply(OLD)
    proxy = place.ready()
    cleaning = place.start("--cleanup")
    assert cleaning.ended() == 1
    assert "a kproxy runs here and would write its rules again" in cleaning.said()
    assert proxy.stop() == 0
    cleaning = place.start("--cleanup")
    assert cleaning.ended() == 0, cleaning.said()
    assert place.node.ours() == []
