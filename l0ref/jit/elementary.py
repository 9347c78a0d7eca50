r"""exp and log, in their argument's own precision, out of operations that vectorise.

A loop that calls the C library's exp goes one number at a time. These are made of additions,
multiplications and the bits of the number alone, without a branch, so that a compiler can run them
on as many numbers as a register holds.

Each brings its argument into a short range and sums the series there, as far as the terms count:

.. math:: e^x = 2^n e^r, \quad r = x - n \log 2, \ |r| \le \tfrac12 \log 2, \qquad
          \log\frac{a}{b} = n \log 2 + 2\,\mathrm{artanh}\frac{a - 2^n b}{a + 2^n b}, \quad
          \tfrac23 < \frac{a}{2^n b} < \tfrac32 .

`exp` is off by less than 1.5 units in the last place, over the whole range to the smallest
subnormal number, and gives what NumPy gives for zeros, infinities and NaN. `clipped_exp` does
without the far ends, and so with fewer operations: what is further out than e^87 (e^708 in float64)
counts as that. `add_log_ratio` adds the log of a ratio to a number from which it may be cancelled:
the two parts of n log 2 are added one by one, of which the greater is exact, and a - 2^n b is exact
too.

They are for kernels. Called from Python they work on NumPy's scalars, slowly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ._compile import CONTRACT, inline, rounded

__all__ = ["add_log_ratio", "clipped_exp", "exp"]

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

END_F, END_D = F32(87), F64(708)  # e^+-these are normal numbers

# Half of the lowest bit of an exponent: added to a difference of bits, it rounds it to whole powers
# of 2. Between powers of 2 bits grow as a straight line, which is off by up to 0.086 from the log.
HALF_F, HALF_D = I32(2**22), I64(2**51)

ONE_F, TWO_F, ONE_D, TWO_D = F32(1), F32(2), F64(1), F64(2)

# 1/k! for exp; |r|^8/8! < 2^-27, |r|^14/14! < 2^-57.
E2_F, E3_F, E4_F, E5_F, E6_F, E7_F = (F32(1 / k) for k in (2, 6, 24, 120, 720, 5040))
E2, E3, E4, E5, E6, E7, E8, E9, E10, E11, E12, E13 = (
    F64(1 / k)
    for k in (2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800)
)

# 1/(2k+1) for artanh; its argument is at most 1/5, whose 10th power over 11 is below 2^-26, and
# whose 22nd over 23 below 2^-55.
A3_F, A5_F, A7_F, A9_F = (F32(1 / k) for k in (3, 5, 7, 9))
A3, A5, A7, A9, A11, A13, A15, A17, A19, A21 = (F64(1 / k) for k in range(3, 22, 2))


@inline
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


@inline
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


@inline
def _clipped_exp_f(x):  # type: ignore[no-untyped-def]
    inside = -END_F if x < -END_F else (END_F if x > END_F else x)
    shifted = inside * PER_LOG2_F + ROUND_F
    whole = shifted - ROUND_F
    n = I32(F32(shifted).view(I32) - ROUND_BITS_F)
    r = (inside - whole * TOP_F) - whole * REST_F
    tail = E2_F + r * (E3_F + r * (E4_F + r * (E5_F + r * (E6_F + r * E7_F))))
    return (ONE_F + (r + r * r * tail)) * I32(I32(n + BIAS_F) << SHIFT_F).view(F32)


@inline
def _clipped_exp_d(x):  # type: ignore[no-untyped-def]
    inside = -END_D if x < -END_D else (END_D if x > END_D else x)
    shifted = inside * PER_LOG2_D + ROUND_D
    whole = shifted - ROUND_D
    n = F64(shifted).view(I64) - ROUND_BITS_D
    r = (inside - whole * TOP_D) - whole * REST_D
    tail = E9 + r * (E10 + r * (E11 + r * (E12 + r * E13)))
    tail = E5 + r * (E6 + r * (E7 + r * (E8 + r * tail)))
    tail = E2 + r * (E3 + r * (E4 + r * tail))
    return (ONE_D + (r + r * r * tail)) * I64((n + BIAS_D) << SHIFT_D).view(F64)


@inline
def _add_log_ratio_f(x, a, b):  # type: ignore[no-untyped-def]
    bits = F32(b).view(I32)
    n = I32(I32(F32(a).view(I32) - bits + HALF_F) >> SHIFT_F)
    scaled = I32(bits + I32(n << SHIFT_F)).view(F32)
    f = (a - scaled) / (a + scaled)
    f2 = f * f
    tail = f2 * (A3_F + f2 * (A5_F + f2 * (A7_F + f2 * A9_F)))
    whole = F32(n)
    return (x + whole * TOP_F) + (TWO_F * f + (TWO_F * f * tail + rounded(whole, REST_F)))


@inline
def _add_log_ratio_d(x, a, b):  # type: ignore[no-untyped-def]
    bits = F64(b).view(I64)
    n = (F64(a).view(I64) - bits + HALF_D) >> SHIFT_D
    scaled = I64(bits + (n << SHIFT_D)).view(F64)
    f = (a - scaled) / (a + scaled)
    f2 = f * f
    tail = A13 + f2 * (A15 + f2 * (A17 + f2 * (A19 + f2 * A21)))
    tail = f2 * (A3 + f2 * (A5 + f2 * (A7 + f2 * (A9 + f2 * (A11 + f2 * tail)))))
    whole = F64(n)
    return (x + whole * TOP_D) + (TWO_D * f + (TWO_D * f * tail + rounded(whole, REST_D)))


def exp(x: Any) -> Any:
    """e^x of a float32 or a float64 number."""
    return _exp_f(x) if isinstance(x, np.float32) else _exp_d(x)


def clipped_exp(x: Any) -> Any:
    """e^x of a float32 or a float64 number; beyond +-87, or +-708, e^x of these."""
    return _clipped_exp_f(x) if isinstance(x, np.float32) else _clipped_exp_d(x)


def add_log_ratio(x: Any, a: Any, b: Any) -> Any:
    """x + log(a/b) of float32 or float64 numbers, a and b positive, finite and not subnormal."""
    return _add_log_ratio_f(x, a, b) if isinstance(x, np.float32) else _add_log_ratio_d(x, a, b)


_OPTIONS: Any = {"fastmath": set(CONTRACT), "error_model": "numpy"}


@overload(exp, jit_options=_OPTIONS)
def _exp_in_kernel(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _exp_f(x)  # noqa: PLW0108
    return lambda x: _exp_d(x)  # noqa: PLW0108


@overload(clipped_exp, jit_options=_OPTIONS)
def _clipped_exp_in_kernel(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _clipped_exp_f(x)  # noqa: PLW0108
    return lambda x: _clipped_exp_d(x)  # noqa: PLW0108


@overload(add_log_ratio, jit_options=_OPTIONS)
def _add_log_ratio_in_kernel(x, a, b):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x, a, b: _add_log_ratio_f(x, a, b)  # noqa: PLW0108
    return lambda x, a, b: _add_log_ratio_d(x, a, b)  # noqa: PLW0108
