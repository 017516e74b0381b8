"""Held against the real kube-proxy: what is accepted, what is refused, and what comes out."""

import dataclasses
import json

import pytest
import yaml
from hypothesis import given

from kproxy.config.loading import load_configuration
from tests.cluster.config.upstream import agree_on_what_is_wrong, ours, theirs
from tests.support.cluster import programs
from tests.support.config import strategies
from tests.support.config.samples import HEADER, KUBEADM
from tests.support.effort import examples

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def program():
    """Return the real kube-proxy."""
    return programs.find("kube-proxy")


@pytest.fixture
def both(program, tmp_path):
    """Run both programs; with a text, it is the configuration file."""

    def run(*words, file=None):
        words = list(words)
        if file is not None:
            path = tmp_path / "config.yaml"
            path.write_text(file)
            words.insert(0, f"--config={path}")
        return theirs(program, tmp_path, words), ours(tmp_path, words)

    return run


def check_same(their, our):
    both_said = f"{their.said}\n{our.said}"
    assert our.code == their.code, both_said
    assert our.written == their.written
    assert our.code == 0 or agree_on_what_is_wrong(their.said, our.said), both_said


TAKEN = [
    "",
    "-v 2 --vmodule=a*=1,b=2 --vmodule=c=3 --log-flush-frequency=90s --bind-address-hard-fail",
    "-v3 --v 4 --logging-format=json --profiling=1 --show-hidden-metrics-for-version=1.36",
    "--log_text_split_stream --feature_gates=LoggingAlphaOptions=true --ipvs-exclude-cidrs=",
    "--log-json-info-buffer-size=64Ki --feature-gates=LoggingAlphaOptions=1,AllBeta=f",
    "--proxy-mode=nftables --masquerade-all --iptables-sync-period=1m --iptables-masquerade-bit=31",
    "--proxy-mode=nftables --nodeport-addresses=all --iptables-min-sync-period 5s",
    "--proxy-mode=nftables --nodeport-addresses= --ipvs-sync-period=7m --help=false",
    "--proxy-mode=ipvs --masquerade-all=T --iptables-sync-period=1m --ipvs-scheduler=mh",
    "--proxy-mode=ipvs --ipvs-sync-period=1m --ipvs-min-sync-period=250ms --ipvs-strict-arp "
    "--ipvs-tcp-timeout=1h --ipvs-tcpfin-timeout=1m --ipvs-udp-timeout=1.5s "
    "--ipvs-exclude-cidrs=10.0.0.0/8 --ipvs-exclude-cidrs=fd00::/8,11.0.0.0/8",
    "--proxy-mode= --iptables-localhost-nodeports=false --iptables-masquerade-bit=0x1f",
    "--detect-local-mode=BridgeInterface --pod-bridge-interface=cbr0 --hostname-override=Node-A",
    "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=veth",
    "--detect-local-mode=NodeCIDR --cluster-cidr= --bind-address= --healthz-bind-address=",
    "--detect-local-mode= --cluster-cidr=10.0.0.0/8,fd00::/8 --config-sync-period=36h",
    "--nodeport-addresses=primary,localhost --nodeport-addresses=010.0.0.0/8",
    '--nodeport-addresses="10.0.0.0/8","fd00::/8" --healthz-port=0 --metrics-port=0',
    "--bind-address=:: --healthz-bind-address=[::1]:80 --metrics-bind-address=1.2.3.4:5",
    "--kubeconfig=/a:b --master=http://x --kube-api-content-type=application/json",
    "--kube-api-burst=010 --kube-api-qps=16777217 --kube-api-content-type=",
    "--kube-api-burst=1_0 --kube-api-qps=1e20",
    "--oom-score-adj=-1000 --conntrack-max-per-core=0 --conntrack-min=0 "
    "--conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=1ns "
    "--conntrack-tcp-be-liberal --conntrack-udp-timeout=2m --conntrack-udp-timeout-stream=1h1m1s",
    "--feature-gates=AllAlpha=false,,NFTablesNetlink=F --feature-gates=AllAlpha=false",
    "--version=false --cleanup --init-only=false --",
]
REFUSED = [
    "--logging-format=json --feature-gates=LoggingBetaOptions=false",
    "--logging-format=json --vmodule=a=1",
    "--logging-format=",
    "--log-flush-frequency=0",
    "--log-json-info-buffer-size=64Ki",
    "--proxy-mode=ipvs --ipvs-exclude-cidrs=here",
    "--proxy-mode=ipvs --feature-gates=KubeProxyIPVS=false",
    "--proxy-mode=userspace",
    "--proxy-mode=kernelspace",
    "--iptables-masquerade-bit=32",
    "--iptables-sync-period=0",
    "--iptables-min-sync-period=1h",
    "--detect-local-mode=BridgeInterface",
    "--detect-local-mode=Other",
    "--cluster-cidr=",
    "--cluster-cidr=10.0.0.0/8,11.0.0.0/8",
    "--nodeport-addresses=primary,primary",
    "--bind-address=localhost",
    "--metrics-bind-address=1.2.3.4:0",
    "--metrics-bind-address=1.2.3.4:+80",
    "--show-hidden-metrics-for-version=1.35",
    "--kube-api-burst=1.5",
    "--kube-api-burst=2147483648",
    "--kube-api-qps=0x1F",
    "--config-sync-period=-1s",
    "--conntrack-udp-timeout=-1s --oom-score-adj=1001",
    "--feature-gates=Nobody=true",
    "--feature-gates=AllBeta",
    "--master",
    "--masquerade-all=no",
    "--bind-addr=1.2.3.4",
    "--source-vip=1.2.3.4",
    "--version=v1.36.0",
]


@pytest.mark.parametrize("line", TAKEN)
def test_a_command_line_makes_the_configuration_that_upstream_makes(both, line):
    their, our = both(*line.split())
    assert our == dataclasses.replace(their, said=our.said), f"{their.said}\n{our.said}"
    assert our.code == 0


@pytest.mark.parametrize("line", REFUSED)
def test_a_command_line_is_refused_for_what_upstream_refuses(both, line):
    their, our = both(*line.split())
    check_same(their, our)
    assert our.code == 1


@pytest.mark.parametrize("words", [["--masquerade-all", "false"], ["--", "-v"], ["-"]])
def test_what_is_no_flag_is_refused_by_both(both, words):
    their, our = both(*words)
    assert (our.code, their.code) == (1, 1)
    assert "takes no arguments" in our.said
    assert "does not take any arguments" in their.said


FILES = [
    *["", KUBEADM, '{"mode": "ipvs", "ipvs": {"excludeCIDRs": []}}'],
    "mode: ipvs\nipvs: {scheduler: '#a: b', excludeCIDRs: [10.0.0.0/8]}\nportRange: 1-2\n",
    "mode: nftables\nnftables: {masqueradeAll: true, masqueradeBit: 3, syncPeriod: 1h}\n",
    "mode: nftables\niptables: {masqueradeAll: true, masqueradeBit: 3, minSyncPeriod: 1h}\n",
    "bindAddress: '::'\nconfigSyncPeriod: 0s\nenableProfiling: true\n",
    "bindAddress: '::'\nhealthzBindAddress: 0.0.0.0:10256\nmetricsBindAddress: FD00::1\n",
    "bindAddress: 010.1.1.1\nhealthzBindAddress: 01.2.3.4\nclusterCIDR: 010.0.0.0/08\n",
    "bindAddress: ::ffff:1.2.3.4\nhealthzBindAddress: 1.2.3.4:080\n",
    "hostnameOverride: 12:30\nclientConnection: {kubeconfig: 2024-01-01, qps: 1e-7}\n",
    "clientConnection: {burst: 1e1, qps: 123456789.125, contentType: 'yes'}\n",
    "conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, min: null, tcpCloseWaitTimeout: null}\n",
    "logging: {flushFrequency: 1500000000, vmodule: [{filePattern: a, verbosity: 3}]}\n",
    "logging: {flushFrequency: 1e9, format: json, options: {text: {splitStream: true}}}\n",
    "featureGates: {AllAlpha: null}\nnodePortAddresses: []\nipvs: {excludeCIDRs: [null]}\n",
    "detectLocalMode: NodeCIDR\nclusterCIDR: x,y\nhostnameOverride: ' Node '\n",
    "mode: ipvs\n---\nmode: nftables\n",
    "iptables: &x {masqueradeAll: true}\nnftables:\n  <<: *x\n  masqueradeBit: 3\nmode: nftables\n",
    "mode: ipvs\nmode: nftables\nbogus: 1\nMode: ipvs\niptables: {masqueradeal: true}\n",
    "kproxy: {takeOver: true}\n",
    *["mode: 3\n", "iptables: []\n", "nodePortAddresses: primary\n", "hostnameOverride: 7\n"],
    "iptables: {masqueradeBit: 32}\nmode: nftables\nnftables: {masqueradeBit: -1}\n",
    "iptables: {masqueradeBit: '14'}\n",
    "clientConnection: {burst: -1}\noomScoreAdj: -1001\n",
    "iptables: {syncPeriod: 30}\n",
    "logging: {vmodule: [{filePattern: 'a=b'}]}\n",
    "metricsBindAddress: ':80'\n",
    "clusterCIDR: 10.0.0.0/8,\n",
    "clusterCIDR: ::ffff:10.0.0.0/104,fd00::/8\nnodePortAddresses: ['::ffff:0:0/96']\n",
    "clusterCIDR: ::ffff:10.0.0.0/104,11.0.0.0/8\n",
    "mode: ipvs\n---\n]\n",
    "mode: ipvs\n...\nx: [\n",
    *("healthzBindAddress: 1.2.3.4:+80\n", "healthzBindAddress: 1.2.3.4:0000000080\n"),
    *("healthzBindAddress: 1.2.3.4:-80\n", "healthzBindAddress: '[[::1]]:80'\n"),
    "configSyncPeriod: 2562047h47m16.854775807s\niptables: {syncPeriod: 9000000000.123456789s}\n",
    'logging: {flushFrequency: 9223372036854775807}\nhostnameOverride: "\\x1fA\\t\U0001f600"\n',
]
# What comes after the header, in JSON and in what looks like it.
JSON = [
    *('"oomScoreAdj": 1.0', '"oomScoreAdj": 1e1', '"oomScoreAdj": 01', '"oomScoreAdj": -0'),
    *('"mode": "ipvs",', "'mode': 'ipvs'", 'mode: "ipvs"', '"mode": NaN', '"x": 1e9'),
    '"logging": {"flushFrequency": 1e9}',
    '"clientConnection": {"qps": 1.0, "burst": 2.5}',
]


@pytest.mark.parametrize("text", FILES)
def test_a_file_means_what_it_means_upstream(both, text):
    header = yaml.safe_dump(HEADER)
    whole = text if text.startswith("{") or "kind" in text else header + text
    if text.startswith("{"):
        whole = json.dumps({**HEADER, **json.loads(text)}, indent="\t")
    check_same(*both(file=whole))


@pytest.mark.parametrize("text", JSON)
def test_what_begins_with_a_brace_is_json(both, text):
    their, our = both(file=f"{json.dumps(HEADER)[:-1]}, {text}}}")
    assert (our.code, our.written) == (their.code, their.written), f"{their.said}\n{our.said}"


@pytest.mark.parametrize(
    "size", ["1024Ki", "1000k", "1.5Ki", "0.1m", "+5", "12e4", "9Ei", "Ki", "1.500k", " 1"]
)
def test_a_quantity_is_written_as_upstream_writes_it(both, size):
    gate = "--feature-gates=LoggingAlphaOptions=true"
    their, our = both(f"--log-json-info-buffer-size={size}", gate)
    assert (our.code, our.written) == (their.code, their.written), f"{their.said}\n{our.said}"


@pytest.mark.parametrize("text", ["", "[]", "kind: KubeProxyConfiguration\n", "a: *b\n"])
def test_a_file_that_is_no_configuration_is_refused_by_both(both, text):
    their, our = both(file=text)
    assert (their.code, our.code) == (1, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["--vmodule=b=1", "-v4", "--log-flush-frequency=3s", "--logging-format=text"],
        ["--hostname-override= Other "],
        ["--proxy-mode=nftables", "--healthz-port=5", "--feature-gates=Nobody=true"],
        ["--hostname-override= "],
        ["--log-text-split-stream"],
    ],
)
def test_next_to_a_file_the_same_flags_count(both, words):
    logging = {"flushFrequency": 15, "vmodule": [{"filePattern": "a", "verbosity": 2}]}
    fields = {**HEADER, "mode": "ipvs", "hostnameOverride": "x", "logging": logging}
    check_same(*both(*words, file=json.dumps(fields)))


@examples(20)
@given(fields=strategies.configurations())
def test_any_file_means_what_it_means_upstream(program, fields, tmp_path_factory):
    folder = tmp_path_factory.mktemp("file")
    (folder / "config.json").write_text(json.dumps({**HEADER, **fields}))
    words = [f"--config={folder / 'config.json'}"]
    check_same(theirs(program, folder, words), ours(folder, words))


@examples(12)
@given(words=strategies.command_lines())
def test_any_command_line_does_what_it_does_upstream(program, words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("line")
    their, our = theirs(program, folder, words), ours(folder, words)
    # Which of several errors is told first is not the same.
    assert our == dataclasses.replace(their, said=our.said), f"{their.said}\n{our.said}"


@pytest.mark.parametrize("mode", ["", "iptables", "ipvs", "nftables"])
def test_the_file_that_kube_proxy_writes_is_read_without_a_word(program, tmp_path, mode):
    theirs(program, tmp_path, [f"--proxy-mode={mode}"])
    loaded = load_configuration(tmp_path / "theirs.yaml", None)
    assert (loaded.warnings, loaded.without_effect) == ((), ())
    assert not loaded.mode_was_default
