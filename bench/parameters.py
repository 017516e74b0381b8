"""What a run measures, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple


class Size(NamedTuple):
    """How many Services, with how many endpoints each."""

    services: int
    endpoints: int

    def __str__(self) -> str:
        return f"{self.services}x{self.endpoints}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """All that can be chosen, by the names that options have."""

    parts: tuple[str, ...] = ()
    data_paths: tuple[str, ...] = ("iptables-legacy", "iptables-nft", "ipvs", "ebpf")
    peers: tuple[str, ...] = (
        "routing",
        "straight",
        "kube-proxy-iptables-legacy",
        "kube-proxy-nftables",
    )
    sizes: tuple[Size, ...]
    paths: tuple[str, ...] = ("clusterip", "nodeport", "nodeport-local", "no-service")
    protocols: tuple[str, ...] = ("TCP", "UDP")
    families: tuple[str, ...] = ("IPv4", "IPv6")
    flows: int = 10_000
    packet_size: int = 64
    requests: int
    requests_per_s: int = 1_000
    seconds: float
    repeats: int
    changes: int
    slow_repeats: int

    def document(self) -> Mapping[str, object]:
        """Return what results say of them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "sizes": list(map(str, self.sizes))}


PRESETS = {
    "quick": Parameters(
        data_paths=("iptables-nft", "ipvs", "ebpf"),
        peers=("routing", "straight", "kube-proxy-nftables"),
        sizes=(Size(100, 10),),
        families=("IPv4",),
        requests=200,
        seconds=0.2,
        repeats=3,
        changes=3,
        slow_repeats=1,
    ),
    # `compare` says nothing of what has less than three rounds.
    "full": Parameters(
        sizes=(Size(1, 10), Size(100, 10), Size(100, 100), Size(1_000, 10), Size(10_000, 10)),
        requests=700,
        requests_per_s=2_000,
        seconds=0.25,
        repeats=5,
        changes=3,
        slow_repeats=3,
    ),
}
