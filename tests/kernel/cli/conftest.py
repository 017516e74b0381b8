"""The command line in a network namespace of its own."""

import os
import subprocess

import pytest

from tests.support.cli import config, manifests, spawn

__all__ = ["config", "manifests", "spawn"]

_DEADLINE_S = 60


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
