"""The fields of a `KubeProxyConfiguration` and their defaults.

The shape and the defaults are those of `kubeproxy.config.k8s.io/v1alpha1` (k8s.io/kube-proxy,
config/v1alpha1/types.go and defaults.go), save for the section `kproxy`, which is ours. Every
struct can be made without arguments, and then it is what an empty file means. A list that is not
there is None: upstream writes that as null, an empty list as [], and means the same by both.
"""

from __future__ import annotations

import enum
from typing import Annotated, NewType

from msgspec import Meta, Struct, field

from kproxy.config.durations import Span, whole_seconds
from kproxy.core.settings import DetectLocalMode

Float32 = NewType("Float32", float)  # the shortest decimal that is the same as a 32-bit float
Quantity = NewType("Quantity", str)  # a Kubernetes quantity such as 64Ki, in canonical form

# Go decodes into sized integers, so a number outside of them is a type error there too.
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Mode(enum.Enum):
    """A data path, by its configuration name. Only defaults depend on it, never a decision."""

    IPTABLES = "iptables"
    IPVS = "ipvs"
    NFTABLES = "nftables"
    EBPF = "ebpf"


class LogSpan(Struct, frozen=True):
    """A time span that a file may also give as a number of nanoseconds, and then is written so."""

    span: Span
    as_number: bool = False


class MinSyncPeriod(Struct, frozen=True):
    """The shortest time between two writes; `chosen` says that somebody set it, and not to 0.

    Where nobody did, `span` is what kube-proxy would use, and tells.
    """

    span: Span
    chosen: bool = False


def chosen_min_sync_period(span: Span) -> MinSyncPeriod:
    """Return what somebody wrote; 0 leaves the choice to us, as kubeadm means it."""
    return MinSyncPeriod(span, chosen=bool(span))


class LogFormat(enum.Enum):
    """How a log line is written."""

    TEXT = "text"
    JSON = "json"


class IptablesVariant(enum.Enum):
    """Which kernel interface the iptables tools speak; AUTO looks at the rules already there."""

    AUTO = "auto"
    LEGACY = "legacy"
    NFT = "nft"


class SocketHooks(enum.Enum):
    """Whose connections the ebpf data path translates in their sockets; all others in packets."""

    ALL = "all"
    HOST = "host"
    OFF = "off"


class Section(Struct, frozen=True, kw_only=True, rename="camel"):
    """A JSON object of the file. A field's name there is in camel case, without the unit."""


class ClientConnection(Section, frozen=True, kw_only=True):
    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = "application/vnd.kubernetes.protobuf"
    qps: Float32 = Float32(5.0)
    burst: Int32 = 10


class VModule(Section, frozen=True, kw_only=True):
    file_pattern: str = ""
    verbosity: UInt32 = 0


class LogOutput(Section, frozen=True, kw_only=True):
    split_stream: bool = False
    info_buffer_size: Quantity = Quantity("0")


class LogOptions(Section, frozen=True, kw_only=True):
    text: LogOutput = LogOutput()
    json: LogOutput = LogOutput()


class Logging(Section, frozen=True, kw_only=True):
    format: LogFormat = LogFormat.TEXT
    flush_frequency: LogSpan = LogSpan(whole_seconds(5))
    verbosity: UInt32 = 0
    vmodule: tuple[VModule, ...] = ()
    options: LogOptions = LogOptions()


class Iptables(Section, frozen=True, kw_only=True):
    masquerade_bit: Int32 = 14
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    sync_period_s: Span = field(name="syncPeriod", default=whole_seconds(30))
    min_sync_period: MinSyncPeriod = MinSyncPeriod(whole_seconds(1))


class Ipvs(Section, frozen=True, kw_only=True):
    sync_period_s: Span = field(name="syncPeriod", default=whole_seconds(30))
    min_sync_period: MinSyncPeriod = MinSyncPeriod(whole_seconds(0))
    scheduler: str = ""
    exclude_cidrs: tuple[str, ...] | None = field(name="excludeCIDRs", default=None)
    strict_arp: bool = field(name="strictARP", default=False)
    tcp_timeout_s: Span = field(name="tcpTimeout", default=whole_seconds(0))
    tcp_fin_timeout_s: Span = field(name="tcpFinTimeout", default=whole_seconds(0))
    udp_timeout_s: Span = field(name="udpTimeout", default=whole_seconds(0))


class Nftables(Section, frozen=True, kw_only=True):
    masquerade_bit: Int32 = 14
    masquerade_all: bool = False
    sync_period_s: Span = field(name="syncPeriod", default=whole_seconds(30))
    min_sync_period: MinSyncPeriod = MinSyncPeriod(whole_seconds(1))


class Winkernel(Section, frozen=True, kw_only=True):
    network_name: str = ""
    source_vip: str = ""
    enable_dsr: bool = field(name="enableDSR", default=False)
    root_hns_endpoint_name: str = ""
    forward_health_check_vip: bool = False


class DetectLocal(Section, frozen=True, kw_only=True):
    bridge_interface: str = ""
    interface_name_prefix: str = ""


class Conntrack(Section, frozen=True, kw_only=True):
    max_per_core: Int32 = 32768
    min: Int32 = 131072
    tcp_established_timeout_s: Span = field(
        name="tcpEstablishedTimeout", default=whole_seconds(86400)
    )
    tcp_close_wait_timeout_s: Span = field(name="tcpCloseWaitTimeout", default=whole_seconds(3600))
    tcp_be_liberal: bool = False
    udp_timeout_s: Span = field(name="udpTimeout", default=whole_seconds(0))
    udp_stream_timeout_s: Span = field(name="udpStreamTimeout", default=whole_seconds(0))


class OwnIptables(Section, frozen=True, kw_only=True):
    variant: IptablesVariant = IptablesVariant.AUTO


class OwnEbpf(Section, frozen=True, kw_only=True):
    """The ebpf data path's own settings.

    - `cgroup`: where socket hooks are attached; empty: the root of cgroup v2, wherever mounted.
    - `bpffs`: the BPF file system below which everything is pinned, in a folder `kproxy`.
    - `…_entries`: how much the maps of a family hold: of the table, of connections (two or three
      entries each), and of clients with session affinity.
    """

    cgroup: str = ""
    bpffs: str = "/sys/fs/bpf"
    socket_hooks: SocketHooks = SocketHooks.ALL
    service_entries: Int32 = 131072
    flow_entries: Int32 = 262144
    affinity_entries: Int32 = 16384


class Own(Section, frozen=True, kw_only=True):
    """What upstream has no field for."""

    iptables: OwnIptables = OwnIptables()
    ebpf: OwnEbpf = OwnEbpf()
    take_over: bool = False


class Configuration(Section, frozen=True, kw_only=True):
    """One `KubeProxyConfiguration`, defaults applied.

    `healthz_bind_address` is empty where there shall be no health server, which no file can say
    (only the flag `--healthz-port=0`).
    """

    feature_gates: dict[str, bool] = field(default_factory=dict)
    client_connection: ClientConnection = ClientConnection()
    logging: Logging = Logging()
    hostname_override: str = ""
    bind_address: str = "0.0.0.0"
    healthz_bind_address: str = "0.0.0.0:10256"
    metrics_bind_address: str = "127.0.0.1:10249"
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    mode: Mode = Mode.IPTABLES
    iptables: Iptables = Iptables()
    ipvs: Ipvs = Ipvs()
    nftables: Nftables = Nftables()
    winkernel: Winkernel = Winkernel()
    detect_local_mode: DetectLocalMode = DetectLocalMode.CLUSTER_CIDR
    detect_local: DetectLocal = DetectLocal()
    cluster_cidr: str = field(name="clusterCIDR", default="")
    node_port_addresses: tuple[str, ...] | None = None
    oom_score_adj: Int32 = -999
    conntrack: Conntrack = Conntrack()
    config_sync_period_s: Span = field(name="configSyncPeriod", default=whole_seconds(900))
    port_range: str = ""
    windows_run_as_service: bool = False
    kproxy: Own = Own()


# Upstream cannot tell these from "not set", so they mean the default there.
EMPTY_IS_DEFAULT = frozenset(
    {
        "clientConnection.contentType",
        "logging.format",
        "bindAddress",
        "healthzBindAddress",
        "metricsBindAddress",
        "mode",
        "detectLocalMode",
    }
)
ZERO_IS_DEFAULT = frozenset(
    {
        "clientConnection.qps",
        "clientConnection.burst",
        "logging.flushFrequency",
        "iptables.syncPeriod",
        "iptables.minSyncPeriod",
        "ipvs.syncPeriod",
        "nftables.syncPeriod",
        "nftables.minSyncPeriod",
        "configSyncPeriod",
    }
)
