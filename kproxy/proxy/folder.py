"""A proxy of a folder: manifests are its source, followed or applied once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kproxy.config.fields import Configuration, Conntrack
from kproxy.config.loading import Loaded
from kproxy.core.addresses import Family
from kproxy.core.causes import LeftOut
from kproxy.node.settings import Setting
from kproxy.ports.data_path import BackendError, DataPath
from kproxy.proxy.assembly import Around, Proxy, apply_once
from kproxy.proxy.failures import Failed
from kproxy.proxy.remarks import in_force_line
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
from kproxy.run.metrics import Metrics
from kproxy.watch.manifests.problems import Severity, is_error
from kproxy.watch.manifests.source import (
    FolderLost,
    Manifests,
    ManifestSource,
    load,
    missing_node,
)

log = logging.getLogger(__name__)


def serve(loaded: Loaded, config_file: Path | None, manifests: Path, node_name: str) -> None:
    """Forward the Services of a folder until told to stop; the rules stay. Raises Failed."""
    parts = _prepare(loaded, manifests, node_name)
    configuration = parts.configuration
    # Without a word about it in the file, a host's connection tracking is its owner's.
    ours = configuration.conntrack != Conntrack()
    stop_at_once()
    with node_lock_held(wait=True), family_threads(parts.families) as executors:
        missing = set_up_conntrack(configuration) if ours else []
        until = until_changed(loaded, config_file)
        duties = Duties(configuration, parts.metrics, {}, lambda name, note: None, until)
        build = partial(parts.together, executors, parts.source.left_out, missing)
        keep_following(build, parts.source, duties)


def apply(loaded: Loaded, manifests: Path, node_name: str) -> bool:
    """Bring the kernel in line with a folder as it is now, and say whether all of it is in force.

    Raises Failed, also while another kproxy writes this node's rules.
    """
    parts = _prepare(loaded, manifests, node_name)
    try:
        read = load(manifests)
    except FolderLost as error:
        raise Failed(str(error)) from error
    with node_lock_held(wait=False), family_threads(parts.families) as executors:
        proxy = parts.together(executors, lambda: read.left_out, [])
        return _apply(proxy, read, node_name)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a proxy of a folder is made of, before anything was written."""

    configuration: Configuration
    path: DataPath
    node_name: str
    families: tuple[Family, ...]
    metrics: Metrics
    source: ManifestSource

    def together(
        self,
        executors: Mapping[Family, Executor],
        left_out: Callable[[], Sequence[LeftOut]],
        missing: list[Setting],
    ) -> Proxy:
        """Put them together; `missing` settings follow the first rules."""
        around = Around(
            executors,
            self.source,
            self.metrics,
            listed=lambda node: None,
            first_written=lambda: set_up_node(missing),
            port_failed=lambda service, note: None,
            node_may_lack=True,
            unserved=lambda compiler: UnservedOfFolder(compiler, self.node_name, left_out),
        )
        return build_proxy(self.configuration, self.path, self.node_name, self.families, around)


def _prepare(loaded: Loaded, manifests: Path, node_name: str) -> _Parts:
    configuration = loaded.configuration
    path = open_data_path(configuration)
    start_log(configuration)
    say_what_was_read(loaded, node_name)
    families = host_families(configuration)
    metrics = metrics_of(configuration, families)
    source = ManifestSource(
        manifests, node_name=node_name, log=logging.getLogger("kproxy.manifests")
    )
    return _Parts(configuration, path, node_name, families, metrics, source)


def _apply(proxy: Proxy, read: Manifests, node_name: str) -> bool:
    for problem in read.problems:
        level = logging.ERROR if problem.severity is Severity.ERROR else logging.WARNING
        log.log(level, "%s", problem.text())
    if (line := missing_node(node_name, read.objects)) is not None:
        log.warning("%s", line)
    results = asyncio.run(apply_once(proxy, read.changes()))
    proxy.port_watch.look()
    refused = [family for family, result in results.items() if isinstance(result, BackendError)]
    if len(refused) == len(results):
        raise Failed("nothing was applied: the kernel refused every IP family")
    statuses = proxy.agent.status()
    in_force = [status for status in statuses if status.family not in refused]
    log.info("applied: %s", in_force_line(proxy.compiler.tables, in_force))
    unheld = any(status.unheld for status in statuses)
    return not (refused or proxy.unavailable or unheld or is_error(read.problems))
