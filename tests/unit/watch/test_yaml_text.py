"""What a YAML text means, and what is refused in it."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kproxy.text.utf8 import BadText, Flaw, Place
from kproxy.text.yaml import read_yaml


def one(text: str) -> object:
    values = list(read_yaml(text.encode()))
    assert len(values) == 1
    return values[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80),
        ("-1", -1),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("''", ""),
        ("'80'", "80"),
        ("!!str 80", "80"),
        ("!!int 80", 80),
        ("1.2.3.4", "1.2.3.4"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("089", "089"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T10:00:00Z", "2024-01-01T10:00:00Z"),
        ("-", [None]),
        ("fd00::1", "fd00::1"),
        ("9" * 50, 1e50),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("{80: a, on: b, 2024-01-01: c}", {"80": "a", "on": "b", "2024-01-01": "c"}),
        ("{a: &x {b: 1}, c: *x}", {"a": {"b": 1}, "c": {"b": 1}}),
        ("{<<: {a: 1, b: 1}, b: 2}", {"a": 1, "b": 2}),
        ("{<<: [{a: 1}, {a: 2}], c: 3}", {"a": 1, "c": 3}),
        ("{'<<': 1}", {"<<": 1}),
    ],
)
def test_a_scalar_is_read_as_kubernetes_reads_it(text, value):
    assert one(text) == value


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("a: 1\nb: 2\na: 3\n", (3, 1), "key 'a' is there twice"),
        ("a: 1\n? [b]\n: 2\n", (2, 3), "a key must be text"),
        ("a: *nobody\n", (1, 4), "has no anchor"),
        ("a: &x [*x]\n", (1, 8), "has no anchor"),
        ("a: !!int b\n", (1, 4), "does not fit"),
        ("a: !Ref b\n", (1, 4), "does not fit"),
        ("a: !Ref {b: 1}\n", (1, 4), "not understood"),
        ("a: 1\n<<: 2\n", (2, 5), "takes a mapping"),
        ("<<: {a: 1}\n<<: {b: 1}\n", (2, 1), "twice"),
    ],
)
def test_a_flaw_concerns_its_document_alone(text, place, why):
    before, flaw, after = read_yaml(f"x: 1\n---\n{text}---\ny: 2\n".encode())
    assert (before, after) == ({"x": 1}, {"y": 2})
    assert isinstance(flaw, Flaw)
    assert flaw.place == Place(place[0] + 2, place[1])
    assert why in flaw.why


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        (b"a: 1\nb: [1\n", (3, 1), "flow sequence"),
        (b"a:\n\t- b\n", (2, 1), "holds a tab"),
        (b"a: 1\nb: \x07\n", (2, 4), "control characters"),
        (b"[" * 1_000_000, (1, 201), "nested deeper"),
        (b"- " * 1_000_000, (1, 401), "nested deeper"),
        (b"{a: " * 1_000_000, (1, 801), "nested deeper"),
        (b"a: b: c\n", (1, 5), "not allowed"),
    ],
)
def test_a_syntax_error_has_a_place_and_comes_soon(text, place, why):
    started = time.process_time()
    with pytest.raises(BadText) as caught:
        list(read_yaml(text))
    assert caught.value.place == place
    assert why in caught.value.why
    assert time.process_time() - started < 5


def first_fault(text: str) -> Flaw | BadText:
    try:
        return next(value for value in read_yaml(text.encode()) if isinstance(value, Flaw))
    except BadText as error:
        return error


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("a:\n  b: 1\n\tc: 2\n", (3, 1), "holds a tab"),
        ("a: @b\n", (1, 4), "text that begins with @ must be in quotes"),
        ("a: `b`\n", (1, 4), "text that begins with ` must be in quotes"),
        ("a: b: c\n", (1, 5), "must be in quotes"),
        ("a:\n  b: 1\n c: 2\n", (3, 2), "begin in the same column"),
        ("a: 'b\n", (2, 1), "a quote that nothing closes"),
        ("a: 1\nb\n", (3, 1), "a key without a colon"),
        ("x: {{ .a }}\n", (1, 5), "a template that was not rendered ({{ .a }}); render it first"),
        ("{{- if .a }}\nx: 1\n{{- end }}\n", (1, 2), "not rendered ({{- if .a }})"),
        ("x: 1\n{{ range .a }}\ny: 2\n", (2, 1), "not rendered ({{ range .a }})"),
        ("{% if a %}\nx: 1\n", (1, 2), "not rendered ({% if a %})"),
        ("x: {{ .a }}-{{ .b }}\n", (1, 5), "not rendered ({{ .a }})"),
        ("x: {{ .a }}\ny: b: c\n", (1, 5), "not rendered ({{ .a }})"),
        ("x: {{ " + "a" * 999 + " }}\n", (1, 5), "a…); render it first"),
        ('x: "{{ .a }}"\ny: b: c\n', (2, 5), "mapping values"),
        ("# {{ .a }}\ny: b: c\n", (2, 5), "mapping values"),
    ],
)
def test_an_error_says_what_its_author_most_likely_did(text, place, why):
    found = first_fault(text)
    assert found.place == place
    assert why in found.why
    assert len(found.why) < 300


def test_a_template_of_another_document_is_no_cause():
    first, second = read_yaml(b"x: {{ .a }}\n---\ny: 1\ny: 2\n")
    assert "not rendered" in first.why
    assert second.why == "key 'y' is there twice"


def test_a_missing_line_between_two_objects_is_thought_of():
    (flaw,) = read_yaml(b"apiVersion: v1\nkind: Node\napiVersion: v1\nkind: Node\n")
    assert "`---` between two objects missing?" in flaw.why


def test_thousands_of_flaws_are_explained_in_no_time():
    text = b"".join(b"a: %d\na: 2\n---\n" % i for i in range(20_000))
    started = time.process_time()
    assert sum(isinstance(value, Flaw) for value in read_yaml(text)) == 20_000
    assert time.process_time() - started < 10


def test_aliases_cannot_multiply_without_bound():
    bomb = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"]
    bomb += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)]
    (flaw,) = read_yaml("".join(bomb).encode())
    assert "aliases stand for more" in flaw.why


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.lists(values, min_size=1, max_size=3), st.booleans())
def test_what_was_written_is_what_is_read(documents, flow):
    text = yaml.safe_dump_all(
        documents, explicit_start=True, default_flow_style=flow, default_style='"'
    )
    assert list(read_yaml(text.encode())) == documents
