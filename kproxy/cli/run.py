"""`kproxy run`: the proxy itself, in the foreground."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import msgspec

from kproxy.cli.group import WITH_PROBLEMS
from kproxy.cli.options import (
    config_options,
    configuration_of,
    ebpf_options,
    manifests_option,
    node_name_of,
    with_ebpf,
)
from kproxy.config.fields import IptablesVariant, LogFormat, Mode
from kproxy.proxy.command_line import CommandLine
from kproxy.proxy.failures import BadUsage

_DEBUG_VERBOSITY = 4


@click.command(no_args_is_help=True)
@manifests_option(required=False)
@click.option(
    "--kubeconfig",
    metavar="FILE",
    help="Follow the cluster that this file describes. Wins over clientConnection.kubeconfig; "
    "without either, the cluster that this process is a pod of.",
)
@click.option(
    "--master", metavar="URL", default="", help="The API server's address, else the file's."
)
@config_options
@click.option(
    "--iptables-variant",
    "variant",
    type=click.Choice([variant.value for variant in IptablesVariant]),
    help="Which iptables the rules are written with; auto, the default, looks at what is there.",
)
@ebpf_options
@click.option(
    "--take-over/--no-take-over",
    default=None,
    help="Remove what kube-proxy left behind, once our own rules are in force.",
)
@click.option(
    "--once",
    is_flag=True,
    help="Apply the manifests and exit; the rules stay. Not beside a running kproxy.",
)
@click.option(
    "--log-format", type=click.Choice([style.value for style in LogFormat]), help="Default: text."
)
@click.option("-v", "--verbose", is_flag=True, help="Log details too.")
def run(
    *,
    manifests: Path | None,
    kubeconfig: str | None,
    master: str,
    config: Path | None,
    mode: Mode | None,
    node_name: str | None,
    variant: str | None,
    ebpf_cgroup: str | None,
    ebpf_bpffs: str | None,
    take_over: bool | None,
    once: bool,
    log_format: str | None,
    verbose: bool,
) -> int:
    """Forward Service traffic on this node, following a cluster or a folder of manifests.

    Stays in the foreground and logs to standard error. SIGTERM or SIGINT ends it and leaves the
    rules in place, so traffic goes on; `kproxy cleanup` removes them. Needs root (CAP_NET_ADMIN).
    In a container that takes kube-proxy's place the command is `kube-proxy`, with its flags.

    \b
      kproxy run --kubeconfig /etc/kproxy.conf --node-name node-1
      kproxy run --manifests ./app --node-name node-1 --proxy-mode iptables
      kproxy run --manifests ./app --node-name node-1 --once

    Exit codes: 0 stopped as asked, or applied (--once); 1 it failed, or a kproxy runs here already
    (--once); 2 the command line or the configuration is wrong; 3 applied, but a manifest, a
    Service's port or an IP family was refused (--once).
    """
    loaded = configuration_of(config, mode)
    configuration = with_ebpf(loaded.configuration, bpffs=ebpf_bpffs, cgroup=ebpf_cgroup)
    own = configuration.kproxy
    if variant is not None:
        iptables = msgspec.structs.replace(own.iptables, variant=IptablesVariant(variant))
        own = msgspec.structs.replace(own, iptables=iptables)
    if take_over is not None:
        own = msgspec.structs.replace(own, take_over=take_over)
    client = configuration.client_connection
    if kubeconfig is not None:
        client = msgspec.structs.replace(client, kubeconfig=kubeconfig)
    logs = configuration.logging
    if log_format is not None:
        logs = msgspec.structs.replace(logs, format=LogFormat(log_format))
    if verbose:
        logs = msgspec.structs.replace(logs, verbosity=max(logs.verbosity, _DEBUG_VERBOSITY))
    configuration = msgspec.structs.replace(
        configuration, kproxy=own, client_connection=client, logging=logs
    )
    loaded = replace(loaded, configuration=configuration)
    name = node_name_of(node_name, configuration)
    # Not at the top: nobody shall pay for the other way.
    if manifests is not None:
        from kproxy.proxy import folder

        if kubeconfig is not None or master:
            raise BadUsage("--manifests excludes --kubeconfig and --master: it is one or the other")
        if once:
            return 0 if folder.apply(loaded, manifests, name) else WITH_PROBLEMS
        folder.serve(loaded, config, manifests, name)
        return 0
    if once:
        raise BadUsage("--once needs --manifests")
    from kproxy.proxy import cluster

    return cluster.serve(CommandLine(loaded, name, master, config))
