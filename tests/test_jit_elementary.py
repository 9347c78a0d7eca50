"""exp and the log of a ratio, of the kernels, in units of the last place, over every number.

The truth for float32 is NumPy's float64; for float64 it is mpmath, on fewer numbers, and NumPy on
many, whose own error is below 1 unit.
"""

from typing import Any

import mpmath
import numba
import numpy as np
import pytest

from l0ref.jit._compile import kernel, rounded
from l0ref.jit.elementary import add_log_ratio, clipped_exp, exp

DTYPES = (np.float32, np.float64)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
N = 200 if numba.config.DISABLE_JIT else 200_000
ENDS = {np.float32: 87, np.float64: 708}
EXPS = ("exp", "clipped_exp")
every_exp = pytest.mark.parametrize("name", EXPS)


@numba.njit(fastmath={"contract"}, error_model="numpy")  # as kernels are compiled
def exp_each(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = exp(x[i])


@numba.njit(fastmath={"contract"}, error_model="numpy")
def clipped_exp_each(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = clipped_exp(x[i])


@numba.njit(fastmath={"contract"}, error_model="numpy")
def add_log_ratio_each(x: Any, a: Any, b: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = add_log_ratio(x[i], a[i], b[i])


def apply(name: str, *arguments: Any) -> Any:
    each: Any = {"exp": exp_each, "clipped_exp": clipped_exp_each, "log": add_log_ratio_each}[name]
    out = np.empty_like(arguments[0])
    with np.errstate(all="ignore"):
        each(*arguments, out)
    return out


def spacing(truth: Any, dtype: Any) -> Any:
    return np.spacing(np.abs(truth.astype(dtype))).astype(np.float64)


# --- exp ---


def exponents(name: str, dtype: Any, n: int = N) -> Any:
    """Where the result is finite: all of it, subnormal results included; or what is not clipped."""
    rng = np.random.default_rng(5)
    info = np.finfo(dtype)
    lowest = float(np.log(float(info.smallest_subnormal)))
    highest = float(np.log(float(info.max)))
    if name == "clipped_exp":
        lowest, highest = -ENDS[dtype], ENDS[dtype]
    even = rng.uniform(lowest, np.nextafter(highest, 0), n).astype(dtype)
    near = (rng.normal(size=n) * 10.0 ** rng.uniform(-9, 0, n)).astype(dtype)
    return np.concatenate([even, near, [dtype(lowest), info.tiny, -info.tiny]]).astype(dtype)


@every_exp
def test_exp_in_float32_against_float64(name: str) -> None:
    x = exponents(name, np.float32)
    truth = np.exp(x.astype(np.float64))
    error = np.abs(apply(name, x) - truth) / spacing(truth, np.float32)
    assert error.max() < 1.5, (x[error.argmax()], error.max())


@every_exp
def test_exp_in_float64_against_numpy(name: str) -> None:
    x = exponents(name, np.float64)
    truth = np.exp(x)
    error = np.abs(apply(name, x) - truth) / spacing(truth, np.float64)
    assert error.max() < 2.5, (x[error.argmax()], error.max())


@every_dtype
@every_exp
def test_exp_against_mpmath(name: str, dtype: Any) -> None:
    x = exponents(name, dtype, 150)
    got = apply(name, x)
    with mpmath.workdps(40):
        truth = [mpmath.exp(mpmath.mpf(float(a))) for a in x]
        error = [abs(mpmath.mpf(float(a)) - b) for a, b in zip(got, truth, strict=True)]
    unit = spacing(np.array([float(b) for b in truth]), dtype)
    assert max(float(e) / u for e, u in zip(error, unit, strict=True)) < 1.5


@every_dtype
def test_exp_where_it_is_exact_or_no_number(dtype: Any) -> None:
    """As NumPy has it; past the ends of the range, and a step on either side of them too."""
    info, log2 = np.finfo(dtype), float(np.log(2))
    least = float(np.log(float(info.smallest_subnormal))) - log2  # half a unit: exp is 0 below
    most = float(np.log(float(info.max)))
    far = [least * 1.01, least - 1, least - 1000, most * 1.01, most + 1, 1e5, -1e5, info.max]
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -info.max, -info.tiny, *far], dtype=dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(apply("exp", x), np.exp(x))


@every_dtype
def test_a_clipped_exp_stays_at_its_ends(dtype: Any) -> None:
    end = ENDS[dtype]
    beyond = np.array([end, np.nextafter(dtype(end), dtype(np.inf)), end + 1, 1e30, np.inf], dtype)
    for sign in (1, -1):
        got = apply("clipped_exp", sign * beyond)
        assert np.isfinite(got).all()
        assert (got >= np.finfo(dtype).tiny).all()
        np.testing.assert_array_equal(got, got[0])
    np.testing.assert_array_equal(
        apply("clipped_exp", np.array([np.nan, 0, -0.0], dtype)), [np.nan, 1, 1]
    )


# --- the log of a ratio ---


def ratios(dtype: Any, n: int = N) -> Any:
    """a and b: of all sizes, near one another, and a half and 2^32 less a half."""
    rng = np.random.default_rng(6)
    power = 60 if dtype == np.float32 else 500
    a, b = (rng.uniform(1, 2, n) * 2.0 ** rng.integers(-power, power, n) for _ in range(2))
    near = a * (1 + rng.normal(size=n) * 10.0 ** rng.uniform(-7, -0.6, n))
    near = np.where(near > 0, near, a)
    ends = [0.5, 2.0**32, 1.0, 1.0, 3.0, 2.0]
    first, second = np.concatenate([a, a, ends]), np.concatenate([b, near, ends[::-1]])
    return first.astype(dtype), second.astype(dtype)


@every_dtype
def test_the_log_of_a_ratio_against_float64(dtype: Any) -> None:
    """Relative to itself, also where it is small: nothing is lost next to a ratio of 1."""
    a, b = ratios(dtype)
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    more = (wide_a - wide_b) / wide_b
    near = np.log1p(np.clip(more, -0.5, 0.5))
    truth = np.where(abs(more) < 0.5, near, np.log(wide_a / wide_b)).astype(np.float64)
    error = np.abs(apply("log", np.zeros_like(a), a, b) - truth) / spacing(truth, dtype)
    bound = 3 + (dtype == np.float64)  # for the truth's own
    assert error.max() < bound, (a[error.argmax()], b[error.argmax()], error.max())


@every_dtype
def test_what_it_is_added_to_may_cancel_it(dtype: Any) -> None:
    """Then the error is a few eps of what is left, not of what was there."""
    a, b = ratios(dtype, 150)
    eps = float(np.finfo(dtype).eps)
    for left in (-3.0, -0.02, 0.0, 0.4, 11.0):
        x = (left - np.log(a.astype(np.longdouble) / b)).astype(dtype)
        got = apply("log", x, a, b)
        with mpmath.workdps(40):
            for one, x_i, a_i, b_i in zip(got, x, a, b, strict=True):
                truth = mpmath.mpf(float(x_i)) + mpmath.log(mpmath.mpf(float(a_i)) / float(b_i))
                assert abs(float(mpmath.mpf(float(one)) - truth)) < 2 * eps * (1 + abs(left)), x_i


@every_dtype
def test_what_is_not_finite_stays(dtype: Any) -> None:
    x = np.array([np.nan, np.inf, -np.inf, np.finfo(dtype).max], dtype)
    a, b = np.full(4, 3, dtype), np.full(4, 0.25, dtype)
    np.testing.assert_array_equal(apply("log", x, a, b), x)


@kernel
def _two_products(a, b, outs):  # type: ignore[no-untyped-def]
    for i in range(a.shape[0]):
        outs[0, i] = a[i] * a[i] + rounded(a[i], b[i])
        outs[1, i] = rounded(a[i], b[i]) + a[i] * a[i]
        outs[2, i] = a[i] * b[i] + rounded(a[i], a[i])
        outs[3, i] = rounded(a[i], a[i]) + a[i] * b[i]


@every_dtype
def test_of_two_products_the_one_that_is_to_be_rounded_is(dtype: Any) -> None:
    """The square of 1 + x is 1 + 2 x and a little, which is lost where it is rounded."""
    x = 2.0**-12 if dtype == np.float32 else 2.0**-27
    a, outs = np.full(101, 1 + x, dtype), np.empty((4, 101), dtype)
    _two_products(a, -a, outs)
    for out, little in zip(outs, (x**2, x**2, -(x**2), -(x**2)), strict=True):
        assert set(out) <= {0.0, little}  # 0 where a processor rounds both


@every_dtype
def test_the_functions_work_in_python_too(dtype: Any) -> None:
    """On NumPy's scalars, of whose dtype the result is."""
    for x in (dtype(0.3), dtype(7.7)):
        for got, truth in (
            (exp(x), np.exp(float(x))),
            (clipped_exp(x), np.exp(float(x))),
            (add_log_ratio(dtype(0.25), x, dtype(0.8)), 0.25 + np.log(float(x) / dtype(0.8))),
        ):
            assert np.asarray(got).dtype == dtype or not numba.config.DISABLE_JIT
            assert abs(float(got) - float(truth)) < 4 * np.spacing(abs(dtype(got)))
