"""What can be measured: a part is a file here, and a line below (see `bench.part`)."""

from __future__ import annotations

from bench.part import Part
from bench.parts.bulk import Bulk
from bench.parts.connections import Connections, Requests
from bench.parts.packets import Packets

PARTS: dict[str, Part] = {
    part.name: part for part in (Packets(), Connections(), Requests(), Bulk())
}
