r"""Twins of `l0ref.hard_concrete`: gates drawn in one pass, with noise that is never stored.

The original forms log u, log(1-u) and a sigmoid in twice the precision of the result. Here

.. math:: r = \alpha \frac{u}{1-u}, \quad s = \sigma\left(\frac{\log r}{\beta}\right) =
          \frac{1}{1 + r^{-1/\beta}}

is formed in the result's own precision, from u and 1 - u, which are both given to all their digits.
Where beta is 2/m with a whole m < 8, as 2/3 is, r^(1/beta) = sqrt(r)^m takes neither log nor exp.
Nothing is added before the end, so there is nothing to cancel: s has an absolute error of a few
eps (over beta, where beta < 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import hard_concrete
from ..concrete import BETA, GAMMA, ZETA, FloatArray
from ..noise import Uniforms
from ._compile import inline, parallel, prange
from ._registry import NotForKernel, check_arrays, packed, twin
from .elementary import exp, log
from .noise import check_uniforms, named, philox_pairs

GATES = 4096
"""Gates that one turn of a parallel loop draws."""

LEAST_U = 2.0**-53
"""The kernel's u is at least this: then alpha u/(1-u) overflows only where s rounds to 1."""

_ONES = np.uint32(2**32 - 1)


@inline()
def _stretch_and_clip(s, law, zero, one):  # type: ignore[no-untyped-def]
    """z and its slope; `law` is what `_checked_law` gives. A NaN is on neither side, and stays."""
    gamma, width, steepness = law[0], law[1], law[2]
    s_bar = s * width + gamma
    below, above = s_bar <= zero, s_bar >= one
    z = zero if below else (one if above else s_bar)
    return z, zero if below | above else steepness * s * (one - s)


@inline()
def _draw(log_alpha, odds, law, m, z, slope):  # type: ignore[no-untyped-def]
    """Draw as many gates as there are odds u/(1-u)."""
    number = log_alpha.dtype.type
    zero, one, far = number(0), number(1), number(40)
    if m > 0:
        for i in range(odds.size):
            r = exp(log_alpha[i]) * odds[i]
            root = np.sqrt(r)
            power = (root if m & 1 else one) * (r if m & 2 else one)
            power = power * (r * r if m & 4 else one)
            z[i], slope[i] = _stretch_and_clip(one / (one + one / power), law, zero, one)
    else:
        per_beta = law[3]
        for i in range(odds.size):
            # |log u/(1-u)| < 37, so what log_alpha has beyond +-40 is of the sign of the rest: it
            # can be added without cancelling, and no r overflows.
            a = log_alpha[i]
            near = -far if a < -far else (far if a > far else a)
            beyond = zero if near == a else a - near
            t = (log(exp(near) * odds[i]) + beyond) * per_beta
            z[i], slope[i] = _stretch_and_clip(one / (one + exp(-t)), law, zero, one)


@inline()
def _draw_in_turns(log_alpha, odds, start, law, m, z, slope):  # type: ignore[no-untyped-def]
    """Draw gates start, start + 1, ..., which go through log_alpha once for each example."""
    done, first = 0, start % log_alpha.size
    while done < odds.size:
        n = min(log_alpha.size - first, odds.size - done)
        here = slice(start + done, start + done + n)
        _draw(log_alpha[first : first + n], odds[done : done + n], law, m, z[here], slope[here])
        done, first = done + n, 0


@parallel()
def _draw_with_noise(log_alpha, name, law, m, z, slope):  # type: ignore[no-untyped-def]
    number = log_alpha.dtype.type
    half = number(0.5)
    for turn in prange((z.size + GATES - 1) // GATES):
        start = turn * GATES
        n = min(z.size - start, GATES)
        words = np.empty((n + 3) // 4 * 4, np.uint32)
        philox_pairs(start // 4, name, words.view(np.uint64))
        odds = np.empty(n, log_alpha.dtype)
        for i in range(n):
            k = words[i]
            odds[i] = (number(k) + half) / (number(np.uint32(k ^ _ONES)) + half)
        _draw_in_turns(log_alpha, odds, start, law, m, z, slope)


@parallel()
def _draw_with(log_alpha, u, law, m, z, slope, fits):  # type: ignore[no-untyped-def]
    number = log_alpha.dtype.type
    for turn in prange((z.size + GATES - 1) // GATES):
        start = turn * GATES
        n = min(z.size - start, GATES)
        odds = np.empty(n, log_alpha.dtype)
        inside = 0
        for i in range(n):
            one = u[start + i]
            inside += (one >= LEAST_U) & (one < 1.0)
            odds[i] = number(one / (1.0 - one))
        fits[turn] = inside == n
        _draw_in_turns(log_alpha, odds, start, law, m, z, slope)


def _checked_law(
    beta: Any, gamma: Any, zeta: Any, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], int]:
    """Return the numbers of the law, in the dtype; and m where beta is 2/m, else 0.

    They are gamma, zeta - gamma, (zeta - gamma)/beta and 1/beta.
    """
    for value in (beta, gamma, zeta):
        if not isinstance(value, (float, int)):
            raise NotForKernel
    # A smaller beta or a wider stretch would enlarge the rounding errors of s beyond a few eps.
    if not (0.1 <= beta <= 100 and gamma < 0 and zeta > 1 and zeta - gamma <= 4):
        raise NotForKernel
    m = next((m for m in range(1, 8) if beta == 2 / m), 0)
    width = zeta - gamma
    return np.array([gamma, width, width / beta, 1 / beta], dtype=dtype), m


@twin(hard_concrete.sample_and_slope)
def sample_and_slope(
    log_alpha: Any, u: Any, *, beta: Any = BETA, gamma: Any = GAMMA, zeta: Any = ZETA
) -> tuple[FloatArray, FloatArray]:
    """Draw gates of log_alpha's shape, or with one more axis in front; and their slopes."""
    check_arrays(log_alpha)
    if type(u) is Uniforms:
        check_uniforms(u)
    else:
        check_arrays(u)
    if not log_alpha.ndim or log_alpha.shape not in (u.shape, u.shape[1:]):
        raise NotForKernel
    law, m = _checked_law(beta, gamma, zeta, log_alpha.dtype)
    flat = packed(log_alpha).reshape(-1)
    z, slope = (np.empty(u.shape, dtype=log_alpha.dtype) for _ in range(2))
    drawn = law, m, z.reshape(-1), slope.reshape(-1)
    with np.errstate(all="ignore"):  # for where the kernels are run as Python
        if type(u) is Uniforms:
            _draw_with_noise.sized(4 * u.size, flat, named(u), *drawn)
            return z, slope
        fits = np.empty(-(-u.size // GATES), dtype=np.bool_)
        given = np.ascontiguousarray(u, dtype=np.float64).reshape(-1)
        _draw_with.sized(4 * u.size, flat, given, *drawn, fits)
    if not fits.all():
        raise NotForKernel
    return z, slope


@twin(hard_concrete.sample)
def sample(
    log_alpha: Any, u: Any, *, beta: Any = BETA, gamma: Any = GAMMA, zeta: Any = ZETA
) -> FloatArray:
    """Draw gates; `sample_and_slope` without the slopes."""
    both: Any = sample_and_slope
    z: FloatArray = both.twin(log_alpha, u, beta=beta, gamma=gamma, zeta=zeta)[0]
    return z
