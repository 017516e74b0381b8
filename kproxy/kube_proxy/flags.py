"""Flags as Kubernetes programs take them, which is how the Go package pflag reads them.

`--name=value`, `--name value`, booleans with or without `=true`, `-v 2`, `-v=2` and `-v2`, `_` in
the place of `-`, and `--` before what is no flag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kproxy.config.syntax import shown
from kproxy.kube_proxy.values import ValueKind


class UsageError(Exception):
    """A command line that cannot be read; the text is one line."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    - `setting`: the field of Configuration that it sets, by its path of attributes.
    - `default`: the value where there is no such field.
    - `short`: the letter that stands for it.
    - `bare`: the text that stands for a missing value; empty if a value must follow.
    - `remark`: what is said of it if it is used; such a flag is not in the help.
    """

    name: str
    kind: ValueKind
    help: str = ""
    setting: str = ""
    default: object = ""
    short: str = ""
    bare: str = ""
    remark: str = ""


@dataclass(slots=True)
class Parsed:
    """What a command line says: the value of each flag that was used, and what was no flag."""

    values: dict[str, object] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)


def parse(words: Iterable[str], flags: Iterable[Flag], refused: Mapping[str, str]) -> Parsed:
    """Read a command line. `refused` are flags that exist elsewhere, with the reason.

    Raises UsageError.
    """
    return _Parser(words, flags, refused).parse()


class _Parser:
    def __init__(
        self, words: Iterable[str], flags: Iterable[Flag], refused: Mapping[str, str]
    ) -> None:
        self._left = list(reversed(list(words)))
        self._flags = {flag.name: flag for flag in flags}
        self._letters = {flag.short: flag for flag in self._flags.values() if flag.short}
        self._refused = refused
        self._parsed = Parsed()

    def parse(self) -> Parsed:
        while self._left:
            word = self._left.pop()
            if word == "--":
                self._parsed.arguments += reversed(self._left)
                break
            if word.startswith("--"):
                self._read_long(word)
            elif word.startswith("-") and word != "-":
                self._read_letters(word)
            else:
                self._parsed.arguments.append(word)
        return self._parsed

    def _read_long(self, word: str) -> None:
        given, equals, value = word.removeprefix("--").partition("=")
        name = given.replace("_", "-")
        flag = self._flags.get(name)
        if flag is None:
            self._refuse(word, name)
        elif equals:
            self._take(flag, value)
        else:
            self._take(flag, flag.bare or self._next(f"--{flag.name}"))

    def _refuse(self, word: str, name: str) -> None:
        if not name or name.startswith("-"):
            raise UsageError(f"{shown(word)} is no flag")
        if name in self._refused:
            raise UsageError(f"flag --{name} {self._refused[name]}")
        label = name if name.replace("-", "").isalnum() and name.isascii() else shown(name)
        raise UsageError(f"unknown flag --{label}")

    def _read_letters(self, word: str) -> None:
        letters = word.removeprefix("-")
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._letters.get(letter)
            if flag is None:
                raise UsageError(f"unknown flag {shown(letter)} in {shown(word)}")
            if len(letters) > 1 and letters.startswith("="):
                value, letters = letters[1:], ""
            elif flag.bare:
                value = flag.bare
            else:
                value, letters = letters or self._next(f"-{letter}"), ""
            self._take(flag, value)

    def _next(self, name: str) -> str:
        if not self._left:
            raise UsageError(f"flag {name} needs a value")
        return self._left.pop()

    def _take(self, flag: Flag, text: str) -> None:
        try:
            value = flag.kind.read(text)
        except ValueError as error:
            raise UsageError(f"flag --{flag.name}: {error} (value {shown(text)})") from error
        if flag.kind.join is not None and flag.name in self._parsed.values:
            value = flag.kind.join(self._parsed.values[flag.name], value)
        self._parsed.values[flag.name] = value
