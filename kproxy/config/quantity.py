"""Kubernetes quantities, in the form in which Kubernetes itself writes them.

The rules, with their quirks, are those of k8s.io/apimachinery, pkg/api/resource/quantity.go.
"""

from __future__ import annotations

import re
from fractions import Fraction

from kproxy.config.fields import Quantity

_QUANTITY = re.compile(r"([+-]?)0*(\d*)\.?(\d*)([numkMGTPE]?|[KMGTPE]i|[eE][+-]?\d{1,9})", re.ASCII)
_LONGEST = 60
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIXES = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_NANO = -9  # the smallest power of ten; what is less is rounded up
_LARGEST = 2**63 - 1
_DIGITS = 18  # of decimal numbers that Go reads in the fast way, and then keeps as they are written
_BINARY_DIGITS = {"Ki": 11, "Mi": 8, "Gi": 5, "Ti": 2}


def canonical_quantity(text: str) -> Quantity:
    """Return `text` as upstream would write it, for example 1Mi for 1024Ki. Raises ValueError."""
    match = _QUANTITY.fullmatch(text) if 0 < len(text) <= _LONGEST else None
    if match is None:
        raise ValueError('expected a quantity such as 0, 512 or "64Ki"')
    sign, whole, decimals, suffix = match.groups()
    digits = (whole or "0") + decimals
    number = int(digits)
    if number == 0:
        return Quantity("0")
    if suffix in _BINARY[1:]:
        # Upstream keeps what looks canonical as it was written, a plus included.
        if not decimals and len(digits) <= _BINARY_DIGITS.get(suffix, 0) and number % 8:
            return Quantity(text)
        exact = Fraction(number * 1024 ** _BINARY.index(suffix), 10 ** len(decimals))
        return _signed(sign, _binary(exact))
    power = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    scale = power - len(decimals)
    kept = not digits.startswith("0") and not digits.endswith("000") and scale % 3 == 0
    if kept and len(digits) <= _DIGITS and scale >= _NANO:
        return Quantity(text)
    return _signed(sign, _decimal(number, scale, exponential=suffix not in _DECIMAL))


def _signed(sign: str, text: str) -> Quantity:
    return Quantity(f"-{text}" if sign == "-" else text)


def _binary(amount: Fraction) -> str:
    """Return a positive number with a binary suffix, or a decimal one if it is small or broken."""
    amount = min(amount, Fraction(_LARGEST))
    if amount < 1024 or amount.denominator > 1:
        return _decimal(-(-amount * 10**-_NANO // 1), _NANO, exponential=False)
    number, power = amount.numerator, 0
    while number % 1024 == 0:
        number, power = number // 1024, power + 1
    return f"{number}{_BINARY[power]}"


def _decimal(number: int, exponent: int, *, exponential: bool) -> str:
    """Return `number` times a power of ten, with the largest suffix that leaves no fraction."""
    if exponent < _NANO:
        number = -(-number // 10 ** min(_NANO - exponent, _LONGEST))
        exponent = _NANO
    while number % 10 == 0:
        number, exponent = number // 10, exponent + 1
    while exponent % 3:
        number, exponent = number * 10, exponent - 1
    if exponential:
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL_SUFFIXES.get(exponent, '')}"
