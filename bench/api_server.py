"""The fake API server in a process of its own, with the Services that everybody forwards.

Started as `python -m bench.api_server FOLDER SERVICES ENDPOINTS`; takes a command a line on stdin,
answers each by a line, and ends with its input.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cluster import Cluster, Document
from tests.support.fake_api.resources import NAME_OF
from tests.support.fake_api.server import FakeApi

_AT_ONCE = 500
_ROOT = Path(__file__).parents[1]


class ApiServerEnded(Exception):
    """It ended by itself, having said why on standard error."""


class ApiServer:
    """The server from the outside: what it is told to change."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.port: int = self._answer()["port"]

    def kubeconfig(self, port: int) -> Path:
        """Return the file by which it is found on 127.0.0.1 at another port."""
        file = self._folder / f"kubeconfig-{port}"
        if not file.exists():
            self._ask({"do": "kubeconfig", "file": str(file), "port": port})
        return file

    def put(self, *documents: Document) -> float:
        """Create objects, or replace them; return when they were stored, by the monotonic clock."""
        return float(self._ask({"do": "put", "documents": documents})["stored_s"])

    def begin_storm(self, moves: range, *, per_s: int, among: int) -> None:
        """Let endpoints of the first so many Services move in turn, so many a second."""
        asked = {"moves": [moves.start, moves.stop], "per_s": per_s, "among": among}
        self._ask({"do": "storm", **asked})

    def end_storm(self) -> float:
        """Wait until all have moved; return how many a second it became."""
        return float(self._ask({"do": "end storm"})["per_s"])

    def _ask(self, command: Document) -> Document:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(command)}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Document:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ApiServerEnded("the fake API server has ended: see what it said above")
        answer: Document = json.loads(line)
        return answer


@contextlib.contextmanager
def api_server(cluster: Cluster, folder: Path) -> Iterator[ApiServer]:
    """Run the server of a cluster while the body runs; kubeconfigs come into the folder."""
    command = [sys.executable, "-m", "bench.api_server"]
    command += [str(cluster.services), str(cluster.endpoints)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=_ROOT, start_new_session=True, **pipes) as process:
        try:
            yield ApiServer(process, folder)
        finally:
            process.kill()


def main(arguments: Sequence[str]) -> None:
    """Serve until the input ends."""
    services, endpoints = map(int, arguments)
    cluster = Cluster(services, endpoints)
    with FakeApi() as api, ThreadPoolExecutor(1) as beside:
        objects = cluster.objects()
        while some := list(itertools.islice(objects, _AT_ONCE)):
            _put(api, some)
        api.compact()  # nobody resumes from before
        _say({"port": api.port})
        storms: list[Future[float]] = []
        for line in sys.stdin:
            command = json.loads(line)
            match command["do"]:
                case "kubeconfig":
                    api.write_kubeconfig(Path(command["file"]), port=command["port"])
                    _say({})
                case "put":
                    _put(api, command["documents"])
                    _say({"stored_s": time.monotonic()})
                case "storm":
                    storm = _Storm(range(*command["moves"]), command["per_s"], command["among"])
                    storms.append(beside.submit(storm.blow, api, cluster))
                    _say({})
                case "end storm":
                    _say({"per_s": storms.pop().result()})


@dataclass(frozen=True, slots=True)
class _Storm:
    moves: range
    per_s: int
    among: int

    def blow(self, api: FakeApi, cluster: Cluster) -> float:
        """Move endpoints at an even pace; return how many a second it became."""
        began_s = time.monotonic()
        for n, moved in enumerate(self.moves):
            time.sleep(max(0.0, began_s + n / self.per_s - time.monotonic()))
            _put(api, [cluster.endpoint_slice(n % self.among, moved)])
        return len(self.moves) / (time.monotonic() - began_s)


def _put(api: FakeApi, documents: Sequence[Document]) -> None:
    for kind, those in itertools.groupby(documents, key=lambda each: str(each["kind"])):
        api.put(NAME_OF[kind], *those)


def _say(answer: Document) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
