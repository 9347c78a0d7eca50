r"""exp and log of one number, in its own precision, out of operations that vectorise.

A loop that calls the C library's exp goes one number at a time. These are made of additions,
multiplications and the bits of the number alone, without a branch, so that a compiler can run them
on as many numbers as a register holds.

Each brings its argument into a short range and sums the series there, as far as the terms count:

.. math:: e^x = 2^n e^r, \quad r = x - n \log 2, \ |r| \le \tfrac12 \log 2, \qquad
          \log(2^e m) = e \log 2 + 2\,\mathrm{artanh}\frac{m-1}{m+1}, \quad
          \sqrt{\tfrac12} \le m < \sqrt 2 .

The error is below 1.5 units in the last place for exp and below 3 for log, over the whole range to
the smallest subnormal number; zeros, infinities, NaN and negative numbers give what NumPy gives.

They are for kernels. Called from Python they work on NumPy's scalars, slowly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ._compile import CONTRACT, inline

__all__ = ["exp", "log"]

# Every constant has the type of the arithmetic it is in: one float64 makes all of it float64.
F32, F64, I32, I64 = np.float32, np.float64, np.int32, np.int64

# log 2 in two: a number of so few bits that its product with an exponent is exact, and the rest.
TOP_F, REST_F = F32(355 / 2**9), F32(-0.00021219444005469057)
TOP_D, REST_D = F64(2977044472 / 2**32), F64(-4.2009150726810846e-11)

# Added to a small number, 3/2 of 2^(bits of the mantissa) rounds it to a whole number, which then
# stands in the last bits.
ROUND_F, ROUND_BITS_F = F32(1.5 * 2**23), I32(0x4B400000)
ROUND_D, ROUND_BITS_D = F64(1.5 * 2**52), I64(0x4338000000000000)

PER_LOG2_F, PER_LOG2_D = F32(1 / np.log(2)), F64(1 / np.log(2))
BIAS_F, BIAS_D = I32(127), I64(1023)  # what is added to an exponent where it is kept
SHIFT_F, SHIFT_D = I32(23), I64(52)  # where it is kept

# Beyond these, exp is 0 or infinity; 2^n is made in two factors that are both normal numbers.
LOW_F, HIGH_F = F32(-104.5), F32(89)
LOW_D, HIGH_D = F64(-746), F64(710)

SQRT_HALF_F, SQRT_HALF_D = F32(0.5**0.5).view(I32), F64(0.5**0.5).view(I64)
LEAST_F, LEAST_D = np.finfo(F32).tiny, np.finfo(F64).tiny  # of the normal numbers
LIFT_F, LIFT_D = F32(2**23), F64(2**52)  # makes a normal number of a subnormal one
INF_F, INF_D = F32(np.inf), F64(np.inf)
NAN_F, NAN_D = F32(np.nan), F64(np.nan)
ZERO_F, ONE_F, TWO_F = F32(0), F32(1), F32(2)
ZERO_D, ONE_D, TWO_D = F64(0), F64(1), F64(2)

# 1/k! for exp; |r|^8/8! < 2^-27, |r|^14/14! < 2^-57.
E2_F, E3_F, E4_F, E5_F, E6_F, E7_F = (F32(1 / k) for k in (2, 6, 24, 120, 720, 5040))
E2, E3, E4, E5, E6, E7, E8, E9, E10, E11, E12, E13 = (
    F64(1 / k)
    for k in (2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800)
)

# 1/(2k+1) for artanh; its argument is at most 0.1716, whose 10th power is below 2^-25, and whose
# 22nd below 2^-55.
A3_F, A5_F, A7_F, A9_F = (F32(1 / k) for k in (3, 5, 7, 9))
A3, A5, A7, A9, A11, A13, A15, A17, A19, A21 = (F64(1 / k) for k in range(3, 22, 2))


@inline()
def _exp_f(x):  # type: ignore[no-untyped-def]
    inside = LOW_F if x < LOW_F else (HIGH_F if x > HIGH_F else x)  # NaN stays
    shifted = inside * PER_LOG2_F + ROUND_F
    whole = shifted - ROUND_F
    n = I32(F32(shifted).view(I32) - ROUND_BITS_F)
    r = (inside - whole * TOP_F) - whole * REST_F
    tail = E2_F + r * (E3_F + r * (E4_F + r * (E5_F + r * (E6_F + r * E7_F))))
    first = I32(n >> I32(1))
    second = I32(n - first)
    value = ONE_F + (r + r * r * tail)
    value = value * I32(I32(first + BIAS_F) << SHIFT_F).view(F32)
    return value * I32(I32(second + BIAS_F) << SHIFT_F).view(F32)


@inline()
def _exp_d(x):  # type: ignore[no-untyped-def]
    inside = LOW_D if x < LOW_D else (HIGH_D if x > HIGH_D else x)
    shifted = inside * PER_LOG2_D + ROUND_D
    whole = shifted - ROUND_D
    n = F64(shifted).view(I64) - ROUND_BITS_D
    r = (inside - whole * TOP_D) - whole * REST_D
    tail = E9 + r * (E10 + r * (E11 + r * (E12 + r * E13)))
    tail = E5 + r * (E6 + r * (E7 + r * (E8 + r * tail)))
    tail = E2 + r * (E3 + r * (E4 + r * tail))
    first = n >> I64(1)
    second = n - first
    value = ONE_D + (r + r * r * tail)
    value = value * I64((first + BIAS_D) << SHIFT_D).view(F64)
    return value * I64((second + BIAS_D) << SHIFT_D).view(F64)


@inline()
def _log_f(x):  # type: ignore[no-untyped-def]
    small = x < LEAST_F
    bits = F32(x * LIFT_F if small else x).view(I32)
    e = I32(I32(bits - SQRT_HALF_F) >> SHIFT_F)
    m = I32(bits - I32(e << SHIFT_F)).view(F32)
    exponent = F32(e) - (F32(23) if small else ZERO_F)
    f = (m - ONE_F) / (m + ONE_F)
    f2 = f * f
    tail = f2 * (A3_F + f2 * (A5_F + f2 * (A7_F + f2 * A9_F)))
    value = exponent * TOP_F + (TWO_F * f + (TWO_F * f * tail + exponent * REST_F))
    value = value if x < INF_F else x  # infinity and NaN
    return value if not x <= ZERO_F else (-INF_F if x == ZERO_F else NAN_F)


@inline()
def _log_d(x):  # type: ignore[no-untyped-def]
    small = x < LEAST_D
    bits = F64(x * LIFT_D if small else x).view(I64)
    e = (bits - SQRT_HALF_D) >> SHIFT_D
    m = I64(bits - (e << SHIFT_D)).view(F64)
    exponent = F64(e) - (F64(52) if small else ZERO_D)
    f = (m - ONE_D) / (m + ONE_D)
    f2 = f * f
    tail = A13 + f2 * (A15 + f2 * (A17 + f2 * (A19 + f2 * A21)))
    tail = f2 * (A3 + f2 * (A5 + f2 * (A7 + f2 * (A9 + f2 * (A11 + f2 * tail)))))
    value = exponent * TOP_D + (TWO_D * f + (TWO_D * f * tail + exponent * REST_D))
    value = value if x < INF_D else x
    return value if not x <= ZERO_D else (-INF_D if x == ZERO_D else NAN_D)


def exp(x: Any) -> Any:
    """e^x of a float32 or a float64 number."""
    return _exp_f(x) if isinstance(x, np.float32) else _exp_d(x)


def log(x: Any) -> Any:
    """Natural logarithm of a float32 or a float64 number."""
    return _log_f(x) if isinstance(x, np.float32) else _log_d(x)


_OPTIONS: Any = {"fastmath": set(CONTRACT), "error_model": "numpy"}


@overload(exp, jit_options=_OPTIONS)
def _exp_in_kernel(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _exp_f(x)  # noqa: PLW0108
    return lambda x: _exp_d(x)  # noqa: PLW0108


@overload(log, jit_options=_OPTIONS)
def _log_in_kernel(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _log_f(x)  # noqa: PLW0108
    return lambda x: _log_d(x)  # noqa: PLW0108
