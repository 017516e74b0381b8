"""The pages of the metrics server, byte for byte."""

import json
import platform

import pytest
import yaml

from kproxy.run.http.message import Request
from kproxy.run.http.metrics_mux import About, Pages, metrics_mux

STARTED_NS = 1_767_268_800_700_000_000  # 2026-01-01 12:00:00.7 UTC
TEXT = ("Content-Type", "text/plain; charset=utf-8")
NOSNIFF = ("X-Content-Type-Options", "nosniff")
STARTED = ("Process-Start-Time-Unix", "1767268800")
WARNING = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility "
    "guarantees and is for debugging purposes only.\n"
)
FLAGS = {"v": "2", "config": "/a b", "bind-address": ""}
STATUS = {
    "kind": "Statusz",
    "apiVersion": "config.k8s.io/v1beta1",
    "metadata": {"name": "kube-proxy"},
    "startTime": "2026-01-01T12:00:00Z",
    "uptimeSeconds": 3725,
    "binaryVersion": "0.1.0",
    "emulationVersion": "1.37",
    "paths": ["/configz", "/flagz", "/healthz", "/metrics", "/proxyMode"],
}


@pytest.fixture
def ask():
    """Return a function that asks the server for a page."""
    mux = metrics_mux(
        Pages(
            mode="iptables",
            metrics=lambda: ("text/plain; version=0.0.4", b"up 1\n"),
            configuration=lambda: {"kind": "X", "mode": "", "a": [None, True, "<&>\u2028é"]},
            flags=lambda: FLAGS,
            about=About("0.1.0", "1.37", STARTED_NS, lambda: STARTED_NS + 3725 * 10**9),
        )
    )

    def get(path, query="", accept=""):
        answer = mux(Request("GET", path, query, accept))
        return answer.status, answer.headers, answer.body.decode()

    return get


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/healthz", (TEXT, NOSNIFF), "ok"),
        ("/healthz/ping", (TEXT,), "ok"),
        ("/proxyMode", (TEXT, NOSNIFF), "iptables"),
        ("/metrics", (("Content-Type", "text/plain; version=0.0.4"), STARTED), "up 1\n"),
        (
            "/configz",
            (("Content-Type", "application/json"), NOSNIFF),
            '{"kubeproxy.config.k8s.io":{"kind":"X","mode":"",'
            '"a":[null,true,"\\u003c\\u0026\\u003e\\u2028é"]}}',
        ),
        (
            "/flagz",
            (TEXT,),
            f"\nkube-proxy flagz\n{WARNING}bind-address: \nconfig: /a b\nv: 2\n",
        ),
        (
            "/statusz",
            (TEXT,),
            f"\nkube-proxy statusz\n{WARNING}\n"
            "Started: Thu Jan  1 12:00:00 UTC 2026\n"
            "Up: 1 hr 02 min 05 sec\n"
            f"Python version: {platform.python_version()}\n"
            "Binary version: 0.1.0\n"
            "Emulation version: 1.37\n"
            "Paths: /configz /flagz /healthz /metrics /proxyMode\n",
        ),
    ],
)
def test_a_page_is_exactly_this(ask, path, headers, body):
    assert ask(path) == (200, headers, body)


def test_a_crowd_of_scrapers_costs_two_pages_a_second():
    now_ns = STARTED_NS
    made = []

    def metrics():
        made.append(now_ns)
        return "text/plain", b"page %d" % len(made)

    about = About("0.1.0", "1.37", STARTED_NS, lambda: now_ns)
    mux = metrics_mux(Pages("iptables", metrics, dict, dict, about))

    def pages():
        return {mux(Request("GET", "/metrics", "", "")).body for _ in range(100)}

    assert pages() == {b"page 1"}
    now_ns += 499_999_999
    assert pages() == {b"page 1"}
    now_ns += 1
    assert pages() == {b"page 2"}
    now_ns -= 10**12  # somebody turned the clock back
    assert pages() == {b"page 3"}


@pytest.mark.parametrize(
    "path",
    ["/", "/livez", "/readyz", "/healthz/", "/healthz/log", "/metrics/", "*", "/debug/pprof/"],
)
def test_there_is_nothing_else(ask, path):
    assert ask(path) == (404, (TEXT, NOSNIFF), "404 page not found\n")


def test_healthz_says_more_on_demand(ask):
    expected = "[+]ping ok\nhealthz check passed\n"
    assert ask("/healthz", "verbose") == (200, (TEXT, NOSNIFF), expected)
    assert ask("/healthz", "x=verbose")[2] == "ok"


def test_component_slis_count_the_health_checks(ask):
    def numbers():
        status, headers, body = ask("/metrics/slis")
        assert status == 200
        content_type = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
        assert headers == (("Content-Type", content_type), STARTED)
        return [line for line in body.splitlines() if not line.startswith("# HELP")]

    start = [
        "# TYPE process_start_time_seconds gauge",
        "process_start_time_seconds 1.7672688007e+09",
    ]
    assert numbers() == start
    ask("/healthz")
    ask("/healthz", "verbose")
    ask("/healthz/ping")
    assert numbers() == [
        "# TYPE kubernetes_healthcheck gauge",
        'kubernetes_healthcheck{name="ping",type="healthz"} 1.0',
        "# TYPE kubernetes_healthchecks_total counter",
        'kubernetes_healthchecks_total{name="ping",status="success",type="healthz"} 2.0',
        *start,
    ]


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "text/plain",
        "text/*",
        "text/plain;charset=utf-8",
        "text/html, text/plain;q=0.1",
        "application/json, */*;q=0.1",
        "application/json;as=Statusz;v=v9;g=config.k8s.io, text/plain",
        "application/json;as=Statusz;v=v1beta1;g=config.k8s.io;q=0.5, text/plain",
    ],
)
def test_people_get_text(ask, accept):
    assert ask("/statusz", accept=accept) == ask("/statusz")


def wanted(media_type, kind="Statusz", version="v1beta1"):
    return f"{media_type};as={kind};v={version};g=config.k8s.io"


def test_programs_get_an_object_that_they_name(ask):
    status, headers, body = ask("/statusz", accept=wanted("application/json"))
    media_type = "application/json;g=config.k8s.io;v=v1beta1;as=Statusz"
    assert (status, headers) == (200, (("Content-Type", media_type),))
    assert body == json.dumps(STATUS, separators=(",", ":")) + "\n"
    assert ask("/statusz", accept=wanted("*/*")) == (status, headers, body)


def test_programs_get_yaml_too(ask):
    status, headers, body = ask("/flagz", accept=wanted("application/yaml", "Flagz"))
    media_type = "application/yaml;g=config.k8s.io;v=v1beta1;as=Flagz"
    assert (status, headers) == (200, (("Content-Type", media_type),))
    assert yaml.safe_load(body) == {
        "kind": "Flagz",
        "apiVersion": "config.k8s.io/v1beta1",
        "metadata": {"name": "kube-proxy"},
        "flags": FLAGS,
    }


def test_the_old_version_comes_with_a_warning(ask):
    _, headers, body = ask("/flagz", accept=wanted("application/json", "Flagz", "v1alpha1"))
    assert json.loads(body)["apiVersion"] == "config.k8s.io/v1alpha1"
    assert headers[1][0] == "Warning"
    assert headers[1][1].startswith('299 - "')


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "text/html",
        "garbage",
        ";;=,",
        wanted("text/plain"),
        wanted("application/json", "Flagz"),
        wanted("application/json", version="v1"),
        wanted("application/cbor"),
        "application/json;as=Statusz;v=v1beta1",
        "application/json;as=Statusz;v=v1beta1;g=apps",
    ],
)
def test_what_we_do_not_have_is_not_acceptable(ask, accept):
    status, headers, body = ask("/statusz", accept=accept)
    assert (status, headers) == (406, (("Content-Type", "application/json"),))
    message = "only the following media types are accepted: "
    assert json.loads(body) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message + "application/json, application/yaml, text/plain",
        "reason": "NotAcceptable",
        "code": 406,
    }


@pytest.mark.parametrize(
    ("accept", "first"),
    [
        ("text/plain;q=0.1, application/json;as=Flagz;v=v1beta1;g=config.k8s.io;q=0.9", "{"),
        ("text/plain;q=0.9, application/json;as=Flagz;v=v1beta1;g=config.k8s.io;q=0.1", "\n"),
        ("text/plain;q=2, application/json;as=Flagz;v=v1beta1;g=config.k8s.io", "\n"),
        ("text/plain;q=x, application/json;as=Flagz;v=v1beta1;g=config.k8s.io", "{"),
        ("text/plain;q=nan, application/json;as=Flagz;v=v1beta1;g=config.k8s.io", "{"),
    ],
)
def test_the_client_weighs_its_wishes(ask, accept, first):
    assert ask("/flagz", accept=accept)[2].startswith(first)


def test_an_uptime_is_never_negative():
    assert About("", "", STARTED_NS, lambda: STARTED_NS - 10**10).uptime_s == 0
