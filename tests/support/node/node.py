"""A node of namespaces with a proxy on it that can be started, killed and hindered."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from backends.kernel import nft
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.commands import output_of
from tests.support.ebpf.fixtures import bytecode_folder
from tests.support.ebpf.on_node import objects_on_node
from tests.support.ebpf.place import Place
from tests.support.ipvs.on_node import IS_HERE as IPVS_IS_HERE
from tests.support.ipvs.on_node import objects_of_ipvs
from tests.support.net import plan
from tests.support.net.network import Network
from tests.support.net.observed import Answered, Failed, Left, Observed, Probe, Refused, Silent
from tests.support.net.plan import in_family
from tests.support.node.cluster import CONFIGURATION, POD_PORT, Manifests
from tests.support.node.proxy import ROOT, Proxy
from tests.support.node.tools import Tools
from tests.support.packets.table import NODE_NAME
from tests.support.waiting import LONGEST_S, until

_IPV4_NAME = {plan.ipv6_of(address): address for address in plan.PLACES}
STEM = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}

_JUMP = re.compile(r"-[jg] KPROXY-\S+$")
_PASSES_ON = '-A FORWARD -m comment --comment "kproxy ebpf'

IPTABLES = ("nft", "legacy")
EBPF, IPVS = "ebpf", "ipvs"
WHERE_IPVS_IS = (IPVS,) if IPVS_IS_HERE else ()
DATA_PATHS = (*IPTABLES, EBPF, *WHERE_IPVS_IS)
REFUSED, SILENT, LEFT = "refused", "silent", "left"

Word = str
"""What became of a packet: the address that answered (as IPv4), or one of the words above."""


class Node:
    """The network, the manifests, and the proxies that were started in the node's namespace.

    `data_path` is what the next proxy is started with: a variant of iptables, ebpf, or ipvs with
    rules in nf_tables. Others on the node use that variant, or nf_tables.
    """

    def __init__(self, folder: Path, data_path: str) -> None:
        folder.mkdir(exist_ok=True)
        self.data_path = data_path
        self.folder = folder
        self.manifests = Manifests(folder / "manifests")
        self.tools = Tools(folder / "tools", self.variant)
        self.place = Place(folder)
        self.lock = folder / "xtables.lock"
        self.network = Network()
        self.network.serve([POD_PORT])
        self.started: list[Proxy] = []  # in this order
        self.tree = ROOT  # where the proxy's sources are
        self._configuration = folder / "kproxy.yaml"
        self.configure()

    @property
    def variant(self) -> str:
        """The variant of iptables that is written, by the proxy or by others alone."""
        return self.data_path if self.data_path in IPTABLES else "nft"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the proxy and of whoever writes rules beside it."""
        return {
            "PATH": f"{self.tools.folder}:{os.environ['PATH']}",
            "XTABLES_LOCKFILE": str(self.lock),
            "PYTHONPATH": str(self.tree),
            "PYTHONSAFEPATH": "1",  # not from where the tests run
            "XDG_CACHE_HOME": str(bytecode_folder().parents[1]),
        }

    def configure(self, **fields: object) -> None:
        """Write the configuration file anew, with these fields besides the usual ones."""
        self._configuration.write_text(json.dumps({**CONFIGURATION, **fields}))

    def start(self, *options: str, prefix: Sequence[str] = ()) -> Proxy:
        """Start `kproxy run` on the manifests."""
        arguments = ["run", "--manifests", str(self.manifests.path), "--node-name", NODE_NAME]
        arguments += ["--config", str(self._configuration), *self.place.options]
        if self.data_path not in IPTABLES:
            arguments += ["--proxy-mode", self.data_path]
        if self.data_path != EBPF:
            arguments += ["--iptables-variant", self.variant]
        return self.kproxy(*arguments, *options, prefix=prefix)

    def ready(self, *options: str) -> Proxy:
        """Start `kproxy run` and wait until it is ready."""
        proxy = self.start(*options)
        proxy.wait_for("ready: ")
        return proxy

    def once(self) -> int:
        """Let `kproxy run --once` bring the kernel up to date; return in how many restores.

        A restore that outlived its killed proxy ends before: nobody would put right what it does.
        """
        until(
            lambda: not any(each.survived() for each in self.started),
            within_s=LONGEST_S,
            what="what killed proxies began has ended",
        )
        self.tools.forget()
        proxy = self.start("--once")
        assert proxy.ended() == 0, proxy.said()
        return len(self.tools.calls())

    def kproxy(self, *arguments: str, prefix: Sequence[str] = ()) -> Proxy:
        """Start any command of the command line on the node."""
        log = self.folder / f"log.{len(self.started)}"
        if arguments[0] == "cleanup":
            arguments += ("--ebpf-bpffs", str(self.place.bpffs))
        with self.network.node.entered():
            proxy = Proxy(arguments, log=log, environment=self.environment, prefix=prefix)
        self.started.append(proxy)
        return proxy

    def run(self, command: str, *, text: str = "") -> str:
        """Run a command on the node, as somebody else would, and return what it printed."""
        with self.network.node.entered():
            return output_of(
                *command.split(),
                stdin=text,
                environment={**os.environ, "XTABLES_LOCKFILE": str(self.lock)},
                timeout_s=LONGEST_S,
            )

    def iptables(self, family: Family, rest: str, *, text: str = "") -> str:
        """Run iptables; a `rest` that begins with `-save` or `-restore` names that program."""
        space = "" if rest.startswith(("-save", "-restore")) else " "
        return self.run(f"{STEM[family]}-{self.variant}{space}{rest}", text=text)

    def saved(self, family: Family) -> list[str]:
        """Return all rules with their counters; those of the built-in policies left out."""
        lines = self.iptables(family, "-save -c").splitlines()
        return [line.split(" [")[0] if line[0] == ":" else line for line in lines if line[0] != "#"]

    def ours(self) -> list[str]:
        """Return what the proxy has in the kernel, of both families."""
        lines = [line.partition("] ")[2] or line for f in Family for line in self.saved(f)]
        rules = sorted(filter(is_ours, lines))
        if self.data_path == EBPF:
            with self.network.node.entered():
                return rules + objects_on_node(self.place)
        if self.data_path == IPVS:
            with self.network.node.entered():
                return rules + objects_of_ipvs()
        sets = [f"set {name}" for name in self.run("ipset list -n").split() if "kproxy" in name]
        return rules + sorted(sets)

    def generation(self) -> int:
        """Return how often anybody wrote to the node's nf_tables."""
        with self.network.node.entered():
            return nft.generation()

    def ask(
        self,
        frontends: Iterable[str],
        *,
        sources: Iterable[str] = (plan.CLIENT,),
        protocol: Protocol = Protocol.TCP,
        families: Iterable[Family] = tuple(Family),
    ) -> dict[tuple[str, str, Family], Word]:
        """Send one packet from each source to each frontend ("ip:port"), over each family."""
        keys = list(itertools.product(frontends, sources, families))
        probes = [_probe(*key, protocol) for key in keys]
        observed = self.network.send(probes)
        return {
            key: _word(probe, seen) for key, probe, seen in zip(keys, probes, observed, strict=True)
        }

    def answers(self, expected: Mapping[str, frozenset[Word]], **how: Iterable[str]) -> list[str]:
        """Ask every frontend in `expected`; return what came otherwise than is allowed there."""
        return [
            f"{source} -> {frontend} over {family.value}: {word}"
            for (frontend, source, family), word in self.ask(expected, **how).items()
            if word not in expected[frontend]
        ]

    def close(self) -> None:
        """End what was started and take the network down."""
        for proxy in self.started:
            proxy.kill()
        self.network.close()
        self.place.close()


def is_ours(line: str) -> bool:
    """Say whether a line of iptables-save is the proxy's.

    It is of a chain of its, a jump to one, or what lets through what its programs translated.
    """
    rule = line.partition("] ")[2] or line
    names = (":KPROXY-", "-A KPROXY-", _PASSES_ON)
    return rule.startswith(names) or _JUMP.search(rule) is not None


def _probe(frontend: str, source: str, family: Family, protocol: Protocol) -> Probe:
    address, _, port = frontend.rpartition(":")
    return Probe(in_family(source, family), in_family(address, family), int(port), protocol)


def _word(probe: Probe, observed: Observed) -> Word:
    match observed:
        case Answered(by=by):
            address = by.rpartition(":")[0].strip("[]")
            return _IPV4_NAME.get(address, address)
        case Refused():
            return REFUSED
        case Silent(arrived=True):
            return SILENT
        case Left(source=probe.source):
            return LEFT
        case Left(source=source):
            return f"left as {source}"
        case Silent():
            return "never arrived"
        case Failed(error=error):
            return f"failed: {error}"
