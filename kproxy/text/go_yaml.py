"""Plain values to YAML, byte for byte as Kubernetes writes it.

That is sigs.k8s.io/yaml: keys sorted, lists not indented, text quoted where go-yaml v2 would take
it for something else. Text with line breaks is written in double quotes and long text on one line,
which means the same and looks different from upstream's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

_WORDS = frozenset(
    word
    for each in ("y", "yes", "true", "on", "n", "no", "false", "off", "null")
    for word in (each, each.capitalize(), each.upper())
) | {"", "~"}
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|[1-9][0-9]*|0)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:[Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})?)?"
)
_NOT_FIRST = frozenset("#,[]{}&*!|>'\"%@`")
_LARGEST_INTEGER = 2**64
_ESCAPES = dict(zip('\0\a\b\t\n\v\f\r\x1b"\\', '0abtnvfre"\\', strict=True))
_BREAKS_AND_MARK = (0x2028, 0x2029, 0xFEFF)  # line and paragraph separator, byte order mark


def to_yaml(document: Mapping[str, object]) -> str:
    """Return a document of dict, list, str, int, float, bool and None as YAML."""
    return "\n".join(_mapping(document, "")) + "\n"


def number_as_json(value: float) -> int | float:
    """Return a number as JSON carries it: without decimals if it has none and is not huge."""
    if float(value).is_integer() and -(_LARGEST_INTEGER // 2) <= value < _LARGEST_INTEGER:
        return int(value)
    return value


def _mapping(fields: Mapping[str, object], indent: str) -> Iterator[str]:
    for key in sorted(fields):
        value = fields[key]
        name = f"{indent}{_text(key)}:"
        if isinstance(value, Mapping) and value:
            yield name
            yield from _mapping(value, indent + "  ")
        elif isinstance(value, list) and value:
            yield name
            yield from _sequence(value, indent)
        else:
            yield f"{name} {_scalar(value)}"


def _sequence(items: Sequence[object], indent: str) -> Iterator[str]:
    for item in items:
        if isinstance(item, Mapping) and item:
            first, *others = _mapping(item, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from others
        else:
            yield f"{indent}- {_scalar(item)}"


def _scalar(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float(value)
        case str():
            return _text(value)
        case list():
            return "[]"
        case _:
            return "{}"


def _float(value: float) -> str:
    """Return a float as Go prints it with the verb `g` and the shortest precision."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int), "only finite numbers come here"
    exponent += len(digits) - 1
    if -4 <= exponent < 6:
        return repr(value).removesuffix(".0")
    mantissa = str(digits[0])
    if len(digits) > 1:
        mantissa += "." + "".join(map(str, digits[1:]))
    return f"{'-' * sign}{mantissa}e{exponent:+03d}"


def _text(text: str) -> str:
    if any(not _is_printable(c) for c in text):
        return _double_quoted(text)
    if _reads_as_something_else(text):
        return _double_quoted(text)
    if _is_plain(text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _reads_as_something_else(text: str) -> bool:
    """Say whether go-yaml, or an older reader, would take unquoted text for no text."""
    if text in _WORDS or _SPECIAL_FLOAT.fullmatch(text):
        return True
    if text[0] == ".":
        return _FLOAT.fullmatch(text) is not None
    if text[0] not in "+-0123456789":
        return False
    number = text.replace("_", "")
    if _TIMESTAMP.fullmatch(text) or _BASE_60.fullmatch(text):
        return True
    if _INTEGER.fullmatch(number):
        return _FLOAT.fullmatch(number) is not None or len(number) <= 18
    return _FLOAT.fullmatch(number) is not None and not math.isinf(float(number))


def _is_plain(text: str) -> bool:
    """Say whether text needs no quotes where it stands (yaml_emitter_analyze_scalar)."""
    first = text[0]
    followed_by_space = len(text) == 1 or text[1] == " "
    if first in _NOT_FIRST or (first in "?:-" and followed_by_space):
        return False
    if text.startswith(("---", "...")) or first == " " or text[-1] in " :":
        return False
    return ": " not in text and " #" not in text


def _is_printable(character: str) -> bool:
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF or code in _BREAKS_AND_MARK:
        return False
    return 0x20 <= code <= 0x7E or 0xA0 <= code <= 0xFFFD


def _double_quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return "\\" + _ESCAPES[character]
    if _is_printable(character):
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
