"""A folder of manifests and ways to call the command line."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from kproxy.cli.group import main

_DEADLINE_S = 60

OBJECTS = [
    {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node-1"},
        "spec": {"podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.10",
            "clusterIPs": ["10.96.0.10", "fd00:96::10"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "idle", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.11", "ports": [{"port": 53, "protocol": "UDP"}]},
    },
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-4",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.1.0.9"], "nodeName": "node-1"},
            {"addresses": ["10.1.1.10"], "nodeName": "node-2"},
        ],
        "ports": [{"name": "http", "port": 8080}],
    },
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-6",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv6",
        "endpoints": [{"addresses": ["fd00:1::9"], "nodeName": "node-1"}],
        "ports": [{"name": "http", "port": 8080}],
    },
]


@pytest.fixture
def manifests(tmp_path):
    """Return a folder with a Service `shop/web` of two families and `shop/idle` of nobody."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "all.yaml").write_text(yaml.safe_dump_all(OBJECTS))
    return folder


@pytest.fixture
def config(tmp_path):
    """Write a configuration file with these fields and return its path."""

    def write(**fields):
        header = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1"}
        text = json.dumps({**header, "kind": "KubeProxyConfiguration", **fields})
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def invoke():
    """Call the command line in this process."""

    def call(*arguments, stdin=None):
        return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)

    return call


@pytest.fixture
def spawn():
    """Start the command line as a process with pipes; whatever still runs is killed at the end."""
    started = []

    def start(*arguments, prefix=(), **options):
        command = [*prefix, sys.executable, "-m", "kproxy", *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # Python's own buffering is part of what is tested.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        process = subprocess.Popen(command, **{**pipes, **options}, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture(params=["nft", "legacy"])
def variant(request):
    """Run the test with both variants of iptables."""
    return request.param


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Make a network namespace; return the words that run a command in it."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    name = f"kp-cli-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield ("ip", "netns", "exec", name)
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def kproxy(spawn, node):
    """Run a command in the namespace to its end; return exit code, output and errors."""

    def call(*arguments, **options):
        process = spawn(*arguments, prefix=node, **options)
        stdout, stderr = process.communicate(timeout=_DEADLINE_S)
        return process.returncode, stdout.decode(), stderr.decode()

    return call


@pytest.fixture
def rules(node, variant):
    """Return the rules of a family as the save program prints them, without its remarks."""

    def rules(stem="iptables"):
        command = [*node, f"{stem}-{variant}-save"]
        saved = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [line.split(" [0:")[0] for line in saved.splitlines() if line[0] in "*:-"]

    return rules
