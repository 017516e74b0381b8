"""A folder of manifests, and the command line as a process."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
import yaml

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
