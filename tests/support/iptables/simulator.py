"""What a kernel would do with the rules that kproxy writes, and nothing more.

Reads exactly the words that the renderer uses, and checks what iptables would check; an unknown
word is an error. All branches of a random choice are followed, each with its probability.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from kproxy.core.objects import Protocol

BASE_CHAINS = {
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
MODULES = (
    "comment", "addrtype", "conntrack", "connlabel", "statistic", "mark", "set", "bpf", "ipvs",
    "tcp",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Skb:
    """A packet on its way through the chains. Interfaces are "" where there is none.

    `member_of` names the sets that it is in, with the fields asked for (`NAME dst,dst`) unless that
    is the source alone; `marks` are those of elements that it is. `by_ipvs`: ipvs translated it.
    `direction` is that of conntrack.
    """

    source: str
    destination: str
    port: int
    protocol: Protocol
    in_interface: str = ""
    out_interface: str = ""
    mark: int = 0
    labels: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset({"NEW"})
    direction: str = "ORIGINAL"
    local: frozenset[str] = frozenset()
    member_of: frozenset[str] = frozenset()
    marks: frozenset[tuple[str, int]] = frozenset()
    by_ipvs: bool = False
    remembered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its matches, its chance, and what it does."""

    text: str
    matches: tuple[tuple[str, bool, str], ...]  # what, negated, value
    chance: float
    target: str
    goto: bool
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class End:
    """How a walk through one hook may end; `skb` is the packet as it is then."""

    probability: float
    target: str  # ACCEPT, DROP, REJECT, DNAT or MASQUERADE; "" if no rule decided
    options: Mapping[str, str]
    skb: Skb


NO_OPTIONS: Mapping[str, str] = {}


def parse(text: str, table: str) -> Rule:
    """Read one rule; raises ValueError for what iptables would refuse in that table."""
    words = shlex.split(text) if '"' in text else text.split()
    matches: list[tuple[str, bool, str]] = []
    options: dict[str, str] = {}
    chance, target, goto, loaded = 1.0, "", False, set()
    negated = False
    place = 0

    def value() -> str:
        nonlocal place
        place += 1
        return words[place]

    while place < len(words):
        word = words[place]
        needs = {"--comment": "comment", "--src-type": "addrtype", "--dst-type": "addrtype",
                 "--ctstate": "conntrack", "--ctdir": "conntrack", "--tcp-flags": "tcp",
                 "--mode": "statistic", "--probability": "statistic",
                 "--mark": "mark", "--match-set": "set", "--bytecode": "bpf",
                 "--label": "connlabel", "--set": "connlabel", "--ipvs": "ipvs"}  # fmt: skip
        if word in needs and needs[word] not in loaded:
            raise ValueError(f"{word} without its module: {text}")
        if target and not word.startswith("--"):
            raise ValueError(f"{word} after the target: {text}")
        match word:
            case "!":
                negated = True
                place += 1
                continue
            case "-m":
                loaded.add(value())
                if words[place] not in MODULES:
                    raise ValueError(f"unknown module: {text}")
            case "-s" | "-d" | "-p" | "-i" | "-o" | "--ctstate" | "--mark":
                matches.append((word, negated, value()))
                negated = False
            case "--dport" | "--src-type" | "--dst-type" | "--ctdir" | "--bytecode":
                matches.append((word, False, value()))
            case "--label":
                matches.append((word, False, value()))
            case "--tcp-flags":
                matches.append((word, False, f"{value()} {value()}"))
            case "--ipvs":
                matches.append((word, False, ""))
            case "--set" if matches[-1][0] == "--label":
                matches.append((word, False, matches.pop()[2]))
            case "--match-set":
                name, fields = value(), value()
                matches.append((word, negated, name if fields == "src" else f"{name} {fields}"))
                negated = False
            case "--comment":
                value()
            case "--mode":
                if value() != "random":
                    raise ValueError(text)
            case "--probability":
                chance = float(value())
            case "-j" | "-g":
                target, goto = value(), word == "-g"
            case "--map-set" if target:
                options[word] = f"{value()} {value()}"
            case "--exist" | "--random-fully" | "--map-mark" | "--clamp-mss-to-pmtu" if target:
                options[word] = ""
            case (
                "--to-destination" | "--reject-with" | "--set-xmark" | "--add-set" | "--timeout"
            ) if target:
                options[word] = value()
                if word == "--add-set" and value() != "src":
                    raise ValueError(text)
            case _:
                raise ValueError(f"unknown word {word}: {text}")
        if negated:
            raise ValueError(f"nothing to negate: {text}")
        place += 1
    rule = Rule(text, tuple(matches), chance, target, goto, options)
    _check(rule, table)
    return rule


def _check(rule: Rule, table: str) -> None:
    """Refuse what iptables refuses."""
    protocol = next((v for what, _, v in rule.matches if what == "-p"), None)
    wrong = (
        not rule.target
        or not 0 < rule.chance <= 1
        or (rule.target in ("DNAT", "MASQUERADE") and table != "nat")
        or (rule.target == "REJECT" and table != "filter")
        or (rule.target == "DROP" and table == "nat")
        or ("--map-set" in rule.options and table != "mangle")
        or (rule.target == "DNAT" and protocol is None)
        or (rule.target == "TCPMSS" and protocol != "tcp")
        or (rule.options.get("--reject-with") == "tcp-reset" and protocol != "tcp")
        or (any(what == "--dport" for what, _, _ in rule.matches) and protocol is None)
        or protocol not in (None, "tcp", "udp", "sctp")
    )
    if wrong:
        raise ValueError(f"iptables refuses this in {table}: {rule.text}")


class Tables:
    """All our chains, as they would be loaded, with the jumps to them from the base chains."""

    def __init__(self, chains: Mapping[tuple[str, str], Collection[str]]) -> None:
        self.examined = 0  # rules that packets were held against so far
        self._chains = {
            (table, name): [parse(text, table) for text in rules]
            for (table, name), rules in chains.items()
        }
        for table, chains_of in BASE_CHAINS.items():
            for name in chains_of:
                self._chains.setdefault((table, name), [])
        for (table, name), rules in self._chains.items():
            for rule in rules:
                if rule.target.startswith("KPROXY-") and (table, rule.target) not in self._chains:
                    raise ValueError(f"{name} leads to a chain that does not exist: {rule.text}")

    def jumps(self, table: str) -> Mapping[str, set[str]]:
        """Return which chains each chain of a table leads to."""
        return {
            name: {rule.target for rule in rules if rule.target.startswith("KPROXY-")}
            for (of, name), rules in self._chains.items()
            if of == table
        }

    def longest_path(self) -> int:
        """Return the most chains of ours that one packet can be in at once, gotos included."""
        return max(
            _longest(self.jumps(table), base) - 1
            for table, bases in BASE_CHAINS.items()
            for base in bases
        )

    def unreferenced(self) -> set[str]:
        """Return the chains that nothing leads to."""
        lost = set()
        for table, bases in BASE_CHAINS.items():
            jumps = self.jumps(table)
            lost |= {name for name in jumps if name not in bases} - set().union(*jumps.values())
        return lost

    def hook(self, table: str, base: str, skb: Skb) -> list[End]:
        """Return how a packet may leave a base chain."""
        ends = self._walk(table, base, skb)
        return [
            End(probability, *(verdict or ("", NO_OPTIONS)), after)
            for probability, verdict, after in ends
        ]

    def _walk(
        self, table: str, chain: str, skb: Skb
    ) -> Iterator[tuple[float, tuple[str, Mapping[str, str]] | None, Skb]]:
        live = {skb: 1.0}
        for rule in self._chains[table, chain]:
            following: dict[Skb, float] = {}
            self.examined += len(live) > 0
            for packet, probability in live.items():
                hit = probability * rule.chance if _matches(rule, packet) else 0.0
                if probability > hit:
                    following[packet] = following.get(packet, 0.0) + probability - hit
                if not hit:
                    continue
                packet = _labelled(rule, packet)
                for share, verdict, after in self._act(table, rule, packet):
                    if verdict == "next":
                        following[after] = following.get(after, 0.0) + hit * share
                    else:
                        yield hit * share, verdict, after
            live = following
        for packet, probability in live.items():
            yield probability, None, packet

    def _act(self, table: str, rule: Rule, skb: Skb):
        match rule.target:
            case "RETURN":
                yield 1.0, None, skb
            case "TCPMSS":
                yield 1.0, "next", skb
            case "ACCEPT" | "DROP" | "REJECT" | "DNAT" | "MASQUERADE":
                yield 1.0, (rule.target, rule.options), skb
            case "MARK":
                bits, mask = (int(text, 16) for text in rule.options["--set-xmark"].split("/"))
                yield 1.0, "next", replace(skb, mark=skb.mark & ~mask ^ bits)
            case "SET" if "--map-set" in rule.options:
                mark = dict(skb.marks).get(rule.options["--map-set"], skb.mark)
                yield 1.0, "next", replace(skb, mark=mark)
            case "SET":
                name = rule.options["--add-set"]
                yield 1.0, "next", replace(skb, remembered=(*skb.remembered, name))
            case target if target.startswith("KPROXY-"):
                for share, verdict, after in self._walk(table, target, skb):
                    returned = None if rule.goto else "next"
                    yield share, verdict if verdict is not None else returned, after
            case _:
                raise ValueError(f"unknown target: {rule.text}")


def _longest(jumps: Mapping[str, set[str]], chain: str, known: dict[str, int] | None = None) -> int:
    known = {} if known is None else known
    if chain not in known:
        known[chain] = 1 + max((_longest(jumps, each, known) for each in jumps[chain]), default=0)
    return known[chain]


def _matches(rule: Rule, skb: Skb) -> bool:
    return all(_fits(what, value, skb) != negated for what, negated, value in rule.matches)


def _labelled(rule: Rule, skb: Skb) -> Skb:
    """Return the packet with the labels that a rule sets on its connection by matching."""
    labels = frozenset(value for what, _, value in rule.matches if what == "--set")
    return replace(skb, labels=skb.labels | labels) if labels else skb


def _fits(what: str, value: str, skb: Skb) -> bool:
    match what:
        case "-s":
            return _inside(skb.source, value)
        case "-d":
            return _inside(skb.destination, value)
        case "-p":
            return skb.protocol.value.lower() == value
        case "--dport":
            low, _, high = value.partition(":")
            return int(low) <= skb.port <= int(high or low)
        case "-i" | "-o":
            name = skb.in_interface if what == "-i" else skb.out_interface
            return name.startswith(value[:-1]) if value.endswith("+") else name == value
        case "--ctstate":
            return bool(skb.states & set(value.split(",")))
        case "--src-type" | "--dst-type":
            if value != "LOCAL":
                raise ValueError(f"unknown address type {value}")
            address = skb.source if what == "--src-type" else skb.destination
            return address in skb.local or ipaddress.ip_address(address).is_loopback
        case "--mark":
            wanted, mask = (int(text, 16) for text in value.split("/"))
            return skb.mark & mask == wanted
        case "--ctdir":
            return skb.direction == value
        case "--tcp-flags":
            return value == "SYN,RST SYN" and "NEW" in skb.states
        case "--label":
            return value in skb.labels
        case "--set":
            return True
        case "--ipvs":
            return skb.by_ipvs
        case "--match-set":
            return value in skb.member_of
        case "--bytecode":
            return _run_filter(value, _header(skb)) > 0
    raise ValueError(f"unknown match {what}")


_NETWORKS: dict[str, ipaddress.IPv4Network | ipaddress.IPv6Network] = {}


def _inside(address: str, network: str) -> bool:
    if network not in _NETWORKS:
        _NETWORKS[network] = ipaddress.ip_network(network)  # refuses host bits
    return ipaddress.ip_address(address) in _NETWORKS[network]


def _header(skb: Skb) -> bytes:
    source, destination = map(ipaddress.ip_address, (skb.source, skb.destination))
    before = 12 if source.version == 4 else 8
    return bytes(before) + source.packed + destination.packed


def _run_filter(bytecode: str, header: bytes) -> int:
    """Run classic BPF (linux/filter.h), as far as the renderer uses it, over a header."""
    count, *lines = bytecode.split(",")
    program = [tuple(map(int, line.split())) for line in lines]
    if int(count) != len(program):
        raise ValueError(f"the program is not {count} instructions long")
    accumulator = index = place = 0
    while True:
        code, if_true, if_false, operand = program[place]
        place += 1
        if code == 0x20:  # load a word
            accumulator = int.from_bytes(header[operand : operand + 4], "big")
            if len(header) < operand + 4:
                return 0
        elif code == 0x07:  # copy the accumulator to the index register
            index = accumulator
        elif code == 0x1D:  # compare with the index register
            place += if_true if accumulator == index else if_false
        elif code == 0x06:  # return
            return operand
        else:
            raise ValueError(f"unknown instruction {code:#x}")
