"""What several commands share: their options, and how the configuration is found."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from kproxy.config.fields import Configuration, Mode
from kproxy.config.loading import ConfigurationError, Loaded, load_configuration, node_name
from kproxy.proxy.failures import BadUsage
from kproxy.proxy.logs import escape

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)
_ABSOLUTE = click.Path(resolve_path=True)
_MODES = [mode.value for mode in Mode]


def manifests_option(*, required: bool) -> Callable[[F], F]:
    """Add `--manifests DIR`."""
    return click.option(
        "--manifests",
        metavar="DIR",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        required=required,
        help="Folder with Services, EndpointSlices, Nodes and ServiceCIDRs as YAML or JSON files.",
    )


def config_options(command: F) -> F:
    """Add `--config FILE`, `--proxy-mode` and `--node-name`."""
    for option in (
        click.option(
            "--node-name",
            metavar="NAME",
            help="Name of this node in the cluster. Else hostnameOverride, else the host's name.",
        ),
        proxy_mode_option,
        click.option(
            "--config",
            metavar="FILE",
            type=_FILE,
            help="A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), YAML or JSON.",
        ),
    ):
        command = option(command)
    return command


def proxy_mode_option(command: F) -> F:
    """Add `--proxy-mode`."""
    return click.option(
        "--proxy-mode",
        "mode",
        type=click.Choice(_MODES),
        callback=lambda _context, _option, name: None if name is None else Mode(name),
        help="The data path. Wins over the configuration file; iptables if neither names one.",
    )(command)


def ebpf_bpffs_option(command: F) -> F:
    """Add `--ebpf-bpffs PATH`."""
    return click.option(
        "--ebpf-bpffs",
        metavar="PATH",
        type=_ABSOLUTE,
        help="BPF file system where the ebpf data path pins all it has. Default: /sys/fs/bpf.",
    )(command)


def ebpf_options(command: F) -> F:
    """Add `--ebpf-cgroup PATH` and `--ebpf-bpffs PATH`."""
    return click.option(
        "--ebpf-cgroup",
        metavar="PATH",
        type=_ABSOLUTE,
        help="Where the ebpf data path attaches its socket hooks. Default: the root of cgroup v2.",
    )(ebpf_bpffs_option(command))


def with_ebpf(
    configuration: Configuration, *, bpffs: str | None, cgroup: str | None = None
) -> Configuration:
    """Return a configuration with these places of the ebpf data path, where they were given."""
    own = configuration.kproxy
    given = {name: path for name, path in (("bpffs", bpffs), ("cgroup", cgroup)) if path}
    ebpf = msgspec.structs.replace(own.ebpf, **given)
    own = msgspec.structs.replace(own, ebpf=ebpf)
    return msgspec.structs.replace(configuration, kproxy=own)


def configuration_of(path: Path | None, mode: Mode | None) -> Loaded:
    """Return the checked configuration. Raises BadUsage with a line for each problem."""
    try:
        return load_configuration(path, mode)
    except ConfigurationError as error:
        raise BadUsage(*error.lines) from error


def node_name_of(option: str | None, configuration: Configuration) -> str:
    """Return this node's name. Raises BadUsage if it is blank."""
    try:
        return node_name(option, configuration, socket.gethostname())
    except ValueError as error:
        raise BadUsage(str(error)) from error


def warn(line: str) -> None:
    """Write a warning to standard error."""
    click.echo(f"kproxy: {escape(line)}", err=True)
