"""The operator's page: what it points at exists. Its commands run in test_page_commands.py."""

from __future__ import annotations

import re

import pytest

from tests.deploy.shipped import DEPLOY, PAGE

_LINK = re.compile(r"\]\(#([^)]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PATH = re.compile(r"\bdeploy/[\w./+-]+")


def test_every_link_leads_to_a_section():
    page = PAGE.read_text()
    sections = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings(page)}

    links = set(_LINK.findall(page))
    assert links
    assert links <= sections


def test_every_file_that_it_names_is_there():
    page = PAGE.read_text()
    table = page.partition("| here | what |")[2].partition("\n\n")[0]
    firsts = [row.split("|")[1] for row in table.strip().splitlines()[1:]]
    named = {f"deploy/{name}" for cell in firsts for name in re.findall(r"`([^`]+)`", cell)}
    named |= {each.rstrip(".") for each in _PATH.findall(page)}

    assert {"deploy/kustomize/base", "deploy/helm/kproxy"} <= named
    missing = {each for each in named if not (DEPLOY.parent / each).exists()}
    assert missing == set()


@pytest.mark.parametrize(
    "message",
    [
        "a kproxy runs here and would write its rules again: stop it first",
        "cannot be resolved",
        "needs CAP_NET_ADMIN",
        "not available yet in this version",
        "the kernel has not answered for",
        "network namespace; waiting",
    ],
)
def test_what_it_quotes_is_what_kproxy_says(message):
    sources = (
        file for name in ("kproxy", "backends") for file in (DEPLOY.parent / name).rglob("*.py")
    )

    assert message in PAGE.read_text()
    assert any(message in file.read_text() for file in sources)


def headings(page: str) -> list[str]:
    return _HEADING.findall(re.sub(r"```.*?```", "", page, flags=re.DOTALL))
