"""The two places at a device where programs run, and who else may be there."""

from __future__ import annotations

import enum
from typing import NamedTuple

from backends.kernel.bpf.programs import Program


class Side(enum.Enum):
    """Where packets come in, and where they leave. We are first at the one, last at the other."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Programs(NamedTuple):
    """What packets meet at each device, by side."""

    ingress: Program
    egress: Program

    def at(self, side: Side) -> Program:
        """Return the program of a side."""
        return self.ingress if side is Side.INGRESS else self.egress


class Place(enum.Enum):
    """How an attached program stands to those of others."""

    MISSING = "missing"
    OVERTAKEN = "overtaken"
    RIGHT = "right"
