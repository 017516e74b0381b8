"""What every process does before it touches the kernel, wherever its objects come from."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from kproxy import __version__
from kproxy.config.families import primary_family
from kproxy.config.fields import Configuration, Mode
from kproxy.config.gates import enabled_gates
from kproxy.config.known_gates import Stage, known_gates
from kproxy.config.loading import Loaded
from kproxy.config.watch import changed_configuration
from kproxy.core.addresses import Family
from kproxy.node import lock as node_lock
from kproxy.node.features import has_net_admin, ip_families
from kproxy.node.settings import Setting, conntrack_settings, online_cpus, put_in_force
from kproxy.ports.data_path import BackendError, DataPath
from kproxy.ports.source import Source
from kproxy.proxy.assembly import Around, Proxy, build
from kproxy.proxy.data_paths import NotAvailable, data_path
from kproxy.proxy.failures import BadUsage, Failed
from kproxy.proxy.logs import configure
from kproxy.proxy.serving import Duties, follow, never
from kproxy.run.http.serve import BindError
from kproxy.run.loop.agent import SourceEnded
from kproxy.run.metrics import GateState, Metrics, Shown

log = logging.getLogger(__name__)

_DEBUG_FROM_VERBOSITY = 4  # Kubernetes' convention: up to 3 is for everyday operation
ROOT = Path("/")
_LOCK_PAUSE_S = 0.5


def start_log(configuration: Configuration) -> None:
    """Send the log to standard error."""
    wordy = configuration.logging.verbosity >= _DEBUG_FROM_VERBOSITY
    configure(configuration.logging.format, sys.stderr, logging.DEBUG if wordy else logging.INFO)
    # At their debug level these tell of every poll, netlink message and request.
    for chatty in ("asyncio", "pyroute2", "urllib3", "kubernetes"):
        logging.getLogger(chatty).setLevel(logging.INFO)


def say_what_was_read(loaded: Loaded, node_name: str) -> None:
    """Log who we are, and what of the configuration needs saying."""
    mode = loaded.configuration.mode.value
    log.info("kproxy %s, node %s, proxy mode %s", __version__, node_name, mode)
    for line in loaded.warnings:
        log.warning("%s", line)
    for line in loaded.without_effect:
        log.info("%s", line)


def open_data_path(configuration: Configuration) -> DataPath:
    """Return the data path, if this process may use it. Raises BadUsage and Failed."""
    try:
        path = data_path(configuration)
    except NotAvailable as error:
        raise BadUsage(str(error)) from error
    if not has_net_admin(Path("/proc/self/status").read_text()):
        raise Failed("needs CAP_NET_ADMIN to change the kernel's rules: run it as root")
    return path


def host_families(configuration: Configuration) -> tuple[Family, ...]:
    """Return the IP families of the kernel. Raises Failed if it lacks that of `bindAddress`."""
    families = ip_families(ROOT)
    primary = primary_family(configuration, node=None)
    if primary not in families:
        raise Failed(f"bindAddress {configuration.bind_address}: the kernel has no {primary.value}")
    return families


def allow_many_files() -> None:
    """Let this process hold as many sockets as it may: each healthCheckNodePort takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def until_changed(loaded: Loaded, file: Path | None) -> Callable[[], Awaitable[str]]:
    """Return what to wait for: that a configuration file says something else than was read."""
    content = loaded.content
    if file is None or content is None:
        return never

    async def until() -> str:
        fields = await changed_configuration(file, content, usable=_is_usable)
        return f"{file} has other values for {', '.join(fields)}, which the next start takes"

    return until


def _is_usable(configuration: Configuration) -> str:
    """Return why a start with a configuration would fail, "" if it would not."""
    try:
        data_path(configuration)
    except NotAvailable as error:
        return str(error)
    return ""


def metrics_of(configuration: Configuration, families: Collection[Family]) -> Metrics:
    """Return the metrics of a process, with those that kube-proxy has in the same mode."""
    mode = configuration.mode
    return Metrics(mode.value, families, _gate_states(configuration), shown=shown_in(mode))


def shown_in(mode: Mode) -> Shown:
    """Return which metrics kube-proxy has in a mode; its ipvs mode tells failures by none."""
    return Shown(
        partial_syncs=mode is not Mode.IPVS,
        iptables_failures=mode is Mode.IPTABLES,
        nftables_failures=mode is Mode.NFTABLES,
    )


def _gate_states(configuration: Configuration) -> dict[str, GateState]:
    """Return every feature gate with its stage, as the metrics tell it."""
    enabled = enabled_gates(configuration.feature_gates)
    return {
        name: GateState("" if gate.stage is Stage.GA else gate.stage.value, enabled[name])
        for name, gate in known_gates().items()
    }


def stop_at_once() -> None:
    """Let SIGTERM and SIGINT end the process at once, as long as there is no loop to tell.

    That is good news for whoever sends them (code 0): nothing was written, so nothing is half done.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)


def stop_as_usual() -> None:
    """Let SIGTERM and SIGINT do again what they do to any process: something is half done."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    try:
        log.info("%s: stopping, nothing was written", signal.Signals(number).name)
    finally:
        os._exit(0)


@contextmanager
def node_lock_held(*, wait: bool = True) -> Iterator[None]:
    """Be the only kproxy that writes to this node's kernel; nothing may be written before.

    Waits until no other one does; without `wait` raises Failed then.
    """
    try:
        lock = node_lock.take(
            lambda line: log.warning("%s", line), lambda: time.sleep(_LOCK_PAUSE_S), wait=wait
        )
    except node_lock.Held as error:
        raise Failed(str(error)) from error
    with closing(lock) if lock else nullcontext():
        yield


def set_up_node(
    wanted: list[Setting], *, level: int = logging.ERROR, then: str = "going on without"
) -> list[Setting]:
    """Put settings of the node in force; return those that cannot be had.

    Forwarding does not depend on them: `level` and `then` say how bad it is and what happens next.
    """
    written, problems = put_in_force(wanted, ROOT)
    for setting in written:
        log.info("set %s to %d", setting.name, setting.value)
    for line in problems.values():
        log.log(level, "%s; %s", line, then)
    return list(problems)


def set_up_conntrack(configuration: Configuration) -> list[Setting]:
    """Put the settings of connection tracking in force; return those that shall be tried again.

    On a node where nothing has asked for connection tracking yet there are none, before the first
    rules make the kernel load it.
    """
    wanted = conntrack_settings(configuration.conntrack, online_cpus(ROOT))
    return set_up_node(wanted, level=logging.INFO, then="trying again when there are rules")


def keep_following(build: Callable[[], Proxy], source: Source, duties: Duties) -> None:
    """Build the proxy and run it until told to stop. Raises Failed."""
    allow_many_files()
    try:
        asyncio.run(follow(build, source, duties))
    except (SourceEnded, BindError) as error:
        raise Failed(str(error)) from error


def build_proxy(
    configuration: Configuration,
    path: DataPath,
    node_name: str,
    families: Collection[Family],
    around: Around,
) -> Proxy:
    """Put the proxy together. Raises Failed."""
    try:
        return build(configuration, path, node_name, families, around)
    except BackendError as error:
        raise Failed(f"no IP family can be served: {error}") from error
