r"""Sums, products and logarithms in twice the working precision.

Everything the hard concrete distribution returns is a sigmoid of

    t = (log u - log(1-u) + log alpha) / beta      or      t = beta log(a/b) - log alpha,

and sigmoid(t) turns an *absolute* error of t into a *relative* error of its small tail. Where the
two terms of t cancel (log u = -36, log alpha = 36), a plain difference keeps an absolute error of
36 eps, and a small beta multiplies it. So t is formed here in twice the precision it is wanted in,
and rounded once.

For float32 that is float64. For float64 it is a pair (hi, lo) whose exact sum is meant, |lo| <=
ulp(hi)/2: Dekker's double-double numbers (T. J. Dekker, *A floating-point technique for extending
the available precision*, Numer. Math. 18, 1971).
"""

from __future__ import annotations

import functools
from decimal import Context, Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

_LOG_TABLE_SIZE = 128


class Pair(NamedTuple):
    """An unevaluated sum hi + lo; lo is rounding-error sized."""

    hi: Float64Array
    lo: Float64Array


def two_sum(a: Float64Array, b: Float64Array) -> Pair:
    """a + b exactly, as the rounded sum and what rounding lost (Knuth)."""
    hi = a + b
    b_seen = hi - a
    return Pair(hi, (a - (hi - b_seen)) + (b - b_seen))


def two_product(a: Float64Array, b: Float64Array) -> Pair:
    """a * b exactly, as the rounded product and what rounding lost (Dekker, Veltkamp)."""
    hi = a * b
    a_top, a_rest = _halves(a)
    b_top, b_rest = _halves(b)
    return Pair(hi, ((a_top * b_top - hi) + a_top * b_rest + a_rest * b_top) + a_rest * b_rest)


def _halves(a: Float64Array) -> tuple[Float64Array, Float64Array]:
    shifted = (
        134217729.0 * a
    )  # 2**27 + 1: both halves have at most 26 bits, so their products are exact
    top = shifted - (shifted - a)
    return top, a - top


def add(x: Pair, y: Pair) -> Pair:
    """x + y to about 2^-100 of the larger."""
    s = two_sum(x.hi, y.hi)
    return _renormalise(s.hi, s.lo + (x.lo + y.lo))


def scale(x: Pair, factor: Float64Array) -> Pair:
    """x * factor."""
    p = two_product(x.hi, factor)
    return _renormalise(p.hi, p.lo + x.lo * factor)


def divide(x: Pair, y: Pair) -> Pair:
    """x / y: the rounded quotient, and the remainder over y."""
    hi = x.hi / y.hi
    back = two_product(hi, y.hi)
    remainder = (x.hi - back.hi) - back.lo + x.lo - hi * y.lo
    return _renormalise(hi, remainder / y.hi)


def _renormalise(hi: Float64Array, lo: Float64Array) -> Pair:
    # Infinities are legal operands, and their error terms are inf - inf: nothing was lost there.
    lo = np.where(np.isfinite(lo), lo, 0.0)
    total = hi + lo
    with np.errstate(invalid="ignore"):
        rest = lo - (total - hi)
    return Pair(total, np.where(np.isfinite(rest), rest, 0.0))


@functools.cache
def _log_table() -> Pair:
    """log((1 + (i + 1/2)/size)/2): the centres of cells of frexp's [1/2, 1); log 2 last."""
    context = Context(prec=45)
    size = _LOG_TABLE_SIZE
    points = [Decimal(2 * size + 2 * i + 1) / Decimal(4 * size) for i in range(size)] + [Decimal(2)]
    logs = [context.ln(p) for p in points]
    hi = [float(value) for value in logs]
    lo = [float(context.subtract(v, Decimal(h))) for v, h in zip(logs, hi, strict=True)]
    return Pair(np.array(hi), np.array(lo))


def log(x: Pair) -> Pair:
    r"""Natural logarithm of x > 0, to an absolute error below :math:`2^{-75}(1 + |\log x|)`.

    With x = m 2^e and c the centre of the table's cell that holds m, and r = (m-c)/(m+c),

    .. math:: \log x = e \log 2 + \log c + 2\,\mathrm{artanh}\, r,
              \quad 2\,\mathrm{artanh}\,r = 2r + 2r(r^2/3 + r^4/5 + r^6/7 + \dots).

    |r| <= 2^-9, so the bracket is below 2^-19 and may be summed in float64: its rounding is 2^-72
    of 2r.
    """
    table = _log_table()
    mantissa, exponent = np.frexp(x.hi)
    regular = (x.hi > 0) & np.isfinite(x.hi)
    mantissa = np.where(regular, mantissa, 0.5)
    e = np.where(regular, exponent, 0).astype(np.float64)
    cell = ((2.0 * mantissa - 1.0) * _LOG_TABLE_SIZE).astype(np.int64)
    c = 0.5 + (cell + 0.5) / (2 * _LOG_TABLE_SIZE)

    r = divide(Pair(mantissa - c, np.zeros_like(c)), two_sum(mantissa, c))
    r2 = r.hi * r.hi
    series = r2 * (1 / 3 + r2 * (1 / 5 + r2 * (1 / 7 + r2 * (1 / 9))))
    artanh = add(r, Pair(r.hi * series, np.zeros_like(c)))

    total = scale(Pair(table.hi[-1], table.lo[-1]), e)
    total = add(total, Pair(table.hi[cell], table.lo[cell]))
    total = add(total, Pair(2 * artanh.hi, 2 * artanh.lo))
    with np.errstate(divide="ignore", invalid="ignore"):
        # log(hi + lo) = log(hi) + lo/hi up to (lo/hi)^2/2 < 2^-107.
        total = add(total, Pair(np.where(regular, x.lo / x.hi, 0.0), np.zeros_like(c)))
        plain = np.log(x.hi)  # 0, infinity, NaN: as NumPy has them
    return Pair(
        np.where(regular, total.hi, plain),
        np.where(regular, total.lo, 0.0),
    )


def exact(x: Float64Array) -> Pair:
    """X as a pair."""
    return Pair(x, np.zeros_like(x))
