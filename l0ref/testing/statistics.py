r"""Check that a Monte Carlo estimator is unbiased, with a stated rate of false alarms.

The mean of n draws is looked at when n is 1000, 2000, 4000, ... An estimator that is far off fails
at the first look; one that is right goes on until its mean is known as well as was asked for. With
m numbers to compare and at most K looks, each comparison may be wrong with probability
false_alarms/(m K), so that a right estimator fails at all with at most false_alarms (a union
bound: nothing about the draws' dependence from look to look is assumed).

For draws between known bounds, each comparison is the empirical Bernstein inequality of Maurer &
Pontil (2009, Theorem 4, on both sides): for n independent draws in [a, b] with sample variance V,

.. math:: |\bar X - E X| \le \sqrt{\frac{2 V \log(4/\delta)}{n}} +
          \frac{7 (b - a) \log(4/\delta)}{3 (n - 1)}

with probability 1 - delta, whatever the law. Without bounds nothing of the kind can hold. Student's
t is used then, which is right for many draws of a law without heavy tails; the range seen takes
the place of b - a in the second term, so that values too rare to have been drawn do not raise an
alarm at once. Still, the rate is only near what was asked for, and a warning says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[Any]
Float64Array = NDArray[np.float64]
Draw = Callable[[int, np.random.Generator], Any]

FIRST_LOOK = 1000
CHANGES = 64  # of draws in a row, from which one says that they cannot come again by chance
_CHUNK = 2_000_000  # numbers asked for at a time, so that memory stays small


class ApproximateWarning(UserWarning):
    """The rate of false alarms is not guaranteed: the draws were given no bounds."""


class UnbiasedCheck(NamedTuple):
    """What `check_unbiased` has seen of an estimator that it found no fault with."""

    n: int  # draws
    mean: Float64Array
    allowed: Float64Array  # how far the mean may be from what was expected, given n


def check_unbiased(
    draw: Draw,
    expected: ArrayLike,
    *,
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
    method: str | None = None,
    error: ArrayLike = 0.0,
    false_alarms: float = 1e-6,
    precision: float | None = None,
    max_draws: int = 128_000,
    seed: int | np.random.Generator = 0,
) -> UnbiasedCheck:
    r"""Check that the mean of an estimator is what it should be.

    The estimator may be of anything: gates, a loss, a gradient. A gradient of an expectation is
    compared with that of the exact one, by a formula or by `numerical_gradient`.

    Parameters
    ----------
    draw : callable
        ``draw(n, rng)`` returns n independent estimates, (n, ...), rng being a
        `numpy.random.Generator`. Other frameworks may be seeded by it: ``rng.integers(2**32)``.
    expected : array, (...)
    bounds : pair of float or array, optional
        Between which every estimate lies, for certain. Then the rate of false alarms is proven.
    method : {"bernstein", "t"}, optional
        "bernstein" with bounds and "t" without, as the module explains. To ask for "t" is to know
        that the rate is approximate, and no warning is given.
    error : float or array, optional
        How far `expected` itself may be off.
    false_alarms : float, optional
        The probability that an unbiased estimator fails, over all numbers and looks together.
    precision : float, optional
        Stop as soon as a bias of this size would have been seen in every number.
    max_draws : int, optional
        Stop at the latest after so many, at least 1000.
    seed : int or numpy.random.Generator, optional

    Returns
    -------
    UnbiasedCheck
        The mean, and how well it is known: a bias of twice ``allowed`` would have been found.

    Raises
    ------
    AssertionError
        If a mean is too far off, a draw is NaN, or one lies out of bounds; and if the draws of one
        call come again in the next, as they do when `draw` makes a generator of its own each time
        (which takes two calls, of 65 draws and more: not of arrays of more than 30,000 numbers).
    ValueError
        If an argument is out of range, or draws have another shape than expected. Also if, without
        bounds, all draws of a number are the same and not what was expected: other values may be
        rare, and no law says how far off the mean is.

    Warns
    -----
    ApproximateWarning
        If neither bounds nor a method are given.

    Examples
    --------
    >>> from l0ref import HardConcrete
    >>> from l0ref.testing import check_unbiased
    >>> gates = HardConcrete(np.array([-1.0, 0.5, 3.0]))
    >>> def draw(n, rng):
    ...     return gates.rvs(size=(n, 3), random_state=rng)
    >>> check_unbiased(draw, gates.mean(), bounds=(0, 1)).n
    128000
    >>> check_unbiased(draw, gates.test_time(), bounds=(0, 1))
    Traceback (most recent call last):
    AssertionError: the mean of 2000 draws is not what was expected, in 2 of 3 numbers
      worst at [2]: 0.9404 is the mean, 1 was expected: off by -0.05958, allowed 0.046
      one alarm in 1e+06 would be false (empirical Bernstein)
    """
    target = np.asarray(expected, np.float64)
    chosen = _method(method, bounds)
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms must lie in (0, 1), got {false_alarms}")
    if max_draws < FIRST_LOOK:
        raise ValueError(f"max_draws must be at least {FIRST_LOOK}, got {max_draws}")
    if precision is not None and not precision > 0:
        raise ValueError(f"precision must be positive, got {precision}")
    if not np.isfinite(target).all():
        raise ValueError("expected must be finite")
    low, high = _bounds(bounds, target.shape)
    rng = np.random.default_rng(seed)

    looks = _looks(max_draws)
    delta = false_alarms / (max(target.size, 1) * len(looks))
    total = _Moments(target.shape)
    before = np.empty((0, *target.shape))
    for n in looks:
        while total.n < n:
            few = max(1, min(n - total.n, _CHUNK // max(target.size, 1)))
            draws = _drawn(draw, few, rng, target.shape, low, high)
            _check_new(before, draws)
            total.add(draws)
            before = np.array(draws[:FIRST_LOOK])
        if chosen == "bernstein":
            allowed = _bernstein(total, delta, high - low)
        else:
            allowed = _student(total, delta)
        # A float32 mean of n numbers that are themselves rounded: their own eps, a few times.
        allowed = allowed + np.asarray(error, np.float64) + 4 * total.eps * total.largest
        # Without bounds nothing is known of a number that has not varied yet.
        unknown = (total.high == total.low) & (np.abs(total.mean - target) > allowed)
        unknown &= chosen == "t"
        _check_means(total, target, np.where(unknown, np.inf, allowed), false_alarms, chosen)
        if precision is not None and (2 * allowed <= precision).all() and not unknown.any():
            break
    _check_varied(total, target, unknown)
    return UnbiasedCheck(total.n, total.mean, allowed)


def _method(method: str | None, bounds: Any) -> str:
    if method not in (None, "bernstein", "t"):
        raise ValueError(f"method must be 'bernstein' or 't', got {method!r}")
    if method == "bernstein" and bounds is None:
        raise ValueError("bounds must be given for method 'bernstein'")
    if method is None and bounds is None:
        warnings.warn(
            "without bounds the rate of false alarms is approximate; give bounds, or method='t'",
            ApproximateWarning,
            stacklevel=3,
        )
    return method or ("t" if bounds is None else "bernstein")


def _bounds(bounds: Any, shape: tuple[int, ...]) -> tuple[Float64Array, Float64Array]:
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    try:
        lows = np.broadcast_to(np.asarray(low, np.float64), shape)
        highs = np.broadcast_to(np.asarray(high, np.float64), shape)
    except ValueError as error:
        raise ValueError(f"bounds must broadcast to expected, {shape}: {error}") from error
    finite = bounds is None or (np.isfinite(lows).all() and np.isfinite(highs).all())
    if not (lows <= highs).all() or not finite:
        raise ValueError(f"bounds must be finite with low <= high, got {low} and {high}")
    return lows, highs


def _looks(max_draws: int) -> list[int]:
    looks = [FIRST_LOOK]
    while looks[-1] < max_draws:
        looks.append(min(2 * looks[-1], max_draws))
    return looks


class _Moments:
    """Mean, variance and range of what has been drawn, merged chunk by chunk (Chan et al. 1979)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.n, self.eps = 0, 0.0
        self.mean = np.zeros(shape)
        self.squares = np.zeros(shape)  # of the deviations from the mean, summed
        self.low, self.high = np.full(shape, np.inf), np.full(shape, -np.inf)

    def add(self, draws: Array) -> None:
        wide = draws.astype(np.float64)
        n, mean = len(wide), wide.mean(axis=0)
        step = mean - self.mean
        self.squares += ((wide - mean) ** 2).sum(axis=0) + step**2 * (self.n * n / (self.n + n))
        self.mean = self.mean + step * (n / (self.n + n))
        self.n += n
        self.low = np.minimum(self.low, wide.min(axis=0))
        self.high = np.maximum(self.high, wide.max(axis=0))
        floating = np.issubdtype(draws.dtype, np.floating)
        self.eps = float(np.finfo(draws.dtype if floating else np.float64).eps)

    @property
    def variance(self) -> Float64Array:
        variance: Float64Array = self.squares / (self.n - 1)
        return variance

    @property
    def largest(self) -> Float64Array:
        largest: Float64Array = np.maximum(np.abs(self.low), np.abs(self.high))
        return largest


def _drawn(
    draw: Draw,
    n: int,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    low: Float64Array,
    high: Float64Array,
) -> Array:
    draws = np.asarray(draw(n, rng))
    if draws.shape != (n, *shape):
        raise ValueError(f"draw must return shape {(n, *shape)} for n = {n}, got {draws.shape}")
    if np.isnan(draws).any():
        raise AssertionError(f"{np.isnan(draws).sum()} of {draws.size} numbers drawn are NaN")
    outside = np.argwhere((draws < low) | (draws > high) | np.isinf(draws))
    if len(outside):
        value, index = draws[tuple(outside[0])], [int(i) for i in outside[0][1:]]
        raise AssertionError(
            f"{value} was drawn at {index}, out of bounds; so were {len(outside)} of {draws.size}"
        )
    return draws


def _check_new(before: Array, draws: Array) -> None:
    """Check that no number begins as in the call before: then its draws are not independent."""
    n = min(len(before), len(draws))
    # Where most draws are alike, as of a rare event, a row of them may come again by chance. With
    # so many changes a part f of them, 32 of n at least, is not the most common one: the chance is
    # about (1 - 2 f (1 - f))^n, below exp(-32) = 1e-14.
    again = np.all(before[:n] == draws[:n], axis=0)
    again &= np.count_nonzero(draws[1:n] != draws[: max(n - 1, 0)], axis=0) >= CHANGES
    if again.any():
        of = f" of {np.count_nonzero(again)} of {again.size} numbers" if again.ndim else ""
        raise AssertionError(
            f"two calls of draw gave the same {n} draws{of}: they do not depend on the rng that it "
            "is given"
        )


def _bernstein(total: _Moments, delta: float, width: Float64Array) -> Float64Array:
    n, nats = total.n, log(4 / delta)
    spread: Float64Array = np.sqrt(2 * total.variance * nats / n)
    return spread + 7 * width * nats / (3 * (n - 1))


def _student(total: _Moments, delta: float) -> Float64Array:
    n, nats = total.n, log(4 / delta)
    seen = float(np.max(total.high - total.low, initial=0.0))  # of any number, should one not vary
    quantile = float(stats.t.isf(delta / 2, n - 1))
    return quantile * np.sqrt(total.variance / n) + 7 * seen * nats / (3 * (n - 1))


def _check_varied(total: _Moments, target: Float64Array, unknown: NDArray[np.bool_]) -> None:
    """Refuse to judge numbers of which every draw was the same, and not what was expected."""
    if not unknown.any():
        return
    at = np.unravel_index(int(np.argmax(unknown)), target.shape)
    index = [int(i) for i in at]
    place = f" at {index}" if index else ""
    raise ValueError(
        f"bounds must be given: all {total.n} draws{place} are {total.mean[at]:.4g}, "
        f"{target[at]:.4g} was expected, and draws that do not vary say nothing of rarer ones"
    )


def _check_means(
    total: _Moments,
    target: Float64Array,
    allowed: Float64Array,
    false_alarms: float,
    method: str,
) -> None:
    off = total.mean - target
    wrong = np.abs(off) > allowed
    if not wrong.any():
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(wrong, np.abs(off) / allowed, 0.0)
    at = np.unravel_index(int(np.argmax(ratios)), target.shape)
    index = [int(i) for i in at]
    means = {"bernstein": "empirical Bernstein", "t": "Student's t, so only about that"}[method]
    place = f"worst at {index}: " if index else ""
    count = f", in {int(wrong.sum())} of {target.size} numbers" if target.ndim else ""
    raise AssertionError(
        f"the mean of {total.n} draws is not what was expected{count}\n"
        f"  {place}{total.mean[at]:.4g} is the mean, {target[at]:.4g} was expected: "
        f"off by {off[at]:.4g}, allowed {allowed[at]:.2g}\n"
        f"  one alarm in {1 / false_alarms:.0e} would be false ({means})"
    )
