"""A big cluster in a process of its own, so that a client's cost is seen alone."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fake_api.server import FakeApi
from tests.support.fake_api.store import Document

ROOT = Path(__file__).parents[3]
STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class Size:
    """How big the cluster is; a Service has at most 16 endpoints."""

    services: int = 10_000
    endpoints: int = 10


def service(number: int) -> Document:
    """Return a Service as an API server would show it."""
    address = f"10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return {
        "metadata": {
            "name": f"service-{number}",
            "namespace": "default",
            "labels": {"app": f"app-{number}"},
        },
        "spec": {
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
            "selector": {"app": f"app-{number}"},
            "clusterIP": address,
            "clusterIPs": [address],
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
        },
        "status": {"loadBalancer": {}},
    }


def endpoint_slice(number: int, endpoints: int, *, turn: int = 0) -> Document:
    """Return the slice of a Service; every turn its first endpoint has another address."""
    return {
        "metadata": {
            "name": f"service-{number}-x7k2p",
            "namespace": "default",
            "labels": {
                "app": f"app-{number}",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": f"service-{number}",
            },
        },
        "addressType": "IPv4",
        "endpoints": [_endpoint(number, i, turn if i == 0 else 0) for i in range(endpoints)],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    }


def _endpoint(number: int, index: int, turn: int) -> Document:
    place = number * 32 + index + 1 + turn % 2 * 16
    return {
        "addresses": [f"10.{128 + (place >> 16)}.{place >> 8 & 255}.{place & 255}"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": f"node-{place % 100}",
        "targetRef": {
            "kind": "Pod",
            "namespace": "default",
            "name": f"app-{number}-{index}",
            "uid": f"00000000-0000-4000-8000-{place:012d}",
        },
        "zone": f"zone-{place % 3}",
    }


def fill(api: FakeApi, size: Size) -> None:
    """Put the whole cluster into a server."""
    node = {"metadata": {"name": "node-1"}, "spec": {"podCIDRs": ["10.128.0.0/24"]}}
    api.put("nodes", {**node, "status": {"addresses": []}})
    api.put(
        "servicecidrs", {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}
    )
    for start in range(0, size.services, 500):
        numbers = range(start, min(start + 500, size.services))
        api.put("services", *(service(n) for n in numbers))
        api.put("endpointslices", *(endpoint_slice(n, size.endpoints) for n in numbers))
    api.compact()  # what nobody resumes from need not be held


def churn(api: FakeApi, size: Size, *, per_second: int, seconds: float) -> int:
    """Change one endpoint of one slice after the other; return how many changes were made."""
    begin = time.monotonic()
    made = 0
    while (passed := time.monotonic() - begin) < seconds:
        due = int(passed * per_second)
        changes = range(made, due)
        rounds = (divmod(n, size.services) for n in changes)
        slices = (endpoint_slice(n, size.endpoints, turn=r + 1) for r, n in rounds)
        api.put("endpointslices", *slices)
        made = due
        time.sleep(STEP_S)
    return made


class LoadServer:
    """The big cluster, from the outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        told: dict[str, Any] = json.loads(self._line())
        self.url: str = told["url"]
        self.ca_pem: str = told["ca_pem"]
        self.token: str = told["token"]
        self.kubeconfig: str = told["kubeconfig"]

    def begin_churn(self, per_second: int, seconds: float) -> None:
        """Let endpoints change from now on."""
        assert self._process.stdin is not None
        print(json.dumps({"per_second": per_second, "seconds": seconds}), file=self._process.stdin)
        self._process.stdin.flush()

    def end_churn(self) -> int:
        """Wait until the changes are over and return how many there were."""
        made: int = json.loads(self._line())["made"]
        return made

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextlib.contextmanager
def load_server(folder: Path, size: Size) -> Iterator[LoadServer]:
    """Run the big cluster while the block runs; `folder` gets its kubeconfig."""
    command = [sys.executable, "-m", "tests.support.fake_api", str(folder)]
    command += [str(size.services), str(size.endpoints)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            yield LoadServer(process)
        finally:
            process.kill()


def main(arguments: Sequence[str]) -> None:
    """Serve a big cluster; each line on stdin asks for changes, its end ends it all."""
    folder, size = Path(arguments[0]), Size(int(arguments[1]), int(arguments[2]))
    with FakeApi() as api:
        fill(api, size)
        kubeconfig = api.write_kubeconfig(folder / "kubeconfig")
        told = {
            "url": api.url,
            "ca_pem": api.ca_pem.decode(),
            "token": api.token,
            "kubeconfig": str(kubeconfig),
        }
        print(json.dumps(told), flush=True)
        for line in sys.stdin:
            print(json.dumps({"made": churn(api, size, **json.loads(line))}), flush=True)
