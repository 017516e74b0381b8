"""Go's duration syntax."""

import contextlib
import copy
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.config.durations import Span, format_duration, parse_duration

UNITS_S = {
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 10**3),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("-0", 0),
        ("30s", 30),
        ("15m0s", 900),
        ("1h30m", 5400),
        ("24h0m0s", 86400),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("5.s", 5),
        ("+3ms", 0.003),
        ("-1m", -60),
        ("1m1m", 120),
        ("2562047h47m16.8s", 9223372036.8),
    ],
)
def test_a_duration_is_what_go_makes_of_it(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "s",
        ".s",
        "-",
        "+",
        "1x",
        "1 s",
        " 1s",
        "1s ",
        "1s-1s",
        "1_0s",
        "1e3s",
        "1m 2s",
        "00",
        "٣s",
        "1S",
        "1..5s",
        "2562048h",
        "-9999999h",
        "9" * 99 + "s",
        "1s" * 1000,
    ],
)
def test_what_go_refuses_is_refused(text):
    with pytest.raises(ValueError, match=r"duration|longer"):
        parse_duration(text)


PARTS = st.lists(
    st.tuples(
        st.integers(0, 10**5),
        st.none() | st.integers(0, 10**6).map(str),
        st.sampled_from(sorted(UNITS_S)),
    ),
    min_size=1,
    max_size=5,
)


@given(PARTS, st.sampled_from(["", "-", "+"]))
def test_the_parts_add_up(parts, sign):
    text = sign
    total = Fraction(0)
    for whole, decimals, unit in parts:
        number = f"{whole}" if decimals is None else f"{whole}.{decimals}"
        text += number + unit
        total += Fraction(number) * UNITS_S[unit]
    # Of each part, Go cuts off what is less than a nanosecond.
    total = -total if sign == "-" else total
    read = Fraction(parse_duration(text).nanoseconds, 10**9)
    assert abs(read - total) < len(parts) * UNITS_S["ns"] + abs(total) / 2**50


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (300_000_000, "300ms"),
        (1_500_000_000, "1.5s"),
        (60 * 10**9, "1m0s"),
        (3_600_500_000_000, "1h0m0.5s"),
        (86_400 * 10**9, "24h0m0s"),
        (-5_400_250_000_000, "-1h30m0.25s"),
        (2**63 - 1, "2562047h47m16.854775807s"),
    ],
)
def test_a_span_is_printed_as_go_prints_it(nanoseconds, text):
    assert format_duration(Span(nanoseconds)) == text


def test_less_than_a_nanosecond_is_cut_off():
    assert parse_duration("1.9999999999s") == 1.999999999


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_what_is_printed_is_read_back_to_the_nanosecond(nanoseconds):
    read = parse_duration(format_duration(Span(nanoseconds)))
    assert read.nanoseconds == nanoseconds
    assert read == nanoseconds / 10**9


def test_a_copy_of_a_span_is_as_long():
    again = copy.deepcopy(parse_duration("90s"))
    assert (again, again.nanoseconds) == (90.0, 90 * 10**9)


@given(st.text(alphabet="0123456789.hmsnuµ+-", max_size=20) | st.text(max_size=20))
def test_any_text_is_a_number_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert isinstance(parse_duration(text), float)
