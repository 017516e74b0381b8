"""The configuration: one `KubeProxyConfiguration` file, and what the core needs of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kproxy.config.checks import (
    HEALTHZ_PORT,
    METRICS_PORT,
    cluster_networks,
    find_problems,
    split_address_port,
    with_port,
)
from kproxy.config.fields import Configuration, LogOptions, Mode, Section
from kproxy.config.gates import EXTERNAL_IPS, enabled_gates, idle_gates
from kproxy.config.reading import Mistake, Reading, read_configuration
from kproxy.config.values import plain_node_name
from kproxy.core.addresses import (
    Network,
    canonical_address,
    canonical_network,
    is_loopback,
)
from kproxy.core.settings import (
    DetectLocalMode,
    ListensAt,
    LocalhostNodePorts,
    NodePortKeyword,
    Settings,
)

# The fields that do something, besides sections for the chosen mode alone. Whatever else is set is
# accepted, and said to have no effect.
_EFFECTIVE = frozenset(
    {
        "featureGates",
        "clientConnection.kubeconfig",
        "logging.format",
        "logging.verbosity",
        "hostnameOverride",
        "bindAddress",
        "healthzBindAddress",
        "metricsBindAddress",
        "bindAddressHardFail",
        "mode",
        "iptables.masqueradeBit",
        "iptables.masqueradeAll",
        "iptables.localhostNodePorts",
        "iptables.syncPeriod",
        "iptables.minSyncPeriod",
        "detectLocalMode",
        "detectLocal.bridgeInterface",
        "detectLocal.interfaceNamePrefix",
        "clusterCIDR",
        "nodePortAddresses",
        "oomScoreAdj",
        "conntrack.maxPerCore",
        "conntrack.min",
        "conntrack.tcpEstablishedTimeout",
        "conntrack.tcpCloseWaitTimeout",
        "conntrack.tcpBeLiberal",
        "conntrack.udpTimeout",
        "conntrack.udpStreamTimeout",
        "kproxy.iptables.variant",
        "kproxy.ebpf.bpffs",  # in any mode: there an earlier run's programs are found
        "kproxy.takeOver",
    }
)
_OF_MODE = {Mode.IPVS: "ipvs.", Mode.NFTABLES: "nftables.", Mode.EBPF: "kproxy.ebpf."}
_IDLE_IN_MODE = {
    Mode.IPVS: frozenset(
        {
            "iptables.masqueradeBit",
            "iptables.localhostNodePorts",
            "iptables.syncPeriod",
            "iptables.minSyncPeriod",
        }
    ),
    Mode.EBPF: frozenset({"iptables.minSyncPeriod"}),
}


class ConfigurationError(Exception):
    """A configuration that cannot be used. `lines` has one line for each thing that is wrong."""

    def __init__(self, origin: str, problems: list[Mistake]) -> None:
        self.lines = tuple(f"{origin}: {problem}" for problem in problems)
        super().__init__("; ".join(self.lines))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration.

    `warnings` are lines about fields that were skipped, `without_effect` about fields that were
    understood and yet change nothing. `mode_was_default` says that nobody named a mode. `content`
    is the file as it was read, None without one.
    """

    configuration: Configuration
    warnings: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()
    mode_was_default: bool = False
    content: bytes | None = None


def load_configuration(path: Path | None, mode: Mode | None) -> Loaded:
    """Read and check a configuration file; None stands for a file that sets nothing.

    `mode` replaces the file's, None leaves it. Raises ConfigurationError with all that is wrong.
    """
    reading = Reading() if path is None else read_file(path)
    if mode is not None:
        reading.configuration = msgspec.structs.replace(reading.configuration, mode=mode)
        reading.given.add("mode")
    return checked(reading, str(path))


def read_file(path: Path) -> Reading:
    """Read a configuration file, and complete what depends on other fields.

    Raises ConfigurationError if it cannot be read; what is wrong in it comes with the result.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        raise ConfigurationError(str(path), [Mistake("", "", why)]) from error
    return read_content(data)


def read_content(data: bytes) -> Reading:
    """Return what a configuration file holds whose content is already here."""
    reading = read_configuration(data)
    read = reading.configuration
    addresses = {
        "healthz_bind_address": with_port(read.healthz_bind_address, HEALTHZ_PORT),
        "metrics_bind_address": with_port(read.metrics_bind_address, METRICS_PORT),
    }
    if _is_ipv6(read.bind_address):
        if "healthzBindAddress" not in reading.given:
            addresses["healthz_bind_address"] = f"[::]:{HEALTHZ_PORT}"
        if "metricsBindAddress" not in reading.given:
            addresses["metrics_bind_address"] = f"[::1]:{METRICS_PORT}"
    # Upstream's flags for these two overwrite what a file says, even if they are not given.
    options = {
        name: msgspec.structs.replace(getattr(read.logging.options, name), split_stream=False)
        for name in ("text", "json")
    }
    logging = msgspec.structs.replace(read.logging, options=LogOptions(**options))
    reading.configuration = msgspec.structs.replace(read, **addresses, logging=logging)
    return reading


def checked(reading: Reading, origin: str) -> Loaded:
    """Return a configuration once it is known to be valid; `origin` is named in each line.

    Raises ConfigurationError with all that is wrong.
    """
    configuration = reading.configuration
    if configuration.mode is Mode.NFTABLES and not configuration.node_port_addresses:
        primary = (NodePortKeyword.PRIMARY.value,)
        configuration = msgspec.structs.replace(configuration, node_port_addresses=primary)
    unreadable = {problem.path for problem in reading.problems}
    problems = [each for each in find_problems(configuration) if each.path not in unreadable]
    if problems or reading.problems:
        raise ConfigurationError(origin, reading.problems + problems)
    return Loaded(
        configuration=configuration,
        warnings=tuple(f"{origin}: {line}" for line in _warnings(reading)),
        without_effect=tuple(f"{origin}: {line}" for line in _without_effect(configuration)),
        mode_was_default="mode" not in reading.given,
        content=reading.content,
    )


def effective_differences(new: Configuration, old: Configuration) -> set[str]:
    """Return the paths of the fields in which two configurations differ and that do something."""
    differences = _changed(new, old, "")
    return {path for path in differences if _is_effective(path, new.mode)}


def to_settings(configuration: Configuration, node_name: str) -> Settings:
    """Return what the compiler needs of a valid configuration.

    What depends on the mode is resolved here: nobody after this knows one.
    """
    ranges: list[str] = []
    if configuration.detect_local_mode is DetectLocalMode.CLUSTER_CIDR:
        ranges = cluster_networks(configuration.cluster_cidr)
    nftables = configuration.mode is Mode.NFTABLES
    section = configuration.nftables if nftables else configuration.iptables
    addresses = configuration.node_port_addresses
    by_default = NodePortKeyword.PRIMARY if nftables else NodePortKeyword.ALL
    return Settings(
        node_name=node_name,
        detect_local=configuration.detect_local_mode,
        cluster_cidrs=tuple(canonical_network(text) for text in ranges),
        bridge_interface=configuration.detect_local.bridge_interface,
        interface_name_prefix=configuration.detect_local.interface_name_prefix,
        masquerade_all=section.masquerade_all,
        node_port_addresses=tuple(map(_node_port_address, addresses or (by_default.value,))),
        localhost_ipv4=_localhost_ipv4(configuration),
        localhost_ipv6=_localhost_ipv6(configuration.mode),
        external_ips=enabled_gates(configuration.feature_gates)[EXTERNAL_IPS],
        bind_address=_own_address(configuration.bind_address),
        listens_at=tuple(_servers(configuration)),
    )


def _servers(configuration: Configuration) -> Iterator[ListensAt]:
    for field, text in (
        ("healthzBindAddress", configuration.healthz_bind_address),
        ("metricsBindAddress", configuration.metrics_bind_address),
    ):
        if text:
            yield ListensAt(field, *split_address_port(text))


def _localhost_ipv4(configuration: Configuration) -> LocalhostNodePorts:
    """Return when NodePorts answer on 127.0.0.1: upstream has a switch for it in iptables alone.

    It never serves them there in ipvs.
    """
    match configuration.mode:
        case Mode.IPVS:
            return LocalhostNodePorts.NEVER
        case Mode.NFTABLES:
            return LocalhostNodePorts.LISTED
        case Mode.IPTABLES | Mode.EBPF:
            on = configuration.iptables.localhost_node_ports
            return LocalhostNodePorts.COVERED if on else LocalhostNodePorts.NEVER


def _localhost_ipv6(mode: Mode) -> LocalhostNodePorts:
    """Return when NodePorts answer on ::1: rules cannot, as the kernel routes no IPv6 loopback."""
    never = mode in (Mode.IPTABLES, Mode.IPVS)
    return LocalhostNodePorts.NEVER if never else LocalhostNodePorts.LISTED


def node_name(option: str | None, configuration: Configuration, host_name: str) -> str:
    """Return the name of this node: the option, else `hostnameOverride`, else the host's name.

    As upstream has it, blanks around it go and it is in lower case. Raises ValueError if it is
    blank.
    """
    name = option if option is not None else configuration.hostname_override or host_name
    name = plain_node_name(name)
    if not name:
        raise ValueError("the node name must not be blank")
    return name


def _is_ipv6(address: str) -> bool:
    try:
        return ":" in canonical_address(address)
    except ValueError:
        return False


def _node_port_address(text: str) -> Network | NodePortKeyword:
    if text in {keyword.value for keyword in NodePortKeyword}:
        return NodePortKeyword(text)
    return canonical_network(text)


def _is_loopback(node_port_address: str) -> bool:
    meant = _node_port_address(node_port_address)
    if isinstance(meant, NodePortKeyword):
        return meant is NodePortKeyword.LOCALHOST
    return is_loopback(str(meant.network_address))


def _own_address(bind_address: str) -> str:
    """Return the address that stands for the Node's, "" where the Node object has the say."""
    address = canonical_address(bind_address)
    return "" if ipaddress.ip_address(address).is_unspecified else address


def _warnings(reading: Reading) -> Iterator[str]:
    if reading.unknown:
        yield f"unknown fields, skipped: {', '.join(sorted(reading.unknown))}"
    if reading.repeated:
        yield f"set twice, the last one counts: {', '.join(reading.repeated)}"
    if reading.more:
        yield "several documents, the first one counts"


def _without_effect(configuration: Configuration) -> Iterator[str]:
    changed = _changed(configuration, Configuration(), "")
    idle = sorted(path for path in changed if not _is_effective(path, configuration.mode))
    if idle:
        yield f"accepted, without effect in kproxy: {', '.join(idle)}"
    on_loopback = [each for each in configuration.node_port_addresses or () if _is_loopback(each)]
    if configuration.mode is Mode.IPVS and on_loopback:
        yield (
            "nodePortAddresses: NodePorts answer on no loopback address in mode ipvs, so without "
            f"effect: {', '.join(on_loopback)}"
        )
    gates = idle_gates(configuration.feature_gates)
    if gates:
        yield f"feature gates, accepted, without effect in kproxy: {', '.join(gates)}"


def _is_effective(path: str, mode: Mode) -> bool:
    if path in _IDLE_IN_MODE.get(mode, ()):
        return False
    section = _OF_MODE.get(mode)
    return path in _EFFECTIVE or (section is not None and path.startswith(section))


def _changed(section: Section, plain: Section, path: str) -> Iterator[str]:
    """Yield the paths of the fields that differ from their default."""
    for info in msgspec.structs.fields(section):
        value, default = getattr(section, info.name), getattr(plain, info.name)
        where = path + info.encode_name
        if isinstance(value, Section) and isinstance(default, Section):
            yield from _changed(value, default, f"{where}.")
        elif value != default and (value or default):  # an empty list says no more than none
            yield where
