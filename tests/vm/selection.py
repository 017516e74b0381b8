"""Which tests run on Debian 12's Linux 6.1: those that show what depends on the kernel.

It has no tcx, an older verifier, connection tracking as a module, and ip_vs. The machine is
emulated, so each test has to be worth ten times what it takes on the host. One that compiles C of
its own does not belong here: the compiler would run into its time-out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

_EBPF = "tests/kernel/ebpf"
_IPTABLES = "tests/kernel/iptables"
_CONTRACT = "tests/kernel/ipvs/test_contract.py::TestIpvs"
_IPVS_FAULTS = "tests/kernel/faults/ipvs"
_FAMILIES = ("IPv4", "IPv6")

# By data path: what of the packet table is asked there. In both families, and in one or the other.
_IN_BOTH = {
    "ebpf": ("clusterIP",),
    "ipvs-nft": (
        "clusterIP",
        "external traffic, policy Cluster",
        "externalTrafficPolicy Local with a local endpoint",
        "externalTrafficPolicy Local without a local endpoint",
        "internalTrafficPolicy Local",
        "masqueradeAll",
        "no usable endpoint",
        "nodePortAddresses one network",
        "not ours",
        "protocols share a port number",
        "session affinity",
        "source ranges",
        "unallocated addresses in a ServiceCIDR",
    ),
}
_IN_ONE = {
    "ebpf": (
        "externalTrafficPolicy Local with a local endpoint",
        "source ranges",
        "unallocated addresses in a ServiceCIDR",
        "no usable endpoint",
    ),
    "ebpf-tc": ("clusterIP",),
    "ipvs-legacy": (
        "clusterIP",
        "externalTrafficPolicy Local with a local endpoint",
        "no usable endpoint",
    ),
    "iptables-legacy": ("clusterIP", "source ranges", "no usable endpoint"),
    "iptables-nft": ("clusterIP", "source ranges", "no usable endpoint"),
}


def _pairs(groups: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, str]]:
    return ((path, group) for path, asked in groups.items() for group in asked)


_TABLE = tuple(
    "tests/kernel/packets/test_kernel.py::test_the_kernel_agrees_with_the_packet_table"
    f"[{data_path}-{family}, {group}]"
    for (data_path, group), family in itertools.chain(
        itertools.product(_pairs(_IN_BOTH), _FAMILIES),
        zip(_pairs(_IN_ONE), itertools.cycle(_FAMILIES), strict=False),
    )
)

DEBIAN_12 = (
    # First what takes longest: another process does the rest meanwhile.
    f"{_IPVS_FAULTS}/test_port_reuse.py::test_its_first_packet_is_answered_by_the_new_endpoint"
    "[closed]",
    f"{_IPVS_FAULTS}/test_take_over.py::test_kproxy_goes_on_with_what_kube_proxy_made",
    *_TABLE,
    f"{_EBPF}/test_check.py::test_here_everything_is_there_but_a_route",
    f"{_EBPF}/test_contract.py::TestEbpf::test_a_restart_changes_only_what_differs[IPv4]",
    f"{_EBPF}/test_contract.py::TestEbpf::test_meddling_is_noticed_and_repaired[IPv6]",
    f"{_EBPF}/test_hook_flows.py",
    f"{_EBPF}/tc/test_beside.py::test_who_is_masqueraded_by_the_port_of_an_open_flow_gets_another"
    "[IPv4-Protocol.TCP]",
    f"{_EBPF}/tc/test_hand_over.py::test_a_flow_is_left_alone_until_the_kernel_forgets_it"
    "[IPv4-203.0.113.5]",
    f"{_EBPF}/tc/test_hand_over.py::test_a_flow_is_left_alone_until_the_kernel_forgets_it"
    "[IPv6-10.1.0.12]",
    f"{_EBPF}/devices/test_attach.py::test_every_kind_of_device_runs_our_programs[clsact]",
    f"{_EBPF}/devices/test_drift.py::test_a_filter_that_somebody_removed_is_back_at_once",
    f"{_EBPF}/devices/test_drift.py::test_a_qdisc_that_somebody_removed_is_back_at_once",
    f"{_EBPF}/devices/test_order.py::test_filters_that_come_later_are_noticed_at_once[clsact]",
    f"{_IPTABLES}/test_contract.py::TestIptables::test_a_restart_changes_only_what_differs[IPv4-nft]",
    f"{_IPTABLES}/test_contract.py::TestIptables::test_meddling_is_noticed_and_repaired[IPv6-legacy]",
    f"{_IPTABLES}/test_parts.py::test_the_kernel_tells_which_extensions_it_has",
    "tests/kernel/ipvs/test_change.py::TestChanges::"
    "test_what_is_open_goes_on_and_what_begins_meets_the_new_rules[out of-IPv6]",
    "tests/kernel/ipvs/test_check.py",
    "tests/kernel/ipvs/test_cleanup.py::test_all_of_it_goes_and_nothing_else[IPv4-nft]",
    f"{_CONTRACT}::test_a_commit_that_failed_half_way_is_finished_by_the_next_apply[IPv4-nft]",
    f"{_CONTRACT}::test_meddling_is_noticed_and_repaired[IPv6-nft]",
    f"{_CONTRACT}::test_no_room_for_one_of_all_services_at_the_first_write[IPv4-nft]",
    f"{_CONTRACT}::test_what_is_not_ours_stays_as_it_is[IPv6-nft]",
    "tests/kernel/ipvs/test_drift.py::test_each_kind_of_object_is_watched[IPv4]",
    "tests/kernel/ipvs/test_drift.py::"
    "test_virtual_servers_in_other_namespaces_hide_nothing[IPv6-changes_a_weight]",
    "tests/kernel/ipvs/test_leaving.py::"
    "test_it_goes_with_its_last_connection_whoever_was_killed_meanwhile",
    "tests/kernel/ipvs/test_leaving.py::"
    "test_one_to_which_its_client_sends_nothing_more_streams_on[IPv6]",
    "tests/kernel/ipvs/test_leaving.py::"
    "test_after_it_the_nodes_new_connections_pass_and_open_ones_go_on[IPv4]",
    "tests/kernel/ipvs/test_link.py::test_what_was_written_is_read_back_and_leads_here",
    "tests/kernel/ipvs/test_link.py::test_the_link_stays_until_the_last_family_lets_go",
    "tests/kernel/ipvs/test_preview.py::test_it_makes_what_the_data_path_makes[IPv6]",
    "tests/kernel/ipvs/test_servers.py",
    "tests/kernel/ipvs/test_servers_watch.py",
    "tests/kernel/ipvs/test_settings.py",
    "tests/kernel/ipvs/test_steering.py",
    "tests/kernel/ipvs/test_taken.py::test_while_what_is_refused_is_searched_kube_proxys_go_on",
    "tests/deploy/test_ipvs_privileges.py",
    f"{_IPTABLES}/test_takeover.py::test_the_ipvs_mode_leaves_nothing_and_others_lose_nothing",
)
