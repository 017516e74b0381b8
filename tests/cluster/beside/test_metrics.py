"""The page of metrics shows what kube-proxy's shows, in the same shape."""

from __future__ import annotations

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.beside.asking import ask
from tests.support.net.plan import POD1
from tests.support.node.cluster import both
from tests.support.waiting import LONGEST_S, until

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

PORT = 10249
OURS_TO_SHOW = ("kubeproxy_", "rest_client_", "kubernetes_", "process_")
# What kube-proxy shows and kproxy does not, with the reason.
OF_GO = "of the Go runtime, which kproxy has not"
OF_LIBRARY = "of Go libraries that kube-proxy links and does not use; always zero"
OF_CLIENT = "of client-go's inside: kproxy has no such cache, plugin or limiter"
OF_NAMESPACE = "counts the whole network namespace, which for this process is the node"
MISSING = {
    "go_": OF_GO,
    "aggregator_": OF_LIBRARY,
    "apiserver_": OF_LIBRARY,
    "cardinality_enforcement_": OF_LIBRARY,
    "rest_client_exec_plugin_": OF_CLIENT,
    "rest_client_transport_": OF_CLIENT,
    "rest_client_rate_limiter_duration_seconds": OF_CLIENT,
    "rest_client_request_size_bytes": "of requests that all are small and have no bodies",
    "rest_client_response_size_bytes": "client-go leaves out streams, and kproxy has hardly others",
    "process_network_": OF_NAMESPACE,
    "process_virtual_memory_max_bytes": "a limit that is not set in any cluster",
}
# Labels that tell versions and tools of a build: the names are the same, the values cannot be.
OF_BUILDS = "kubernetes_build_info"
# Values of these labels are told apart by what happened so far.
OF_EVENTS = {"code", "method", "verb", "host"}


def shapes(place):
    """Return type, label names, bounds and constant labels of every family on a page."""
    return {
        family.name: (
            family.type,
            frozenset(label for s in family.samples for label in s.labels),
            tuple(dict.fromkeys(s.labels["le"] for s in family.samples if "le" in s.labels)),
        )
        for family in families(place)
    }


def families(place):
    return list(text_string_to_metric_families(ask(place, PORT, "/metrics").body))


def labelled(place):
    """Return the series of a page that are there whatever happens, by their labels."""
    return {
        (sample.name, *sorted(sample.labels.items()))
        for family in families(place)
        if family.name.startswith(OURS_TO_SHOW) and family.name != OF_BUILDS
        for sample in family.samples
        if not sample.name.endswith("_created") and not OF_EVENTS & sample.labels.keys()
    }


@pytest.fixture
def changed(pair):
    """Everything has happened that makes kube-proxy show a family."""
    for place in (pair.theirs, pair.ours):
        for path in ("/healthz", "/livez"):
            ask(place, 10256, path)
    return pair


def test_what_kube_proxy_shows_is_there_in_its_shape(changed):
    theirs, ours = shapes(changed.theirs), shapes(changed.ours)
    wanted = {name: shape for name, shape in theirs.items() if not name.startswith(tuple(MISSING))}
    assert len(wanted) > 25
    assert {name: ours.get(name) for name in wanted} == wanted


def test_what_is_missing_is_missing_on_purpose(changed):
    missing = shapes(changed.theirs).keys() - shapes(changed.ours).keys()
    assert {name for name in missing if not name.startswith(tuple(MISSING))} == set()
    for prefix in MISSING:
        assert any(name.startswith(prefix) for name in missing), f"{prefix} is not missing"


def test_every_series_of_kube_proxys_is_there(changed):
    wanted = {each for each in labelled(changed.theirs) if not each[0].startswith(tuple(MISSING))}
    assert wanted - labelled(changed.ours) == set()


def test_feature_gates_have_the_same_values(changed):
    def gates(place):
        return {
            (sample.labels["name"], sample.labels["stage"], sample.value)
            for family in families(place)
            if family.name == "kubernetes_feature_enabled"
            for sample in family.samples
        }

    assert gates(changed.ours) == gates(changed.theirs)
    assert len(gates(changed.ours)) > 200


def counts(place, names):
    """Return the values of all series of these names."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families(place)
        for sample in family.samples
        if sample.name in names
    }


def test_what_is_counted_is_counted_alike(changed):
    """What the cluster determines, and not the way of working."""
    same = (
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
        "kubeproxy_sync_proxy_rules_service_changes_pending",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    )
    until(
        lambda: counts(changed.ours, same) == counts(changed.theirs, same),
        within_s=LONGEST_S,
        what=f"the counts are {counts(changed.theirs, same)}",
    )
    assert len(counts(changed.theirs, same)) == 6
    # A Service without local endpoints in each family.
    assert sum(counts(changed.theirs, same[-1:]).values()) == 2


SERVICE_CHANGES = "kubeproxy_sync_proxy_rules_service_changes_total"
ENDPOINT_CHANGES = "kubeproxy_sync_proxy_rules_endpoint_changes_total"


def totals(place):
    """Return how many changes of Services and of endpoints were counted so far."""
    return [sum(counts(place, (name,)).values()) for name in (SERVICE_CHANGES, ENDPOINT_CHANGES)]


def both_totals(changed):
    return [totals(changed.theirs), totals(changed.ours)]


def test_a_changed_service_counts_once_and_not_once_for_each_family(changed, plane):
    """Changes that come faster than they are taken add up here, so one is made at a time."""
    objects = both("counted", "10.96.0.99", POD1)

    def make():
        for each in objects:
            plane.api.apply(dict(each))

    def remove():
        for each in objects:
            plane.api.delete(dict(each))

    seen = []

    def counts_once():
        seen[:] = [added_by(changed, make), added_by(changed, remove)]
        # Its status is written after it, which is a change to kube-proxy alone.
        return seen == [[[4, 2], [1, 2]], [[2, 2], [1, 2]]]

    # What an earlier test changed last may be counted with it, and then not the next time.
    until(counts_once, within_s=LONGEST_S, what=lambda: f"it counts once: {seen}")


def added_by(changed, change):
    """Return by how much a change of the cluster has changed all counts when they rest again."""
    before = at_rest(changed)
    change()
    until(
        lambda: min(map(min, more(before, both_totals(changed)))) > 0,
        within_s=LONGEST_S,
        what="the change is counted",
    )
    return more(before, at_rest(changed))


def more(before, now):
    return [
        [n - then for then, n in zip(*each, strict=True)] for each in zip(before, now, strict=True)
    ]


def at_rest(changed):
    """Return the counts when they have not changed for a while; pages are half a second old."""
    before = both_totals(changed)
    time.sleep(1.0)
    while (now := both_totals(changed)) != before:
        before = now
        time.sleep(1.0)
    return before
