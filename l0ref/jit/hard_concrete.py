r"""Twins of `l0ref.hard_concrete`: gates drawn in one pass, with noise that is never stored.

The original forms log u, log(1-u) and a sigmoid in twice the precision of the result. Here

.. math:: s = \frac{1}{1 + r^{1/\beta}} = \sigma\left(-\frac{\log r}{\beta}\right), \qquad
          r = \frac{1 - u}{\alpha u}

is formed in the result's own precision, from u and 1 - u, which are both given to all their digits.
Where beta is 2, 1, 2/3 or 1/2, it takes one exp, that of -log alpha, and one division: with
q = (1-u)/alpha

.. math:: s = \frac{u}{u + \sqrt{q u}}, \quad \frac{u}{u + q}, \quad
          \frac{u^2}{u^2 + q \sqrt{q u}} \quad\text{or}\quad \frac{u^2}{u^2 + q^2} .

No u^2 is subnormal, in float32 either, and where q^2 is infinite, s is 0 to all its digits.
Elsewhere log r is one log, in parts that cancel against log alpha without an error
(`add_log_ratio`), and one exp follows. s has an absolute error of a few eps (over beta, where
beta < 1).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from .. import hard_concrete
from ..concrete import BETA, GAMMA, ZETA, FloatArray
from ..noise import Uniforms
from ._compile import CONTRACT, elementwise, in_vectors, inline, parallel, share_out
from ._registry import NotForKernel, check_arrays, packed, twin
from .elementary import add_log_ratio, clipped_exp
from .noise import check_uniforms, named, philox_pairs

GATES = 8192
"""Gates that one turn of a shared loop draws: 32 kB of words."""

LEAST_U = 2.0**-53
"""u and 1 - u are at least this. So where exp is clipped in r, s is 0 or 1 to all its digits."""

_ONES, _HALF = np.uint32(2**32 - 1), 0.5


@elementwise
def _stretch_and_clip(s, law, zero, one):  # type: ignore[no-untyped-def]
    """z and its slope; `law` is what `checked_law` gives. A NaN is on neither side, and stays."""
    gamma, width, steepness = law[0], law[1], law[2]
    s_bar = s * width + gamma
    below, above = s_bar <= zero, s_bar >= one
    z = zero if below else (one if above else s_bar)
    return z, zero if below | above else steepness * s * (one - s)


def _sides_of_word(noise, number):  # type: ignore[no-untyped-def]
    half = number(_HALF)
    return number(noise) + half, number(np.uint32(noise ^ _ONES)) + half


def _sides_of_u(noise, number):  # type: ignore[no-untyped-def]
    return number(noise), number(1.0 - noise)


def _sides(noise: Any, number: Any) -> Any:
    """u and 1 - u; or 2^32 times both, of a word that stands for u."""
    return (_sides_of_word if isinstance(noise, np.uint32) else _sides_of_u)(noise, number)


@overload(_sides, jit_options={"fastmath": set(CONTRACT)})
def _sides_in_kernel(noise, number):  # type: ignore[no-untyped-def]
    return _sides_of_word if noise == types.uint32 else _sides_of_u


@elementwise
def _share(log_alpha, noise, m, number):  # type: ignore[no-untyped-def]
    """s where beta is 2/m."""
    u, rest = _sides(noise, number)
    q = clipped_exp(-log_alpha) * rest
    a, b = u * (u if m > 2 else number(1)), q if m > 1 else number(1)
    b = b * (np.sqrt(q * u) if m & 1 else (q if m > 2 else number(1)))
    return a / (a + b)


@elementwise
def _draw_by_share(i, log_alpha, noise, law, m, z, slope):  # type: ignore[no-untyped-def]
    number = log_alpha.dtype.type
    s = _share(log_alpha[i], noise[i], m, number)
    z[i], steep = _stretch_and_clip(s, law, number(0), number(1))
    if slope is not None:
        slope[i] = steep


@elementwise
def _draw_by_logs(i, log_alpha, noise, law, z, slope):  # type: ignore[no-untyped-def]
    number = log_alpha.dtype.type
    one = number(1)
    u, rest = _sides(noise[i], number)
    t = add_log_ratio(log_alpha[i], u, rest) * law[3]
    z[i], steep = _stretch_and_clip(one / (one + clipped_exp(-t)), law, number(0), one)
    if slope is not None:
        slope[i] = steep


@inline
def _draw(log_alpha, noise, law, m, z, slope):  # type: ignore[no-untyped-def]
    """Draw as many gates as there is noise: words, or u. Without room for slopes, z alone."""
    if m == 3:  # the paper's beta has a loop of its own, which need not ask
        in_vectors(_draw_by_share, noise.size, (log_alpha, noise, law, 3, z, slope))
    elif m > 0:
        in_vectors(_draw_by_share, noise.size, (log_alpha, noise, law, m, z, slope))
    else:
        in_vectors(_draw_by_logs, noise.size, (log_alpha, noise, law, z, slope))


@inline
def _draw_examples(log_alpha, noise, start, law, m, z, slope):  # type: ignore[no-untyped-def]
    """Draw gates start, start + 1, ..., which go through log_alpha once for each example."""
    done, first = 0, start % log_alpha.size
    while done < noise.size:
        n = min(log_alpha.size - first, noise.size - done)
        own, words = log_alpha[first : first + n], noise[done : done + n]
        here = slice(start + done, start + done + n)
        if slope is None:
            _draw(own, words, law, m, z[here], None)
        else:
            _draw(own, words, law, m, z[here], slope[here])
        done, first = done + n, 0


@inline
def _draw_some_with_noise(turn, log_alpha, name, law, m, z, slope):  # type: ignore[no-untyped-def]
    start = turn * GATES
    n = min(z.size - start, GATES)
    words = np.empty((n + 3) // 4 * 4, np.uint32)
    philox_pairs(start // 4, name, words.view(np.uint64))
    _draw_examples(log_alpha, words[:n], start, law, m, z, slope)


@parallel
def draw_with_noise(many, log_alpha, name, law, m, z, slope):  # type: ignore[no-untyped-def]
    """Draw gates with the noise of a name (`l0ref.jit.noise.named`), which is never stored."""
    turns, args = (z.size + GATES - 1) // GATES, (log_alpha, name, law, m, z, slope)
    share_out(many, _draw_some_with_noise, turns, args)


@inline
def _draw_some_with(turn, log_alpha, u, law, m, z, slope, fits):  # type: ignore[no-untyped-def]
    start = turn * GATES
    own = u[start : min(z.size, start + GATES)]
    inside = 0
    for i in range(own.size):
        inside += (own[i] >= LEAST_U) & (own[i] < 1.0)
    fits[turn] = inside == own.size
    _draw_examples(log_alpha, own, start, law, m, z, slope)


@parallel
def _draw_with(many, log_alpha, u, law, m, z, slope, fits):  # type: ignore[no-untyped-def]
    share_out(many, _draw_some_with, fits.size, (log_alpha, u, law, m, z, slope, fits))


@functools.lru_cache(maxsize=256)
def checked_law(beta: Any, gamma: Any, zeta: Any, dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    """Return the numbers of the law, in the dtype; and m where beta is 2/m, m < 5, else 0.

    They are gamma, zeta - gamma, (zeta - gamma)/beta and 1/beta: not to be written to.
    """
    # A smaller beta or a wider stretch would enlarge the rounding errors of s beyond a few eps.
    if not (0.1 <= beta <= 100 and gamma < 0 and zeta > 1 and zeta - gamma <= 4):
        raise NotForKernel
    m = next((m for m in range(1, 5) if beta == 2 / m), 0)
    width = zeta - gamma
    return np.array([gamma, width, width / beta, 1 / beta], dtype=dtype), m


def _drawn(
    log_alpha: Any, u: Any, beta: Any, gamma: Any, zeta: Any, *, slopes: bool
) -> tuple[FloatArray, FloatArray | None]:
    """Draw gates of log_alpha's shape, or with one more axis in front; and perhaps their slopes."""
    check_arrays(log_alpha)
    if type(u) is Uniforms:
        check_uniforms(u)
    else:
        check_arrays(u)
    if not log_alpha.ndim or log_alpha.shape not in (u.shape, u.shape[1:]):
        raise NotForKernel
    if not all(isinstance(value, (float, int)) for value in (beta, gamma, zeta)):
        raise NotForKernel
    law, m = checked_law(beta, gamma, zeta, log_alpha.dtype)
    flat = packed(log_alpha).reshape(-1)
    z = np.empty(u.shape, log_alpha.dtype)
    slope = np.empty(u.shape, log_alpha.dtype) if slopes else None
    drawn = law, m, z.reshape(-1), None if slope is None else slope.reshape(-1)
    if type(u) is Uniforms:
        draw_with_noise.sized(4 * z.size, flat, named(u), *drawn)
        return z, slope
    fits = np.empty(-(-z.size // GATES), dtype=np.bool_)
    given = np.ascontiguousarray(u, dtype=np.float64).reshape(-1)
    _draw_with.sized(4 * z.size, flat, given, *drawn, fits)
    if not fits.all():
        raise NotForKernel
    return z, slope


@twin(hard_concrete.sample_and_slope)
def sample_and_slope(
    log_alpha: Any, u: Any, *, beta: Any = BETA, gamma: Any = GAMMA, zeta: Any = ZETA
) -> tuple[FloatArray, FloatArray]:
    """Draw gates, and keep their slopes."""
    z, slope = _drawn(log_alpha, u, beta, gamma, zeta, slopes=True)
    assert slope is not None
    return z, slope


@twin(hard_concrete.sample)
def sample(
    log_alpha: Any, u: Any, *, beta: Any = BETA, gamma: Any = GAMMA, zeta: Any = ZETA
) -> FloatArray:
    """Draw gates; slopes are not even formed."""
    return _drawn(log_alpha, u, beta, gamma, zeta, slopes=False)[0]
