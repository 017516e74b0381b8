"""Which values of a configuration are refused, by upstream's rules.

They are those of pkg/proxy/apis/config/validation and of the logging options: the section of a
mode is checked in that mode only, except for `iptables.masqueradeBit`. Ours are these: the name of
an interface must be one that Linux allows, since no kernel rule can hold another;
`hostnameOverride` must not be blank; what is for Windows must not be set; and those of the section
`kproxy`. Blanks around the parts of `clusterCIDR` are allowed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kproxy.config.durations import Span, format_duration
from kproxy.config.fields import (
    Configuration,
    Iptables,
    Ipvs,
    LogFormat,
    Logging,
    Mode,
    Nftables,
    OwnEbpf,
    Winkernel,
)
from kproxy.config.gates import IPVS, LOGGING_ALPHA, LOGGING_BETA, enabled_gates, wrong_gates
from kproxy.config.reading import Mistake
from kproxy.config.syntax import shown
from kproxy.config.values import GO_SPACE
from kproxy.core.addresses import canonical_address, canonical_network
from kproxy.core.settings import DetectLocalMode, NodePortKeyword

HEALTHZ_PORT = 10256
METRICS_PORT = 10249
PREVIOUS_VERSION = "1.36"  # of Kubernetes, whose hidden metrics may be asked for
_LONGEST_INTERFACE = 15  # IFNAMSIZ without the final zero
_LARGEST_VERBOSITY = 2**31 - 1
_FEWEST_ENTRIES, _MOST_ENTRIES = 1024, 2**24  # of a map; an empty hash takes 16 bytes for each
_BRACKETED_IPV4 = re.compile(r"^\[([0-9.]+)\]:")
_PORT = re.compile(r"\+?0*([0-9]{1,5})")
_FOR_WINDOWS = "is for kube-proxy on Windows, and kproxy runs on Linux only"


def find_problems(configuration: Configuration) -> list[Mistake]:
    """Return everything that is wrong with the values of a configuration."""
    enabled = enabled_gates(configuration.feature_gates)
    return [
        *_check_gates(configuration.feature_gates),
        *_check_node(configuration),
        *_check_addresses(configuration),
        *_check_mode(configuration, ipvs_allowed=enabled[IPVS]),
        *_check_path("kproxy.ebpf.bpffs", configuration.kproxy.ebpf.bpffs),
        *_check_detect_local(configuration),
        *_check_node_port_addresses(configuration.node_port_addresses or ()),
        *_check_conntrack(configuration),
        *_check_logging(configuration.logging),
        *_check_logging_gates(configuration.logging, enabled),
        *_check_windows(configuration),
    ]


def with_port(address: str, port: int) -> str:
    """Return `address` with `port` appended if it is an IP address alone.

    Brackets are taken off an IPv4 address, around which Go's net.SplitHostPort allows them too.
    """
    try:
        canonical_address(address)
    except ValueError:
        return _BRACKETED_IPV4.sub(r"\1:", address)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split_address_port(text: str) -> tuple[str, int]:
    """Return address and port of `1.2.3.4:80` or `[::1]:80`, the address canonical.

    A port may have a plus and zeros in front, as Go's strconv.Atoi has it. Raises ValueError.
    """
    address, colon, port = text.rpartition(":")
    bracketed = address.startswith("[") and address.endswith("]")
    if not colon or (":" in address and not bracketed):
        raise ValueError("expected IP:PORT, an IPv6 address in brackets")
    digits = _PORT.fullmatch(port)
    if digits is None or not 1 <= int(digits[1]) <= 65535:
        raise ValueError("expected a port from 1 to 65535 after the address")
    try:
        plain = canonical_address(address[1:-1] if bracketed else address)
    except ValueError:
        raise ValueError("expected an IP address before the port") from None
    if bracketed and ":" not in address:
        raise ValueError("brackets are for IPv6 addresses")
    return plain, int(digits[1])


def cluster_networks(text: str) -> list[str]:
    """Return the parts of `clusterCIDR`, blanks around them removed."""
    return [part.strip() for part in text.split(",")] if text else []


def _check_gates(chosen: Mapping[str, bool]) -> Iterator[Mistake]:
    for name, why in wrong_gates(chosen):
        label = name if name.isidentifier() else shown(name)
        value = str(chosen[name]).lower() if name in chosen else ""
        yield Mistake(f"featureGates.{label}", value, why)


def _check_node(configuration: Configuration) -> Iterator[Mistake]:
    override = configuration.hostname_override
    if override and not override.strip(GO_SPACE):
        yield Mistake("hostnameOverride", shown(override), "must not be blank")
    if not -1000 <= configuration.oom_score_adj <= 1000:
        yield Mistake("oomScoreAdj", shown(configuration.oom_score_adj), "must be in -1000..1000")
    if configuration.config_sync_period_s <= 0:
        value = format_duration(configuration.config_sync_period_s)
        yield Mistake("configSyncPeriod", value, "must be more than 0s")
    if configuration.client_connection.burst < 0:
        value = shown(configuration.client_connection.burst)
        yield Mistake("clientConnection.burst", value, "must not be negative")
    version = configuration.show_hidden_metrics_for_version
    if version not in ("", PREVIOUS_VERSION):
        why = f"must be empty or the version before this one, {PREVIOUS_VERSION}"
        yield Mistake("showHiddenMetricsForVersion", shown(version), why)


def _check_addresses(configuration: Configuration) -> Iterator[Mistake]:
    try:
        canonical_address(configuration.bind_address)
    except ValueError:
        yield Mistake("bindAddress", shown(configuration.bind_address), "must be an IP address")
    for path, text, port in (
        ("healthzBindAddress", configuration.healthz_bind_address, HEALTHZ_PORT),
        ("metricsBindAddress", configuration.metrics_bind_address, METRICS_PORT),
    ):
        if not text and path == "healthzBindAddress":
            continue  # no health server, by flag
        try:
            split_address_port(with_port(text, port))
        except ValueError as error:
            yield Mistake(path, shown(text), str(error))


def _check_mode(configuration: Configuration, *, ipvs_allowed: bool) -> Iterator[Mistake]:
    yield from _check_bit("iptables", configuration.iptables)
    mode = configuration.mode
    if mode is Mode.IPVS:
        if not ipvs_allowed:
            yield Mistake("mode", mode.value, f"needs the feature gate {IPVS}, which is off")
        yield from _check_ipvs(configuration.ipvs)
    elif mode is Mode.NFTABLES:
        yield from _check_periods("nftables", configuration.nftables)
        yield from _check_bit("nftables", configuration.nftables)
    elif mode is Mode.EBPF:
        yield from _check_sync_period("iptables", configuration.iptables)
        yield from _check_ebpf(configuration.kproxy.ebpf)
    else:
        yield from _check_periods("iptables", configuration.iptables)


def _check_bit(path: str, section: Iptables | Nftables) -> Iterator[Mistake]:
    if not 0 <= section.masquerade_bit <= 31:
        yield Mistake(f"{path}.masqueradeBit", shown(section.masquerade_bit), "must be in 0..31")


def _check_periods(path: str, section: Iptables | Ipvs | Nftables) -> Iterator[Mistake]:
    sync, least = section.sync_period_s, section.min_sync_period.span
    yield from _check_sync_period(path, section)
    yield from _check_not_negative(f"{path}.minSyncPeriod", least)
    if 0 < sync < least:
        why = f"must not be less than {path}.minSyncPeriod, {format_duration(least)}"
        yield Mistake(f"{path}.syncPeriod", format_duration(sync), why)


def _check_sync_period(path: str, section: Iptables | Ipvs | Nftables) -> Iterator[Mistake]:
    if section.sync_period_s <= 0:
        value = format_duration(section.sync_period_s)
        yield Mistake(f"{path}.syncPeriod", value, "must be more than 0s")


def _check_ebpf(ebpf: OwnEbpf) -> Iterator[Mistake]:
    if ebpf.cgroup:
        yield from _check_path("kproxy.ebpf.cgroup", ebpf.cgroup)
    for name, entries in (
        ("serviceEntries", ebpf.service_entries),
        ("flowEntries", ebpf.flow_entries),
        ("affinityEntries", ebpf.affinity_entries),
    ):
        if not _FEWEST_ENTRIES <= entries <= _MOST_ENTRIES:
            why = f"must be in {_FEWEST_ENTRIES}..{_MOST_ENTRIES}"
            yield Mistake(f"kproxy.ebpf.{name}", shown(entries), why)


def _check_path(path: str, value: str) -> Iterator[Mistake]:
    if not value.startswith("/") or not value.isprintable():
        yield Mistake(path, shown(value), "must be an absolute path")


def _check_ipvs(ipvs: Ipvs) -> Iterator[Mistake]:
    yield from _check_periods("ipvs", ipvs)
    yield from _check_not_negative("ipvs.tcpTimeout", ipvs.tcp_timeout_s)
    yield from _check_not_negative("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout_s)
    yield from _check_not_negative("ipvs.udpTimeout", ipvs.udp_timeout_s)
    for index, text in enumerate(ipvs.exclude_cidrs or ()):
        try:
            canonical_network(text)
        except ValueError:
            yield Mistake(f"ipvs.excludeCIDRs[{index}]", shown(text), "must be a CIDR")


def _check_detect_local(configuration: Configuration) -> Iterator[Mistake]:
    match configuration.detect_local_mode:
        case DetectLocalMode.CLUSTER_CIDR:
            yield from _check_cluster_cidr(configuration.cluster_cidr)
        case DetectLocalMode.BRIDGE_INTERFACE:
            name = configuration.detect_local.bridge_interface
            yield from _check_interface("detectLocal.bridgeInterface", name, _LONGEST_INTERFACE)
        case DetectLocalMode.INTERFACE_NAME_PREFIX:
            name = configuration.detect_local.interface_name_prefix
            # One character is left for what comes after the prefix.
            longest = _LONGEST_INTERFACE - 1
            yield from _check_interface("detectLocal.interfaceNamePrefix", name, longest)
        case DetectLocalMode.NODE_CIDR:
            pass  # the CIDRs come with the Node object


def _check_cluster_cidr(text: str) -> Iterator[Mistake]:
    networks = []
    for part in cluster_networks(text):
        try:
            networks.append(canonical_network(part))
        except ValueError as error:
            yield Mistake("clusterCIDR", shown(part), f"must be a CIDR: {error}")
            return
    if len({network.version for network in networks}) < len(networks):
        yield Mistake("clusterCIDR", shown(text), "must be one CIDR, or one IPv4 and one IPv6 CIDR")


def _check_interface(path: str, name: str, longest: int) -> Iterator[Mistake]:
    if not name:
        yield Mistake(path, "", "must be set in this detectLocalMode")
    elif len(name.encode(errors="replace")) > longest:
        yield Mistake(path, shown(name), f"must not be longer than {longest} bytes")
    elif not name.isascii() or not name.isprintable() or set(name) & set(" /:+\"'\\"):
        yield Mistake(path, shown(name), "is not the name of a network interface")


def _check_node_port_addresses(entries: tuple[str, ...]) -> Iterator[Mistake]:
    keywords = [keyword.value for keyword in NodePortKeyword]
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        path = f"nodePortAddresses[{index}]"
        if entry in seen:
            yield Mistake(path, shown(entry), "the same keyword twice")
        elif entry in keywords:
            seen.add(entry)
        else:
            try:
                canonical_network(entry)
            except ValueError:
                yield Mistake(path, shown(entry), f"must be a CIDR or one of {', '.join(keywords)}")


def _check_conntrack(configuration: Configuration) -> Iterator[Mistake]:
    conntrack = configuration.conntrack
    for path, number in (
        ("conntrack.maxPerCore", conntrack.max_per_core),
        ("conntrack.min", conntrack.min),
    ):
        if number < 0:
            yield Mistake(path, shown(number), "must not be negative")
    yield from _check_not_negative(
        "conntrack.tcpEstablishedTimeout", conntrack.tcp_established_timeout_s
    )
    yield from _check_not_negative(
        "conntrack.tcpCloseWaitTimeout", conntrack.tcp_close_wait_timeout_s
    )
    yield from _check_not_negative("conntrack.udpTimeout", conntrack.udp_timeout_s)
    yield from _check_not_negative("conntrack.udpStreamTimeout", conntrack.udp_stream_timeout_s)


def _check_logging(logging: Logging) -> Iterator[Mistake]:
    flush = logging.flush_frequency.span
    if flush <= 0:
        yield Mistake("logging.flushFrequency", format_duration(flush), "must be more than 0s")
    if logging.verbosity > _LARGEST_VERBOSITY:
        why = f"must not be more than {_LARGEST_VERBOSITY}"
        yield Mistake("logging.verbosity", shown(logging.verbosity), why)
    if logging.vmodule and logging.format is LogFormat.JSON:
        yield Mistake("logging.vmodule", "", "works with the text format only")
    for index, item in enumerate(logging.vmodule):
        path = f"logging.vmodule[{index}]"
        if not item.file_pattern or set(item.file_pattern) & set("=,"):
            why = "must not be empty and have no equal sign and no comma"
            yield Mistake(f"{path}.filePattern", shown(item.file_pattern), why)
        if item.verbosity > _LARGEST_VERBOSITY:
            why = f"must not be more than {_LARGEST_VERBOSITY}"
            yield Mistake(f"{path}.verbosity", shown(item.verbosity), why)


def _check_logging_gates(logging: Logging, enabled: Mapping[str, bool]) -> Iterator[Mistake]:
    if logging.format is LogFormat.JSON and not enabled[LOGGING_BETA]:
        why = f"needs the feature gate {LOGGING_BETA}, which is off"
        yield Mistake("logging.format", logging.format.value, why)
    if enabled[LOGGING_ALPHA]:
        return
    why = f"needs the feature gate {LOGGING_ALPHA}, which is off"
    for name, output in (("text", logging.options.text), ("json", logging.options.json)):
        if output.split_stream:
            yield Mistake(f"logging.options.{name}.splitStream", "true", why)
        if output.info_buffer_size != "0":
            path = f"logging.options.{name}.infoBufferSize"
            yield Mistake(path, shown(output.info_buffer_size), why)


def _check_windows(configuration: Configuration) -> Iterator[Mistake]:
    plain = Winkernel()
    for name, json_name in zip(
        plain.__struct_fields__, plain.__struct_encode_fields__, strict=True
    ):
        value = getattr(configuration.winkernel, name)
        if value != getattr(plain, name):
            yield Mistake(f"winkernel.{json_name}", shown(value), _FOR_WINDOWS)
    if configuration.windows_run_as_service:
        yield Mistake("windowsRunAsService", "true", _FOR_WINDOWS)


def _check_not_negative(path: str, span: Span) -> Iterator[Mistake]:
    if span < 0:
        yield Mistake(path, format_duration(span), "must not be negative")
