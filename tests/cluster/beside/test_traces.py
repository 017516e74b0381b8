"""What kube-proxy leaves besides rules, on the node and in the cluster, kproxy leaves too."""

from __future__ import annotations

import pytest

from tests.support.waiting import LONGEST_S, until

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

_NO_SETTING = "net.netfilter.nf_conntrack_count"
# The time, and which of the two it is. The instance is kube-proxy's host and kproxy's node: they
# differ where the node's name is not the host's, and there the node is what an event is about.
_OF_EACH = ("name", "uid", "resourceVersion", "creationTimestamp", "managedFields")


def settings(place):
    """Return every kernel setting of the node's network namespace."""
    lines = place.node.run("sysctl -a -e --pattern ^net").splitlines()
    return {line for line in lines if not line.startswith(_NO_SETTING)}


def test_kernel_settings_are_the_same(pair):
    theirs, ours = settings(pair.theirs), settings(pair.ours)
    assert len(theirs) > 100
    assert "net.ipv4.conf.all.route_localnet = 1" in theirs
    assert ours - theirs == set()
    assert theirs - ours == set()


def test_the_event_of_the_start_is_the_same(pair):
    def starts():
        events = pair.theirs.plane.api.list("/api/v1/events")
        return [each for each in events if each["reason"] == "Starting"]

    # An event is posted apart from all else, and may come after the first packets pass.
    until(
        lambda: set(map(writer, starts())) == {"kube-proxy", "kproxy"},
        within_s=LONGEST_S,
        what=lambda: f"an event of each: {starts()}",
    )
    events = starts()
    for event in events:
        assert event["reportingInstance"].startswith("kube-proxy-")
        assert without_identity(event) == without_identity(events[0])


def writer(event):
    """Return the program that posted an event."""
    return event["metadata"]["managedFields"][0]["manager"]


def without_identity(event):
    """Return an event without its name, its times and what is known to differ."""
    own = ("Time", "Timestamp", "reportingInstance")
    kept = {name: value for name, value in event.items() if not name.endswith(own)}
    # kube-proxy gives none; `kubectl describe node` looks for events by the name in its place.
    about = {name: value for name, value in event["involvedObject"].items() if name != "uid"}
    meta = {name: value for name, value in event["metadata"].items() if name not in _OF_EACH}
    return {**kept, "involvedObject": about, "metadata": meta}
