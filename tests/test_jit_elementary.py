"""exp and log of the kernels, in units of the last place, over every number there is.

The truth for float32 is NumPy's float64; for float64 it is mpmath, on fewer numbers, and NumPy on
many, whose own error is below 1 unit.
"""

from collections.abc import Callable
from typing import Any

import mpmath
import numba
import numpy as np
import pytest

from l0ref.jit.elementary import exp, log

NAMES = ("exp", "log")
DTYPES = (np.float32, np.float64)
N = 200 if numba.config.DISABLE_JIT else 200_000
TRUTH = {"exp": (np.exp, mpmath.exp), "log": (np.log, mpmath.log)}


@numba.njit(fastmath={"contract"}, error_model="numpy")  # as kernels are compiled
def exp_each(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = exp(x[i])


@numba.njit(fastmath={"contract"}, error_model="numpy")
def log_each(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = log(x[i])


EACH = {"exp": exp_each, "log": log_each}


def apply(name: str, x: Any) -> Any:
    out = np.empty_like(x)
    with np.errstate(all="ignore"):
        EACH[name](x, out)
    return out


def any_positive(dtype: Any, n: int, seed: int) -> Any:
    """Numbers with random bits, from the least subnormal to the greatest finite one."""
    bits = {np.float32: np.uint32, np.float64: np.uint64}[dtype]
    last = int(np.array(np.finfo(dtype).max).view(bits))
    return np.random.default_rng(seed).integers(1, last + 1, size=n).astype(bits).view(dtype)


def arguments(name: str, dtype: Any, n: int = N) -> Any:
    """Where the result is finite: all of it, subnormal results included, and the hard places."""
    rng = np.random.default_rng(5)
    info = np.finfo(dtype)
    if name == "exp":
        lowest = float(np.log(float(info.smallest_subnormal)))
        highest = float(np.log(float(info.max)))
        even = rng.uniform(lowest, np.nextafter(highest, 0), n).astype(dtype)
        near = (rng.normal(size=n) * 10.0 ** rng.uniform(-9, 0, n)).astype(dtype)
        return np.concatenate([even, near, [dtype(lowest), info.tiny, -info.tiny]]).astype(dtype)
    near = (1 + rng.normal(size=n) * 10.0 ** rng.uniform(-7, -0.6, n)).astype(dtype)
    ends = [info.smallest_subnormal, info.tiny, info.max, np.nextafter(info.tiny, dtype(0))]
    return np.concatenate([any_positive(dtype, n, 6), near[near > 0], ends]).astype(dtype)


def spacing(truth: Any, dtype: Any) -> Any:
    return np.spacing(np.abs(truth.astype(dtype))).astype(np.float64)


@pytest.mark.parametrize(("name", "bound"), [("exp", 1.5), ("log", 3.0)])
def test_float32_against_float64(name: str, bound: float) -> None:
    x = arguments(name, np.float32)
    truth = TRUTH[name][0](x.astype(np.float64))
    error = np.abs(apply(name, x) - truth) / spacing(truth, np.float32)
    assert error.max() < bound, (x[error.argmax()], error.max())


@pytest.mark.parametrize(("name", "bound"), [("exp", 1.5), ("log", 3.0)])
def test_float64_against_numpy(name: str, bound: float) -> None:
    x = arguments(name, np.float64)
    truth = TRUTH[name][0](x)
    error = np.abs(apply(name, x) - truth) / spacing(truth, np.float64)
    assert error.max() < bound + 1, (x[error.argmax()], error.max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "bound"), [("exp", 1.5), ("log", 3.0)])
def test_against_mpmath(name: str, bound: float, dtype: Any) -> None:
    x = arguments(name, dtype, 150)
    got = apply(name, x)
    with mpmath.workdps(40):
        truth = [TRUTH[name][1](mpmath.mpf(float(a))) for a in x]
        error = [abs(mpmath.mpf(float(a)) - b) for a, b in zip(got, truth, strict=True)]
    unit = spacing(np.array([float(b) for b in truth]), dtype)
    assert max(float(e) / u for e, u in zip(error, unit, strict=True)) < bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_exact_or_no_number(name: str, dtype: Any) -> None:
    """As NumPy has it; past the ends of the range, and a step on either side of them too."""
    info, log2 = np.finfo(dtype), float(np.log(2))
    least = float(np.log(float(info.smallest_subnormal))) - log2  # half a unit: exp is 0 below
    most = float(np.log(float(info.max)))
    far = [least * 1.01, least - 1, least - 1000, most * 1.01, most + 1, 1e5, -1e5, info.max]
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, -info.max, -1.0, 1.0, -info.tiny]
    x = np.array(special + (far if name == "exp" else []), dtype=dtype)
    if name == "exp":
        x = x[x != 1]
        x[x == -1] = -info.max
    with np.errstate(all="ignore"):
        truth: Callable[[Any], Any] = TRUTH[name][0]
        np.testing.assert_array_equal(apply(name, x), truth(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_functions_work_in_python_too(name: str, dtype: Any) -> None:
    """On NumPy's scalars, of whose dtype the result is."""
    function = {"exp": exp, "log": log}[name]
    for x in (dtype(0.3), dtype(7.7)):
        got = function(x)
        assert np.asarray(got).dtype == dtype or not numba.config.DISABLE_JIT
        assert abs(float(got) - float(TRUTH[name][0](float(x)))) < 4 * np.spacing(abs(dtype(got)))
