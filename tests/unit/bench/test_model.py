"""The file of a run: what was written is read again, and what cannot be relied on is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from bench.model import BadResults, Distribution, Limit, Machine, Run, Sample, Writer, read

STARTED = datetime(2026, 11, 29, 10, tzinfo=UTC)
FINISHED = datetime(2026, 11, 29, 10, 5, tzinfo=UTC)
RUN = Run(
    started=STARTED,
    commit="abc123",
    dirty=False,
    preset="quick",
    parameters={"rounds": 3, "who": ["kproxy ebpf"]},
    machine=Machine(cpu="Processor", cores=2, memory_gb=24),
    kernel="6.18.0",
    versions={"kproxy": "0.1.0"},
)
WHERE = {"services": 1_000, "path": "clusterIP, from a pod", "loss": 0.01}
FIGURE = {"part": "connections", "unit": "1/s", "who": "kproxy ebpf", "where": WHERE}
SAMPLE = Sample(**FIGURE, measure="new connections", better="more", round=1, value=12_345.5)
DISTRIBUTION = Distribution(
    **FIGURE, measure="latency", round=1, quantiles=((0.5, 0.12), (0.99, 0.8), (1.0, 0.8))
)
LIMIT = Limit(part="connections", who="kproxy ebpf", where=WHERE, text="the client was the limit")


def replaced(record, **fields):
    """Return a record as JSON, with other fields; None stands for a field that is not there."""
    given = {
        "type": type(record).__name__.lower(),
        "part": "connections",
        "measure": "new connections",
    }
    given |= {"unit": "1/s", "who": "kproxy ebpf", "where": WHERE, "round": 1}
    given |= {"better": "more", "value": 1.0} if isinstance(record, Sample) else {}
    given |= {"quantiles": [[0.5, 1.0]]} if isinstance(record, Distribution) else {}
    return json.dumps(
        {name: value for name, value in (given | fields).items() if value != "absent"}
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


def written(path, *records, end=True):
    with Writer(path, RUN) as writer:
        for record in records:
            writer.add(record)
        if end:
            writer.end(FINISHED, complete=True)
    return path


def test_what_was_written_is_read_again(path):
    results = read(written(path, SAMPLE, DISTRIBUTION, LIMIT))

    assert results.run == RUN
    assert (results.samples, results.distributions) == ((SAMPLE,), (DISTRIBUTION,))
    assert results.limits == (LIMIT,)
    assert results.complete
    assert results.end.finished == FINISHED


def test_each_line_is_json_of_its_own_that_names_its_type(path):
    lines = written(path, SAMPLE, DISTRIBUTION, LIMIT).read_text().splitlines()

    types = [json.loads(line)["type"] for line in lines]
    assert types == ["run", "sample", "distribution", "limit", "end"]


def test_a_record_is_in_the_file_before_the_next_one_is_measured(path):
    with Writer(path, RUN) as writer:
        writer.add(SAMPLE)
        assert read(path).samples == (SAMPLE,)


def test_an_interrupted_run_keeps_what_it_had(path):
    results = read(written(path, SAMPLE, end=False))

    assert results.samples == (SAMPLE,)
    assert not results.complete


def test_a_run_that_says_it_was_interrupted_is_not_complete(path):
    with Writer(path, RUN) as writer:
        writer.end(FINISHED, complete=False)

    assert not read(path).complete


@pytest.mark.parametrize("cut", [1, 2, 20, 150])
def test_a_last_line_that_was_cut_off_is_left_out(path, cut):
    whole = written(path, SAMPLE, DISTRIBUTION, end=False).read_bytes()
    path.write_bytes(whole[:-cut])

    results = read(path)
    assert results.samples == (SAMPLE,)
    assert results.distributions == ((DISTRIBUTION,) if cut == 1 else ())


def test_results_are_never_overwritten(path):
    written(path)

    with pytest.raises(FileExistsError):
        Writer(path, RUN)


def test_the_samples_of_a_figure_stand_by_their_rounds(path):
    other = {"measure": "new connections", "better": "more", "round": 2}
    second = Sample(**FIGURE, **other, value=3.0)
    elsewhere = Sample(**(FIGURE | {"who": "plain routing"}), **other, value=9.0)
    figures = read(written(path, SAMPLE, elsewhere, second)).figures()

    assert [figure.who for figure in figures] == ["kproxy ebpf", "plain routing"]
    assert figures[SAMPLE.figure].values == {1: 12_345.5, 2: 3.0}
    assert figures[SAMPLE.figure].better == "more"


def test_the_usual_quantiles_of_a_distribution_are_figures_too(path):
    figures = read(written(path, DISTRIBUTION)).figures()

    assert {figure.measure: rounds.values for figure, rounds in figures.items()} == {
        "latency, p50": {1: 0.12},
        "latency, p99": {1: 0.8},
    }
    assert {rounds.better for rounds in figures.values()} == {"less"}


def test_the_order_of_where_makes_no_other_figure(path):
    turned = dict(reversed(WHERE.items()))
    again = Sample(
        **(FIGURE | {"where": turned}), measure="new connections", better="more", round=2, value=1
    )

    assert len(read(written(path, SAMPLE, again)).figures()) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (replaced(SAMPLE, value="fast"), "value: Expected `float`, got `str`: 'fast'"),
        (replaced(SAMPLE, value=None), "value: Expected `float`, got `null`: null"),
        (replaced(SAMPLE, better="higher"), "better: Invalid enum value 'higher': 'higher'"),
        (replaced(SAMPLE, value="absent"), "Object missing required field `value`: {"),
        (replaced(SAMPLE, weight=1), "Object contains unknown field `weight`: {"),
        (replaced(SAMPLE, where={"path": None}), "where[...]: Expected `int | float | str`"),
        (replaced(SAMPLE, type="simple"), "type: Invalid value 'simple': 'simple'"),
        (replaced(SAMPLE, type="absent"), "Object missing required field `type`"),
        (
            replaced(DISTRIBUTION, quantiles=[[0.5, 1], [99, 2]]),
            "quantiles[1][0]: Expected `float` <= 1",
        ),
        (
            replaced(DISTRIBUTION, quantiles=[[0.5, 2], [0.9, 1]]),
            "quantiles: do not rise: ((0.5, 2.0)",
        ),
        (replaced(DISTRIBUTION, quantiles=[[0.5, 2], [0.5, 3]]), "quantiles: do not rise"),
        (replaced(DISTRIBUTION, quantiles=[]), "quantiles: do not rise: ()"),
        ("[1]", "Expected `object`, got `array`: [1]"),
        ("", "no JSON: Input data was truncated"),
        ('{"type": "sam', "no JSON: "),
        ("\x1b[31m", "no JSON: "),
        ("[" * 100_000, "no JSON: "),
    ],
)
def test_a_line_that_nobody_can_rely_on_is_refused_with_file_line_field_and_value(path, line, told):
    with written(path, LIMIT, end=False).open("a") as file:
        file.write(line + "\n")

    with pytest.raises(BadResults) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}:3: {told}")
    assert str(refused.value).isprintable(), "it is one line, and harmless to a terminal"


def test_bytes_that_are_no_text_are_refused(path):
    written(path, end=False)
    path.write_bytes(path.read_bytes() + b'{"type": "\xff"}\n')

    with pytest.raises(BadResults, match=":2: no JSON: "):
        read(path)


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ((SAMPLE, SAMPLE), "3: round: 1 is there twice of 'new connections', 'kproxy ebpf'"),
        ((DISTRIBUTION, DISTRIBUTION), "3: round: 1 is there twice of 'latency'"),
        ((RUN,), "2: type: a run is the first line, and no other"),
        (
            (
                SAMPLE,
                Sample(**FIGURE, measure="new connections", better="less", round=2, value=1),
            ),
            "3: better: 'less', but 'more' in an earlier sample",
        ),
        (
            (Sample(**FIGURE, measure="rate", better="more", round=1, value=float("nan")),),
            "2: value: Expected `float`, got `null`",
        ),
    ],
)
def test_what_no_reader_would_take_is_not_written(path, records, told):
    *good, bad = records
    with Writer(path, RUN) as writer:
        for record in good:
            writer.add(record)
        with pytest.raises(BadResults) as refused:
            writer.add(bad)

    assert told in str(refused.value)
    assert len(read(path).samples + read(path).distributions) == len(good), (
        "the file is still whole"
    )


def test_nothing_stands_after_the_end(path):
    with Writer(path, RUN) as writer:
        writer.end(FINISHED, complete=True)
        with pytest.raises(BadResults, match=r"2?3: something stands after the line that ends"):
            writer.add(SAMPLE)


def test_the_first_line_is_a_run(path):
    path.write_text(replaced(SAMPLE) + "\n")

    with pytest.raises(BadResults, match=":1: type: a run is the first line, and no other"):
        read(path)


def test_an_empty_file_holds_no_results(path):
    path.touch()

    with pytest.raises(BadResults, match="is empty"):
        read(path)


def test_a_file_that_is_not_there_is_told_as_such(path):
    with pytest.raises(BadResults, match=r"run\.jsonl: No such file"):
        read(path)
