"""Log lines, as text for people or as JSON for machines; one event is one line.

Facts about an event go into `extra`, as in `log.info("applied", extra={"family": "IPv4"})`, and
come out as `family=IPv4` or as a field of the JSON object. Names come from strangers, so control
characters never reach a terminal as they are.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from typing import TextIO

from kproxy.config.fields import LogFormat

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_OWN_FIELDS = ("time", "level", "message", "traceback")
_LEVELS = {"CRITICAL": "error", "WARNING": "warning"}


def configure(style: LogFormat, stream: TextIO, level: int = logging.INFO) -> None:
    """Send this process's log to `stream`, once and for all modules."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if style is LogFormat.JSON else TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    _capture_warnings()


def _capture_warnings() -> None:
    """Log what libraries warn of, each text once: some do so at every connection.

    Where in their files they do is of no use to an operator.
    """
    log = logging.getLogger("py.warnings")
    said: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        del filename, lineno, file, line
        text = f"{category.__name__}: {message}"
        if text not in said:
            said.add(text)
            log.warning("%s", text)

    warnings.showwarning = show


def escape(text: str) -> str:
    """Return `text` as one line in which every character is printable."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z warning  what happened  name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, followed by an indented traceback if the record has an exception."""
        parts = [f"{_time(record)} {_level(record):<7} {escape(record.getMessage())}"]
        parts += [f"{name}={_value(value)}" for name, value in _facts(record).items()]
        line = "  ".join(parts)
        return line + "".join(f"\n    {escape(part)}" for part in _traceback(record))


class JsonFormatter(logging.Formatter):
    """One JSON object with `time`, `level`, `message` and the facts of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as one line of ASCII."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": _level(record),
            "message": record.getMessage(),
        }
        if lines := _traceback(record):
            entry["traceback"] = lines
        for name, value in _facts(record).items():
            entry[f"{name}_" if name in _OWN_FIELDS else name] = value
        return json.dumps(entry, default=str)


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _level(record: logging.LogRecord) -> str:
    return _LEVELS.get(record.levelname, escape(record.levelname.lower()))


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _value(value: object) -> str:
    text = escape(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=') else text


def _traceback(record: logging.LogRecord) -> list[str]:
    if record.exc_info is None or record.exc_info[0] is None:
        return []
    return logging.Formatter().formatException(record.exc_info).splitlines()
