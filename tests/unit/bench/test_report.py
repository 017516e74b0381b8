"""The page of a run: what it shows, and that strangers' names cannot do anything in it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.model import Limit, Sample, Writer
from bench.report.page import page
from bench.report.plots import VARIABLES, curves, dots, style
from bench.report.sections import sections
from tests.support.bench import MACHINE, PROXIES, SPEED, results

EVIL = '<script>alert("1")</script> & $x_1$ \x1b[31m'


class Elements(HTMLParser):
    """Notes the elements of a page, with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for each, attributes in self.found if each == tag]


@pytest.fixture(scope="module")
def run():
    return results(seed=1, rounds=5)


@pytest.fixture(scope="module")
def html(run):
    return page(run)


@pytest.fixture(scope="module")
def elements(html):
    return Elements(html)


def with_samples(run, *samples, limits=()):
    return type(run)(run.run, samples, (), tuple(limits), run.end)


def sample(**fields):
    usual = {"part": "p", "measure": "m", "unit": "1/s", "who": "kproxy ebpf", "where": {}}
    return Sample(**(usual | {"round": 1, "better": "more", "value": 7.0} | fields))


def test_it_needs_no_network_and_no_script(html, elements):
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in elements.found}
    references = [
        value
        for _, attributes in elements.found
        for name, value in attributes.items()
        if name in ("href", "xlink:href", "src")
    ]
    assert references
    assert all(value.startswith("#") for value in references)
    assert not re.search(r"url\((?!#)|@import", html)


def test_every_reference_inside_leads_to_one_element(elements):
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.found:
        target = attributes.get("href") or attributes.get("xlink:href")
        assert target is None or target[1:] in ids


def test_it_says_what_was_measured_on_what(elements):
    for fact in (MACHINE.cpu, "2 cores", "24 GB", "6.18.0", "abc123", "kube-proxy 1.37.1"):
        assert fact in elements.text
    assert "31.0 minutes" in elements.text
    assert "interrupted" not in elements.text


def test_every_sample_is_in_a_table(run, elements):
    cells = elements.text.count(" · ")
    assert len(elements.of("tr")) > len(run.figures())
    assert cells >= sum(len(rounds.values) - 1 for rounds in run.figures().values())


def test_every_plot_says_what_it_shows_and_its_axes_have_names(html):
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    assert len(figures) >= 10
    for figure in figures:
        sentence = re.search(r"<figcaption>(.{40,}\.)</figcaption>", figure)
        assert sentence, figure[:200]
        assert f'aria-label="{sentence[1]}"' in figure
    connections = next(each for each in figures if "connections-new-connections" in each)
    assert ">new connections, 1/s</text>" in connections
    for who in SPEED:
        assert f">{who}</text>" in connections


def test_growth_and_distributions_have_curves(html):
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    growth = [each for each in figures if "What it costs to grow" in each]
    assert {">services (logarithmic)</text>" in each for each in growth} == {True}
    assert len(growth) == 4  # connections, first sync, memory and one change
    spread = [each for each in figures if "is spread" in each]
    assert [">99.9</text>" in each for each in spread] == [True]


@pytest.mark.parametrize(
    ("told", "at_a_glance"), [(("p50",), ["p50"]), (("p50", "p99", "p99.9"), ["p99"])]
)
def test_at_a_glance_a_distribution_has_one_quantile_that_is_told(run, told, at_a_glance):
    samples = [
        sample(measure=f"delay, {quantile}", who=who, value=value, round=number)
        for number in range(5)
        for quantile in told
        for who, value in (("kproxy ebpf", 1.0), ("kproxy iptables-nft", 2.0))
    ]
    overview = page(with_samples(run, *samples)).partition("At a glance")[2].partition("<h2")[0]
    assert re.findall(r">delay, (p[\d.]+)[^<]*</a>", overview) == at_a_glance


def test_a_few_values_have_no_curve_of_their_spread(run):
    few = [
        msgspec.structs.replace(each, quantiles=((0.0, 1.0), (0.5, 2.0), (1.0, 3.0)))
        for each in run.distributions
    ]
    assert any(section.spreadings for section in sections(run))
    assert not any(section.spreadings for section in sections(replace(run, distributions=few)))


def test_no_colour_is_fixed_in_a_plot(html):
    plots = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert set(re.findall(r"var\((--[\w-]+)\)", plots)) <= set(VARIABLES.values())
    assert "var(--ebpf)" in plots
    assert not re.search(r"#[0-9a-f]{6}", plots)
    for variable in VARIABLES.values():
        assert html.count(f"{variable}:") == 2, "one for light, one for dark"


def test_nobody_looks_like_anybody_else():
    assert len({style(who) for who in SPEED}) == len(SPEED)
    kproxy, other = style("kproxy ebpf"), style("kube-proxy ebpf")
    assert (kproxy.colour, kproxy.marker) == (other.colour, other.marker)
    assert kproxy.filled
    assert not other.filled


def test_the_same_run_makes_the_same_page(run):
    packets = [each for each in run.samples if each.measure == "packets"]

    assert page(with_samples(run, *packets)) == page(with_samples(run, *packets))


def test_an_interrupted_run_is_said_to_be_one(run):
    assert "was interrupted" in page(type(run)(run.run, (sample(),)))


def test_a_run_without_a_figure_is_a_page_as_well(run):
    assert "Nothing was measured." in page(type(run)(run.run))


@pytest.mark.parametrize("place", ["part", "measure", "unit", "who", "where", "limit"])
def test_names_from_files_are_text_and_nothing_else(run, place):
    fields = {} if place == "limit" else {place: {"path": EVIL} if place == "where" else EVIL}
    limit = Limit(part="p", who="kproxy ebpf", where={}, text=EVIL)
    other = fields | {"who": "kproxy ipvs"} if place != "who" else {"value": 3.0}
    other |= {"round": 2} if place == "who" else {}
    shown = page(
        with_samples(
            run,
            *(sample(**fields), sample(**other)),
            limits=[limit] if place == "limit" else [],
        )
    )
    elements = Elements(shown)

    assert "\x1b" not in shown
    assert "script" not in {tag for tag, _ in elements.found}
    assert 'alert("1")' in elements.text
    assert "$x_1$" in elements.text or place == "where", "no formula was made of it"


def test_what_limited_a_figure_stands_beside_it(run):
    limit = Limit(part="p", who="kproxy ebpf", where={"path": "a"}, text="the client was slow")
    here, there = sample(where={"path": "a"}), sample(where={"path": "b"})
    (section,) = sections(with_samples(run, here, there, limits=[limit]))

    assert section.limits == (limit,)
    assert {
        dict(row.figure.where)["path"]: row.limits
        for measured in section.measures
        for row in measured.rows
    } == {"a": (1,), "b": ()}
    assert "the client was slow" in page(with_samples(run, here, there, limits=[limit]))


def test_what_was_nothing_for_everyone_is_said_and_not_drawn(run):
    measured = [sample(who=who, value=0.0, measure="lost") for who in PROXIES]
    shown = page(with_samples(run, *measured))

    assert "It was 0 in every round, of everyone." in shown
    assert "<svg" not in shown


@pytest.mark.parametrize(
    ("own", "others", "said"),
    [
        ((1.0, 2.0), (3.0, 4.0), "kproxy ipvs (3.50) is best, kproxy ebpf (1.50) last."),
        ((1.0, 3.0), (2.0, 4.0), "from kproxy ipvs (3) to kproxy ebpf (2); no rank, as intervals"),
        ((1.0,), (2.0,), "from kproxy ipvs (2) to kproxy ebpf (1); no rank, as there was one"),
    ],
)
def test_who_is_best_is_said_where_intervals_do_not_overlap(run, own, others, said):
    rounds = {"kproxy ebpf": own, "kproxy ipvs": others}
    samples = [
        sample(who=who, round=number, value=value)
        for who, values in rounds.items()
        for number, value in enumerate(values)
    ]
    text = Elements(page(with_samples(run, *samples))).text

    assert said in text
    assert ("the one with the last" in text) == ("is best" in said)


def test_sizes_are_drawn_as_curves_and_the_largest_side_by_side(run):
    sizes = [sample(where={"services": size}, value=float(size)) for size in (10, 100, 1_000)]
    (section,) = sections(with_samples(run, *sizes))
    (measured,) = section.measures
    (panel,) = measured.panels
    (curve,) = measured.curves

    assert [row.spread.median for row in panel.rows] == [1_000]
    assert curve.along == "services"
    assert [at for at, _ in curve.lines["kproxy ebpf"]] == [10, 100, 1_000]


def test_the_largest_size_is_the_one_with_most_endpoints_of_all_services(run):
    sizes = ((100, 10), (100, 100), (10_000, 10))
    samples = [
        sample(where={"services": services, "endpoints": endpoints}, value=float(services))
        for services, endpoints in sizes
    ]
    (section,) = sections(with_samples(run, *samples))
    (panel,) = section.measures[0].panels
    assert [row.spread.median for row in panel.rows] == [10_000]
    assert "10,000 services" in panel.title


def test_parts_stand_in_the_order_in_which_they_were_asked_for(run):
    samples = [sample(part=part) for part in ("connections", "control", "another")]
    shown = with_samples(run, *samples)
    asked = msgspec.structs.replace(
        run.run, parameters={"parts": ["control", "core", "connections"]}
    )
    assert [each.part for each in sections(replace(shown, run=asked))] == [
        "control",
        "connections",
        "another",
    ]


@pytest.mark.parametrize("draw", [dots, curves])
def test_titles_beside_each_other_do_not_touch(run, draw):
    title = "NodePort, from outside, to a pod of the node · 10 endpoints · 10,000 services"
    samples = [sample(where={"n": number}, value=float(number)) for number in (1, 2)]
    (section,) = sections(with_samples(run, *samples))
    (measured,) = section.measures
    (panel,) = measured.panels if draw is dots else measured.curves
    drawn = draw("a plot", [replace(panel, title=title)] * 2, "m")
    lines = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert title not in lines
    assert lines.count("NodePort, from outside, to a pod of the node ·") == 2


def test_a_long_name_fits_along_the_axis_that_stands(run):
    samples = [sample(where={"n": number}, value=float(number)) for number in (1, 2)]
    (section,) = sections(with_samples(run, *samples))
    drawn = curves("a plot", section.measures[0].curves, "how many of them there are " * 2)
    assert "how many of them there are how" in re.findall(r"<text[^>]*>([^<]*)</text>", drawn)


def test_the_ratio_is_that_of_the_same_rounds(run):
    ours = [sample(round=number, value=value) for number, value in ((1, 8.0), (2, 40.0))]
    limit = [
        sample(round=number, value=value, who="plain routing")
        for number, value in ((1, 10.0), (2, 50.0))
    ]
    (section,) = sections(with_samples(run, *ours, *limit))

    rows = {row.figure.who: row for row in section.measures[0].rows}
    assert rows["kproxy ebpf"].ratio == pytest.approx(0.8)
    assert rows["plain routing"].ratio is None


def reported(*arguments):
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_the_command_writes_beside_the_file_or_where_it_is_told(run, tmp_path):
    file = tmp_path / "run.jsonl"
    with Writer(file, run.run) as writer:
        writer.add(sample())

    assert reported(file).output == f"{tmp_path / 'run.html'}\n"
    assert reported(file, "--to", tmp_path / "other.html").exit_code == 0
    assert (tmp_path / "other.html").read_text() == (tmp_path / "run.html").read_text()


def test_a_file_that_is_none_is_told_and_writes_nothing(tmp_path):
    (tmp_path / "run.jsonl").write_text("{}\n")
    done = reported(tmp_path / "run.jsonl")

    assert done.exit_code == 1
    assert "run.jsonl:1: " in done.output
    assert not (tmp_path / "run.html").exists()
