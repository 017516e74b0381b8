"""What is in the image, and what is not."""

from __future__ import annotations

import pytest

from backends.ebpf.compiler import request
from kproxy import __version__
from kproxy.core.addresses import Family
from tests.deploy.image.building import ROOT
from tests.deploy.image.pods import Pod
from tests.deploy.pod_template import Container
from tests.support.net.namespace import Namespace

# Building the image from nothing does not count.
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120, func_only=True)]

LARGEST_MB = 180  # it has 170, of which Debian's own image is 77; compressed 58 and 30

_IMPORT_ALL = """
import importlib, pkgutil, sys
import backends, kproxy
for package in (kproxy, backends):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import exec_provider, incluster_config, kube_config
from pyroute2 import IPRoute, IPVS
from backends.kernel.xtables import in_process
assert in_process.available(), "python-iptables does not find its libraries"
"""
_PROGRAMS = """
import pathlib
from backends.ebpf import compiler
from kproxy.core.addresses import Family
for source in sorted(compiler.SOURCES.glob("*.bpf.c")):
    for family in Family:
        print(compiler.load_unit(source, family, cache=pathlib.Path("/nowhere")).name)
"""
_NOT_COMPILED = """
import importlib.util, pathlib, sys
for folder in ("/opt/kproxy/lib/python3.11/site-packages", "/usr/lib/python3.11/asyncio"):
    for source in pathlib.Path(folder).rglob("*.py"):
        compiled = pathlib.Path(importlib.util.cache_from_source(source))
        if not compiled.exists() or compiled.read_bytes()[4] != 1:
            print(source)
"""


@pytest.fixture
def inside(image, tmp_path):
    """A function that runs a command in the image, without any privilege or network."""
    nowhere = Namespace("nowhere")
    pod = Pod(image, tmp_path, host=nowhere, volumes={})

    def run(*argv):
        return pod.run(
            Container(
                name="inside",
                image="kproxy",
                argv=argv,
                env={},
                mounts=(),
                privileged=False,
                capabilities=frozenset({"DAC_READ_SEARCH"}),  # so that find sees everything
                read_only_root=True,
                may_gain_privileges=False,
            )
        )

    yield run
    pod.close()
    nowhere.close()


@pytest.mark.parametrize("name", ["kproxy", "kube-proxy"])
def test_the_program_is_there_under_both_names(inside, name):
    assert __version__ in inside(f"/usr/local/bin/{name}", "--version")


def test_it_tells_its_version_and_what_it_is_made_from(image):
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.base.name"].endswith("debian:12.12-slim")
    assert image.config["Entrypoint"] == ["/usr/local/bin/kproxy"]


def test_all_of_the_program_finds_what_it_imports(inside):
    assert inside("/opt/kproxy/bin/python", "-c", _IMPORT_ALL) == ""


def test_nothing_is_compiled_at_run_time_however_the_files_were_copied(inside):
    assert inside("/opt/kproxy/bin/python", "-c", _NOT_COMPILED) == ""


def test_the_programs_of_ebpf_are_compiled_and_their_compiler_is_not_there(inside):
    compiled = inside("/opt/kproxy/bin/python", "-c", _PROGRAMS).splitlines()
    sources = sorted((ROOT / "ebpf").glob("*.bpf.c"))

    asked = [request(each, family) for each in sources for family in Family]
    assert compiled == [each.name for each in asked]
    unwanted = ("(", "-name", "libLLVM*", "-o", "-name", "libbcc*", "-o", "-name", "clang*", ")")
    assert inside("find", "/usr", "/opt", *unwanted) == ""
    assert inside("sh", "-c", "ls /usr/src") == ""


def test_nobody_but_root_may_change_a_file(inside):
    others = ("(", "!", "-user", "root", "-o", "-perm", "/022", ")")
    assert inside("find", "/", "-xdev", "-type", "f", *others) == ""
    assert inside("find", "/opt", "/usr/local", "-type", "d", *others) == ""


def test_both_variants_of_iptables_are_there_and_no_tools_to_build_or_install_python(inside):
    wanted = [
        f"{stem}-{variant}-{verb}"
        for stem in ("iptables", "ip6tables")
        for variant in ("legacy", "nft")
        for verb in ("restore", "save")
    ]
    unwanted = ("gcc", "cc", "as", "pip", "pip3", "git", "curl", "wget")
    script = 'for each; do command -v "$each" >/dev/null && echo "$each"; done; true'
    assert inside("sh", "-c", script, "sh", *wanted, *unwanted).split() == wanted
    assert inside("find", "/var/lib/apt/lists", "/var/cache/apt", "-type", "f") == ""


def test_it_is_small(inside):
    size_mb = int(inside("du", "-sxm", "/").split()[0])
    assert size_mb <= LARGEST_MB
