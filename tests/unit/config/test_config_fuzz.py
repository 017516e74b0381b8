"""Damaged configuration files and command lines: read or refused, and never a crash."""

import copy
import random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kproxy.config.loading import ConfigurationError, checked, read_content, to_settings
from kproxy.config.writing import as_yaml
from kproxy.kube_proxy.configuration import load
from kproxy.kube_proxy.flags import UsageError, parse
from kproxy.kube_proxy.table import KUBE_PROXY_FLAGS, WINDOWS_FLAGS
from tests.support.config import strategies
from tests.support.config.samples import HEADER, KUBEADM
from tests.support.effort import examples

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
PIECES = [
    b"\n",
    b"- ",
    b"{",
    b"[",
    b": ",
    b"'",
    b'"',
    b"\x00",
    b"&a ",
    b"*a",
    b"---\n",
    b"\t",
    b"\xff",
]
WILD = [
    *(None, True, -1, 0, 2**31, 2**63, 2**80, 10**60, 1.5, 1e300, "", "x", "0s", "-1h", "\x1b[2J"),
    *([], [None], [[1]], {}, {"a": {}}, {"mode": "ipvs"}, "é\u2028", "9" * 500, ["x"] * 50),
]


def check(data):
    """Load a file and return what is wrong with it; what is written of a good one is as good."""
    lines = complaints(data)
    assert all(line.startswith("file: ") and line.isprintable() for line in lines)
    assert all(len(line) < 400 for line in lines)
    return lines


def complaints(data):
    try:
        loaded = checked(read_content(data), "file")
    except ConfigurationError as error:
        return error.lines
    to_settings(loaded.configuration, "n")
    text = as_yaml(loaded.configuration)
    again = checked(read_content(text.encode()), "file")
    assert as_yaml(again.configuration) == text
    assert again.warnings == ()
    return ()


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_is_read_or_refused(seed):
    chance = random.Random(seed)
    for _ in range(60):
        data = bytearray(KUBEADM.encode())
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    del data[at : at + chance.randint(1, 20)]
                case 1:
                    data[at:at] = chance.choice(PIECES)
                case 2:
                    data[at] = chance.randrange(256)
        check(bytes(data))


def places(section, path=()):
    for name, value in section.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places(value, (*path, name))


@examples(150)
@given(st.data())
def test_any_value_in_any_field_is_read_or_refused_by_name(data):
    fields = copy.deepcopy(yaml.safe_load(KUBEADM))
    path = data.draw(st.sampled_from(list(places(fields))))
    section = fields
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = data.draw(st.sampled_from(WILD))
    lines = check(yaml.safe_dump(fields, allow_unicode=True).encode())
    assert all(line.startswith(f"file: {'.'.join(path)}") for line in lines)


@examples(100)
@given(strategies.configurations())
def test_what_is_written_of_a_good_file_means_the_same(fields):
    check(yaml.safe_dump({**HEADER, **fields}).encode())


@pytest.mark.parametrize(
    "field", ["nodePortAddresses", "featureGates", "mode", "iptables", "bogus"]
)
def test_a_small_text_that_stands_for_millions_of_values_is_refused_at_once(field):
    lines = check(f"{BOMB}{yaml.safe_dump(HEADER)}{field}: *h\n".encode())
    assert len(lines) == 1
    assert "aliases stand for more than" in lines[0]
    small = BOMB.partition("e: ")[0]
    lines = check(f"{small}{yaml.safe_dump(HEADER)}{field}: *d\n".encode())
    assert all(len(line) < 400 for line in lines)


FLAG_WORDS = st.sampled_from(
    [f"--{flag.name}" for flag in KUBE_PROXY_FLAGS] + ["--", "-v", "-h", "-v2", "-vv", "-", ""]
)
LOOSE = st.sampled_from(["x", "0", "1s", "-1", "true", "=", "a=b", "\x1b", "é", "9" * 200, "1,2"])


@examples(300)
@given(st.lists(FLAG_WORDS | LOOSE | st.builds(lambda f, v: f"{f}={v}", FLAG_WORDS, LOOSE)))
def test_any_words_are_a_command_line_or_one_line_of_an_error(words):
    assert all(line.isprintable() for line in complaints_of(words))


def complaints_of(words):
    try:
        values = parse(words, KUBE_PROXY_FLAGS, WINDOWS_FLAGS).values
        values.pop("config", None)
        as_yaml(load(values).configuration)
    except UsageError as error:
        return (str(error),)
    except ConfigurationError as error:
        return error.lines
    return ()
