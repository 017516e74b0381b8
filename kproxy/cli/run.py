"""`kproxy run`: the proxy itself, in the foreground."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import click
import msgspec

from kproxy.cli.group import WITH_PROBLEMS
from kproxy.cli.options import config_options, configuration_of, manifests_option, node_name_of
from kproxy.config.fields import Conntrack, IptablesVariant, LogFormat, Mode
from kproxy.config.loading import Loaded
from kproxy.ports.data_path import BackendError
from kproxy.proxy.assembly import Around, Proxy, apply_once
from kproxy.proxy.command_line import CommandLine
from kproxy.proxy.failures import BadUsage, Failed
from kproxy.proxy.remarks import counts_line
from kproxy.proxy.serving import Duties
from kproxy.proxy.startup import (
    build_proxy,
    host_families,
    keep_following,
    metrics_of,
    node_lock_held,
    open_data_path,
    say_what_was_read,
    set_up_conntrack,
    set_up_node,
    start_log,
    stop_at_once,
    until_changed,
)
from kproxy.proxy.unserved import UnservedOfFolder
from kproxy.run.loop.threads import family_threads
from kproxy.watch.manifests.problems import Severity, is_error
from kproxy.watch.manifests.source import (
    FolderLost,
    Manifests,
    ManifestSource,
    load,
    missing_node,
)

log = logging.getLogger(__name__)

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
    configuration = loaded.configuration
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
    if manifests is not None:
        if kubeconfig is not None or master:
            raise BadUsage("--manifests excludes --kubeconfig and --master: it is one or the other")
        return _follow_folder(loaded, config, manifests, name, once=once)
    if once:
        raise BadUsage("--once needs --manifests")
    # Not at the top: who follows a folder shall not pay for what speaks to an API server.
    from kproxy.proxy import cluster

    return cluster.serve(CommandLine(loaded, name, master, config))


def _follow_folder(
    loaded: Loaded, file: Path | None, manifests: Path, node_name: str, *, once: bool
) -> int:
    configuration = loaded.configuration
    path = open_data_path(configuration)
    start_log(configuration)
    say_what_was_read(loaded, node_name)
    families = host_families(configuration)
    metrics = metrics_of(configuration, families)
    source = ManifestSource(
        manifests, node_name=node_name, log=logging.getLogger("kproxy.manifests")
    )
    # Without a word about it in the file, a host's connection tracking is its owner's.
    ours = configuration.conntrack != Conntrack() and not once
    read = _read(manifests) if once else None
    if not once:
        stop_at_once()
    with node_lock_held(wait=not once), family_threads(families) as executors:
        missing = set_up_conntrack(configuration) if ours else []
        around = Around(
            executors,
            source,
            metrics,
            listed=lambda node: None,
            first_written=lambda: set_up_node(missing),
            port_failed=lambda service, note: None,
            node_may_lack=True,
            unserved=lambda compiler: UnservedOfFolder(
                compiler, node_name, source.left_out if read is None else lambda: read.left_out
            ),
        )
        proxy = build_proxy(configuration, path, node_name, families, around)
        if read is not None:
            return _apply(proxy, read, node_name)
        duties = Duties(
            configuration, metrics, {}, lambda name, note: None, until_changed(loaded, file)
        )
        keep_following(proxy, source, duties)
    return 0


def _read(manifests: Path) -> Manifests:
    try:
        return load(manifests)
    except FolderLost as error:
        raise Failed(str(error)) from error


def _apply(proxy: Proxy, loaded: Manifests, node_name: str) -> int:
    for problem in loaded.problems:
        level = logging.ERROR if problem.severity is Severity.ERROR else logging.WARNING
        log.log(level, "%s", problem.text())
    if (line := missing_node(node_name, loaded.objects)) is not None:
        log.warning("%s", line)
    results = asyncio.run(apply_once(proxy, loaded.changes()))
    proxy.port_watch.look()
    refused = [family for family, result in results.items() if isinstance(result, BackendError)]
    if len(refused) == len(results):
        raise Failed("nothing was applied: the kernel refused every IP family")
    applied = [family for family in results if family not in refused]
    log.info(
        "applied: %s in the kernel for %s",
        counts_line(proxy.compiler.tables[family] for family in applied),
        " and ".join(family.value for family in applied),
    )
    unheld = any(status.unheld for status in proxy.agent.status())
    incomplete = refused or proxy.unavailable or unheld or is_error(loaded.problems)
    return WITH_PROBLEMS if incomplete else 0
