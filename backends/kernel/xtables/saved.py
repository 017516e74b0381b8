"""What iptables-save prints, reduced to what is ours.

Nothing here reads a rule for its meaning: a chain is told by its name, its content by the
digest in its first rule's comment, and a jump of ours by its target.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from backends.kernel.xtables.ours import Ours
from backends.kernel.xtables.wording import chain_key, jump_key
from kproxy.core.image import Key

ALTERED = b"altered"
"""The value of an object that is ours by name, and whose content is not what we wrote."""

_FINGERPRINT = re.compile(rb'--comment "?kp:([0-9a-z]+:[0-9]+)"?(?: |$)')


class Unreadable(Exception):
    """The output does not hold the whole table; the argument says what it held instead."""


@dataclass(slots=True)
class Seen:
    """Our objects in one or more tables.

    `texts` holds a hash of what each object consists of, comparable among readings by the same
    reader.
    """

    image: dict[Key, bytes] = field(default_factory=dict)
    texts: dict[Key, int] = field(default_factory=dict)

    def add_chain(self, key: Key, rules: int, fingerprint: bytes | None, text: bytes) -> None:
        """Take in a chain: how many rules it has and what its first one's comment says."""
        self.image[key] = checked(fingerprint, rules)
        self.texts[key] = _hash(text)

    def add_jump(self, key: Key, fingerprint: bytes | None, text: bytes) -> None:
        """Take in one copy of a jump."""
        self.image[key] = ALTERED if key in self.image else checked(fingerprint, 1)
        self.texts[key] = _hash(text)

    def join(self, other: Seen) -> None:
        """Add what was seen in another table."""
        self.image.update(other.image)
        self.texts.update(other.texts)


def checked(fingerprint: bytes | None, rules: int) -> bytes:
    """Return the fingerprint if it belongs to that many rules."""
    if fingerprint is None or fingerprint.rpartition(b":")[2] != b"%d" % rules:
        return ALTERED
    return fingerprint


def _hash(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def parse(table: str, lines: Iterable[bytes], ours: Ours) -> Seen:
    """Return what is ours in the output of `iptables-save -t table`.

    Raises Unreadable unless the output is the whole table. iptables-nft-save prints nothing but
    a remark, and exits with 0, if a table holds a rule that it cannot express.
    """
    reader = _Reader(table, ours)
    for line in lines:
        reader.take(line)
    return reader.result()


class _Reader:
    """Takes lines one by one; keeps no more than one chain's text."""

    def __init__(self, table: str, ours: Ours) -> None:
        self._table = table
        self._name_of_ours = re.compile(ours.pattern)
        self._rule_of_ours = re.compile(b"-A " + ours.pattern)
        self._jump = re.compile(rb" -[jg] (" + ours.pattern + rb"[^\s\"]+)$")
        self._seen = Seen()
        self._built_in: set[bytes] = set()
        self._declared: set[Key] = set()
        self._remarks: list[bytes] = []
        self._begun = self._ended = False
        self._prefix = b" "  # no line begins with it
        self._rules: list[bytes] = []

    def take(self, line: bytes) -> None:
        if line.startswith(self._prefix):
            self._rules.append(line)
        elif self._rule_of_ours.match(line):
            self._close_chain()
            self._prefix = b"-A " + line.split(maxsplit=2)[1] + b" "
            self._rules.append(line)
        elif line.startswith(b"-A "):
            self._take_foreign_rule(line.rstrip(b"\n"))
        elif line.startswith(b":"):
            self._take_declaration(line)
        elif line.startswith(b"*"):
            self._begun |= line.rstrip() == b"*" + self._table.encode()
        elif line.startswith(b"COMMIT"):
            self._ended = True
        else:
            self._remarks.append(line)

    def result(self) -> Seen:
        if not (self._begun and self._ended):
            said = b" ".join(self._remarks).decode(errors="replace").strip()
            raise Unreadable(said or "no output")
        self._close_chain()
        for key in self._declared - self._seen.image.keys():
            self._seen.image[key] = ALTERED
        return self._seen

    def _close_chain(self) -> None:
        if self._rules:
            chain = self._prefix[3:-1].decode(errors="replace")
            found = _FINGERPRINT.search(self._rules[0])
            self._seen.add_chain(
                chain_key(self._table, chain),
                len(self._rules),
                found and found[1],
                b"".join(self._rules),
            )
        self._rules = []

    def _take_declaration(self, line: bytes) -> None:
        name, policy, *_ = line[1:].split()
        if policy != b"-":
            self._built_in.add(name)
        elif self._name_of_ours.match(name):
            self._declared.add(chain_key(self._table, name.decode(errors="replace")))

    def _take_foreign_rule(self, line: bytes) -> None:
        found = self._jump.search(line)
        if found is None:
            return
        _, base, spec = line.split(b" ", 2)
        if base in self._built_in:
            target = found[1].decode(errors="replace")
            key = jump_key(self._table, base.decode(), target)
            comment = _FINGERPRINT.search(line)
            self._seen.add_jump(key, comment and comment[1], spec)
