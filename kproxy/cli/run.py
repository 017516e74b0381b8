"""`kproxy run`: the proxy itself, in the foreground."""

from __future__ import annotations

import asyncio
import logging
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import click
import msgspec

from kproxy import __version__
from kproxy.backend import BackendError
from kproxy.cli.group import WITH_PROBLEMS, BadUsage, Failed
from kproxy.cli.options import config_options, configuration_of, manifests_option, node_name_of
from kproxy.config import Loaded
from kproxy.config_fields import Configuration, IptablesVariant, LogFormat
from kproxy.core.settings import Mode
from kproxy.host_features import has_net_admin, ip_families
from kproxy.logs import configure
from kproxy.process import Proxy, apply_once, build, follow
from kproxy.remarks import counts_line
from kproxy.run.agent import SourceEnded
from kproxy.watch.manifests import FolderLost, load, missing_node
from kproxy.watch.problems import Severity, is_error
from kproxy.wiring import DataPath, NotAvailable, data_path

log = logging.getLogger(__name__)

_DEBUG_FROM_VERBOSITY = 4  # Kubernetes' convention: up to 3 is for everyday operation
_ONE_THREAD = 1


@click.command(no_args_is_help=True)
@manifests_option
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
@click.option("--once", is_flag=True, help="Apply the manifests and exit; the rules stay.")
@click.option(
    "--log-format", type=click.Choice([style.value for style in LogFormat]), help="Default: text."
)
@click.option("-v", "--verbose", is_flag=True, help="Log details too.")
def run(
    *,
    manifests: Path,
    config: Path | None,
    mode: Mode | None,
    node_name: str | None,
    variant: str | None,
    take_over: bool | None,
    once: bool,
    log_format: str | None,
    verbose: bool,
) -> int:
    """Forward Service traffic on this node, following a folder of manifests.

    Stays in the foreground and logs to standard error. SIGTERM or SIGINT ends it and leaves the
    rules in place, so traffic goes on; `kproxy cleanup` removes them. Needs root (CAP_NET_ADMIN).

    \b
      kproxy run --manifests ./app --node-name node-1 --proxy-mode iptables
      kproxy run --manifests ./app --node-name node-1 --once

    Exit codes: 0 stopped as asked, or applied (--once); 1 it failed; 2 the command line or the
    configuration is wrong; 3 applied, but a manifest or an IP family was refused (--once).
    """
    loaded = configuration_of(config, mode)
    own = loaded.configuration.kproxy
    if variant is not None:
        iptables = msgspec.structs.replace(own.iptables, variant=IptablesVariant(variant))
        own = msgspec.structs.replace(own, iptables=iptables)
    if take_over is not None:
        own = msgspec.structs.replace(own, take_over=take_over)
    configuration = msgspec.structs.replace(loaded.configuration, kproxy=own)
    name = node_name_of(node_name, configuration)
    path = _data_path(configuration)
    _start_log(configuration, log_format, verbose=verbose)
    _say_what_was_read(loaded, name)
    with ThreadPoolExecutor(_ONE_THREAD, "kernel") as executor:
        proxy = _build(configuration, path, name, executor)
        if once:
            return _apply(proxy, manifests, name)
        return _follow(proxy, manifests, name)


def _start_log(configuration: Configuration, log_format: str | None, *, verbose: bool) -> None:
    style = configuration.logging.format if log_format is None else LogFormat(log_format)
    wordy = verbose or configuration.logging.verbosity >= _DEBUG_FROM_VERBOSITY
    configure(style, sys.stderr, logging.DEBUG if wordy else logging.INFO)
    # At their debug level these tell of every poll and every netlink message.
    for chatty in ("asyncio", "pyroute2"):
        logging.getLogger(chatty).setLevel(logging.INFO)


def _data_path(configuration: Configuration) -> DataPath:
    try:
        path = data_path(configuration)
    except NotAvailable as error:
        raise BadUsage(str(error)) from error
    if not has_net_admin(Path("/proc/self/status").read_text()):
        raise Failed("needs CAP_NET_ADMIN to change the kernel's rules: run it as root")
    return path


def _build(
    configuration: Configuration, path: DataPath, node_name: str, executor: Executor
) -> Proxy:
    families = ip_families(Path("/"))
    try:
        return build(configuration, path, node_name, families, executor=executor)
    except BackendError as error:
        raise Failed(f"no IP family can be served: {error}") from error


def _say_what_was_read(loaded: Loaded, node_name: str) -> None:
    mode = loaded.configuration.mode.value
    log.info("kproxy %s, node %s, proxy mode %s", __version__, node_name, mode)
    for line in loaded.warnings:
        log.warning("%s", line)
    for line in loaded.without_effect:
        log.info("%s", line)


def _follow(proxy: Proxy, manifests: Path, node_name: str) -> int:
    try:
        asyncio.run(follow(proxy, manifests, node_name))
    except SourceEnded as error:
        raise Failed(str(error)) from error
    return 0


def _apply(proxy: Proxy, manifests: Path, node_name: str) -> int:
    try:
        loaded = load(manifests)
    except FolderLost as error:
        raise Failed(str(error)) from error
    for problem in loaded.problems:
        level = logging.ERROR if problem.severity is Severity.ERROR else logging.WARNING
        log.log(level, "%s", problem.text())
    if (line := missing_node(node_name, loaded.objects)) is not None:
        log.warning("%s", line)
    results = asyncio.run(apply_once(proxy, loaded.changes()))
    refused = [family for family, result in results.items() if isinstance(result, BackendError)]
    if len(refused) == len(results):
        raise Failed("nothing was applied: the kernel refused every IP family")
    applied = [family for family in results if family not in refused]
    log.info(
        "applied: %s in the kernel for %s",
        counts_line(proxy.compiler.tables[family] for family in applied),
        " and ".join(family.value for family in applied),
    )
    incomplete = refused or proxy.unavailable or is_error(loaded.problems)
    return WITH_PROBLEMS if incomplete else 0
