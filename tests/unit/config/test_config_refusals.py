"""Configuration files that are refused: each error names the field, the value and the reason."""

import json

import pytest
import yaml

from kproxy.config.loading import ConfigurationError, load_configuration
from kproxy.kube_proxy.configuration import load as load_flags
from tests.support.config.samples import HEADER

BAD_FIELDS = [
    ({"mode": "userspace"}, "mode: must be one of iptables, ipvs, nftables, ebpf"),
    ({"mode": 3}, "mode: must be one of"),
    ({"iptables": {"masqueradeBit": 32}}, "iptables.masqueradeBit: must be in 0..31 (value 32)"),
    ({"iptables": {"masqueradeBit": -1}}, "iptables.masqueradeBit: must be in 0..31"),
    ({"iptables": {"masqueradeBit": "14"}}, "iptables.masqueradeBit: Expected `int`, got `str`"),
    ({"iptables": {"masqueradeAll": "yes"}}, "iptables.masqueradeAll: Expected `bool`"),
    ({"iptables": {"syncPeriod": "-1s"}}, "iptables.syncPeriod: must be more than 0s (value -1s)"),
    ({"iptables": {"syncPeriod": 30}}, "iptables.syncPeriod: expected a duration"),
    ({"iptables": {"syncPeriod": "30"}}, "iptables.syncPeriod: not a duration"),
    ({"iptables": {"minSyncPeriod": "31s"}}, "iptables.syncPeriod: must not be less than"),
    ({"iptables": {"minSyncPeriod": "-1ms"}}, "iptables.minSyncPeriod: must not be negative"),
    ({"iptables": []}, "iptables: expected an object (value [])"),
    ({"mode": "ipvs", "ipvs": {"excludeCIDRs": ["10.0.0.0/8", "x"]}}, "ipvs.excludeCIDRs[1]: must"),
    ({"mode": "ipvs", "ipvs": {"udpTimeout": "-1s"}}, "ipvs.udpTimeout: must not be negative"),
    (
        {"mode": "ipvs", "ipvs": {"tcpTimeout": "-1ns"}},
        "ipvs.tcpTimeout: must not be negative (value -1ns)",
    ),
    (
        {"mode": "ipvs", "ipvs": {"tcpFinTimeout": "-2m"}},
        "ipvs.tcpFinTimeout: must not be negative (value -2m0s)",
    ),
    ({"mode": "ipvs", "ipvs": {"syncPeriod": "-1s"}}, "ipvs.syncPeriod: must be more than 0s"),
    (
        {"mode": "ipvs", "ipvs": {"syncPeriod": "1s", "minSyncPeriod": "2s"}},
        "ipvs.syncPeriod: must not be less than ipvs.minSyncPeriod, 2s (value 1s)",
    ),
    ({"mode": "ipvs", "ipvs": {"scheduler": 3}}, "ipvs.scheduler: Expected `str`, got `int`"),
    ({"mode": "ipvs", "ipvs": {"strictARP": "yes"}}, "ipvs.strictARP: Expected `bool`"),
    ({"mode": "ipvs", "iptables": {"masqueradeBit": 99}}, "iptables.masqueradeBit: must be in"),
    ({"mode": "nftables", "nftables": {"masqueradeBit": 99}}, "nftables.masqueradeBit: must be in"),
    ({"mode": "ebpf", "iptables": {"syncPeriod": "-1s"}}, "iptables.syncPeriod: must be more than"),
    ({"kproxy": {"ebpf": {"bpffs": "bpf"}}}, "kproxy.ebpf.bpffs: must be an absolute path (value"),
    ({"kproxy": {"ebpf": {"bpffs": "/a\nb"}}}, "kproxy.ebpf.bpffs: must be an absolute path"),
    (
        {"mode": "ebpf", "kproxy": {"ebpf": {"cgroup": "./x"}}},
        "kproxy.ebpf.cgroup: must be an absolute path (value './x')",
    ),
    (
        {"mode": "ebpf", "kproxy": {"ebpf": {"flowEntries": 1023}}},
        "kproxy.ebpf.flowEntries: must be in 1024..16777216 (value 1023)",
    ),
    (
        {"mode": "ebpf", "kproxy": {"ebpf": {"serviceEntries": 2**24 + 1}}},
        "kproxy.ebpf.serviceEntries: must be in 1024..16777216",
    ),
    ({"kproxy": {"ebpf": {"socketHooks": "pods"}}}, "kproxy.ebpf.socketHooks: must be one of all,"),
    ({"bindAddress": "localhost"}, "bindAddress: must be an IP address (value 'localhost')"),
    ({"healthzBindAddress": "localhost:1"}, "healthzBindAddress: expected an IP address"),
    ({"healthzBindAddress": "::1:x"}, "healthzBindAddress: expected IP:PORT"),
    ({"metricsBindAddress": "127.0.0.1:0"}, "metricsBindAddress: expected a port from 1 to 65535"),
    ({"metricsBindAddress": "127.0.0.1:65536"}, "metricsBindAddress: expected a port"),
    ({"metricsBindAddress": "127.0.0.1:-80"}, "metricsBindAddress: expected a port"),
    ({"metricsBindAddress": "127.0.0.1:8_0"}, "metricsBindAddress: expected a port"),
    ({"metricsBindAddress": f"127.0.0.1:{'0' * 9}65536"}, "metricsBindAddress: expected a port"),
    ({"metricsBindAddress": "[127.0.0.1:80"}, "metricsBindAddress: expected an IP address"),
    ({"metricsBindAddress": "[[::1]]:80"}, "metricsBindAddress: expected an IP address"),
    ({"oomScoreAdj": 1001}, "oomScoreAdj: must be in -1000..1000 (value 1001)"),
    ({"configSyncPeriod": "-5m"}, "configSyncPeriod: must be more than 0s"),
    ({"clientConnection": {"burst": -1}}, "clientConnection.burst: must not be negative"),
    ({"conntrack": {"min": -1}}, "conntrack.min: must not be negative"),
    ({"conntrack": {"maxPerCore": 2**31}}, "conntrack.maxPerCore: Expected `int` <= 2147483647"),
    ({"conntrack": {"udpTimeout": "-1s"}}, "conntrack.udpTimeout: must not be negative"),
    ({"hostnameOverride": "  "}, "hostnameOverride: must not be blank"),
    ({"hostnameOverride": 7}, "hostnameOverride: Expected `str`, got `int`"),
    ({"detectLocalMode": "clustercidr"}, "detectLocalMode: must be one of ClusterCIDR, NodeCIDR"),
    ({"detectLocalMode": "BridgeInterface"}, "detectLocal.bridgeInterface: must be set in this"),
    ({"detectLocalMode": "InterfaceNamePrefix"}, "detectLocal.interfaceNamePrefix: must be set"),
    ({"clusterCIDR": "10.0.0.0"}, "clusterCIDR: must be a CIDR"),
    ({"clusterCIDR": "10.0.0.0/8,10.1.0.0/16"}, "clusterCIDR: must be one CIDR, or one IPv4 and"),
    ({"clusterCIDR": "10.0.0.0/8,fd00::/8,fd01::/16"}, "clusterCIDR: must be one CIDR, or one"),
    ({"clusterCIDR": "10.0.0.0/8,"}, "clusterCIDR: must be a CIDR"),
    ({"nodePortAddresses": ["10.0.0.0/8", "10.0.0.1"]}, "nodePortAddresses[1]: must be a CIDR or"),
    ({"nodePortAddresses": ["all", "all"]}, "nodePortAddresses[1]: the same keyword twice"),
    ({"nodePortAddresses": "primary"}, "nodePortAddresses: Expected `array | null`, got `str`"),
    ({"featureGates": {"X": "true"}}, "featureGates: Expected `bool`, got `str`"),
    ({"logging": {"format": "xml"}}, "logging.format: must be one of text, json (value 'xml')"),
    ({"logging": {"verbosity": -1}}, "logging.verbosity: Expected `int` >= 0"),
    ({"logging": {"flushFrequency": 2**70}}, "logging.flushFrequency: longer than 292 years"),
    (
        {"logging": {"flushFrequency": -5}},
        "logging.flushFrequency: must be more than 0s (value -5ns",
    ),
    ({"logging": {"flushFrequency": "-0.1s"}}, "logging.flushFrequency: must be more than 0s"),
    ({"logging": {"flushFrequency": 1.5}}, "logging.flushFrequency: expected a duration such as"),
    ({"logging": {"verbosity": 2**31}}, "logging.verbosity: must not be more than 2147483647"),
    (
        {"logging": {"vmodule": [{"verbosity": 1}]}},
        "logging.vmodule[0].filePattern: must not be empty and have no equal sign and no comma",
    ),
    (
        {"logging": {"vmodule": [{"filePattern": "a=b"}]}},
        "logging.vmodule[0].filePattern: must not be empty and have no equal sign",
    ),
    (
        {"logging": {"vmodule": [{"filePattern": "a", "verbosity": 2**31}]}},
        "logging.vmodule[0].verbosity: must not be more than",
    ),
    (
        {"logging": {"format": "json", "vmodule": [{"filePattern": "a"}]}},
        "logging.vmodule: works with the text format only",
    ),
    (
        {"logging": {"options": {"json": {"infoBufferSize": 1}}}},
        "logging.options.json.infoBufferSize: needs the feature gate LoggingAlphaOptions",
    ),
    (
        {"logging": {"options": {"json": {"infoBufferSize": "1 MiB"}}}},
        "logging.options.json.infoBufferSize: expected a quantity",
    ),
    (
        {"logging": {"format": "json"}, "featureGates": {"LoggingBetaOptions": False}},
        "logging.format: needs the feature gate LoggingBetaOptions, which is off (value json)",
    ),
    (
        {"mode": "ipvs", "featureGates": {"KubeProxyIPVS": False}},
        "mode: needs the feature gate KubeProxyIPVS, which is off (value ipvs)",
    ),
    ({"featureGates": {"Nobody": True}}, "featureGates.Nobody: no feature gate of Kubernetes"),
    (
        {"featureGates": {"NFTablesProxyMode": False}},
        "featureGates.NFTablesProxyMode: is locked to true (value false)",
    ),
    ({"mode": "kernelspace"}, "mode: is the mode of kube-proxy on Windows, and kproxy runs on"),
    ({"winkernel": {"sourceVip": "x"}}, "winkernel.sourceVip: is for kube-proxy on Windows"),
    ({"winkernel": {"enableDSR": True}}, "winkernel.enableDSR: is for kube-proxy on Windows"),
    ({"windowsRunAsService": True}, "windowsRunAsService: is for kube-proxy on Windows"),
    ({"showHiddenMetricsForVersion": "1.35"}, "showHiddenMetricsForVersion: must be empty or the"),
    ({"clientConnection": {"qps": 1e39}}, "clientConnection.qps: expected a number that a 32-bit"),
    ({"clientConnection": {"qps": "5"}}, "clientConnection.qps: expected a number (value '5')"),
    ({"conntrack": {"udpTimeout": ""}}, "conntrack.udpTimeout: not a duration"),
    ({"mode": "nftables", "iptables": {"masqueradeBit": 99}}, "iptables.masqueradeBit: must be in"),
    ({"kproxy": {"iptables": {"variant": "x"}}}, "kproxy.iptables.variant: must be one of auto,"),
]


@pytest.mark.parametrize(("fields", "expected"), BAD_FIELDS)
def test_a_bad_value_is_named_with_its_field(errors, fields, expected):
    (line,) = errors(fields)
    assert line.startswith(expected)


@pytest.mark.parametrize("name", ["a" * 16, "eth 0", "eth0/1", 'a"b', "a\nb", "br+", "é0"])
def test_an_interface_that_linux_cannot_have_is_refused(errors, name):
    fields = {"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": name}}
    (line,) = errors(fields)
    assert line.startswith("detectLocal.bridgeInterface: ")


def test_all_errors_come_at_once(errors):
    fields = {
        "mode": "nftables",
        "nftables": {"syncPeriod": "1y", "masqueradeBit": 40},
        "conntrack": {"min": -1},
        "oomScoreAdj": "low",
        "nodePortAddresses": ["here"],
    }
    assert sorted(line.partition(":")[0] for line in errors(fields)) == [
        "conntrack.min",
        "nftables.masqueradeBit",
        "nftables.syncPeriod",
        "nodePortAddresses[0]",
        "oomScoreAdj",
    ]


def test_another_mode_s_section_is_not_checked(load):
    load({"mode": "iptables", "ipvs": {"excludeCIDRs": ["x"]}, "nftables": {"masqueradeBit": 99}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("- a\n", "expected an object of kind KubeProxyConfiguration"),
        ("a: [1\nb: 2\n", "not YAML: line 2"),
        ("a: !!python/object/apply:os.system [id]\n", "not YAML: line 1"),
        ("? [a]\n: b\n", "not YAML: line 1"),
        ("a: \x07\n", "not YAML"),
        ("[" * 5000 + "]" * 5000, "not YAML: line 1, column 201: nested deeper than"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"a": NaN}', "not JSON: NaN"),
        ('\n {"a": 1,}', "not JSON: line 2, column "),
        ("{'a': 1}", "not JSON: line 1, column 2: "),
        ('{"a": 01}', "not JSON: line 1, column "),
        ("{a: 1}", "not JSON: line 1, column 2: "),
        ("a: *b\n", "not YAML: line 1, column 4: alias *b has no anchor"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(errors, text, expected):
    (line,) = errors(text)
    assert line.startswith(expected)


def test_another_kind_or_version_is_named(errors):
    text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmode: what\n"
    assert errors(text) == [
        "apiVersion: must be kubeproxy.config.k8s.io/v1alpha1 "
        "(value 'kubelet.config.k8s.io/v1beta1')",
        "kind: must be KubeProxyConfiguration (value 'KubeletConfiguration')",
    ]
    assert errors("mode: iptables\n") == [
        "apiVersion: must be kubeproxy.config.k8s.io/v1alpha1",
        "kind: must be KubeProxyConfiguration",
    ]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_configuration(path, None)
    (tmp_path / "binary").write_bytes(b"mode: \xff")
    with pytest.raises(ConfigurationError, match="not YAML: line 1, column 7: is not UTF-8"):
        load_configuration(tmp_path / "binary", None)


def test_a_nest_of_lists_is_shown_in_short(errors):
    value = ["x" * 20] * 9
    for _ in range(4):
        value = [value] * 9
    (line,) = errors({"nodePortAddresses": value})
    assert line.startswith("nodePortAddresses: Expected `str`, got `array`")
    assert len(line) < 250


def test_numbers_of_any_length_are_told_of_in_short(errors):
    header = '{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"'
    (line,) = errors(f'{header}, "oomScoreAdj": {"9" * 5000}}}')
    assert line.startswith("oomScoreAdj: Expected `int")
    assert len(line) < 250


@pytest.mark.parametrize("number", ["1.0", "1e3"])
def test_in_json_an_integer_has_no_decimals_and_no_exponent(errors, load, number):
    fields = '"oomScoreAdj": NUMBER, "clientConnection": {"qps": NUMBER}}'
    (line,) = errors(json.dumps(HEADER)[:-1] + ", " + fields.replace("NUMBER", number))
    assert line.startswith("oomScoreAdj: Expected `int`, got `float` (value 1")
    assert load(yaml.safe_dump(HEADER) + f"oomScoreAdj: {number}\n")


def test_a_command_line_with_an_empty_cluster_cidr_is_refused_where_it_counts():
    with pytest.raises(ConfigurationError, match="clusterCIDR: must be a CIDR"):
        load_flags({"cluster-cidr": ""})
    load_flags({"cluster-cidr": "", "detect-local-mode": "NodeCIDR"})
