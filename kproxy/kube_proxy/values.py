"""The values that flags take, read as Go's strconv, time, encoding/csv and pflag read them.

Every `read_…` takes the text of one use of a flag and raises ValueError with the reason.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from kproxy.config.checks import split_address_port, with_port
from kproxy.config.fields import LogFormat, LogSpan, VModule
from kproxy.config.quantity import canonical_quantity
from kproxy.config.values import GO_SPACE, read_choice, read_float32, read_span
from kproxy.core.addresses import canonical_address

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INTEGER = re.compile(r"[+-]?[0-9a-zA-Z_]{1,70}")
_OCTAL = re.compile(r"[+-]?0[0-7_]*[0-7]")
_DECIMAL = re.compile(r"[0-9]{1,20}")
_FLOAT = re.compile(r"[0-9a-fA-FxXpP_.+-]{1,70}")
_HEXADECIMAL = re.compile(r"[+-]?0[xX][0-9a-fA-F.]+[pP][+-]?[0-9]{1,5}")  # the exponent must be
_REPORTED_VERSION = re.compile(r"v1\.37\.1(?:[-+].*)?")
_LARGEST_LEVEL = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ValueKind:
    """A type of value: its name in the help, how it is read, and what a second use does."""

    name: str
    read: Callable[[str], object]
    join: Callable[[object, object], object] | None = None


def read_bool(text: str) -> bool:
    """Return what strconv.ParseBool makes of a text."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("must be true or false")


def read_int32(text: str) -> int:
    """Return an integer in Go's notation: 14, 0xe, 0b1110, 0o16 and 016 are the same."""
    try:
        if not _INTEGER.fullmatch(text):
            raise ValueError
        number = int(text, 8) if _OCTAL.fullmatch(text) else int(text, 0)
    except ValueError:
        raise ValueError("must be an integer") from None
    if not -(2**31) <= number < 2**31:
        raise ValueError("must fit into 32 bits")
    return number


def read_level(text: str) -> int:
    """Return the level of a log: decimal digits only."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError("must be a whole number")
    if int(text) > _LARGEST_LEVEL:
        raise ValueError(f"must not be more than {_LARGEST_LEVEL}")
    return int(text)


def read_float(text: str) -> float:
    """Return a finite 32-bit float, in decimal or Go's hexadecimal notation."""
    try:
        if not _FLOAT.fullmatch(text):
            raise ValueError
        number = float.fromhex(text) if _HEXADECIMAL.fullmatch(text) else float(text)
    except (ValueError, OverflowError):
        raise ValueError("must be a number") from None
    return read_float32(number)


def read_list(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated line, which may be quoted as in a CSV file."""
    if not text:
        return ()
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise ValueError(f"not a comma-separated list: {error}") from error
    if not rows:
        raise ValueError("an empty line")
    return tuple(rows[0])


def read_gates(text: str) -> dict[str, bool]:
    """Return `A=true,B=false` as a dict."""
    gates: dict[str, bool] = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError("must be pairs of a name and true or false, such as A=true,B=false")
        gates[name.strip(GO_SPACE)] = read_bool(value.strip(GO_SPACE))
    return gates


def read_vmodule(text: str) -> tuple[VModule, ...]:
    """Return `pattern=2,other=3` as a tuple."""
    items: list[VModule] = []
    for pair in filter(None, text.split(",")):
        pattern, equals, level = pair.partition("=")
        if not pattern or not equals:
            raise ValueError("must be pairs of a pattern and a level, such as a=2,b=3")
        items.append(VModule(file_pattern=pattern, verbosity=read_level(level)))
    return tuple(items)


def read_address(text: str) -> str | None:
    """Return an IP address as it is written; nothing stands for "as it was"."""
    if text:
        canonical_address(text)
    return text or None


def read_address_port(text: str) -> str | None:
    """Return an IP address, alone or with a port, as it is written; nothing: as it was.

    The port of a flag is digits only, that of a file may have a plus.
    """
    if ":+" in text:
        raise ValueError("expected a port of digits only")
    if text:
        split_address_port(with_port(text, 1))
    return text or None


def read_version(text: str) -> bool:
    """Say whether the version is asked for; upstream also lets one name the version to report."""
    if text == "raw" or _REPORTED_VERSION.fullmatch(text):
        return text == "raw"
    return read_bool(text)


def _appended(old: object, new: object) -> object:
    assert isinstance(old, tuple)
    assert isinstance(new, tuple)
    return old + new


def _merged(old: object, new: object) -> object:
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    return {**old, **new}


def _kept(old: object, new: object) -> object:
    return old if new is None else new


BOOL = ValueKind("", read_bool)
STRING = ValueKind("string", str)
INT32 = ValueKind("int32", read_int32)
LEVEL = ValueKind("level", read_level)
FLOAT32 = ValueKind("float32", read_float)
DURATION = ValueKind("duration", read_span)
LOG_SPAN = ValueKind("duration", lambda text: LogSpan(read_span(text)))
QUANTITY = ValueKind("quantity", canonical_quantity)
STRINGS = ValueKind("strings", read_list, _appended)
GATES = ValueKind("mapStringBool", read_gates, _merged)
VMODULE = ValueKind("pattern=N,...", read_vmodule, _appended)
ADDRESS = ValueKind("ip", read_address, _kept)
ADDRESS_PORT = ValueKind("ipport", read_address_port, _kept)
MODE = ValueKind("ProxyMode", str)
LOCAL_MODE = ValueKind("LocalMode", str)
LOG_FORMAT = ValueKind("string", lambda text: read_choice(text, LogFormat))
VERSION = ValueKind("version[=true]", read_version)
