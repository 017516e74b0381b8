"""Log lines: one for each event, whatever is in it."""

import io
import json
import logging
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.config.fields import LogFormat
from kproxy.proxy.logs import JsonFormatter, TextFormatter, configure, escape


def record(message, *args, level=logging.INFO, error=None, **facts):
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("kproxy", level, "file.py", 1, message, args, exc_info)
    made.created, made.msecs = 1769860800.5, 500.0
    made.__dict__.update(facts)
    return made


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


def test_text_has_time_level_message_and_facts():
    line = TextFormatter().format(record("wrote %d", 3, family="IPv4", why="a b", none=""))
    assert line == '2026-01-31T12:00:00.500Z info    wrote 3  family=IPv4  why="a b"  none=""'


def test_json_has_the_same_as_fields():
    entry = json.loads(JsonFormatter().format(record("wrote %d", 3, family="IPv4", count=2)))
    assert entry == {
        "time": "2026-01-31T12:00:00.500Z",
        "level": "info",
        "message": "wrote 3",
        "family": "IPv4",
        "count": 2,
    }


def test_a_fact_cannot_replace_the_message():
    entry = json.loads(JsonFormatter().format(record("real", level=logging.ERROR, time="x")))
    assert (entry["message"], entry["time_"], entry["level"]) == ("real", "x", "error")


def test_an_exception_is_kept_apart_from_other_lines():
    error = raised(ValueError("bad\x1b[2J\n2026-01-31T12:00:00.500Z info    forged"))
    text = TextFormatter().format(record("failed", error=error))
    head, *rest = text.split("\n")
    assert head.endswith("failed")
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    entry = json.loads(JsonFormatter().format(record("failed", error=error)))
    assert entry["traceback"][0].startswith("Traceback")


@given(st.text(), st.text())
def test_any_message_is_one_printable_line(message, fact):
    made = record("%s", message, name_=fact)
    assert TextFormatter().format(made).isprintable()
    line = JsonFormatter().format(made)
    assert line.isprintable()
    assert line.isascii()
    assert json.loads(line)["message"] == message


def test_escape_shows_control_characters():
    assert escape("a\n\x1b[2Jé") == r"a\n\x1b[2Jé"


@pytest.fixture
def _root_logger_put_back(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_root_logger_put_back")
def test_every_module_logs_through_one_handler():
    stream = io.StringIO()
    configure(LogFormat.TEXT, io.StringIO())
    configure(LogFormat.JSON, stream)
    log = logging.getLogger("kproxy.somewhere")
    log.debug("unseen")
    log.warning("seen", extra={"object": "Service default/web"})
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["object"] == "Service default/web"


@pytest.mark.usefixtures("_root_logger_put_back")
def test_what_libraries_warn_of_is_said_once_and_without_their_files():
    stream = io.StringIO()
    configure(LogFormat.TEXT, stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for text in ("the clock\nis off", "the clock\nis off", "something else"):
            warnings.warn(text, RuntimeWarning, stacklevel=1)
    assert [line.partition("Z ")[2] for line in stream.getvalue().splitlines()] == [
        r"warning RuntimeWarning: the clock\nis off",
        "warning RuntimeWarning: something else",
    ]
