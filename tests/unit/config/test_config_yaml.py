"""YAML as Kubernetes writes it, and the document of the effective configuration."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kproxy.config.durations import Span
from kproxy.config.fields import Configuration, Iptables, Logging, LogSpan, Mode, Nftables, Own
from kproxy.config.writing import as_document, as_yaml
from kproxy.text.go_yaml import to_yaml
from kproxy.text.yaml import read_yaml

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e30, 1e30)
TEXTS = st.text(max_size=20)
KEYS = TEXTS.filter(lambda text: text != "<<")  # a merge, and no field is called so
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ).filter(lambda value: not contains_list_in_list(value)),
    min_size=1,
    max_size=4,
)


def contains_list_in_list(value):
    """Say whether a value has what no configuration has, and the writer need not know."""
    if isinstance(value, dict):
        return any(map(contains_list_in_list, value.values()))
    if isinstance(value, list):
        return any(isinstance(item, list) and item for item in value) or any(
            map(contains_list_in_list, value)
        )
    return False


@given(DOCUMENTS)
def test_what_is_written_is_read_back(document):
    (read,) = read_yaml(to_yaml(document).encode())
    assert read == document


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", '""'),
        ("plain-text", "plain-text"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("1.2.3.4:80", "1.2.3.4:80"),
        ("::", "'::'"),
        ("[::]:80", "'[::]:80'"),
        ("a: b", "'a: b'"),
        ("it's", "it's"),
        ("a #b", "'a #b'"),
        ("<<", "<<"),
        ("a\u2028b", '"a\\u2028b"'),
        ("'quoted", "'''quoted'"),
        (" a", "' a'"),
        ("y", '"y"'),
        ("NO", '"NO"'),
        ("null", '"null"'),
        ("1.36", '"1.36"'),
        ("1_000", '"1_000"'),
        ("0x1F", '"0x1F"'),
        ("12:30", '"12:30"'),
        ("2026-01-31", '"2026-01-31"'),
        ("a\nb", '"a\\nb"'),
        ("\x1b\t\x1f", '"\\e\\t\\x1F"'),
        ("\ufeff\U0001f600", '"\\uFEFF\\U0001F600"'),
    ],
)
def test_text_is_quoted_as_kubernetes_quotes_it(text, written):
    assert to_yaml({"a": text}) == f"a: {written}\n"


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (5, "5"),
        (0.1, "0.1"),
        (1e-7, "1e-07"),
        (1e20, "1e+20"),
        (-2.5, "-2.5"),
        (1234567.5, "1.2345675e+06"),
    ],
)
def test_a_number_is_written_as_go_writes_it(number, written):
    assert to_yaml({"a": number}) == f"a: {written}\n"


def test_keys_are_sorted():
    assert to_yaml({"b": {"d": 1, "c": 2}, "a": []}) == "a: []\nb:\n  c: 2\n  d: 1\n"


def test_what_nobody_asked_for_is_not_written():
    text = as_yaml(Configuration(port_range="1-2"))
    fields = yaml.safe_load(text)
    assert fields["portRange"] == ""
    assert not {"featureGates", "windowsRunAsService"} & set(fields)
    assert "vmodule" not in fields["logging"]
    assert fields["logging"]["options"]["text"] == {"infoBufferSize": "0"}


@pytest.mark.parametrize("mode", Mode)
def test_masquerade_all_is_written_where_the_mode_takes_it_from(mode):
    every = Configuration(
        mode=mode,
        iptables=Iptables(masquerade_all=True),
        nftables=Nftables(masquerade_all=True),
    )
    document = as_document(every)
    written = [name for name in ("iptables", "nftables") if document[name]["masqueradeAll"]]
    assert written == ["nftables" if mode is Mode.NFTABLES else "iptables"]


def test_a_number_of_nanoseconds_stays_one():
    logging = Logging(flush_frequency=LogSpan(Span(1_500_000_000), as_number=True))
    document = as_document(Configuration(logging=logging))
    assert document["logging"]["flushFrequency"] == 1_500_000_000


def test_the_longest_span_is_written_to_the_nanosecond():
    longest = 2**63 - 1
    logging = Logging(flush_frequency=LogSpan(Span(longest), as_number=True))
    document = as_document(Configuration(logging=logging, config_sync_period_s=Span(longest)))
    assert document["logging"]["flushFrequency"] == longest
    assert document["configSyncPeriod"] == "2562047h47m16.854775807s"


def test_a_default_configuration_needs_no_section_of_ours():
    text = as_yaml(Configuration(kproxy=Own(take_over=True)))
    assert "kproxy" not in yaml.safe_load(text)


def test_our_section_has_only_what_is_special():
    text = as_yaml(Configuration(kproxy=Own(take_over=False)))
    assert yaml.safe_load(text)["kproxy"] == {"takeOver": False}


@pytest.mark.parametrize("mode", Mode)
def test_only_the_section_of_the_mode_keeps_its_periods(mode):
    document = as_document(Configuration(mode=mode))
    kept = {"ipvs": "ipvs", "nftables": "nftables"}.get(mode.value, "iptables")
    periods = {name: document[name]["syncPeriod"] for name in ("iptables", "ipvs", "nftables")}
    assert periods == {**dict.fromkeys(periods, "0s"), kept: "30s"}
