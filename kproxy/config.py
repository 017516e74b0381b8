"""The configuration: one `KubeProxyConfiguration` file, and what the core needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from kproxy.config_check import (
    HEALTHZ_PORT,
    METRICS_PORT,
    cluster_networks,
    find_problems,
    with_port,
)
from kproxy.config_fields import Configuration
from kproxy.config_read import Problem, Reading, read_configuration
from kproxy.core.addresses import Network, canonical_address, canonical_network
from kproxy.core.settings import DetectLocalMode, Mode, NodePortKeyword, Settings

# The fields that do something. Whatever else a file sets is accepted, and said to have no effect.
_EFFECTIVE = frozenset(
    {
        "logging.format",
        "logging.verbosity",
        "hostnameOverride",
        "mode",
        "iptables.masqueradeBit",
        "iptables.masqueradeAll",
        "iptables.localhostNodePorts",
        "iptables.syncPeriod",
        "iptables.minSyncPeriod",
        "nftables.masqueradeAll",
        "detectLocalMode",
        "detectLocal.bridgeInterface",
        "detectLocal.interfaceNamePrefix",
        "clusterCIDR",
        "nodePortAddresses",
        "kproxy.iptables.variant",
        "kproxy.takeOver",
    }
)
_WINDOWS_ONLY = ("winkernel.", "windowsRunAsService")


class ConfigurationError(Exception):
    """A configuration that cannot be used. `lines` has one line for each thing that is wrong."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.lines = tuple(f"{file}: {problem}" for problem in problems)
        super().__init__("; ".join(self.lines))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration.

    `warnings` are lines about fields that were skipped, `without_effect` about fields that were
    understood and yet change nothing.
    """

    configuration: Configuration
    warnings: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()


def load_configuration(path: Path | None, mode: Mode | None) -> Loaded:
    """Read and check a configuration file; None stands for a file that sets nothing.

    `mode` replaces the file's, None leaves it. Raises ConfigurationError with all that is wrong.
    """
    reading = Reading() if path is None else read_configuration(_read_text(path))
    configuration = _with_derived_defaults(reading.configuration)
    if mode is not None:
        configuration = msgspec.structs.replace(configuration, mode=mode)
    unreadable = {problem.path for problem in reading.problems}
    problems = [each for each in find_problems(configuration) if each.path not in unreadable]
    if problems or reading.problems:
        raise ConfigurationError(str(path), reading.problems + problems)
    return Loaded(
        configuration=configuration,
        warnings=tuple(_warnings(reading, path)),
        without_effect=tuple(_without_effect(reading, path)),
    )


def to_settings(configuration: Configuration, node_name: str) -> Settings:
    """Return what the compiler needs of a valid configuration."""
    ranges: list[str] = []
    if configuration.detect_local_mode is DetectLocalMode.CLUSTER_CIDR:
        ranges = cluster_networks(configuration.cluster_cidr)
    nftables = configuration.mode is Mode.NFTABLES
    section = configuration.nftables if nftables else configuration.iptables
    addresses = configuration.node_port_addresses
    return Settings(
        node_name=node_name,
        mode=configuration.mode,
        detect_local=configuration.detect_local_mode,
        cluster_cidrs=tuple(canonical_network(text) for text in ranges),
        bridge_interface=configuration.detect_local.bridge_interface,
        interface_name_prefix=configuration.detect_local.interface_name_prefix,
        masquerade_all=section.masquerade_all,
        node_port_addresses=tuple(map(_node_port_address, addresses)) if addresses else None,
        localhost_node_ports=configuration.iptables.localhost_node_ports,
    )


def node_name(option: str | None, configuration: Configuration, host_name: str) -> str:
    """Return the name of this node: the option, else `hostnameOverride`, else the host's name.

    As upstream has it, blanks around it go and it is in lower case. Raises ValueError if it is
    blank.
    """
    name = option if option is not None else configuration.hostname_override or host_name
    name = name.strip().lower()
    if not name:
        raise ValueError("the node name must not be blank")
    return name


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        raise ConfigurationError(str(path), [Problem("", "", why)]) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), [Problem("", "", "is not UTF-8 text")]) from error


def _with_derived_defaults(read: Configuration) -> Configuration:
    """Complete the two addresses whose default is of the family of `bindAddress`."""
    plain = Configuration()
    healthz, metrics = read.healthz_bind_address, read.metrics_bind_address
    if _is_ipv6(read.bind_address):
        if healthz == plain.healthz_bind_address:
            healthz = f"[::]:{HEALTHZ_PORT}"
        if metrics == plain.metrics_bind_address:
            metrics = f"[::1]:{METRICS_PORT}"
    return msgspec.structs.replace(
        read,
        healthz_bind_address=with_port(healthz, HEALTHZ_PORT),
        metrics_bind_address=with_port(metrics, METRICS_PORT),
    )


def _is_ipv6(address: str) -> bool:
    try:
        return ":" in canonical_address(address)
    except ValueError:
        return False


def _node_port_address(text: str) -> Network | NodePortKeyword:
    if text in {keyword.value for keyword in NodePortKeyword}:
        return NodePortKeyword(text)
    return canonical_network(text)


def _warnings(reading: Reading, path: Path | None) -> list[str]:
    lines = []
    if reading.unknown:
        lines.append(f"{path}: unknown fields, skipped: {', '.join(sorted(reading.unknown))}")
    if reading.repeated:
        lines.append(f"{path}: set twice, the last one counts: {', '.join(reading.repeated)}")
    return lines


def _without_effect(reading: Reading, path: Path | None) -> list[str]:
    idle = sorted(reading.changed - _EFFECTIVE)
    windows = [name for name in idle if name.startswith(_WINDOWS_ONLY)]
    other = [name for name in idle if name not in windows]
    lines = []
    if other:
        lines.append(f"{path}: accepted, without effect in this version: {', '.join(other)}")
    if windows:
        lines.append(f"{path}: accepted, for Windows only: {', '.join(windows)}")
    return lines
