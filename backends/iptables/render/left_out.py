"""Service ports that this host has no match for. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from backends.iptables.render.rules import Feature, Options
from kproxy.core.objects import Protocol
from kproxy.core.table import ServicePort, ServicePortKey

Changed = Mapping[ServicePortKey, ServicePort | None]


class LeftOut:
    """Keeps SCTP away from rules where those cannot name its ports."""

    def __init__(self, options: Options) -> None:
        self._why = options.without.get(Feature.SCTP, "")
        self._keys: set[ServicePortKey] = set()

    def sift(self, service_ports: Changed) -> Changed:
        """Return the changes without what is left out, and note that."""
        if not self._why:
            return service_ports
        for key, entry in service_ports.items():
            if key.protocol is Protocol.SCTP and entry is not None:
                self._keys.add(key)
            else:
                self._keys.discard(key)
        return {k: entry for k, entry in service_ports.items() if k.protocol is not Protocol.SCTP}

    def reasons(self) -> dict[ServicePortKey, str]:
        """Return what is left out, each with the reason."""
        return dict.fromkeys(self._keys, f"left out: {self._why}")
