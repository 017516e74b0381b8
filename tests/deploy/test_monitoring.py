"""Alerts and dashboard: they ask for what kproxy tells, and fire when they should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from backends.ebpf.driver import counters as of_ebpf
from backends.ebpf.driver.reasons import REASONS
from backends.iptables.driver.counters import RuleCounts
from backends.ipvs.driver import counters as of_ipvs
from backends.kernel.xtables.tools import Variant
from kproxy.config.fields import Configuration
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Kind
from kproxy.core.settings import Settings
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import BackendError, Sample
from kproxy.ports.source import SourceState, SourceStatus
from kproxy.proxy.startup import metrics_of
from kproxy.run.loop.agent import Ended
from kproxy.run.loop.reconcile import Applied, Step
from kproxy.run.loop.status import FamilyStatus
from kproxy.run.loop.worker import Job, Refused, StaleFlows, Written
from kproxy.run.metrics import Readers
from tests.deploy import promtool
from tests.deploy.desk import block
from tests.deploy.shipped import ALERTS, DASHBOARD, PAGE, Object
from tests.support.commands import output_of
from tests.support.waiting import LONGEST_S

ALERT_TESTS = Path(__file__).with_name("alerts.test.yaml")
FAMILIES = (Family.IPV4, Family.IPV6)

# What Prometheus adds to every series, and what it tells itself.
OF_PROMETHEUS = {"job", "instance"}
NOT_OURS = {"up": OF_PROMETHEUS}

_METRIC = re.compile(r"\b((?:kproxy|kubeproxy|rest_client|process|up)(?:_\w+)?)\b(?:\{([^}]*)\})?")
_MATCHED = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_UNITS = {"short", "s", "cps", "reqps", "bytes", "percentunit"}


def alerts() -> list[Object]:
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]


def panels() -> list[Object]:
    return [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]


def queries() -> dict[str, str]:
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }


EXPRESSIONS = {**{each["alert"]: each["expr"] for each in alerts()}, **queries()}


@pytest.fixture(scope="module")
def told() -> dict[str, set[str]]:
    """The labels of every series that kproxy tells in its modes, by its name."""
    metrics = metrics_of(Configuration(), FAMILIES)
    metrics.watch(
        Readers(
            compiler=Compiler(Settings("node-a"), FAMILIES),
            statuses=lambda: [FamilyStatus(family) for family in FAMILIES],
            source=lambda: [SourceStatus(kind, SourceState.FOLLOWING, 1.0) for kind in Kind],
            probes=lambda: {},
            sync_period_s=30,
        )
    )
    metrics.request("GET", 200, "192.0.2.1:6443", 0.1)
    metrics.took({}, 0.1)
    samples = (*RuleCounts(Variant.NF_TABLES).samples(), *of_virtual_servers(), *of_programs())
    for family in FAMILIES:
        job = Job(TableChanges(family), look=True, takes=True)
        metrics.began(family, job)
        for observed in (True, False):
            applied = Applied(1, (), observed)
            written = Written(applied, False, (), StaleFlows(0, 0.1), samples)
            metrics.done(Ended(family, job, written, 0.1))
        refused = Refused(BackendError("writing", "no", transient=True), Step.WRITE_CHANGE)
        metrics.done(Ended(family, job, refused, 0.1))
    labels: dict[str, set[str]] = {}
    _, page = metrics.expose()
    for metric in text_string_to_metric_families(page.decode()):
        if metric.type == "histogram":  # those without an observation yet
            for end, more in (("bucket", {"le"}), ("sum", set()), ("count", set())):
                labels.setdefault(f"{metric.name}_{end}", set()).update(more)
        for sample in metric.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def of_virtual_servers() -> Iterator[Sample]:
    """Yield a sample of each metric of the ipvs data path."""
    for metric in (of_ipvs.VARIANT, of_ipvs.SERVERS, of_ipvs.DRAINING, of_ipvs.ELEMENTS):
        yield Sample(metric, metric.labels, 1.0)


def of_programs() -> Iterator[Sample]:
    """Yield a sample of each metric of the ebpf data path."""
    for metric in (of_ebpf.OUTCOMES, of_ebpf.FLOWS, of_ebpf.EXPIRED, of_ebpf.ENTRIES, of_ebpf.MOST):
        yield Sample(metric, metric.labels, 1.0)


def test_the_reasons_that_are_asked_for_are_ways_out_of_the_programs():
    wanted = re.findall(r'reason=~\s*"([^"]*)"', EXPRESSIONS["KproxyEbpfDrops"])

    assert wanted
    assert {each for reasons in wanted for each in reasons.split("|")} <= set(REASONS)


def test_whatever_is_asked_for_is_told(told):
    known = {**told, **NOT_OURS}
    for name, expression in EXPRESSIONS.items():
        used = dict(series(expression))
        assert used, f"{name} asks for nothing"
        for metric, matched in used.items():
            assert metric in known, f"{name}: kproxy tells no {metric}"
            assert matched <= known[metric] | OF_PROMETHEUS, f"{name}: {metric}"
        labels = OF_PROMETHEUS.union(*(known[metric] for metric in used))
        assert grouped(expression) <= labels, name


@pytest.mark.cluster
def test_prometheus_accepts_the_rules():
    checked("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS.resolve()))


@pytest.mark.cluster
def test_prometheus_accepts_the_query_of_the_operators_page(tmp_path):
    rule = {"record": "query", "expr": block("promql", "kube_daemonset_status_number_ready")}
    file = tmp_path / "query.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "page", "rules": [rule]}]}))

    checked("check", "rules", str(file))


@pytest.mark.cluster
def test_prometheus_accepts_the_queries_of_the_dashboard(tmp_path):
    """Checked as recording rules: of what Prometheus has, only those can be checked from a file."""
    rules = [
        {
            "record": f"query:{number}",
            "expr": expr.replace("$__rate_interval", "5m").replace("$instance", ".+"),
        }
        for number, expr in enumerate(queries().values())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(rules)} rules found" in checked("check", "rules", str(file))


@pytest.mark.cluster
def test_each_alert_fires_on_its_trouble_and_on_nothing_else():
    checked("test", "rules", str(ALERT_TESTS))

    tried = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    cases = {
        each["name"]: {bool(case["exp_alerts"]) for case in each["alert_rule_test"]}
        for each in tried
    }
    assert cases == {each["alert"]: {False, True} for each in alerts()}


def test_each_alert_leads_to_its_section_of_the_operators_page():
    headings = re.findall(r"^#+ (.+)$", PAGE.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-") for each in headings}

    for alert in alerts():
        page, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert page == "deploy/README.md"
        assert anchor == alert["alert"].lower()
        assert anchor in anchors
        assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_every_panel_says_what_it_shows_of_the_chosen_instances():
    for panel in panels():
        title = panel["title"]
        assert panel["description"].endswith("."), title
        assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS, title
        for target in panel["targets"]:
            metrics = len(list(series(target["expr"])))
            assert target["expr"].count('instance=~"$instance"') == metrics, title


def test_a_panel_of_what_every_process_tells_shows_those_of_kproxy_only():
    """Other jobs may have metrics of these names at an instance of this name."""
    of_all = [each for each in queries().values() if re.search(r"\b(process|rest_client)_", each)]

    assert of_all
    for expression in of_all:
        assert re.search(r" and on \(job, instance\) .*\bkproxy_build_info\b", expression), (
            expression
        )


def test_no_panel_covers_another():
    every = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for place in (each["gridPos"] for each in every)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({each["id"] for each in every}) == len(every)
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))


def series(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric of a PromQL expression with the labels that it is chosen by."""
    for metric, matchers in _METRIC.findall(expression):
        yield metric, set(_MATCHED.findall(matchers))


def grouped(expression: str) -> set[str]:
    """Return the labels that an expression groups or joins by."""
    return {name for each in _GROUPED.findall(expression) for name in re.findall(r"\w+", each)}


def checked(*arguments: str) -> str:
    """Run promtool, which has to be content, and return what it said."""
    return output_of(promtool.find(), *arguments, timeout_s=LONGEST_S)
