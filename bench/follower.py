"""The source and the compiler alone: what it costs to hold a cluster, without a kernel to write.

Started by `bench.api`; reads a kubeconfig, says when the first table is compiled, and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from bench.cluster import NODE_NAME
from kproxy.core.compile import Compiler
from kproxy.core.settings import Settings
from kproxy.node import heap
from kproxy.watch.api.access import Access, connect
from kproxy.watch.api.source import ApiSource

IN_HAND = "in hand"


def main(kubeconfig: str) -> None:
    """Follow until SIGTERM."""
    with heap.loading():
        asyncio.run(_follow(kubeconfig))


async def _follow(kubeconfig: str) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit, 0)
    compiler = Compiler(Settings(NODE_NAME))
    api = connect(Access(kubeconfig=kubeconfig, master=""))
    source = ApiSource(api, node_name=NODE_NAME, log=logging.getLogger("source"))
    ready = False
    async for batch in source.batches():
        compiler.apply(batch)
        if compiler.ready and not ready:
            ready = True
            sys.stderr.write(f"{IN_HAND}\n")
            sys.stderr.flush()
            heap.loaded()


if __name__ == "__main__":
    main(sys.argv[1])
