"""The ebpf data path, as every data path is seen."""

from __future__ import annotations

import logging

from backends.ebpf import check, cleanup
from backends.ebpf.driver.gate import Gate
from backends.ebpf.driver.loopback import Loopback
from backends.ebpf.driver.opening import open_backend
from backends.ebpf.driver.surroundings import Surroundings
from backends.ebpf.options import EbpfOptions
from backends.ebpf.preview import preview
from backends.ebpf.withdrawal import FormerPrograms
from backends.kernel.bpf import bpffs
from backends.kube_proxy.takeover import TakeOver
from kproxy.core.addresses import Family
from kproxy.core.table import ForwardingTable, NodeRules
from kproxy.ports.data_path import Backend, Finding

log = logging.getLogger(__name__)


class EbpfPath:
    """Socket hooks and tc programs, IPv4 and IPv6."""

    def __init__(self, options: EbpfOptions) -> None:
        self._options = options
        self._take_over = TakeOver() if options.take_over else None
        self._opened: set[Family] = set()
        self._gate = Gate(options.bpffs)

    def backend(self, family: Family) -> Backend:
        """Return the data path of a family."""
        if self._take_over:
            self._take_over.expect(family)
        self._opened.add(family)
        bpffs.provide(self._options.bpffs)
        return open_backend(family, self._options, self._gate)

    def prepare(self, family: Family, rules: NodeRules) -> int:
        """Set what a process without privileges could not; return how much was missing."""
        made = int(bpffs.provide(self._options.bpffs))
        made += Loopback(family, self._options.bpffs).open()
        return made + Surroundings(family, self._options.mark).ensure()

    def in_force(self, family: Family) -> None:
        """Remove what kube-proxy left, if asked."""
        removed = self._take_over.in_force(family) if self._take_over else 0
        if removed:
            log.info("%s: removed %d objects that kube-proxy left", family.value, removed)

    def former(self, family: Family) -> list[FormerPrograms]:
        """Return the programs of an earlier run, unless this one uses them."""
        return [] if family in self._opened else [FormerPrograms(family, self._options.bpffs)]

    def preview(self, table: ForwardingTable) -> str:
        """Return the entries of the maps that make a table true."""
        return preview(table, self._options.sizes)

    def check(self, family: Family) -> list[Finding]:
        """Return what this host offers to eBPF."""
        return check.check(family, self._options)

    def clean_up(self, family: Family) -> int:
        """Remove everything of ours; return how many objects there were."""
        return cleanup.clean_up(family, self._options.bpffs)
