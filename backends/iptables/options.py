"""What an operator may choose of the iptables data path."""

from __future__ import annotations

from dataclasses import dataclass

from backends.kernel.xtables.tools import Variant


@dataclass(frozen=True, slots=True)
class IptablesOptions:
    """The options of this data path.

    - `masquerade_bit` is the bit of the packet mark (0..31) that asks for masquerade.
    - `variant` is the one to write rules in; None: the one that the node uses.
    - `take_over`: what kube-proxy left goes once our own rules are in force.
    """

    masquerade_bit: int
    variant: Variant | None
    take_over: bool
