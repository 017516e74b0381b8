"""Values that strangers chose, as short and harmless text for a log or a terminal."""

from __future__ import annotations

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 2


def shown(value: object) -> str:
    """Return a value as short text, "" for None."""
    return "" if value is None else _SHORT.repr(value)


def printable(text: str) -> str:
    """Return `text` with everything escaped that could break a line or a terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )
