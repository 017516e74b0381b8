"""Which parts of the kernel and of the tools rules are made of, and which of them a host lacks.

Asking writes nothing and needs no namespace of its own; the kernel may load modules for it, as it
would for the rules.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from backends.kernel import nft
from backends.kernel.xtables import legacy, tools
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

F = TypeVar("F", bound=enum.Enum)


class ExtensionKind(enum.Enum):
    """The two kinds of extensions that a rule is made of, by the option that names one."""

    MATCH = "-m"
    TARGET = "-j"


@dataclass(frozen=True, slots=True)
class Extension:
    """A match or a target, as the kernel and the tools know it."""

    kind: ExtensionKind
    name: str


def _usable(family: Family) -> str:
    """Return "": what rules of a part name can be had wherever its extensions are."""
    return ""


@dataclass(frozen=True, slots=True)
class Part(Generic[F]):
    """Something that rules of ours need.

    - `rule` is one of the kind that needs it, for `table`; `module` serves it.
    - Without `feature` there is no forwarding without it.
    - `asked_with`: words of a command line that only who knows its extensions understands; where
      there are none, its rule or its matches will do.
    - `why_unusable` says why what its rules name cannot be had, "" if it can.
    """

    subject: str
    extensions: tuple[Extension, ...]
    table: str
    rule: str
    module: str
    feature: F | None = None
    asked_with: tuple[str, ...] = ()
    why_unusable: Callable[[Family], str] = _usable

    @property
    def has_target(self) -> bool:
        """Whether one of its extensions is a target."""
        return any(each.kind is ExtensionKind.TARGET for each in self.extensions)

    @property
    def remedy(self) -> str:
        """What to do about it if it is missing."""
        return f"load the kernel module: modprobe {self.module}"

    @property
    def asking(self) -> tuple[str, ...]:
        """Words of a command line that only who knows the part's extensions understands.

        A target takes an option of its own: the program takes an unknown one for a chain's name.
        """
        if self.asked_with:
            return self.asked_with
        if self.has_target:
            return tuple(self.rule.split())
        return tuple(word for each in self.extensions for word in (each.kind.value, each.name))


def part(
    subject: str,
    table: str,
    rule: str,
    *,
    module: str = "",
    feature: F | None = None,
    asked_with: tuple[str, ...] = (),
    why_unusable: Callable[[Family], str] = _usable,
) -> Part[F]:
    """Return a part by a rule that names its extensions; `module` is xt_<subject> by default."""
    return Part(
        subject=subject,
        extensions=extensions(rule),
        table=table,
        rule=rule,
        module=module or f"xt_{subject}",
        feature=feature,
        asked_with=asked_with,
        why_unusable=why_unusable,
    )


def extensions(rule: str) -> tuple[Extension, ...]:
    """Return the matches and targets that a rule names."""
    return tuple(
        Extension(ExtensionKind(option), name)
        for option, name in itertools.pairwise(rule.split())
        if option in ("-m", "-j") and name != "RETURN"
    )


def missing(family: Family, variant: Variant, wanted: Iterable[Part[F]]) -> dict[Part[F], str]:
    """Return the parts that this host lacks, each with what says so.

    Raises BackendError if nobody answers, because the kernel lacks the variant or this process a
    capability that all rules need.
    """
    parts = tuple(wanted)
    found = {
        part: reason for part in parts if (reason := _unknown_to_the_kernel(family, variant, part))
    }
    present = [part for part in parts if part not in found]
    return found | _unknown_to_the_tools(family, variant, present)


def lacking(family: Family, variant: Variant, wanted: Iterable[Part[F]]) -> dict[F, str]:
    """Return the features that this host lacks the parts for, each with the reason.

    Raises BackendError if there can be no forwarding at all.
    """
    found = missing(family, variant, wanted)
    for part, reason in found.items():
        if part.feature is None:
            doing = f"using iptables {variant.value}"
            raise BackendError(doing, f"{reason}; {part.remedy}", transient=False)
    return {part.feature: reason for part, reason in found.items() if part.feature is not None}


def _unknown_to_the_kernel(family: Family, variant: Variant, part: Part[F]) -> str:
    knows = legacy.knows if variant is Variant.LEGACY else nft.knows
    for each in part.extensions:
        if not knows(family, each.name, target=each.kind is ExtensionKind.TARGET):
            return f"the kernel lacks the {each.kind.name.lower()} {each.name}"
    return part.why_unusable(family)


def _unknown_to_the_tools(
    family: Family, variant: Variant, present: list[Part[F]]
) -> dict[Part[F], str]:
    """Return the parts that the program cannot speak of; asks once for all that are matches."""
    matches = [part for part in present if not part.has_target]
    if not tools.why_unknown(family, variant, [word for part in matches for word in part.asking]):
        present = [part for part in present if part.has_target]
    found = {part: tools.why_unknown(family, variant, list(part.asking)) for part in present}
    return {part: reason for part, reason in found.items() if reason}
