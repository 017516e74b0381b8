"""The operator's pages: what they point at exists. Their commands run in test_page_commands.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.shipped import DEPLOY, EBPF_PAGE, IPVS_PAGE, PAGE, PAGES

_LINK = re.compile(r"\]\((\w+\.md)?#([^)]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PATH = re.compile(r"\bdeploy/[\w./+-]+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_section(page):
    links = set(_LINK.findall(page.read_text()))

    assert links
    for file, section in links:
        assert section in sections(page.with_name(file) if file else page), section


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_it_names_is_there(page):
    named = {each.rstrip(".") for each in _PATH.findall(page.read_text())}

    assert {each for each in named if not (DEPLOY.parent / each).exists()} == set()


def test_every_file_that_it_lists_is_there():
    page = PAGE.read_text()
    table = page.partition("| here | what |")[2].partition("\n\n")[0]
    firsts = [row.split("|")[1] for row in table.strip().splitlines()[1:]]
    named = {f"deploy/{name}" for cell in firsts for name in re.findall(r"`([^`]+)`", cell)}

    assert {"deploy/kustomize/base", "deploy/helm/kproxy"} <= named
    missing = {each for each in named if not (DEPLOY.parent / each).exists()}
    assert missing == set()


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (PAGE, "a kproxy runs here and would write its rules again: stop it first"),
        (PAGE, "cannot be resolved"),
        (PAGE, "needs CAP_NET_ADMIN"),
        (PAGE, "not available yet in this version"),
        (PAGE, "the kernel has not answered for"),
        (PAGE, "network namespace; waiting"),
        (PAGE, "is somebody else's, and stays so"),
        (PAGE, "sessionAffinity of local pods and the node itself is"),
        (IPVS_PAGE, "the kernel has no ip_vs"),
        (IPVS_PAGE, "the kernel has no scheduler"),
        (IPVS_PAGE, "the kernel lacks the"),
        (IPVS_PAGE, "rules that name ipsets need CAP_NET_RAW"),
        (IPVS_PAGE, "is somebody else's, and stays so"),
        (IPVS_PAGE, "has this name"),
        (IPVS_PAGE, "objects that kube-proxy left"),
        (IPVS_PAGE, "which served before"),
        (EBPF_PAGE, "it is no BPF file system"),
        (EBPF_PAGE, "mounting a BPF file system"),
        (EBPF_PAGE, "looking for the control group"),
        (EBPF_PAGE, "pods' calls are served by tc, not in their sockets"),
        (EBPF_PAGE, "another program insists on our place"),
        (EBPF_PAGE, "put back"),
        (EBPF_PAGE, "putting our programs back"),
        (EBPF_PAGE, "others changed FORWARD"),
    ],
)
def test_what_it_quotes_is_what_kproxy_says(page, message):
    sources = (
        file for name in ("kproxy", "backends") for file in (DEPLOY.parent / name).rglob("*.py")
    )

    assert message in page.read_text()
    assert any(message in file.read_text() for file in sources)


def sections(page: Path) -> set[str]:
    """Return the names by which links call the sections of a page."""
    text = page.read_text()
    return {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings(text)}


def headings(page: str) -> list[str]:
    return _HEADING.findall(re.sub(r"```.*?```", "", page, flags=re.DOTALL))
