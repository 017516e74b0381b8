"""Flags: how they are read, and what a second use, a file or the mode makes of them."""

import pytest

from kproxy.config.fields import LogFormat, Mode, VModule
from kproxy.config.loading import ConfigurationError
from kproxy.kube_proxy.configuration import load
from kproxy.kube_proxy.flags import UsageError, parse
from kproxy.kube_proxy.table import KUBE_PROXY_FLAGS, WINDOWS_FLAGS
from kproxy.kube_proxy.text import flag_texts, help_text
from kproxy.proxy.assembly import loop_settings


def read(*words):
    return parse(words, KUBE_PROXY_FLAGS, WINDOWS_FLAGS)


def level(pattern, verbosity):
    return VModule(file_pattern=pattern, verbosity=verbosity)


def configuration(*words):
    return load(read(*words).values).configuration


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--config", "a"], {"config": "a"}),
        (["--config=a=b"], {"config": "a=b"}),
        (["--config="], {"config": ""}),
        (["--config", "-v"], {"config": "-v"}),
        (["--masquerade-all"], {"masquerade-all": True}),
        (["--masquerade-all=F"], {"masquerade-all": False}),
        (["--masquerade_all=0"], {"masquerade-all": False}),
        (["-v", "2"], {"v": 2}),
        (["-v=2"], {"v": 2}),
        (["-v2"], {"v": 2}),
        (["--v=2", "-v", "3"], {"v": 3}),
        (["-hv3"], {"help": True, "v": 3}),
        (
            ["--nodeport-addresses=a,b", "--nodeport_addresses", "c"],
            {"nodeport-addresses": ("a", "b", "c")},
        ),
        (["--nodeport-addresses="], {"nodeport-addresses": ()}),
        (["--nodeport-addresses=a\nb"], {"nodeport-addresses": ("a",)}),
        (
            ["--feature-gates=A=true, B = f", "--feature-gates=A=0"],
            {"feature-gates": {"A": False, "B": False}},
        ),
        (["--vmodule=a=1,", "--vmodule=b=2"], {"vmodule": (level("a", 1), level("b", 2))}),
        (["--oom-score-adj=-0x10"], {"oom-score-adj": -16}),
        (["--oom-score-adj=010"], {"oom-score-adj": 8}),
        (["--kube-api-qps=0x1p3"], {"kube-api-qps": 8.0}),
        (["--ipvs-udp-timeout=1m30s"], {"ipvs-udp-timeout": 90.0}),
        (["--bind-address=1.2.3.4", "--bind-address="], {"bind-address": "1.2.3.4"}),
        (["--proxy-mode=ebpf"], {"proxy-mode": "ebpf"}),
        (["--version=raw"], {"version": True}),
        (["--version=v1.37.1-mine"], {"version": False}),
        (["--take-over=false"], {"take-over": False}),
    ],
)
def test_a_flag_is_read_as_go_reads_it(words, values):
    parsed = read(*words)
    assert parsed.values == values
    assert parsed.arguments == []


@pytest.mark.parametrize(
    ("words", "arguments"),
    [(["a", "-v2", "b"], ["a", "b"]), (["--", "-v2"], ["-v2"]), (["-"], ["-"]), ([""], [""])],
)
def test_what_is_no_flag_is_an_argument(words, arguments):
    assert read(*words).arguments == arguments


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--bogus"], "unknown flag --bogus"),
        (["--bo gus\n"], r"unknown flag --'bo gus\n'"),
        (["---x"], "'---x' is no flag"),
        (["--=3"], "'--=3' is no flag"),
        (["-x"], "unknown flag 'x' in '-x'"),
        (["-v"], "flag -v needs a value"),
        (["-v="], "flag --v: must be a whole number (value '=')"),
        (["--v=-1"], "flag --v: must be a whole number (value '-1')"),
        (["--v=9999999999"], "flag --v: must not be more than 2147483647 (value '9999999999')"),
        (["--config"], "flag --config needs a value"),
        (["--masquerade-all=no"], "flag --masquerade-all: must be true or false (value 'no')"),
        (["--oom-score-adj=1.5"], "flag --oom-score-adj: must be an integer (value '1.5')"),
        (["--oom-score-adj=2147483648"], "flag --oom-score-adj: must fit into 32 bits (value "),
        (["--kube-api-qps=NaN"], "flag --kube-api-qps: must be a number (value 'NaN')"),
        (["--kube-api-qps=1e39"], "flag --kube-api-qps: expected a number that a 32-bit float"),
        (["--ipvs-udp-timeout=5"], "flag --ipvs-udp-timeout: not a duration such as"),
        (["--feature-gates=A"], "flag --feature-gates: must be pairs of a name and true or false"),
        (["--vmodule=a"], "flag --vmodule: must be pairs of a pattern and a level"),
        (["--nodeport-addresses=\n"], "flag --nodeport-addresses: an empty line"),
        (['--nodeport-addresses="a"b'], "flag --nodeport-addresses: not a comma-separated list"),
        (["--bind-address=x"], "flag --bind-address: "),
        (["--healthz-bind-address=1.2.3.4:+80"], "flag --healthz-bind-address: expected a port"),
        (["--log-text-info-buffer-size= 1"], "flag --log-text-info-buffer-size: expected a qu"),
        (["--healthz-bind-address=:80"], "flag --healthz-bind-address: expected an IP address"),
        (["--enable_dsr"], "flag --enable-dsr is for kube-proxy on Windows, and kproxy runs on"),
        (["--version=v1.36.0"], "flag --version: must be true or false (value 'v1.36.0')"),
    ],
)
def test_what_cannot_be_read_is_named(words, line):
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("--proxy-mode=kernelspace", "mode: is the mode of kube-proxy on Windows, and kproxy runs"),
        ("--proxy-mode=userspace", "mode: must be one of iptables, ipvs, nftables, ebpf"),
        ("--detect-local-mode=x", "detectLocalMode: must be one of ClusterCIDR, NodeCIDR,"),
    ],
)
def test_a_mode_that_does_not_exist_is_refused_unless_taken_back(word, line):
    with pytest.raises(ConfigurationError) as caught:
        configuration(word)
    assert caught.value.lines[0].startswith(f"command line: {line}")
    assert configuration(word, word.partition("=")[0] + "=") == configuration()


def test_flags_of_the_mode_go_to_its_section():
    made = configuration("--proxy-mode=nftables", "--iptables-sync-period=1m", "--masquerade-all")
    assert made.nftables.sync_period_s == 60.0
    assert made.nftables.masquerade_all
    assert not made.iptables.masquerade_all
    made = configuration("--proxy-mode=ipvs", "--iptables-sync-period=1m", "--masquerade-all")
    assert (made.ipvs.sync_period_s, made.ipvs.min_sync_period.span) == (30.0, 1.0)
    assert made.iptables.masquerade_all


@pytest.mark.parametrize(
    ("words", "interval_s"),
    [
        ([], None),
        (["--iptables-min-sync-period=0"], None),
        (["--iptables-min-sync-period=1s"], 1),
        (["--iptables-min-sync-period=250ms"], 0.25),
        (["--ipvs-min-sync-period=250ms"], None),
        (["--proxy-mode=nftables"], None),
        (["--proxy-mode=nftables", "--iptables-min-sync-period=2s"], 2),
        (["--proxy-mode=ipvs"], None),
        (["--proxy-mode=ipvs", "--ipvs-min-sync-period=1s"], 1),
        (["--proxy-mode=ipvs", "--iptables-min-sync-period=1s"], None),
    ],
)
def test_only_a_flag_that_was_given_sets_the_interval_between_writes(words, interval_s):
    assert loop_settings(configuration(*words)).min_interval_s == interval_s


def test_the_health_server_is_turned_off_by_its_port_alone():
    assert configuration("--healthz-port=0").healthz_bind_address == ""
    assert configuration("--healthz-port=80").healthz_bind_address == "0.0.0.0:10256"
    made = configuration("--healthz-port=80", "--healthz-bind-address=::1")
    assert made.healthz_bind_address == "[::1]:80"
    with pytest.raises(ConfigurationError, match="metricsBindAddress: expected IP:PORT"):
        configuration("--metrics-port=0")


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        header = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
        path.write_text(header + text)
        return f"--config={path}"

    return write


def test_a_file_makes_other_flags_void_and_that_is_said(file):
    values = read(file("mode: ipvs\n"), "--proxy-mode=nftables", "-v3", "--oom-score-adj=0").values
    loaded = load(values)
    assert loaded.configuration.mode is Mode.IPVS
    assert loaded.configuration.oom_score_adj == -999
    assert loaded.configuration.logging.verbosity == 3
    assert loaded.without_effect == (
        "without effect next to --config: --proxy-mode, --oom-score-adj",
    )


def test_logging_flags_and_the_host_name_win_over_the_file(file):
    text = (
        "hostnameOverride: a\nlogging: {verbosity: 1, vmodule: [{filePattern: x, verbosity: 9}]}\n"
    )
    made = configuration(file(text), "--hostname-override= B ", "--vmodule=y=1", "-v0")
    assert made.hostname_override == "b"
    assert configuration("--hostname-override=\x1f\u03a3").hostname_override == "\x1f\u03c3"
    assert made.logging.verbosity == 0
    assert [item.file_pattern for item in made.logging.vmodule] == ["y", "x"]
    assert made.logging.format is LogFormat.TEXT


@pytest.mark.parametrize(
    ("text", "words", "taken"),
    [
        ("", [], True),
        ("", ["--take-over=false"], False),
        ("kproxy: {takeOver: false}\n", [], False),
        ("kproxy: {takeOver: false}\n", ["--take-over"], True),
        ("kproxy: {iptables: {variant: nft}}\n", [], True),
    ],
)
def test_in_kube_proxy_s_place_its_leftovers_go_unless_said_otherwise(file, text, words, taken):
    assert configuration(file(text), *words).kproxy.take_over is taken


@pytest.mark.parametrize(
    ("text", "words", "bpffs"),
    [
        (None, [], "/sys/fs/bpf"),
        (None, ["--ebpf-bpffs=/a"], "/a"),
        ("kproxy: {ebpf: {bpffs: /b}}\n", [], "/b"),
        ("kproxy: {ebpf: {bpffs: /b}}\n", ["--ebpf-bpffs", "/a"], "/a"),
    ],
)
def test_where_ebpf_is_can_be_said_beside_a_file(file, text, words, bpffs):
    words = [*words, "--ebpf-cgroup=/c", *([] if text is None else [file(text)])]
    ebpf = configuration(*words).kproxy.ebpf
    assert (ebpf.bpffs, ebpf.cgroup) == (bpffs, "/c")
    assert not any("next to --config" in line for line in load(read(*words).values).without_effect)


def test_flags_of_earlier_versions_and_deprecated_ones_are_taken_with_a_remark():
    loaded = load(read("--boot-id-file=/a", "--machine-id-file", "/b", "--healthz-port=1").values)
    assert loaded.warnings == (
        "flag --healthz-port is deprecated, use --healthz-bind-address",
        "flag --boot-id-file has no effect, as in Kubernetes 1.37",
        "flag --machine-id-file has no effect, as in Kubernetes 1.37",
    )


def test_a_mode_by_flag_is_not_the_default():
    assert load({}).mode_was_default
    assert load(read("--proxy-mode=").values).mode_was_default
    assert not load(read("--proxy-mode=iptables").values).mode_was_default


def test_the_help_names_every_flag_of_today_and_its_default():
    text = help_text()
    for flag in KUBE_PROXY_FLAGS:
        assert (f" --{flag.name} " in text) is not bool(flag.remark), flag.name
    assert "(default 24h0m0s)" in text
    assert "(default -999)" in text
    assert "-v, --v level" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_value_of_every_flag_is_told():
    texts = flag_texts(read("--nodeport-addresses=a,b", "--proxy-mode=ipvs", "-v2").values)
    assert set(texts) == {flag.name for flag in KUBE_PROXY_FLAGS}
    assert texts["nodeport-addresses"] == "[a,b]"
    assert texts["proxy-mode"] == "ipvs"
    assert texts["v"] == "2"
    assert texts["ipvs-exclude-cidrs"] == "[]"
    assert texts["iptables-sync-period"] == "30s"
    assert texts["kube-api-qps"] == "5"
    assert texts["iptables-localhost-nodeports"] == "true"
    assert texts["log-flush-frequency"] == "5s"
    assert texts["log-text-info-buffer-size"] == "0"
    assert texts["feature-gates"] == texts["master"] == texts["vmodule"] == ""


def test_no_password_is_told():
    texts = flag_texts(read("--master=https://jane:secret@192.0.2.1:6443").values)
    assert texts["master"] == "https://...@192.0.2.1:6443"
