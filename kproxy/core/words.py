"""What would be right in place of a wrong value, in words for whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Collection

_LONGEST_QUOTE = 60
_PLACEHOLDER = re.compile(
    r"\{\{|\{%|\$\{|\$\(|\$[A-Za-z_]|<[A-Za-z][^<>]*>|%[A-Za-z_]+%|__[A-Za-z_]+__|@[A-Za-z_]+@"
)
_RENDERED = re.compile(r"\{\{|\{%")
_WITH_PORT = re.compile(r"[0-9.]+:[0-9]+|\[.*\]:[0-9]+")
_TYPES = {
    "int": "a number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "empty",
}
_MISMATCH = re.compile(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
_NO_BLANK = re.compile(r"[A-Za-z]{1,40}:\S.*", re.DOTALL)
_TYPOGRAPHIC = "\u201c\u201d\u201e\u2018\u2019\u201a"
_FLAG = re.compile(r"true|false", re.IGNORECASE)


def quoted(text: str) -> str:
    """Return text from a stranger in quotes, as one short line."""
    return repr(text) if len(text) <= _LONGEST_QUOTE else repr(text[:_LONGEST_QUOTE]) + "…"


def placeholder(value: object) -> str:
    """Return what to say of a value that nothing has filled in yet, "" of any other."""
    if not isinstance(value, str) or not _PLACEHOLDER.search(value):
        return ""
    if _RENDERED.search(value):
        return "is a template that was not rendered; render it first"
    return "looks like a placeholder that nothing filled in"


def mismatch(said: str, value: object) -> str | None:
    """Return msgspec's "Expected `int`, got `str`" in the words of YAML, None if it says else."""
    found = _MISMATCH.fullmatch(said)
    if found is None or not _TYPES.keys() >= set(found.groups()):
        return None
    wanted, got = found.groups()
    why = f"must be {_TYPES[wanted]}"
    if _TYPES[got] != _TYPES[wanted]:
        why += f", and is {_TYPES[got]}"
    elif wanted == "int":
        why = "must be a whole number"
    advice = _instead(wanted, got, value)
    return f"{why}; {advice}" if advice else why


def _instead(wanted: str, got: str, value: object) -> str:
    if unfilled := placeholder(value):
        return f"it {unfilled}"
    if wanted == "str" and got in ("int", "float", "bool"):
        return "put it in quotes"
    if wanted == "array" and got not in ("array", "object", "null"):
        return "put it in [ ]"
    if wanted == "array" and got == "object":
        return "begin each of its entries with `- `"
    if isinstance(value, str):
        plain = value.strip()
        if wanted == "int" and _NUMBER.fullmatch(plain):
            return f"write {int(plain)} without quotes"
        if wanted == "object" and _NO_BLANK.fullmatch(plain):
            return "a colon needs a blank behind it"
        if wanted == "bool" and _FLAG.fullmatch(plain):
            return f"write {plain.lower()} without quotes"
    return ""


def one_of(text: str, allowed: Collection[str]) -> str:
    """Return that a word must be one of some, and which of them was meant if that is plain."""
    *most, last = allowed
    why = f"must be {', '.join(most)} or {last}"
    meant = [word for word in allowed if word.casefold() == text.strip().casefold()]
    return f"{why}; write {meant[0]}" if meant else why


def not_an_address(text: str, *, may_be_none: bool) -> str:
    """Return why a text is no IP address; `may_be_none`: where the word None makes sense."""
    why = "is no IP address"
    if text != text.strip():
        return f"{why}: it has blanks around it"
    if text.strip(_TYPOGRAPHIC) != text:
        return f"{why}: its quotes are those of a text processor"
    if may_be_none and text.casefold() in ("none", "null", "headless"):
        return f"{why}; a headless Service has None"
    if "/" in text:
        return f"{why}: write it without the prefix length"
    if text.startswith("[") and text.endswith("]"):
        return f"{why}: write it without the brackets"
    return f"{why}: write it without the port" if _WITH_PORT.fullmatch(text) else why


def not_a_name(text: str, *, dots: bool) -> str:
    """Return what a name must look like, and one that would do; `dots`: it may have some."""
    if not text:
        return "must be set"
    characters = (
        "lower-case letters, digits, '-' and '.'"
        if dots
        else ("lower-case letters, digits and '-'")
    )
    longest = 253 if dots else 63
    if len(text) > longest:
        return f"must have {longest} characters at most"
    why = f"must be {characters}, with a letter or digit at both ends"
    better = re.sub(r"[^a-z0-9.]+" if dots else r"[^a-z0-9]+", "-", text.lower())
    better = re.sub(r"\.[-.]*", ".", better).strip("-.")
    return f"{why}; {better} would do" if better and not placeholder(text) else why
