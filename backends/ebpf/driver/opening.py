"""Opening the data path of one family: programs and maps ready, nothing attached yet."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from backends.ebpf import compiler, places
from backends.ebpf.driver import device_layout, loader
from backends.ebpf.driver.backend import EbpfBackend, Parts
from backends.ebpf.driver.claims import Claims
from backends.ebpf.driver.counters import Counters
from backends.ebpf.driver.devices import Devices
from backends.ebpf.driver.flows import Flows
from backends.ebpf.driver.gate import Gate
from backends.ebpf.driver.hand_over import HandOver
from backends.ebpf.driver.hooks import Hooks
from backends.ebpf.driver.host import HostSettings
from backends.ebpf.driver.in_force import InForce
from backends.ebpf.driver.loader import Version
from backends.ebpf.driver.loopback import Loopback
from backends.ebpf.driver.namespaces import Namespaces
from backends.ebpf.driver.pods import Pods
from backends.ebpf.driver.sockets import TRANSLATED_SOCKETS, TranslatedSockets
from backends.ebpf.driver.surroundings import Surroundings
from backends.ebpf.driver.sweep import Sweep
from backends.ebpf.driver.table import TableMaps
from backends.ebpf.driver.trial import try_out
from backends.ebpf.driver.tried import unless_tried
from backends.ebpf.options import EbpfOptions, SocketHooks
from backends.ebpf.render.layout import TableMap
from backends.ebpf.render.renderer import Renderer
from backends.ebpf.unit import Unit
from backends.kernel import cgroup, conntrack
from backends.kernel.bpf import kfuncs
from backends.kernel.bpf.ring import RingBuffer
from kproxy.core.addresses import Family

log = logging.getLogger(__name__)

_CANNOT_ASK = (
    "%s: the kernel has no %s (is nf_conntrack loaded?): until a restart that finds them, a "
    "connection may be masqueraded by a port that the kernel masquerades by to the same endpoint"
)


def open_backend(family: Family, options: EbpfOptions, gate: Gate) -> EbpfBackend:
    """Return the data path of a family, whose programs the kernel took. Raises BackendError.

    `gate` is one for all families. Programs that are new to this kernel are tried out first, over
    maps of their own.
    """
    hooked = options.socket_hooks is not SocketHooks.OFF
    group = _group(options.cgroup) if hooked else None
    at_devices = _unit("tc", family, options)
    in_sockets = _unit("sock", family, options) if hooked else None
    entrance = _unit("gate", family, options)
    units = [each for each in (in_sockets, at_devices) if each is not None]
    conntrack.wake()
    missing = at_devices.kfuncs - kfuncs.offered(at_devices.kfuncs).keys()
    if missing:
        log.warning(_CANNOT_ASK, family.value, ", ".join(sorted(missing)))
    folder = places.family_folder(options.bpffs, family)
    with ExitStack() as held:
        gate.open(entrance)
        held.callback(gate.close)
        version = loader.open_version(options.bpffs, folder, units, options.sizes)
        held.callback(version.close)
        if not (version.is_published and gate.is_published):
            trial = partial(try_out, family, entrance, at_devices, in_sockets, group)
            unless_tried(options.cache, [*units, entrance], trial)
        backend = _put_together(family, options, version, gate, in_sockets, group)
        held.pop_all()
    return backend


def _group(path: Path | None) -> Path:
    return cgroup.root() if path is None else cgroup.at(path)


def _unit(name: str, family: Family, options: EbpfOptions) -> Unit:
    source = compiler.SOURCES / f"{name}.bpf.c"
    return compiler.load_unit(source, family, cache=options.cache)


def _put_together(
    family: Family,
    options: EbpfOptions,
    version: Version,
    gate: Gate,
    in_sockets: Unit | None,
    group: Path | None,
) -> EbpfBackend:
    maps, root = version.maps, options.bpffs
    renderer = Renderer(family, {each.map_name: options.sizes[each.map_name] for each in TableMap})
    claims = Claims(family, maps["claims"])
    table = TableMaps(maps, renderer, claims)
    devices = Devices(
        family,
        maps,
        claims=claims,
        attacher=gate.attacher,
        loopback=Loopback(family, root),
        clock=time.monotonic,
    )
    flows, sweep = Flows(family, maps["flows"]), Sweep(maps)
    hand_over = HandOver(family, HostSettings(maps["host"]), flows)
    hooks = pods = None
    sockets = {}
    if group is not None:
        seen = Namespaces()
        hooks = Hooks(places.hooks(root, family), group)
        pods = Pods(
            family,
            pods=maps["pods"],
            reports=RingBuffer(maps["pod_reports"]),
            devices=maps["devices"],
            clock=time.monotonic,
            seen=seen,
        )
        sockets = {
            protocol: TranslatedSockets(
                family, protocol, sockets=maps[name], clock=time.monotonic, seen=seen
            )
            for protocol, name in TRANSLATED_SOCKETS.items()
        }
    in_force = InForce(
        family,
        root,
        version,
        hooks=hooks,
        codes=in_sockets.programs if in_sockets is not None else {},
        gate=gate,
        devices=devices,
        claims=claims,
        hand_over=hand_over,
        mark=options.mark,
        hooked=device_layout.SocketHooks[options.socket_hooks.name],
    )
    return EbpfBackend(
        family,
        Parts(
            version=version,
            gate=gate,
            table=table,
            in_force=in_force,
            devices=devices,
            pods=pods,
            sockets=sockets,
            flows=flows,
            sweep=sweep,
            hand_over=hand_over,
            surroundings=Surroundings(family, options.mark),
            counters=Counters(maps, sweep, table.counts),
        ),
    )
