"""Tests that run in a virtual machine are told as they are: none as passed that did not."""

from __future__ import annotations

import json

import pytest

from tests.support.vm.record import Record

ONE, OTHER, THIRD = "a/test_a.py::test_one[x]", "a/test_a.py::test_one[y]", "a/test_a.py::test_oner"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "record"


@pytest.fixture
def record(file, pytestconfig):
    return Record(file, pytestconfig)


@pytest.fixture
def write(file, pytestconfig):
    def write(name, *phases, outcome="passed"):
        with file.open("a") as out:
            for when in phases:
                report = pytest.TestReport(
                    name, ("a", 1, name), {}, outcome, longrepr="", when=when, sections=[]
                )
                hook = pytestconfig.hook
                entry = hook.pytest_report_to_serializable(config=pytestconfig, report=report)
                out.write(f"{json.dumps(entry)}\n")

    return write


def collect(file, *names):
    with file.open("a") as out:
        out.write(f"{json.dumps({'collected': names})}\n")


def test_before_anything_is_known_nothing_has_ended(file, record):
    record.follow()
    assert not record.has_ended("a")
    file.touch()
    record.follow()
    assert not record.has_ended("a")


def test_a_test_has_ended_with_its_last_phase(file, record, write):
    collect(file, ONE)
    write(ONE, "setup", "call")
    record.follow()
    assert not record.has_ended(ONE)

    write(ONE, "teardown")
    record.follow()
    assert record.has_ended(ONE)
    assert [each.when for each in record.reports(ONE)[ONE]] == ["setup", "call", "teardown"]


def test_a_failure_comes_with_its_outcome(file, record, write):
    collect(file, ONE)
    write(ONE, "setup", outcome="failed")
    write(ONE, "teardown")
    record.follow()
    assert [each.outcome for each in record.reports(ONE)[ONE]] == ["failed", "passed"]


def test_a_name_stands_for_all_its_parameters_and_for_no_longer_name(file, record, write):
    collect(file, ONE, OTHER, THIRD)
    write(ONE, "setup", "call", "teardown")
    record.follow()
    assert not record.has_ended("a/test_a.py::test_one")

    write(OTHER, "setup", "call", "teardown")
    record.follow()
    assert record.has_ended("a/test_a.py::test_one")
    assert set(record.reports("a/test_a.py::test_one")) == {ONE, OTHER}
    assert not record.has_ended("a/test_a.py")


def test_a_name_that_selects_nothing_has_no_reports(file, record):
    collect(file, ONE)
    record.follow()
    assert record.reports("a/test_b.py") == {}


def test_a_line_that_is_being_written_is_taken_when_it_is_whole(file, record, write):
    collect(file, ONE)
    write(ONE, "setup", "call", "teardown")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    record.follow()
    assert not record.has_ended(ONE)

    file.write_bytes(whole)
    record.follow()
    assert record.has_ended(ONE)
