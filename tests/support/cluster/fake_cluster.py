"""A cluster that is the fake API server alone, on a node's own loopback."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.support.fake_api.resources import NAME_OF
from tests.support.fake_api.server import FakeApi
from tests.support.net.namespace import Namespace
from tests.support.packets.objects import ApiObject


class FakeCluster:
    """What both kproxy and the real kube-proxy follow alike. A context manager."""

    def __init__(self, node: Namespace, folder: Path) -> None:
        with node.entered():
            self._api = FakeApi()
        self.kubeconfig = self._api.write_kubeconfig(folder / "kubeconfig")

    def apply(self, objects: Iterable[ApiObject]) -> None:
        """Create objects, or replace them."""
        for each in objects:
            self._api.put(NAME_OF[str(each["kind"])], dict(each))

    def close(self) -> None:
        """End the server."""
        self._api.close()

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
