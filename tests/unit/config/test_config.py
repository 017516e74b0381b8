"""A KubeProxyConfiguration file: its defaults, and what comes out of it."""

import ipaddress
import json

import msgspec
import pytest
import yaml

from kproxy.config.checks import split_address_port
from kproxy.config.fields import Configuration, Mode, SocketHooks
from kproxy.config.loading import load_configuration, node_name, to_settings
from kproxy.config.writing import as_document
from kproxy.core.settings import DetectLocalMode, LocalhostNodePorts, NodePortKeyword
from kproxy.proxy.assembly import loop_settings
from tests.support.config.samples import DEFAULTS, HEADER, KUBEADM


def as_plain(configuration):
    """Return its fields, a minSyncPeriod as what is told of it."""
    plain = json.loads(msgspec.json.encode(configuration, enc_hook=float))
    for mode in ("iptables", "ipvs", "nftables"):
        plain[mode]["minSyncPeriod"] = plain[mode]["minSyncPeriod"]["span"]
    return plain


def test_no_file_means_the_reference_defaults():
    assert as_plain(load_configuration(None, None).configuration) == DEFAULTS


def test_an_empty_file_means_the_same_and_is_quiet(load):
    loaded = load({})
    assert as_plain(loaded.configuration) == DEFAULTS
    assert (loaded.warnings, loaded.without_effect) == ((), ())


def test_what_kubeadm_writes_is_the_defaults(load, tmp_path):
    loaded = load(KUBEADM)
    expected = {**DEFAULTS, "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56"}
    expected["clientConnection"] = {
        **DEFAULTS["clientConnection"],
        "kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf",
    }
    assert as_plain(loaded.configuration) == expected
    assert (loaded.warnings, loaded.without_effect) == ((), ())


def test_the_defaults_written_out_are_read_back_as_themselves(load):
    spelled = json.loads(json.dumps(DEFAULTS))

    def spell(section):
        for name, value in section.items():
            if name == "flushFrequency":
                section[name] = "5s"
            elif isinstance(value, dict):
                spell(value)
            elif name.endswith(("Timeout", "Period", "Frequency")):
                section[name] = f"{value}s"

    spell(spelled)
    loaded = load(spelled)
    assert as_plain(loaded.configuration) == DEFAULTS
    (line,) = loaded.without_effect  # of a period one can tell that it was set
    assert line.endswith("without effect in kproxy: nftables.minSyncPeriod")


@pytest.mark.parametrize("mode", ["iptables", "ipvs", "nftables"])
@pytest.mark.parametrize(
    ("given", "interval_s"),
    [({}, None), ("0s", None), (None, None), ("1s", 1), ("50ms", 0.05)],
)
def test_only_a_min_sync_period_that_somebody_set_is_an_interval(load, mode, given, interval_s):
    section = {} if given == {} else {"minSyncPeriod": given}
    loaded = load({"mode": mode, mode: section, "featureGates": {"KubeProxyIPVS": True}})
    assert loop_settings(loaded.configuration).min_interval_s == interval_s


def test_a_min_sync_period_of_another_mode_sets_nothing(load):
    loaded = load({"nftables": {"minSyncPeriod": "5s"}, "ipvs": {"minSyncPeriod": "5s"}})
    assert loop_settings(loaded.configuration).min_interval_s is None


@pytest.mark.parametrize("given", ["0s", "1s", "5s"])
def test_in_ebpf_nothing_waits_whatever_min_sync_period_iptables_has(load, given):
    loaded = load({"mode": "ebpf", "iptables": {"minSyncPeriod": given, "syncPeriod": "4s"}})
    settings = loop_settings(loaded.configuration)
    assert (settings.min_interval_s, settings.sync_period_s) == (0, 4)
    said = "".join(loaded.without_effect)
    assert ("iptables.minSyncPeriod" in said) is (given != "0s")


@pytest.mark.parametrize(("mode", "idle"), [("ebpf", False), ("iptables", True)])
def test_ebpf_has_a_section_of_its_own_of_which_one_field_counts_in_every_mode(load, mode, idle):
    fields = {
        "cgroup": "/sys/fs/cgroup/unified",
        "bpffs": "/run/bpf",
        "socketHooks": "host",
        "serviceEntries": 2048,
        "flowEntries": 4096,
        "affinityEntries": 1024,
    }
    loaded = load({"mode": mode, "kproxy": {"ebpf": fields}})
    ebpf = loaded.configuration.kproxy.ebpf
    assert (ebpf.cgroup, ebpf.bpffs) == ("/sys/fs/cgroup/unified", "/run/bpf")
    assert ebpf.socket_hooks is SocketHooks.HOST
    assert (ebpf.service_entries, ebpf.flow_entries, ebpf.affinity_entries) == (2048, 4096, 1024)
    said = "".join(loaded.without_effect)
    assert ("kproxy.ebpf.socketHooks" in said) is idle
    assert "kproxy.ebpf.bpffs" not in said
    assert as_document(loaded.configuration)["kproxy"]["ebpf"] == fields


def test_what_is_told_of_an_interval_that_nobody_set_is_kube_proxys_default(load):
    for section in ({}, {"minSyncPeriod": "0s"}, {"minSyncPeriod": "1s"}):
        told = as_document(load({"iptables": section}).configuration)
        assert told["iptables"]["minSyncPeriod"] == "1s"


def test_json_is_read_as_well(load):
    fields = {**HEADER, "mode": "ipvs", "ipvs": {"syncPeriod": "1h30m"}}
    loaded = load(json.dumps(fields, indent="\t"))
    assert loaded.configuration.mode is Mode.IPVS
    assert loaded.configuration.ipvs.sync_period_s == 5400.0


@pytest.mark.parametrize("bind", ["::", "fd00::1"])
def test_an_ipv6_bind_address_moves_the_servers_to_ipv6(load, bind):
    configuration = load({"bindAddress": bind}).configuration
    assert configuration.healthz_bind_address == "[::]:10256"
    assert configuration.metrics_bind_address == "[::1]:10249"


def test_a_bare_server_address_gets_its_port(load):
    fields = {"healthzBindAddress": "192.0.2.1", "metricsBindAddress": "fd00::1"}
    configuration = load(fields).configuration
    assert configuration.healthz_bind_address == "192.0.2.1:10256"
    assert configuration.metrics_bind_address == "[fd00::1]:10249"


@pytest.mark.parametrize("given", ["192.0.2.1:+80", "192.0.2.1:00000080", "[192.0.2.1]:80"])
def test_a_server_address_is_read_as_go_reads_it(load, given):
    configuration = load({"metricsBindAddress": given}).configuration
    assert split_address_port(configuration.metrics_bind_address) == ("192.0.2.1", 80)


def test_the_option_wins_over_the_mode_of_the_file(load):
    assert load({"mode": "ipvs"}, Mode.EBPF).configuration.mode is Mode.EBPF
    assert load({"mode": "ipvs"}).configuration.mode is Mode.IPVS


def test_unknown_and_repeated_fields_are_skipped_and_said_in_one_line_each(load):
    text = yaml.safe_dump({**HEADER, "iptables": {"masqueradeAl": True}, "bogus\x1b": 1})
    loaded = load(text + "mode: ipvs\nmode: nftables\n")
    assert loaded.configuration.mode is Mode.NFTABLES
    unknown, repeated = loaded.warnings
    assert unknown.endswith(r"unknown fields, skipped: 'bogus\x1b', iptables.masqueradeAl")
    assert "'mode' at line" in repeated
    (repeated,) = load(json.dumps(HEADER)[:-1] + ', "mode": "ipvs", "mode": "ebpf"}').warnings
    assert repeated.endswith("set twice, the last one counts: 'mode'")


def test_a_field_without_effect_says_so_once(load):
    fields = {
        "enableProfiling": True,
        "metricsBindAddress": "127.0.0.1:9999",
        "clientConnection": {"qps": 50, "burst": 10},
        "iptables": {"masqueradeAll": True},
        "featureGates": {
            "NFTablesNetlink": False,
            "NativeHistograms": True,
            "KubeProxyIPVS": False,
        },
    }
    idle, gates = load(fields).without_effect
    assert idle.endswith("without effect in kproxy: clientConnection.qps, enableProfiling")
    assert gates.endswith("feature gates, accepted, without effect in kproxy: NFTablesNetlink")


@pytest.mark.parametrize("where", ["ipvs.excludeCIDRs", "nodePortAddresses"])
def test_an_empty_list_says_no_more_than_none(load, where):
    *section, name = where.split(".")
    fields = {section[0]: {name: []}} if section else {name: []}
    assert load(fields).without_effect == ()


def test_only_the_first_document_counts_and_that_is_said(load):
    loaded = load(yaml.safe_dump({**HEADER, "mode": "ipvs"}) + "---\nmode: nftables\n")
    assert loaded.configuration.mode is Mode.IPVS
    (line,) = loaded.warnings
    assert line.endswith("several documents, the first one counts")


@pytest.mark.parametrize("more", ["---\n]\n", "...\nnothing: [\n", "---\n- !!python/object x\n"])
def test_nobody_looks_at_what_follows_the_first_document(load, more):
    loaded = load(yaml.safe_dump({**HEADER, "mode": "ipvs"}) + more)
    assert loaded.configuration.mode is Mode.IPVS
    (line,) = loaded.warnings
    assert line.endswith("several documents, the first one counts")


@pytest.mark.parametrize("fields", [{}, {"mode": ""}, {"mode": None}])
def test_a_mode_that_nobody_named_is_noted(load, fields):
    assert load(fields).mode_was_default
    assert not load(fields, Mode.IPTABLES).mode_was_default
    assert not load({"mode": "iptables"}).mode_was_default


def test_an_address_that_is_written_out_does_not_follow_the_bind_address(load):
    fields = {"bindAddress": "::", "healthzBindAddress": "0.0.0.0:10256"}
    configuration = load(fields).configuration
    assert configuration.healthz_bind_address == "0.0.0.0:10256"
    assert configuration.metrics_bind_address == "[::1]:10249"


def test_in_nftables_mode_node_ports_are_on_the_primary_addresses_unless_said(load):
    for fields in ({"mode": "nftables"}, {"mode": "nftables", "nodePortAddresses": []}):
        assert load(fields).configuration.node_port_addresses == ("primary",)
    said = {"mode": "nftables", "nodePortAddresses": ["all"]}
    assert load(said).configuration.node_port_addresses == ("all",)
    assert load({"mode": "ipvs"}).configuration.node_port_addresses is None


@pytest.mark.parametrize(
    ("given", "meant"),
    [("0.0.0.0", ""), ("::", ""), ("010.0.0.1", "10.0.0.1"), ("FD00::1", "fd00::1")],
)
def test_a_specific_bind_address_stands_for_the_node_s(load, given, meant):
    configuration = load({"bindAddress": given}).configuration
    assert to_settings(configuration, "n").bind_address == meant


def test_a_number_without_decimals_is_an_integer_however_it_is_written(load):
    text = yaml.safe_dump(HEADER) + "iptables: {masqueradeBit: 1e1}\nconntrack: {min: 0x10}\n"
    configuration = load(text).configuration
    assert configuration.iptables.masquerade_bit == 10
    assert configuration.conntrack.min == 16


def test_null_in_a_list_or_a_map_is_go_s_zero_value(load):
    fields = {"ipvs": {"excludeCIDRs": [None]}, "featureGates": {"AllBeta": None}}
    configuration = load(fields).configuration
    assert configuration.ipvs.exclude_cidrs == ("",)
    assert configuration.feature_gates == {"AllBeta": False}


def test_a_date_is_text_as_in_json(load):
    assert load("hostnameOverride: 2026-01-31\n" + yaml.safe_dump(HEADER)).configuration == (
        msgspec.structs.replace(Configuration(), hostname_override="2026-01-31")
    )


def test_settings_of_an_empty_configuration():
    settings = to_settings(Configuration(), "n")
    assert settings.node_name == "n"
    assert settings.detect_local is DetectLocalMode.CLUSTER_CIDR
    assert settings.cluster_cidrs == ()
    assert settings.node_port_addresses == (NodePortKeyword.ALL,)
    assert settings.localhost_ipv4 is LocalhostNodePorts.COVERED
    assert settings.localhost_ipv6 is LocalhostNodePorts.NEVER
    assert not settings.masquerade_all


@pytest.mark.parametrize(
    ("gates", "expected"),
    [({}, True), ({"AllowServiceExternalIPs": False}, False)],
)
def test_external_ips_are_behind_their_gate(load, gates, expected):
    configuration = load({"featureGates": gates}).configuration
    assert to_settings(configuration, "n").external_ips is expected


def test_networks_are_canonical_and_keywords_are_kept(load):
    fields = {
        "clusterCIDR": "10.244.0.7/16, fd00:0:0:1::/64",
        "nodePortAddresses": ["192.0.2.1/24", "primary", "localhost"],
        "iptables": {"localhostNodePorts": False},
    }
    settings = to_settings(load(fields).configuration, "n")
    assert settings.cluster_cidrs == (
        ipaddress.ip_network("10.244.0.0/16"),
        ipaddress.ip_network("fd00:0:0:1::/64"),
    )
    assert settings.node_port_addresses == (
        ipaddress.ip_network("192.0.2.0/24"),
        NodePortKeyword.PRIMARY,
        NodePortKeyword.LOCALHOST,
    )
    assert settings.localhost_ipv4 is LocalhostNodePorts.NEVER


def test_an_ipv4_network_may_be_written_as_one_of_ipv6(load):
    mapped = "::ffff:10.0.0.0/104"
    fields = {"clusterCIDR": f"{mapped},fd00::/8", "nodePortAddresses": [mapped]}
    settings = to_settings(load(fields).configuration, "n")
    assert settings.cluster_cidrs[0] == ipaddress.ip_network("10.0.0.0/8")
    assert settings.node_port_addresses == (ipaddress.ip_network("10.0.0.0/8"),)


def test_cluster_cidr_is_for_its_own_detect_mode(load):
    fields = {"clusterCIDR": "not checked", "detectLocalMode": "NodeCIDR"}
    assert to_settings(load(fields).configuration, "n").cluster_cidrs == ()


def test_the_detect_local_names_reach_the_settings(load):
    fields = {
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": {"interfaceNamePrefix": "veth", "bridgeInterface": "cbr0"},
    }
    settings = to_settings(load(fields).configuration, "n")
    assert settings.detect_local is DetectLocalMode.INTERFACE_NAME_PREFIX
    assert (settings.interface_name_prefix, settings.bridge_interface) == ("veth", "cbr0")


@pytest.mark.parametrize(
    ("option", "override", "expected"),
    [
        (None, "", "host"),
        (None, " Node-A ", "node-a"),
        ("Node-B", "Node-A", "node-b"),
        (" NODE-C", "", "node-c"),
        ("\x85\u2003\vA\x1f ", "", "a\x1f"),
        ("\u0130\u03a3", "", "i\u03c3"),
    ],
)
def test_the_node_s_name(option, override, expected):
    configuration = Configuration(hostname_override=override)
    assert node_name(option, configuration, "HOST") == expected


@pytest.mark.parametrize("option", ["", "  "])
def test_a_blank_node_name_is_refused(option):
    with pytest.raises(ValueError, match="blank"):
        node_name(option, Configuration(hostname_override="a"), "host")


@pytest.mark.parametrize(
    ("given", "meant"),
    [(0.1, 0.1), (16777217, 16777216.0), (123456789.125, 123456790.0), (5, 5.0), (0, 5.0)],
)
def test_the_rate_of_requests_has_the_precision_that_upstream_has(load, given, meant):
    assert load({"clientConnection": {"qps": given}}).configuration.client_connection.qps == meant


@pytest.mark.parametrize("zero", ["0", 0, "0Ki", "0.0", "00e3", "Ki", ".", "-"])
def test_a_quantity_of_nothing_is_zero_however_it_is_written(load, zero):
    fields = {"logging": {"options": {"text": {"infoBufferSize": zero}}}}
    assert load(fields).configuration == Configuration()


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (512, "512"),
        (1e3, "1k"),
        (" 64Ki ", "64Ki"),
        ("1024Ki", "1Mi"),
        ("1.5Ki", "1536"),
        ("1.5Mi", "1536Ki"),
        ("0.1Ki", "102400m"),
        ("1000k", "1M"),
        ("1.5M", "1500k"),
        (" 12e4", "120e3"),
        ("0.1m", "100u"),
        ("0.1n", "1n"),
        ("+5", "+5"),
        ("+8Ki", "8Ki"),
        ("1.500k", "1.500k"),
        ("9Ei", "9223372036854775807"),
    ],
)
def test_a_quantity_is_kept_in_kubernetes_own_form(load, given, written):
    output = {"infoBufferSize": given}
    fields = {
        "logging": {"options": {"json": output}},
        "featureGates": {"LoggingAlphaOptions": True},
    }
    assert load(fields).configuration.logging.options.json.info_buffer_size == written


def test_a_split_log_in_a_file_is_overwritten_by_the_flag_that_is_not_there(load):
    fields = {"logging": {"options": {"text": {"splitStream": True}}}}
    assert load(fields).configuration == Configuration()


def test_a_bare_server_address_keeps_its_spelling(load):
    configuration = load({"healthzBindAddress": "FD00::1"}).configuration
    assert configuration.healthz_bind_address == "[FD00::1]:10256"


@pytest.mark.parametrize(("mode", "idle"), [("iptables", True), ("ipvs", False)])
def test_the_section_of_another_mode_is_without_effect(load, mode, idle):
    said = load({"mode": mode, "ipvs": {"scheduler": "mh"}}).without_effect
    assert any("ipvs.scheduler" in line for line in said) is idle
