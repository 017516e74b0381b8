"""Which endpoints may take a new connection."""

from kproxy.core.objects import Protocol
from kproxy.core.select import Where, by_port, local_ready_addresses, select
from tests.support.core.things import HERE, THERE, a_slice, an_endpoint, draining

US = Where(HERE, "a")
A, B, C, D = "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"


def selected(*slices, where=US, port="", protocol=Protocol.TCP):
    return select(by_port(slices).get((port, protocol), ()), protocol, where)


def cluster(*endpoints, where=US):
    return [target.address for target in selected(a_slice(*endpoints), where=where).cluster]


def local(*endpoints):
    return [target.address for target in selected(a_slice(*endpoints)).local]


def unready(address, **fields):
    return an_endpoint(address, ready=False, **fields)


def test_ready_endpoints_are_used_and_the_others_not():
    running = unready(C, serving=True)

    assert cluster(A, unready(B), running, draining(D)) == [A]


def test_draining_endpoints_are_the_last_resort():
    assert cluster(unready(A), draining(B), unready(C, serving=True), draining(D)) == [B, D]


def test_an_endpoint_that_terminates_without_serving_is_never_used():
    assert cluster(unready(A, serving=False, terminating=True)) == []


def test_what_is_neither_ready_nor_draining_is_never_used():
    assert cluster(unready(A), unready(B, serving=True)) == []


def test_a_terminating_endpoint_that_says_ready_is_used():
    """publishNotReadyAddresses shows up as ready."""
    assert cluster(A, an_endpoint(B, terminating=True)) == [A, B]


def test_nothing_is_selected_of_nothing():
    chosen = selected()

    assert (chosen.cluster, chosen.local, chosen.serving) == ((), (), frozenset())


def test_local_is_the_node_that_was_named():
    assert local(an_endpoint(A, node=HERE), an_endpoint(B, node=THERE), C) == [A]
    assert [t.local for t in selected(a_slice(an_endpoint(A, node=HERE), B)).cluster] == [
        True,
        False,
    ]


def test_the_local_list_drains_although_others_are_ready_elsewhere():
    endpoints = [draining(A, node=HERE), unready(B, node=HERE), an_endpoint(C, node=THERE)]

    assert local(*endpoints) == [A]
    assert cluster(*endpoints) == [C]


def test_zone_hints_keep_traffic_in_the_zone():
    endpoints = [an_endpoint(A, zones=["a"]), an_endpoint(B, zones=["b"])]
    both = an_endpoint(C, zones=["b", "a"])

    assert cluster(*endpoints, both) == [A, C]


def test_one_ready_endpoint_without_a_hint_turns_all_hints_off():
    assert cluster(an_endpoint(A, zones=["a"]), an_endpoint(B, zones=["b"]), C) == [A, B, C]


def test_an_endpoint_that_is_not_ready_may_lack_a_hint():
    assert cluster(an_endpoint(A, zones=["a"]), an_endpoint(B, zones=["b"]), draining(C)) == [A]


def test_hints_that_name_none_of_us_are_ignored():
    endpoints = [an_endpoint(A, zones=["b"]), an_endpoint(B, zones=["c"])]

    assert cluster(*endpoints) == [A, B]
    assert cluster(an_endpoint(A, zones=["a"]), where=Where(HERE, "")) == [A]
    unnamed = [an_endpoint(A, zones=[""]), an_endpoint(B, zones=["b"])]
    assert cluster(*unnamed, where=Where(HERE, "")) == [A, B]


def test_only_ready_endpoints_say_whether_a_hint_names_us():
    """Otherwise the ready endpoints of other zones would be left for one that drains."""
    assert cluster(draining(A, zones=["a"]), an_endpoint(B, zones=["b"])) == [B]


def test_node_hints_beat_zone_hints():
    endpoints = [
        an_endpoint(A, zones=["a"], nodes=[HERE]),
        an_endpoint(B, zones=["a"], nodes=[THERE]),
    ]

    assert cluster(*endpoints) == [A]


def test_zone_hints_count_where_a_node_hint_is_missing_or_names_none_of_us():
    hinted = an_endpoint(A, zones=["a"], nodes=[HERE])
    elsewhere = an_endpoint(B, zones=["b"], nodes=[THERE])

    assert cluster(hinted, an_endpoint(B, zones=["a"])) == [A, B]
    assert cluster(hinted, an_endpoint(B, zones=["b"])) == [A]
    assert cluster(an_endpoint(A, zones=["a"], nodes=["n3"]), elsewhere) == [A]


def test_draining_endpoints_are_used_whatever_their_hints():
    assert cluster(draining(A, zones=["b"]), unready(B, zones=["a"])) == [A]


def test_the_local_list_ignores_topology():
    endpoints = [
        an_endpoint(A, node=HERE, zones=["b"]),
        an_endpoint(B, node=THERE, zones=["a"]),
    ]

    assert local(*endpoints) == [A]
    assert cluster(*endpoints) == [B]


def test_a_running_pod_wins_over_a_terminating_one_of_its_address():
    first, second = a_slice(A, name="1"), a_slice(draining(A), name="2")

    assert [str(t) for t in selected(first, second).cluster] == [f"{A}:8080"]
    assert [str(t) for t in selected(second, first).cluster] == [f"{A}:8080"]


def test_among_equals_the_later_slice_wins():
    first, second = a_slice(A, name="1"), a_slice(unready(A), name="2")

    assert selected(first, second).cluster == ()
    assert len(selected(second, first).cluster) == 1


def test_an_endpoint_in_two_slices_counts_once():
    first, second = a_slice(A, B, name="1"), a_slice(B, C, name="2")

    assert [t.address for t in selected(first, second).cluster] == [A, B, C]


def test_hints_of_a_replaced_duplicate_do_not_count():
    hinted = [an_endpoint(A, zones=["a"]), an_endpoint(B, zones=["b"])]
    second = a_slice(an_endpoint(B), name="2")

    assert len(selected(a_slice(*hinted), second).cluster) == 2


def test_the_order_is_that_of_address_and_port_as_text():
    assert cluster("10.1.0.2", "10.1.0.1", "10.1.0.10") == ["10.1.0.10", "10.1.0.1", "10.1.0.2"]


def test_a_port_is_found_by_name_and_protocol():
    both = a_slice(A, ports=[(8080, "http"), (9090, "admin")])
    udp = a_slice(B, name="2", ports=[(53, "http")], protocol=Protocol.UDP)

    assert [str(t) for t in selected(both, udp, port="admin").cluster] == [f"{A}:9090"]
    assert [str(t) for t in selected(both, udp, port="http").cluster] == [f"{A}:8080"]
    named_udp = selected(both, udp, port="http", protocol=Protocol.UDP)
    assert [str(t) for t in named_udp.cluster] == [f"{B}:53"]
    assert selected(both, udp, port="").cluster == ()


def test_one_name_may_stand_for_different_numbers_in_different_slices():
    old, new = a_slice(A, name="1"), a_slice(A, name="2", ports=[(9090, "")])

    assert [str(t) for t in selected(old, new).cluster] == [f"{A}:8080", f"{A}:9090"]


def test_serving_udp_endpoints_are_known_whatever_topology_says():
    endpoints = [an_endpoint(A, zones=["a"]), an_endpoint(B, zones=["b"])]
    rest = [draining(C), unready(D)]

    def serving(protocol):
        return selected(a_slice(*endpoints, *rest, protocol=protocol), protocol=protocol).serving

    assert serving(Protocol.UDP) == {(A, 8080), (B, 8080), (C, 8080)}
    assert serving(Protocol.TCP) == serving(Protocol.SCTP) == frozenset()


def test_a_health_check_counts_distinct_ready_addresses_on_this_node():
    first = a_slice(
        an_endpoint(A, node=HERE),
        an_endpoint(B, node=THERE),
        draining(C, node=HERE),
        ports=[(8080, "http"), (9090, "admin")],
    )
    second = a_slice(an_endpoint(A, node=HERE), an_endpoint(D, node=HERE), name="2")
    portless = a_slice(an_endpoint("10.1.0.9", node=HERE), name="3", ports=[])

    assert local_ready_addresses([first, second, portless], US) == {A, D}
