"""What can be measured: a part is a file here, and a line below (see `bench.part`)."""

from __future__ import annotations

from bench.part import Part
from bench.parts.bulk import Bulk
from bench.parts.connections import Connections, Requests
from bench.parts.control import Control
from bench.parts.core import Core
from bench.parts.disruption import Disruption
from bench.parts.packets import Packets
from bench.parts.programs import Programs
from bench.parts.sent import SentToKernel

PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Control(),
        SentToKernel(),
        Core(),
        Programs(),
        Packets(),
        Connections(),
        Requests(),
        Bulk(),
        Disruption(),
    )
}
"""In the order in which they are measured: first those that let no other proxy run beside."""
