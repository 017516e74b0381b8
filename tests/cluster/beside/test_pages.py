"""What the HTTP servers say is what kube-proxy's say, byte for byte where a program reads it."""

from __future__ import annotations

import json
import re

import pytest

from tests.cluster.beside.asking import ask
from tests.cluster.beside.conftest import HEALTH_CHECK, HEALTH_CHECK_OF_NOBODY

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

HEALTH, METRICS = 10256, 10249
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
MASKED_HEADERS = {"Date", "Process-Start-Time-Unix"}
# Our answer has its length where theirs, being long, comes in pieces of which each has one.
OF_FRAMING = {"Content-Length", "Transfer-Encoding"}

PATHS = (
    (HEALTH, "/healthz"),
    (HEALTH, "/livez"),
    (HEALTH, "/"),
    (HEALTH, "/unknown"),
    (HEALTH, "/healthz/"),
    (HEALTH_CHECK, "/"),
    (HEALTH_CHECK, "/healthz"),
    (HEALTH_CHECK, "/any?path=will&do"),
    (HEALTH_CHECK_OF_NOBODY, "/"),
    (METRICS, "/healthz"),
    (METRICS, "/healthz?verbose"),
    (METRICS, "/healthz/"),
    (METRICS, "/healthz/ping"),
    (METRICS, "/healthz/unknown"),
    (METRICS, "/proxyMode"),
    (METRICS, "/proxyMode/"),
    (METRICS, "/"),
    (METRICS, "//metrics"),
    (METRICS, "/metrics/"),
    (METRICS, "/a/../metrics"),
    (METRICS, "/unknown"),
    (METRICS, "/livez"),
    (METRICS, "/debug/pprof/"),
    (METRICS, "/debug/flags/v"),
)
# Pages whose text is compared in a test of their own.
LONG = (
    (METRICS, "/configz"),
    (METRICS, "/metrics"),
    (METRICS, "/%6detrics"),
    (METRICS, "/metrics/slis"),
    (METRICS, "/statusz"),
    (METRICS, "/flagz"),
)
# Ours: one of kproxy's own, and what kube-proxy had up to 1.36.
OWN_FLAGS = {"take-over", "boot-id-file", "machine-id-file", "ebpf-cgroup", "ebpf-bpffs"}

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_FLAG = re.compile(r"([a-z0-9-]+)[:= ]+(.*)")
_NUMBER = re.compile(r"(?<=[ }])[0-9.e+]+$", re.MULTILINE)


def headers(answer, *, without=()):
    """Return the headers, in any order: it means nothing for different names."""
    masked = {name: "masked" for name in MASKED_HEADERS & dict(answer.headers).keys()}
    return sorted(
        ({**dict(answer.headers), **masked}).items() - {(n, answer.header(n)) for n in without}
    )


def both_say(pair, port, path, **how):
    return ask(pair.theirs, port, path, **how), ask(pair.ours, port, path, **how)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("port", "path"), PATHS)
def test_a_short_page_is_the_same_in_every_byte_but_times(pair, port, path, method):
    theirs, ours = both_say(pair, port, path, method=method)
    times = _TIME.search(theirs.body) is not None
    without = {"Content-Length"} if times or (port, method) == (HEALTH, "HEAD") else set()
    assert ours.status == theirs.status
    assert headers(ours, without=without) == headers(theirs, without=without)
    assert _TIME.sub("time", ours.body) == _TIME.sub("time", theirs.body)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("port", "path"), LONG)
def test_a_long_page_has_the_same_status_and_headers(pair, port, path, method):
    theirs, ours = both_say(pair, port, path, method=method)
    assert ours.status == theirs.status
    assert headers(ours, without=OF_FRAMING) == headers(theirs, without=OF_FRAMING)
    assert bool(ours.body) == bool(theirs.body)


def test_the_configuration_is_the_same(pair):
    theirs, ours = (json.loads(each.body) for each in both_say(pair, METRICS, "/configz"))
    (own,) = ours.values()
    own["clientConnection"]["kubeconfig"] = str(pair.theirs.kubeconfig)
    assert own.pop("kproxy") == {"iptables": {"variant": "nft"}}
    assert ours == theirs


def test_the_flags_are_the_same_but_for_our_own(pair):
    theirs, ours = (flags(each.body) for each in both_say(pair, METRICS, "/flagz"))
    assert ours.keys() - theirs.keys() == OWN_FLAGS
    theirs["config"] = str(pair.ours.config)
    assert {name: ours[name] for name in theirs} == theirs


def flags(page):
    """Return the flags of a page; upstream changes what separates a name from its value."""
    lines = page.partition("purposes only.\n")[2].splitlines()
    found = (_FLAG.fullmatch(line) for line in lines)
    return {match[1]: match[2] for match in found}


def test_the_status_page_has_the_same_lines(pair):
    theirs, ours = both_say(pair, METRICS, "/statusz")
    assert names(ours.body).replace("Python", "Go") == names(theirs.body)
    paths = re.compile(r"^Paths\W+(.*)$", re.MULTILINE)
    assert paths.findall(ours.body) == paths.findall(theirs.body)
    emulated = re.compile(r"^Emulation version\W+(.*)$", re.MULTILINE)
    assert emulated.findall(ours.body) == emulated.findall(theirs.body) == ["1.37"]


def names(page):
    """Return the page with only the words before a value; upstream changes what separates them."""
    head, _, rest = page.partition("Started")
    first = re.compile(r"^([A-Z][a-z]+( version)?)\W.*$", re.MULTILINE)
    return head + first.sub(r"\1", f"Started{rest}")


def test_the_indicators_have_the_same_lines(pair):
    both_say(pair, METRICS, "/healthz")
    theirs, ours = both_say(pair, METRICS, "/metrics/slis")
    assert series(ours.body) == series(theirs.body)


def series(page):
    """Return the lines of a page of metrics without values and help texts."""
    return [_NUMBER.sub("", line) for line in page.splitlines() if not line.startswith("# HELP")]
