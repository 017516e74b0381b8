"""A trial of socket hooks before they are attached: in a control group and over maps of its own."""

from __future__ import annotations

import ipaddress
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backends.ebpf.driver import device_layout
from backends.ebpf.driver.device_layout import Host, HostFlag, SocketHooks
from backends.ebpf.driver.objects import Objects
from backends.ebpf.driver.sockets import TRANSLATED_SOCKETS
from backends.ebpf.render.layout import TableMap
from backends.ebpf.render.renderer import Renderer
from backends.kernel.bpf import links
from backends.kernel.bpf.programs import AttachType, Code
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.table import (
    NodeRules,
    ServicePort,
    ServicePortKey,
    TableChanges,
    Target,
    Undetected,
    Use,
    Via,
    Vip,
)
from kproxy.ports.data_path import BackendError

_CHILD = Path(__file__).with_name("hook_trial_child.py")
_DOING = "trying the socket hooks"
_TIMEOUT_S = 20
_VERSION = {Family.IPV4: 4, Family.IPV6: 6}
_LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}
_EVERY = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
_SIZES = {each.map_name: 64 for each in TableMap}


def try_hooks(family: Family, held: Objects, codes: Mapping[str, Code], cgroup: Path) -> None:
    """Attach hooks to a new group below `cgroup`, and make real calls there; take all away again.

    Nobody else may use `held`. Raises BackendError, also where the hooks do wrong.
    """
    with (
        _group_below(cgroup) as group,
        _started(family) as child,
        _attached(group, held, codes),
    ):
        _write(group / "cgroup.procs", str(child.pid))
        cookie, ports = json.loads(_answer(child))
        _fill(family, held, cookie, ports)
        wrong = _answer(child) or _still_known(held)
    if wrong:
        raise BackendError(_DOING, wrong, transient=False)


def _still_known(held: Objects) -> str:
    """Return what maps say of sockets that have closed: nothing, if all is right."""
    for name in TRANSLATED_SOCKETS.values():
        if next(iter(held.maps[name].items()), None) is not None:
            return f"closed sockets stay in the map {name}"
    return ""


@contextmanager
def _group_below(cgroup: Path) -> Iterator[Path]:
    group = cgroup / f"kproxy-trial-{os.getpid()}-{threading.get_native_id()}"
    try:
        group.mkdir()
    except OSError as error:
        raise BackendError(_DOING, str(error), transient=False) from error
    try:
        yield group
    finally:
        group.rmdir()


@contextmanager
def _started(family: Family) -> Iterator[subprocess.Popen[str]]:
    """Run who makes the calls; it is gone at the end, or its group could not go."""
    command = [sys.executable, "-I", "-S", str(_CHILD), str(_VERSION[family])]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise BackendError(_DOING, str(error), transient=True) from error
    with child:
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def _attached(group: Path, held: Objects, codes: Mapping[str, Code]) -> Iterator[None]:
    with ExitStack() as stack:
        descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        for name, code in codes.items():
            if code.attach_type:
                program, attach_type = held.programs[name], AttachType(code.attach_type)
                stack.enter_context(links.attach_to_cgroup(program, descriptor, attach_type))
        yield


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content)
    except OSError as error:
        raise BackendError(_DOING, str(error), transient=False) from error


def _answer(child: subprocess.Popen[str]) -> str:
    """Let the child go on, and return what it has to say: a line, without its end."""
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise ValueError("the child was started without pipes")
    try:
        child.stdin.write("\n")
        child.stdin.flush()
    except BrokenPipeError:
        pass  # its stderr says why
    else:
        answer = select.poll()
        answer.register(child.stdout, select.POLLIN)
        line = child.stdout.readline() if answer.poll(_TIMEOUT_S * 1000) else ""
        if line:
            return line.rstrip("\n")
    child.kill()
    said = child.stderr.read().strip().splitlines()
    detail = said[-1] if said else f"no answer within {_TIMEOUT_S} s"
    raise BackendError(_DOING, detail, transient=True)


def _fill(family: Family, held: Objects, cookie: int, ports: Sequence[int]) -> None:
    """Make the child the node, and its ports frontends: of its sockets, and of nothing."""
    settings = Host(
        netns_cookie=cookie,
        flags=HostFlag(0),
        mark=0,
        local_ports=(0, 0),
        node_ports=(0, 0),
        socket_hooks=SocketHooks.ALL,
    )
    held.maps["host"].update(device_layout.ONLY, device_layout.host(settings))
    rendered = Renderer(family, _SIZES).update(_table(family, ports))
    for each in TableMap:
        entries = {
            key[len(each.prefix) :]: value
            for key, value in rendered.items()
            if isinstance(key, bytes) and key.startswith(each.prefix) and value is not None
        }
        held.maps[each.map_name].update_many(entries)


def _table(family: Family, ports: Sequence[int]) -> TableChanges:
    """Return a service port of TCP and of UDP with one endpoint each, and two without."""
    tcp, udp, *frontends = ports
    endpoints = (tcp, udp, None, None)
    protocols = (Protocol.TCP, Protocol.UDP) * 2
    entries = [
        _service_port(family, protocol, frontend, endpoint)
        for protocol, frontend, endpoint in zip(protocols, frontends, endpoints, strict=True)
    ]
    rules = NodeRules(
        local_pods=Undetected("nobody is a pod here"),
        masquerade_all=False,
        node_port_addresses=(ipaddress.ip_network(_EVERY[family]),),
        localhost_node_ports=(),
        service_cidrs=(),
        shared_ranges=(),
    )
    return TableChanges(family, rules, {entry.key: entry for entry in entries})


def _service_port(
    family: Family, protocol: Protocol, frontend: int, endpoint: int | None
) -> ServicePort:
    address = _LOOPBACK[family]
    targets = () if endpoint is None else (Target(address, endpoint, local=True),)
    use = Use.TARGETS if targets else Use.REJECT
    return ServicePort(
        key=ServicePortKey("kproxy", "trial", str(frontend), protocol),
        frontends=(Vip(Via.CLUSTER_IP, address, frontend),),
        internal=use,
        external=use,
        external_local=False,
        targets=targets,
        local_targets=targets,
        sources=None,
        affinity_timeout_s=None,
        serving=frozenset((target.address, target.port) for target in targets),
    )
