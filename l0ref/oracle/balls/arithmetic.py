r"""Numbers that carry two bounds: a proven one on the value, and a likely one on float code.

A `Num` is a ball of Arb (F. Johansson, *Arb: efficient arbitrary-precision midpoint-radius interval
arithmetic*, IEEE Trans. Computers 2017), within which the true value provably lies. Beside it goes
`err`: what ordinary floating-point code, that does these same operations one after the other, may
be off by, in units of the dtype's epsilon, to first order and with all signs against it. So an
expected value and an honest tolerance come out of one computation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from flint import acb, arb, ctx, fmpq

__all__ = [
    "Num",
    "UnprovenError",
    "decimal",
    "exact",
    "exact_decimal",
    "flat",
    "float32",
    "fmap",
    "integral",
    "paired",
    "proven",
]

DIGITS = 25
PRECISIONS = (256, 512, 1024, 2048)
"""Bits that are tried one after the other until all digits are proven."""


class UnprovenError(ArithmeticError):
    """A ball is too wide for what is asked of it."""


class Num:
    """A ball, and what float code may be off by, in epsilons."""

    __slots__ = ("err", "v")

    def __init__(self, v: Any, err: float = 0.0) -> None:
        self.v = v
        self.err = err

    @property
    def size(self) -> float:
        """Absolute value, roughly."""
        return abs(float(self.v))

    # A rounding error is put at one epsilon of the result, twice what IEEE grants the basic ones.

    def __add__(self, other: Num) -> Num:
        if other.v.is_zero():
            return Num(self.v, self.err + other.err)
        if self.v.is_zero():
            return Num(other.v, self.err + other.err)
        v = self.v + other.v
        return Num(v, self.err + other.err + abs(float(v)))

    def __neg__(self) -> Num:
        return Num(-self.v, self.err)

    def __sub__(self, other: Num) -> Num:
        return self + -other

    def __mul__(self, other: Num) -> Num:
        v = self.v * other.v
        return Num(v, self.size * other.err + other.size * self.err + abs(float(v)))

    def __truediv__(self, other: Num) -> Num:
        v = self.v / other.v
        if not v.is_finite():
            raise UnprovenError(f"{self.v} / {other.v}")
        size = abs(float(v))
        return Num(v, self.err / other.size + size * other.err / other.size + size)

    def exp(self) -> Num:
        """e^x."""
        v = self.v.exp()
        return Num(v, abs(float(v)) * (self.err + 1))

    def log(self) -> Num:
        """Natural logarithm."""
        v = self.v.log()
        if not v.is_finite():
            raise UnprovenError(f"log of {self.v}")
        return Num(v, self.err / self.size + abs(float(v)))

    def log1p(self) -> Num:
        """log(1 + x)."""
        v = self.v.log1p()
        if not v.is_finite():
            raise UnprovenError(f"log1p of {self.v}")
        return Num(v, self.err / abs(1 + float(self.v)) + abs(float(v)))

    def sqrt(self) -> Num:
        """Root; that of an exact 0 is an exact 0."""
        if self.v.is_zero():
            return self
        v = self.v.sqrt()
        if not v.is_finite():
            raise UnprovenError(f"root of {self.v}")
        size = float(v)
        return Num(v, self.err / (2 * size) + size)

    def sigmoid(self) -> Num:
        """1 / (1 + e^-x); two roundings, relative to itself in the lower tail."""
        v = 1 / (1 + (-self.v).exp())
        slope = float(v * (1 - v))
        return Num(v, slope * self.err + 2 * abs(float(v)))

    def log_sigmoid(self) -> Num:
        """Log of the sigmoid; what is near 0 may come from a sigmoid near 1."""
        v = -((-self.v).exp().log1p())
        rest = float(1 / (1 + self.v.exp()))
        return Num(v, rest * self.err + 2 * max(abs(float(v)), 1.0))

    # Comparisons are proven or refused.

    def __lt__(self, other: Num) -> bool:
        if self.v < other.v:
            return True
        if self.v >= other.v:
            return False
        raise UnprovenError(f"which is greater, {self.v} or {other.v}?")

    def __gt__(self, other: Num) -> bool:
        return other < self

    def is_zero(self) -> bool:
        """Whether this is 0 and nothing else."""
        return bool(self.v.is_zero())


def float32(value: str | float) -> Fraction:
    """Return the nearest float32 as an exact fraction."""
    (near,) = struct.unpack("<f", struct.pack("<f", float(value)))
    return Fraction(near)


def exact(value: Fraction | int) -> Num:
    """Return an exact number; one that is no binary fraction has an error from the start."""
    value = Fraction(value)
    v = arb(fmpq(value.numerator, value.denominator))
    return Num(v, 0.0 if v.is_exact() else abs(float(value)))


def fmap(function: Callable[[Any], Any], nested: Any) -> Any:
    """Apply to each leaf of nested lists, tuples and dicts."""
    if isinstance(nested, dict):
        return {key: fmap(function, part) for key, part in nested.items()}
    if isinstance(nested, list | tuple):
        return type(nested)(fmap(function, part) for part in nested)
    return function(nested)


def flat(nested: Any) -> list[Any]:
    """Return the leaves of nested lists, in order."""
    return (
        [leaf for part in nested for leaf in flat(part)] if isinstance(nested, list) else [nested]
    )


def paired(function: Callable[..., Any], *nested: Any) -> Any:
    """Apply to the leaves of nested lists of one shape."""
    if isinstance(nested[0], list):
        return [paired(function, *parts) for parts in zip(*nested, strict=True)]
    return function(*nested)


# --- proofs ---


def proven(compute: Callable[[], Any], write: Callable[[Any], Any]) -> Any:
    """Return write(compute()) at the first precision at which neither is refused."""
    before = ctx.prec
    try:
        for precision in PRECISIONS:
            ctx.prec = precision
            try:
                return write(compute())
            except UnprovenError as error:
                refused = error
        raise refused
    finally:
        ctx.prec = before


def exact_decimal(value: Fraction) -> str:
    """Return all digits of a binary fraction, in plain or scientific notation.

    >>> exact_decimal(Fraction(-3, 8)), exact_decimal(Fraction(2, 1))
    ('-0.375', '2')
    """
    twos = value.denominator.bit_length() - 1
    if value.denominator != 1 << twos:
        raise ValueError(f"{value} is no binary fraction")
    return _written(value.numerator * 5**twos, -twos)


def _written(mantissa: int, exponent: int) -> str:
    """Write mantissa 10^exponent."""
    sign, digits = "-" if mantissa < 0 else "", str(abs(mantissa))
    point = len(digits) + exponent  # digits before the point
    if -5 < point <= 21:
        if exponent >= 0:
            return sign + digits + "0" * exponent
        digits = digits.rjust(1 - exponent, "0")
        whole, part = digits[:exponent], digits[exponent:].rstrip("0")
        return sign + whole + ("." + part if part else "")
    part = digits[1:].rstrip("0")
    return f"{sign}{digits[0]}{'.' + part if part else ''}e{point - 1:+03d}"


def decimal(ball: Any) -> str:
    """Return 25 significant digits, proven: every number in the ball rounds to them.

    Fewer where the number is exact and has no more.
    """
    if not ball.is_finite():
        raise UnprovenError(f"{ball} is not finite")
    low, high = _fraction(ball.lower()), _fraction(ball.upper())
    if low == high == 0:
        return "0"
    rounded = _rounded(low)
    if rounded != _rounded(high):
        raise UnprovenError(f"{ball} has not {DIGITS} digits")
    mantissa, exponent = rounded
    text = _written(mantissa, exponent)
    if not ball.is_exact() or Fraction(text) != low:
        return _filled(mantissa, exponent)
    return text


def _filled(mantissa: int, exponent: int) -> str:
    """Write all 25 digits, the last of them being 0 or not."""
    sign, digits = "-" if mantissa < 0 else "", str(abs(mantissa))
    point = len(digits) + exponent
    if -5 < point <= 21:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        return f"{sign}{digits[:point]}.{digits[point:]}"
    return f"{sign}{digits[0]}.{digits[1:]}e{point - 1:+03d}"


def _fraction(ball: Any) -> Fraction:
    mantissa, exponent = ball.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _rounded(value: Fraction) -> tuple[int, int]:
    """Return (mantissa of 25 digits, exponent of 10), rounded half to even; (0, 0) for 0."""
    if value == 0:
        return 0, 0
    size = abs(value)
    # An estimate from below of the exponent of the leading digit; set right by the loop.
    bits = size.numerator.bit_length() - size.denominator.bit_length()
    exponent = (bits - 1) * 30103 // 100000 - DIGITS
    while True:
        scaled = size * 10**-exponent if exponent <= 0 else size / 10**exponent
        mantissa = round(scaled)
        if mantissa < 10**DIGITS:
            break
        exponent += 1
    if mantissa < 10 ** (DIGITS - 1):
        raise AssertionError("the estimate was too large")
    return (mantissa if value > 0 else -mantissa), exponent


# --- integrals ---


def integral(function: Callable[[Any], Any], low: Num, high: Num) -> Any:
    """Return the integral, rigorously, of a meromorphic function of a complex ball.

    It is refused if it is wider than 10^-40 of itself.
    """
    value = acb.integral(lambda x, _: function(x), acb(low.v), acb(high.v)).real
    if not value.is_finite():
        raise UnprovenError(f"integral {value}")
    return value
