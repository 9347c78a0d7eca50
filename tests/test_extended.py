"""Twice the working precision: exact transformations in Fractions, the logarithm in mpmath."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from l0ref import _extended as extended
from l0ref._extended import Pair
from tests.mp_reference import mp


def array(*values: float) -> Any:
    return np.array(values)


def value(pair: Pair) -> Fraction:
    return Fraction(pair.hi.item()) + Fraction(pair.lo.item())


# A product's lost part is a double too while nothing overflows or underflows: within 2^+-480.
factors = st.floats(2.0**-480, 2.0**480) | st.floats(-(2.0**480), -(2.0**-480)) | st.just(0.0)
terms = st.floats(-(2.0**1000), 2.0**1000)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Draw hi + lo with |lo| <= ulp(hi)/2, hi within 2^+-300, either sign."""
    hi = (
        draw(st.floats(1, 2)) * 2.0 ** draw(st.integers(-300, 300)) * draw(st.sampled_from((1, -1)))
    )
    lo = draw(st.floats(-0.5, 0.5)) * np.spacing(abs(hi))
    return Pair(array(hi), array(lo))


@given(terms, terms)
@example(1.0, 2.0**-60)
@example(2.0**-60, 1.0)  # the smaller first: where a shorter two-sum fails
@example(1e16, -1e16 + 2)
def test_two_sum_loses_nothing(a: float, b: float) -> None:
    s = extended.two_sum(array(a), array(b))
    assert s.hi == a + b
    assert value(s) == Fraction(a) + Fraction(b)


@given(factors, factors)
@example(1 + 2.0**-52, 1 + 2.0**-52)
@example(float(2**53 - 1), float(2**53 - 1))
def test_two_product_loses_nothing(a: float, b: float) -> None:
    p = extended.two_product(array(a), array(b))
    assert p.hi == a * b
    assert value(p) == Fraction(a) * Fraction(b)


@given(pairs(), pairs(), st.floats(-1e3, 1e3).filter(lambda f: abs(f) > 1e-3))
@example(Pair(array(1.0), array(2.0**-54)), Pair(array(-1.0), array(2.0**-55)), 3.0)
def test_pair_arithmetic_has_a_hundred_bits(x: Pair, y: Pair, factor: float) -> None:
    larger = max(abs(value(x)), abs(value(y)))
    assert abs(value(extended.add(x, y)) - (value(x) + value(y))) <= larger / 2**100
    scaled = value(x) * Fraction(factor)
    assert abs(value(extended.scale(x, array(factor))) - scaled) <= abs(scaled) / 2**100
    ratio = value(x) / value(y)
    assert abs(value(extended.divide(x, y)) - ratio) <= abs(ratio) / 2**100


@given(pairs(), pairs())
def test_results_are_pairs_again(x: Pair, y: Pair) -> None:
    for result in (extended.add(x, y), extended.divide(x, y), extended.scale(x, y.hi)):
        assert np.abs(result.lo) <= np.spacing(np.abs(result.hi)) / 2


def check_log(hi: Any, lo: Any) -> None:
    got = extended.log(Pair(hi, lo))
    assert (np.abs(got.lo) <= np.spacing(np.abs(got.hi)) / 2).all()
    for x, small, a, b in zip(
        hi.tolist(), lo.tolist(), got.hi.tolist(), got.lo.tolist(), strict=True
    ):
        exact = mp.log(mp.mpf(x) + mp.mpf(small))
        assert abs(mp.mpf(a) + mp.mpf(b) - exact) < mp.mpf(2) ** -75 * (1 + abs(exact)), x


def test_log_over_every_double_exponent() -> None:
    rng = np.random.default_rng(1)
    exponents = np.arange(-1022, 1024)
    hi = np.ldexp(rng.uniform(1, 2, exponents.size), exponents)
    check_log(hi, np.zeros_like(hi))
    check_log(hi, rng.uniform(-0.5, 0.5, hi.size) * np.spacing(hi) * (exponents > -900))


def test_log_of_subnormals_and_of_both_ends() -> None:
    tiny = np.ldexp(np.random.default_rng(2).integers(1, 2**51, 200).astype(float), -1074)
    ends = array(5e-324, 1e-323, np.finfo(float).tiny, np.finfo(float).max)
    hi = np.concatenate([tiny, ends])
    check_log(hi, np.zeros_like(hi))


def test_log_near_1_and_at_the_edges_of_the_tables_cells() -> None:
    steps = np.arange(-40, 41) * 2.0**-53
    edges = np.arange(128, 257) / 256.0
    hi = np.concatenate([1 + steps, 1 + 2 * steps, edges, np.nextafter(edges, 0), 3.7 * edges])
    check_log(hi, np.zeros_like(hi))
    lo = np.random.default_rng(3).uniform(-0.5, 0.5, hi.size) * np.spacing(hi)
    check_log(hi, lo)


@given(pairs())
def test_log_of_any_pair(x: Pair) -> None:
    sign = np.sign(x.hi)
    check_log(np.atleast_1d(sign * x.hi).ravel(), np.atleast_1d(sign * x.lo).ravel())


def test_log_of_0_of_infinity_and_of_what_has_none() -> None:
    """As NumPy has them, and without a warning."""
    got = extended.log(extended.exact(array(0.0, np.inf, np.nan, -1.0)))
    np.testing.assert_array_equal(got.hi, [-np.inf, np.inf, np.nan, np.nan])
    np.testing.assert_array_equal(got.lo, np.zeros(4))


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [
        (np.inf, 1.5, np.inf),
        (1.5, -np.inf, -np.inf),
        (np.inf, -np.inf, np.nan),
        (np.nan, 1.0, np.nan),
    ],
)
def test_add_of_infinities_keeps_them(a: float, b: float, total: float) -> None:
    with np.errstate(invalid="ignore"):
        got = extended.add(extended.exact(array(a)), extended.exact(array(b)))
    np.testing.assert_array_equal(got.hi, [total])
    np.testing.assert_array_equal(got.lo, [0.0])


def test_scale_of_infinity() -> None:
    with np.errstate(invalid="ignore"):
        got = extended.scale(extended.exact(array(np.inf, -np.inf)), array(0.3, 2.0))
    np.testing.assert_array_equal(got.hi, [np.inf, -np.inf])
    np.testing.assert_array_equal(got.lo, [0.0, 0.0])


def test_exact_is_the_number_and_nothing_else() -> None:
    pair = extended.exact(array(0.1, -3.0))
    np.testing.assert_array_equal(pair.hi, [0.1, -3.0])
    np.testing.assert_array_equal(pair.lo, [0.0, 0.0])
