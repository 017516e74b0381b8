"""Threads that are the first to decode something, all at once, in a process that has just begun.

With msgspec 0.22 that ends the process by a signal, unless the decoder was there before.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each child is at its beginning: nothing was decoded yet, and threads take turns all the time.
PROGRAM = """
import os, sys, threading

{imports}

jobs = [{jobs}]
sys.setswitchinterval(1e-7)
for _ in range({children}):
    child = os.fork()
    if not child:
        ready = threading.Barrier(len(jobs))

        def work(job):
            ready.wait()
            job()

        threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        os._exit(0)
    if status := os.waitpid(child, 0)[1]:
        sys.exit(f"ended with {{os.waitstatus_to_exitcode(status)}}")
"""

OBJECTS = """
from kproxy.core.objects import Kind
from kproxy.core.parse import from_json

META = b'{"metadata": {"name": "a", "namespace": "b"}, '
SERVICE = META + b'"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}}'
SLICE = META + b'"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": []}'
NODE = META + b'"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}'
"""
KINDS = {"SERVICE": "SERVICE", "ENDPOINT_SLICE": "SLICE", "NODE": "NODE"}

BYTECODE = """
from backends.ebpf.unit import Unit, decode, encode
from backends.kernel.bpf.maps import Shape
from backends.kernel.bpf.programs import Code

CODE = Code("ingress", 3, 0, bytes(16), {0: "flows"})
KEPT = encode(Unit("tc", "digest", "bcc", {"flows": Shape(1, 4, 4, 1, 0)}, {"ingress": CODE}))
"""

CASES = {
    "objects of the API": (
        OBJECTS,
        "".join(f"lambda: from_json(Kind.{kind}, {text}), " * 2 for kind, text in KINDS.items()),
    ),
    "bytecode": (BYTECODE, "lambda: decode(KEPT), " * 3),
}


@pytest.mark.parametrize("what", CASES)
def test_threads_may_be_the_first_to_decode_at_the_same_time(what):
    imports, jobs = CASES[what]
    program = PROGRAM.format(imports=imports, jobs=jobs, children=100)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
