"""Names, and what an operator may choose: how an iptables object of ours is recognised. Pure."""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backends.kernel.xtables.wording import port_unreachable
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol

CHAIN_PREFIX = "KPROXY-"
TABLES = ("filter", "nat")

SET_PREFIX = {Family.IPV4: "kproxy-4-", Family.IPV6: "kproxy-6-"}
"""How the names of ipsets and counters begin: both families share one namespace."""

# The chains that refuse whatever else goes to a clusterIP.
CLUSTER_IP_CHAINS = ("KPROXY-CLUSTERIPS", "KPROXY-FC-")


TRANSLATED = "-m conntrack --ctstate DNAT"
"""The match for packets of connections that were translated, both ways."""

# A chain needs a rule to carry its digest. This one never applies: no packet goes to port 0.
NEVER = "-p tcp --dport 0 -j RETURN"

ASK_FOR_MASQUERADE = "-j KPROXY-MARK"
"""The end of rules that ask for masquerade of the connection that a packet begins.

A chain for all of them, because the kernel takes 8 µs to load or drop a rule that sets a label.
"""

# The label of a connection (of 128) that says the same as the masquerade bit, and that it was us.
_LABEL = 107


class Feature(enum.Enum):
    """What a host may lack the parts for; everything else works all the same."""

    AFFINITY = "sessionAffinity"
    HAIRPIN_MATCH = "one rule for endpoints that choose themselves"
    LABELS = "telling foreign packet marks from ours"
    REFUSAL = "refusing connections at once"
    SCTP = "SCTP"
    COUNTERS = "packet counters"


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator may choose about the rules, and what they have to do without.

    `masquerade_bit` is the bit of the packet mark (0..31) that asks for masquerade; `counts` lets
    rules feed the counters of `accounting`; `without` says which features this host lacks, and why.
    """

    masquerade_bit: int = 14
    counts: bool = False
    without: Mapping[Feature, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The rule that marks a connection for masquerade.

        The bit alone would not do: others may use it in marks of theirs.
        """
        bit = f"{1 << self.masquerade_bit:#x}"
        labelled = f"-m connlabel --label {_LABEL} --set " if self._labels else ""
        return f"{labelled}-j MARK --set-xmark {bit}/{bit}"

    @property
    def asked_for_masquerade(self) -> str:
        """The match for the first packet of a connection that we translated and want masqueraded.

        Where labels are missing, somebody else's translation of a packet with somebody else's
        mark looks the same.
        """
        bit = f"{1 << self.masquerade_bit:#x}"
        labelled = f" -m connlabel --label {_LABEL}" if self._labels else ""
        return f"-m mark --mark {bit}/{bit} {TRANSLATED}{labelled}"

    @property
    def _labels(self) -> bool:
        return Feature.LABELS not in self.without


@dataclass(frozen=True, slots=True)
class AffinitySet:
    """An ipset that remembers which clients an endpoint has, each for `timeout_s` seconds."""

    name: str
    family: Family
    timeout_s: int


class Account(enum.Enum):
    """What the kernel counts for us, apart from any rule."""

    INVALID = "invalid-dropped"
    LOCALHOST = "localhost-accepted"


ACCOUNTS = {
    Family.IPV4: (Account.INVALID, Account.LOCALHOST),
    Family.IPV6: (Account.INVALID,),  # NodePorts do not answer on ::1
}


def set_value(affinity: AffinitySet) -> bytes:
    """Return the image value of an ipset: what the kernel says of it."""
    inet = "inet" if affinity.family is Family.IPV4 else "inet6"
    return f"hash:ip:{inet}:{affinity.timeout_s}".encode()


def chain_name(kind: str, *identity: str) -> str:
    """Return a chain name for an object that a stranger named.

    `kind` has three letters. 17 characters of base64 are 102 bits of SHA-256: nobody finds two
    names that collide, and the whole stays within the kernel's 28 characters.
    """
    return f"{CHAIN_PREFIX}{kind}-{_digest(identity, 17)}"


def set_name(family: Family, *identity: str) -> str:
    """Return an ipset name, of 31 characters at most."""
    return f"{SET_PREFIX[family]}{_digest(identity, 20)}"


def account_name(family: Family, account: Account) -> str:
    """Return a counter's name, of 31 characters at most."""
    return f"{SET_PREFIX[family]}{account.value}"


def counting(family: Family, account: Account) -> str:
    """Return the match that counts a packet, and that every packet fits."""
    return f"-m nfacct --nfacct-name {account_name(family, account)}"


def _digest(identity: Sequence[str], length: int) -> str:
    digest = hashlib.sha256("\0".join(identity).encode()).digest()
    return base64.urlsafe_b64encode(digest)[:length].decode()


def reject(protocol: Protocol, family: Family, options: Options) -> str:
    """Return the target that tells a client at once that nobody serves it."""
    if Feature.REFUSAL in options.without:
        return "-j DROP"
    if protocol is Protocol.TCP:
        return "-j REJECT --reject-with tcp-reset"
    return f"-j REJECT --reject-with {port_unreachable(family)}"
