"""A proxy of a cluster: the API server is its source, and hears of what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection

from kproxy.config.families import family_complaints
from kproxy.config.fields import Configuration
from kproxy.config.loading import to_settings
from kproxy.core.addresses import Family
from kproxy.core.node_rules import Surroundings, node_rules
from kproxy.core.objects import Kind, Node, ObjectKey
from kproxy.core.store import Replaced
from kproxy.node.settings import oom_score_setting
from kproxy.ports.data_path import BackendError
from kproxy.proxy.assembly import Around, Proxy
from kproxy.proxy.clean_up import remove_everything
from kproxy.proxy.command_line import CommandLine
from kproxy.proxy.failures import Failed
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
    stop_as_usual,
    stop_at_once,
    until_changed,
)
from kproxy.proxy.unserved import UnservedOfCluster
from kproxy.run.loop.threads import family_threads
from kproxy.watch.api.access import Access, Api, connect
from kproxy.watch.api.errors import ApiError
from kproxy.watch.api.events import Events
from kproxy.watch.api.session import Requested
from kproxy.watch.api.source import ApiSource

log = logging.getLogger(__name__)

_NODE_PATIENCE_S = 35.0  # a little more than the source itself waits for the Node
_ACTION = "StartKubeProxy"
_DEFAULT_MODE = (
    "no proxy mode is configured, so it is iptables; Kubernetes 1.40 makes nftables the default: "
    "set `mode` to keep what you have"
)
_SERVER_EVENTS = {
    "healthz": "FailedToStartProxierHealthcheck",
    "metrics": "FailedToStartMetricServer",
}


def serve(options: CommandLine) -> int:
    """Forward the Services of a cluster until told to stop; the rules stay. Raises Failed."""
    configuration = options.loaded.configuration
    path = open_data_path(configuration)
    start_log(configuration)
    stop_at_once()
    say_what_was_read(options.loaded, options.node_name)
    families = host_families(configuration)
    metrics = metrics_of(configuration, families)
    api = _connect(configuration, options.master, metrics.request)
    source = ApiSource(api, node_name=options.node_name, log=logging.getLogger("kproxy.api"))
    events = Events(api, node_name=options.node_name, log=logging.getLogger("kproxy.events"))
    about_node = _AboutNode(events, options.node_name)
    with contextlib.closing(events), node_lock_held():
        missing = set_up_conntrack(configuration)
        # Less than what the kubelet gave takes a privilege of its own, and what it gave will do.
        set_up_node([oom_score_setting(configuration.oom_score_adj)], level=logging.INFO)
        with family_threads(families) as executors:
            around = Around(
                executors,
                source,
                metrics,
                listed=lambda node: _complain(configuration, node, families),
                first_written=lambda: set_up_node(missing),
                port_failed=_port_events(events),
                node_may_lack=False,
                unserved=lambda compiler: UnservedOfCluster(compiler, options.node_name),
            )

            def build() -> Proxy:
                proxy = build_proxy(configuration, path, options.node_name, families, around)
                about_node.post("Normal", "Starting", "")
                if options.loaded.mode_was_default:
                    log.warning("%s", _DEFAULT_MODE)
                    about_node.post("Warning", "KubeProxyDefaultMode", _DEFAULT_MODE)
                return proxy

            duties = Duties(
                configuration,
                metrics,
                options.flags,
                lambda name, note: about_node.post("Warning", _SERVER_EVENTS[name], note),
                until_changed(options.loaded, options.config_file),
            )
            keep_following(build, source, duties)
    return 0


def initialise(options: CommandLine) -> int:
    """Set everything that takes more than CAP_NET_ADMIN, for a proxy that has no more.

    Waits, as that proxy would, until no other one writes to this node's kernel. Raises Failed.
    """
    configuration = options.loaded.configuration
    path = open_data_path(configuration)
    start_log(configuration)
    say_what_was_read(options.loaded, options.node_name)
    families = host_families(configuration)
    api = _connect(configuration, options.master, lambda verb, code, host, seconds: None)
    logger = logging.getLogger("kproxy.api")
    source = ApiSource(api, node_name=options.node_name, log=logger, kinds=(Kind.NODE,))
    node = asyncio.run(_own_node(source))
    settings = to_settings(configuration, options.node_name)
    count = 0
    failures: list[str] = []
    stop_at_once()
    with node_lock_held():
        stop_as_usual()
        missing = set_up_conntrack(configuration)
        for family in families:
            try:
                count += path.prepare(family, node_rules(settings, Surroundings(node), family))
            except BackendError as error:
                failures.append(f"{family.value}: {error}")
        set_up_node(missing)
    if failures:
        raise Failed(*failures)
    log.info("the node is prepared: %d settings and rules were missing", count)
    return 0


def _complain(
    configuration: Configuration, node: Node | None, families: Collection[Family]
) -> None:
    """Log what is probably not meant so; unlike upstream nothing of it keeps us from forwarding."""
    complaints = family_complaints(configuration, node, families)
    for line in complaints.warnings:
        log.warning("%s", line)
    for line in complaints.fatal:
        log.error("%s; going on all the same", line)


async def _own_node(source: ApiSource) -> Node | None:
    """Return the Node object, None if the API server does not give it within some time."""
    try:
        async with asyncio.timeout(_NODE_PATIENCE_S):
            async for batch in source.batches():
                for change in batch:
                    if isinstance(change, Replaced) and change.kind is Kind.NODE:
                        nodes = (each for each in change.objects if isinstance(each, Node))
                        return next(nodes, None)
    except TimeoutError:
        log.warning("the API server does not answer; going on without the Node object")
    return None


def _connect(configuration: Configuration, master: str, requested: Requested) -> Api:
    kubeconfig = configuration.client_connection.kubeconfig
    try:
        return connect(Access(kubeconfig=kubeconfig, master=master), requested=requested)
    except ApiError as error:
        raise Failed(str(error)) from error


def _port_events(events: Events) -> Callable[[ObjectKey, str], None]:
    def post(service: ObjectKey, note: str) -> None:
        events.post(
            kind="Service",
            namespace=service.namespace,
            name=service.name,
            type="Warning",
            reason="FailedToStartServiceHealthcheck",
            action="Listen",
            note=note,
        )

    return post


class _AboutNode:
    """Posts events about this node."""

    def __init__(self, events: Events, node_name: str) -> None:
        self._events = events
        self._node_name = node_name

    def post(self, kind: str, reason: str, note: str) -> None:
        """Post one; `kind` is Normal or Warning."""
        self._events.post(
            kind="Node",
            namespace="",
            name=self._node_name,
            uid=self._node_name,  # as upstream: by it `kubectl describe node` finds them
            type=kind,
            reason=reason,
            action=_ACTION,
            note=note,
        )


def clean_up(options: CommandLine) -> int:
    """Remove everything of kproxy's; what kube-proxy wrote stays, it may be running again.

    Raises Failed.
    """
    configuration = options.loaded.configuration
    start_log(configuration)
    for line in remove_everything(configuration):
        log.info("%s", line)
    return 0
