"""The values that a configuration's fields take, as Go and Kubernetes read them.

Every function raises ValueError for a value that upstream refuses, with the reason as its text.
"""

from __future__ import annotations

import enum
import math
import struct
from typing import TypeVar

from kproxy.config.durations import Span, parse_duration
from kproxy.config.fields import Float32, LogSpan, Mode, Quantity
from kproxy.config.quantity import canonical_quantity
from kproxy.config.syntax import JsonFloat
from kproxy.text.go_yaml import number_as_json

# What Go's strings.TrimSpace cuts off; Python's strip() does so with four separators more.
GO_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_FLOAT32_DIGITS = 9  # enough to tell any two of them apart

E = TypeVar("E", bound=enum.Enum)


def read_span(value: object) -> Span:
    """Return a duration such as `1h30m`."""
    if not isinstance(value, str):
        raise ValueError('expected a duration such as "30s"')
    return parse_duration(value)


def read_log_span(value: object) -> LogSpan:
    """Return a duration that may also be a number of nanoseconds."""
    if isinstance(value, str):
        return LogSpan(parse_duration(value))
    number = read_integer(value)
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError('expected a duration such as "30s" or a number of nanoseconds')
    if not -(2**63) <= number < 2**63:
        raise ValueError("longer than 292 years")
    return LogSpan(Span(number), as_number=True)


def read_integer(value: object) -> object:
    """Return a number without decimals as an int, anything else as it is.

    1e3 is 1000 in YAML, which upstream turns into JSON first, and no integer in JSON itself.
    """
    if isinstance(value, JsonFloat):
        return float(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def read_float32(value: object) -> Float32:
    """Return a number as a 32-bit float, by the shortest decimal that stands for it."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("expected a number")
    try:
        narrow: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        narrow = math.inf
    if not math.isfinite(narrow):
        raise ValueError("expected a number that a 32-bit float can hold")
    for digits in range(1, _FLOAT32_DIGITS):
        shortest = float(f"{narrow:.{digits}g}")
        if struct.pack("f", shortest) == struct.pack("f", narrow):
            return Float32(shortest)
    return Float32(float(f"{narrow:.{_FLOAT32_DIGITS}g}"))


def read_quantity(value: object) -> Quantity:
    """Return a Kubernetes quantity, which may be a number and have blanks around it."""
    if isinstance(value, float):
        value = number_as_json(value)
    text = str(value) if isinstance(value, str | int | float) else ""
    return canonical_quantity(text.strip(GO_SPACE))


def plain_node_name(text: str) -> str:
    """Return the name of a node as upstream takes it: no blanks around it, in lower case.

    Go lowers each character alone, whatever follows it, and never makes two of one.
    """
    return "".join(character.lower()[0] for character in text.strip(GO_SPACE))


def read_choice(value: object, kind: type[E]) -> E:
    """Return the member of an enumeration that a text names."""
    names = [member.value for member in kind]
    if value not in names:
        raise ValueError(f"must be one of {', '.join(names)}")
    return kind(value)


def read_mode(value: object) -> Mode:
    """Return the data path that a text names."""
    if value == "kernelspace":
        raise ValueError("is the mode of kube-proxy on Windows, and kproxy runs on Linux only")
    return read_choice(value, Mode)
