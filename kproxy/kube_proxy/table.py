"""The flags of kube-proxy 1.37 on Linux, and those of our own under that name.

A flag that sets one field of the configuration has that field's default.
"""

from __future__ import annotations

from kproxy.config.checks import HEALTHZ_PORT, METRICS_PORT
from kproxy.config.durations import whole_seconds
from kproxy.kube_proxy.flags import Flag
from kproxy.kube_proxy.values import (
    ADDRESS,
    ADDRESS_PORT,
    BOOL,
    DURATION,
    FLOAT32,
    GATES,
    INT32,
    LEVEL,
    LOCAL_MODE,
    LOG_FORMAT,
    LOG_SPAN,
    MODE,
    QUANTITY,
    STRING,
    STRINGS,
    VERSION,
    VMODULE,
)


def _switch(name: str, help_text: str, setting: str = "", short: str = "") -> Flag:
    return Flag(name, BOOL, help_text, setting, default=False, short=short, bare="true")


def _period(name: str, help_text: str, default_s: int) -> Flag:
    return Flag(name, DURATION, help_text, default=whole_seconds(default_s))


_PROGRAM = (
    Flag("config", STRING, "KubeProxyConfiguration file, YAML or JSON"),
    Flag("write-config-to", STRING, "write the effective configuration to this file and exit"),
    _switch("cleanup", "remove everything that kproxy put into the kernel, and exit"),
    _switch("init-only", "do what needs full privileges, and exit; CAP_NET_ADMIN is enough then"),
    Flag("version", VERSION, "print the version and exit", default=False, bare="true"),
    _switch("help", "print this and exit", short="h"),
    Flag(
        "take-over",
        BOOL,
        "remove what kube-proxy left behind, once our own rules are in force",
        default=True,
        bare="true",
    ),
)
_CLUSTER = (
    Flag("master", STRING, "address of the API server; wins over the kubeconfig's"),
    Flag(
        "kubeconfig",
        STRING,
        "how to reach the API server; without it and --master, as a pod does",
        "client_connection.kubeconfig",
    ),
    Flag(
        "kube-api-content-type",
        STRING,
        "accepted, without effect",
        "client_connection.content_type",
    ),
    Flag("kube-api-burst", INT32, "accepted, without effect", "client_connection.burst"),
    Flag("kube-api-qps", FLOAT32, "accepted, without effect", "client_connection.qps"),
    Flag("config-sync-period", DURATION, "accepted, without effect", "config_sync_period_s"),
    Flag("hostname-override", STRING, "name of this node; else the host's name"),
    Flag(
        "feature-gates",
        GATES,
        "name=true|false,…: every feature gate of Kubernetes 1.37 is known, few mean something",
        "feature_gates",
    ),
)
_ADDRESSES = (
    Flag("bind-address", ADDRESS, "stands for the Node's own address", "bind_address"),
    Flag("healthz-bind-address", ADDRESS_PORT, "where /healthz answers", "healthz_bind_address"),
    Flag("metrics-bind-address", ADDRESS_PORT, "where /metrics answers", "metrics_bind_address"),
    _switch(
        "bind-address-hard-fail",
        "end if one of these two cannot be bound, instead of trying again",
        "bind_address_hard_fail",
    ),
    _switch("profiling", "accepted, without effect", "enable_profiling"),
    Flag(
        "show-hidden-metrics-for-version",
        STRING,
        "accepted, without effect: no metric is hidden",
        "show_hidden_metrics_for_version",
    ),
    Flag(
        "healthz-port",
        INT32,
        default=HEALTHZ_PORT,
        remark="is deprecated, use --healthz-bind-address",
    ),
    Flag(
        "metrics-port",
        INT32,
        default=METRICS_PORT,
        remark="is deprecated, use --metrics-bind-address",
    ),
)
_DATA_PATH = (
    Flag("proxy-mode", MODE, "data path: iptables (default), ipvs, nftables or ebpf"),
    _switch("masquerade-all", "masquerade everything that goes to a clusterIP"),
    _period("iptables-sync-period", "time between full comparisons, not for ipvs", 30),
    _period("iptables-min-sync-period", "shortest time between writes, not for ipvs", 1),
    Flag(
        "iptables-masquerade-bit",
        INT32,
        "bit of the packet mark that asks for masquerade, 0 to 31",
        "iptables.masquerade_bit",
    ),
    _switch(
        "iptables-localhost-nodeports",
        "let NodePorts answer on 127.0.0.1 too",
        "iptables.localhost_node_ports",
    ),
    _period("ipvs-sync-period", "time between full comparisons, for ipvs", 30),
    _period("ipvs-min-sync-period", "shortest time between writes, for ipvs", 1),
    Flag("ipvs-scheduler", STRING, "scheduler of ipvs", "ipvs.scheduler"),
    Flag(
        "ipvs-exclude-cidrs",
        STRINGS,
        "virtual servers in these networks are left alone",
        "ipvs.exclude_cidrs",
    ),
    _switch("ipvs-strict-arp", "set arp_ignore to 1 and arp_announce to 2", "ipvs.strict_arp"),
    Flag("ipvs-tcp-timeout", DURATION, "of idle connections, 0: as it is", "ipvs.tcp_timeout_s"),
    Flag(
        "ipvs-tcpfin-timeout",
        DURATION,
        "of connections after a FIN, 0: as it is",
        "ipvs.tcp_fin_timeout_s",
    ),
    Flag("ipvs-udp-timeout", DURATION, "of UDP flows, 0: as it is", "ipvs.udp_timeout_s"),
    Flag(
        "detect-local-mode",
        LOCAL_MODE,
        "ClusterCIDR (default), NodeCIDR, BridgeInterface or InterfaceNamePrefix",
    ),
    Flag("pod-bridge-interface", STRING, "for the third", "detect_local.bridge_interface"),
    Flag("pod-interface-name-prefix", STRING, "for the last", "detect_local.interface_name_prefix"),
    Flag("cluster-cidr", STRING, "network of all pods, or one of each family", "cluster_cidr"),
    Flag(
        "nodeport-addresses",
        STRINGS,
        "where NodePorts answer: CIDRs, primary, localhost, all",
        "node_port_addresses",
    ),
)
EBPF_FLAGS = (
    Flag(
        "ebpf-cgroup",
        STRING,
        "where ebpf attaches socket hooks; else the root of cgroup v2",
        "kproxy.ebpf.cgroup",
    ),
    Flag("ebpf-bpffs", STRING, "BPF file system where ebpf pins all it has", "kproxy.ebpf.bpffs"),
)
_NODE = (
    Flag("oom-score-adj", INT32, "of this process, -1000 to 1000", "oom_score_adj"),
    Flag(
        "conntrack-max-per-core",
        INT32,
        "connections to track, for each CPU; 0: as it is",
        "conntrack.max_per_core",
    ),
    Flag("conntrack-min", INT32, "connections to track, at least", "conntrack.min"),
    Flag(
        "conntrack-tcp-timeout-established",
        DURATION,
        "of idle connections, 0: as it is",
        "conntrack.tcp_established_timeout_s",
    ),
    Flag(
        "conntrack-tcp-timeout-close-wait",
        DURATION,
        "of connections in CLOSE_WAIT, 0: as it is",
        "conntrack.tcp_close_wait_timeout_s",
    ),
    _switch(
        "conntrack-tcp-be-liberal",
        "set nf_conntrack_tcp_be_liberal to 1",
        "conntrack.tcp_be_liberal",
    ),
    Flag(
        "conntrack-udp-timeout",
        DURATION,
        "of flows without an answer, 0: as it is",
        "conntrack.udp_timeout_s",
    ),
    Flag(
        "conntrack-udp-timeout-stream",
        DURATION,
        "of other UDP flows, 0: as it is",
        "conntrack.udp_stream_timeout_s",
    ),
)
LOGGING_FLAGS = (
    Flag("logging-format", LOG_FORMAT, "text or json", "logging.format"),
    Flag("v", LEVEL, "level of the log; 4 and more tell details", "logging.verbosity", short="v"),
    Flag("vmodule", VMODULE, "accepted, without effect", "logging.vmodule"),
    Flag("log-flush-frequency", LOG_SPAN, "accepted, without effect", "logging.flush_frequency"),
    _switch(
        "log-text-split-stream", "accepted, without effect", "logging.options.text.split_stream"
    ),
    Flag(
        "log-text-info-buffer-size",
        QUANTITY,
        "accepted, without effect",
        "logging.options.text.info_buffer_size",
    ),
    _switch(
        "log-json-split-stream", "accepted, without effect", "logging.options.json.split_stream"
    ),
    Flag(
        "log-json-info-buffer-size",
        QUANTITY,
        "accepted, without effect",
        "logging.options.json.info_buffer_size",
    ),
)
# kube-proxy had these up to 1.36; a command line of then still does what it did.
_FORMER = (
    Flag("boot-id-file", STRING, remark="has no effect, as in Kubernetes 1.37"),
    Flag("machine-id-file", STRING, remark="has no effect, as in Kubernetes 1.37"),
)

# What is taken into account next to a configuration file, besides the logging flags.
BESIDES_A_FILE = {flag.name for flag in (*_PROGRAM, *EBPF_FLAGS)} | {"hostname-override", "master"}

SECTIONS = {
    "Program": _PROGRAM,
    "Cluster": _CLUSTER,
    "Addresses": _ADDRESSES,
    "Data path": _DATA_PATH + EBPF_FLAGS,
    "Node": _NODE,
    "Log": LOGGING_FLAGS,
}
KUBE_PROXY_FLAGS = tuple(flag for flags in SECTIONS.values() for flag in flags) + _FORMER

WINDOWS_FLAGS = dict.fromkeys(
    (
        "windows-service",
        "source-vip",
        "network-name",
        "enable-dsr",
        "root-hnsendpoint-name",
        "forward-healthcheck-vip",
    ),
    "is for kube-proxy on Windows, and kproxy runs on Linux only",
)
