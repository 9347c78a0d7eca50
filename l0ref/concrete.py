r"""The binary concrete distribution, and the same stretched beyond [0, 1].

The derivation of the hard concrete gate walks through three laws:

===================  =====================================  ===========================
binary concrete      s on (0, 1)                            a smoothed coin
stretched concrete   s_bar = s (zeta - gamma) + gamma       reaches beyond both ends
hard concrete        z = min(1, max(0, s_bar))              atoms at 0 and at 1
===================  =====================================  ===========================

All three rest on one fact. If L = log u - log(1-u) is logistic noise, then y = (L + log
alpha)/beta is the log-odds of s, so that P(s <= x) = P(L <= t(x)) = sigmoid(t(x)) with

.. math:: t(x) = \beta \log\frac{x - \gamma}{\zeta - x} - \log\alpha .

(gamma = 0, zeta = 1 for the binary concrete.) The whole file is that t, its derivatives, and
sigmoids of it. Both tails sigmoid(t) and sigmoid(-t) are computed as such: 1 - cdf would lose
every digit of a small one.

Sources: C. J. Maddison, A. Mnih, Y. W. Teh, *The concrete distribution*, ICLR 2017; C. Louizos, M.
Welling, D. P. Kingma, *Learning sparse neural networks through L0 regularization*, ICLR 2018 (the
equation numbers).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _extended as ext
from .noise import open_uniform

BETA = 2 / 3
GAMMA = -0.1
ZETA = 1.1

FloatArray = NDArray[np.floating[Any]]
Float64Array = NDArray[np.float64]
RandomState = int | np.random.Generator | None


class Partials(NamedTuple):
    """Elementwise partial derivatives of one quantity, each of the broadcast shape."""

    log_alpha: FloatArray
    beta: FloatArray
    gamma: FloatArray
    zeta: FloatArray


class SamplePartials(NamedTuple):
    """Elementwise partial derivatives of a draw, each of the broadcast shape."""

    log_alpha: FloatArray
    beta: FloatArray
    gamma: FloatArray
    zeta: FloatArray
    u: FloatArray


def sigmoids(t: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return sigmoid(t) and sigmoid(-t), each with its own small tail, from one exponential."""
    e = np.exp(-np.abs(t))
    large, small = 1 / (1 + e), e / (1 + e)
    return np.where(t >= 0, large, small), np.where(t >= 0, small, large)


def log_sigmoid(t: Float64Array) -> Float64Array:
    """Return log sigmoid(t), finite wherever t is."""
    return np.minimum(t, 0) - np.log1p(np.exp(-np.abs(t)))


def sum_to_shape(a: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Add up the axes along which an array of `shape` was broadcast: the VJP of broadcasting."""
    extra = a.ndim - len(shape)
    stretched = tuple(i + extra for i, n in enumerate(shape) if n == 1 and a.shape[i + extra] != 1)
    summed = a.sum(axis=tuple(range(extra)) + stretched, keepdims=True)
    return np.asarray(summed.reshape(shape))


def as_noise(u: ArrayLike) -> Float64Array:
    """Return u as float64, or raise: noise lies strictly between 0 and 1."""
    u = np.asarray(u, dtype=np.float64)
    inside = (u > 0) & (u < 1)
    if not inside.all():
        bad = u[~inside].ravel()[0]
        raise ValueError(f"u must lie strictly between 0 and 1, got {bad}")
    return u


def _log_odds(x: Float64Array, lower: Float64Array, upper: Float64Array) -> ext.Pair:
    """log((x - lower)/(upper - x)) in twice the precision of float64."""
    return ext.log(ext.divide(ext.two_sum(x, -lower), ext.two_sum(upper, -x)))


@functools.lru_cache(maxsize=256)
def _log_odds_of_numbers(x: float, lower: float, upper: float) -> ext.Pair:
    """Those of the edges of one law, for which it is asked again and again."""
    return _log_odds(np.array(x), np.array(lower), np.array(upper))


@dataclasses.dataclass(frozen=True, eq=False)
class Parameters:
    """Checked parameters of a stretched concrete law, in float64, and the dtype of results.

    The dtype is that of log_alpha: float32 stays float32, and float64, integers and Python numbers
    give float64. Hyperparameters and arguments may be of any real dtype and do not change it.
    """

    log_alpha: Float64Array
    beta: Float64Array
    gamma: Float64Array
    zeta: Float64Array
    dtype: np.dtype[Any]

    @classmethod
    def check(
        cls, log_alpha: ArrayLike, beta: ArrayLike, gamma: ArrayLike, zeta: ArrayLike
    ) -> Parameters:
        """Check and convert; see `StretchedConcrete` for what is allowed."""
        given = np.asarray(log_alpha)
        if given.dtype.kind not in "fiu":
            raise ValueError(f"log_alpha must be real numbers, got dtype {given.dtype}")
        dtype = np.dtype(np.float32 if given.dtype in (np.float32, np.float16) else np.float64)
        la, b, g, z = (np.asarray(v, dtype=np.float64) for v in (given, beta, gamma, zeta))
        for name, value, allowed, rule in (
            ("beta", b, b > 0, "positive and finite"),
            ("gamma", g, g < 0, "negative and finite: at 0 the gate loses its atom at 0"),
            ("zeta", z, z > 1, "above 1 and finite: at 1 the gate loses its atom at 1"),
        ):
            bad = ~(allowed & np.isfinite(value))
            if bad.any():
                raise ValueError(f"{name} must be {rule}, got {value[bad].ravel()[0]}")
        try:
            np.broadcast_shapes(la.shape, b.shape, g.shape, z.shape)
        except ValueError:
            raise ValueError(
                "log_alpha, beta, gamma and zeta must broadcast, got shapes "
                f"{la.shape}, {b.shape}, {g.shape} and {z.shape}"
            ) from None
        return cls(la, b, g, z, dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that the parameters broadcast to."""
        return np.broadcast_shapes(
            self.log_alpha.shape, self.beta.shape, self.gamma.shape, self.zeta.shape
        )

    def round(self, value: FloatArray) -> FloatArray:
        """Round a float64 result to the dtype; a NumPy scalar where nothing was an array."""
        return np.asarray(value).astype(self.dtype)[()]

    def _log_odds(self, x: Float64Array, lower: Float64Array, upper: Float64Array) -> ext.Pair:
        """log((x - lower)/(upper - x)) in twice the precision of the dtype."""
        if self.dtype == np.float32:
            return ext.exact(np.log((x - lower) / (upper - x)))
        if x.ndim == lower.ndim == upper.ndim == 0:
            return _log_odds_of_numbers(float(x), float(lower), float(upper))
        return _log_odds(x, lower, upper)

    def logit_cdf(self, x: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Return t(x) and the log-odds it is made of, log((x - gamma)/(zeta - x))."""
        # An infinite log_alpha is legal; the error terms beside it are inf - inf and are dropped.
        with np.errstate(divide="ignore", invalid="ignore"):
            log_odds = self._log_odds(x, self.gamma, self.zeta)
            t = ext.add(ext.scale(log_odds, self.beta), ext.exact(-self.log_alpha))
        return t.hi, log_odds.hi

    def logit_sample(self, u: Float64Array) -> Float64Array:
        """Return (log u - log(1-u) + log alpha)/beta, the sigmoid's argument in Eq. 10."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logistic = self._log_odds(u, np.zeros(()), np.ones(()))
            numerator = ext.add(logistic, ext.exact(self.log_alpha))
            t = ext.divide(numerator, ext.exact(self.beta))
        return t.hi

    def logit_cdf_partials(self, x: Float64Array, log_odds: Float64Array) -> list[Float64Array]:
        """Return dt/d(log_alpha, beta, gamma, zeta) at x."""
        return [
            np.full(self.shape, -1.0),
            log_odds,
            -self.beta / (x - self.gamma),
            -self.beta / (self.zeta - x),
        ]


def adaptive(
    integrand: Callable[[float], Float64Array], lower: float, upper: float, *points: float
) -> Float64Array:
    """Integrate an array-valued function that may be rough, to a relative 1e-12 where it can.

    `points` are places where it is known to change its behaviour.
    """
    from scipy.integrate import quad_vec  # here, for it takes longer to import than all the rest

    tolerance: dict[str, Any] = {"epsrel": 1e-12, "epsabs": 1e-15, "norm": "max", "limit": 2000}
    value, _ = quad_vec(integrand, lower, upper, points=points, **tolerance)
    return np.asarray(value)


def gauss_legendre(
    integrand: Callable[[Float64Array], Float64Array],
    lower: Float64Array,
    upper: Float64Array,
    beta: Float64Array,
) -> Float64Array:
    r"""Integrate over [lower, upper], elementwise, an integrand with its poles off the real axis.

    16 Gauss-Legendre points on each panel. Every integrand here is made of sigmoid(y) and
    sigmoid(beta y - log_alpha), whose poles lie at a distance of pi and pi/beta from the real
    axis, wherever their real part is. On a panel of half-width h = pi/(2 max(1, beta)) they lie
    outside the Bernstein ellipse with rho = 2 + sqrt(5), and the error falls as rho^(-32) = 1e-20:
    rounding is all that is left.
    """
    reach = np.pi / np.maximum(1.0, beta)
    panels = max(1, int(np.ceil(np.max((upper - lower) / reach, initial=0.0))))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = (upper - lower) / (2 * panels)
    total = np.zeros(())
    for panel in range(panels):
        centre = lower + half * (2 * panel + 1)
        for node, weight in zip(nodes, weights, strict=True):
            total = total + weight * integrand(centre + half * node)
    return half * total


class StretchedConcrete:
    r"""The stretched binary concrete law, on (gamma, zeta): s_bar = s (zeta - gamma) + gamma.

    Parameters
    ----------
    log_alpha : array_like of float
        Location; NaN gives NaN everywhere, and plus or minus infinity are legal. Its dtype is the
        dtype of every result: float32 stays float32, anything else real gives float64.
    beta : array_like of float, optional
        Temperature, > 0.
    gamma, zeta : array_like of float, optional
        Ends of the support, gamma < 0 and zeta > 1.

    Raises
    ------
    ValueError
        If a hyperparameter is out of range, or the shapes do not broadcast.

    Examples
    --------
    >>> d = StretchedConcrete(0.5, beta=2 / 3, gamma=-0.1, zeta=1.1)
    >>> float(d.cdf(d.ppf(0.25)).round(12))
    0.25
    """

    _differentiable: ClassVar[tuple[str, ...]] = SamplePartials._fields

    def __init__(
        self,
        log_alpha: ArrayLike,
        beta: ArrayLike = BETA,
        gamma: ArrayLike = GAMMA,
        zeta: ArrayLike = ZETA,
    ) -> None:
        self._p = Parameters.check(log_alpha, beta, gamma, zeta)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(log_alpha={self.log_alpha}, beta={self.beta}, "
            f"gamma={self.gamma}, zeta={self.zeta})"
        )

    @property
    def log_alpha(self) -> FloatArray:
        """Location."""
        return self._p.round(self._p.log_alpha)

    @property
    def beta(self) -> Float64Array:
        """Temperature."""
        return self._p.beta[()]

    @property
    def gamma(self) -> Float64Array:
        """Lower end of the stretched support."""
        return self._p.gamma[()]

    @property
    def zeta(self) -> Float64Array:
        """Upper end of the stretched support."""
        return self._p.zeta[()]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of every result."""
        return self._p.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that the parameters broadcast to."""
        return self._p.shape

    # --- the law -------------------------------------------------------------------------------

    def _beyond(self, x: Float64Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return where x is below the support and where above."""
        return x <= self._p.gamma, x >= self._p.zeta

    def _locate(self, x: ArrayLike) -> tuple[Float64Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """Return x (a safe stand-in where it is outside), where it is below and where above.

        For a NaN log_alpha no x counts as outside: at the stand-in, the formulas give its NaN.
        """
        x = np.asarray(x, dtype=np.float64)
        below, above = self._beyond(x)
        known = ~np.isnan(self._p.log_alpha)
        return np.where(below | above, 0.5, x), below & known, above & known

    def _density_factor(self, x: Float64Array) -> Float64Array:
        p = self._p
        return p.beta * (p.zeta - p.gamma) / ((x - p.gamma) * (p.zeta - x))

    def pdf(self, x: ArrayLike) -> FloatArray:
        r"""Density at x: sigmoid(t) sigmoid(-t) dt/dx; 0 outside the support.

        dt/dx = beta (zeta - gamma) / ((x - gamma)(zeta - x)).
        """
        inner, below, above = self._locate(x)
        lower, upper = sigmoids(self._p.logit_cdf(inner)[0])
        density = lower * upper * self._density_factor(inner)
        return self._p.round(np.where(below | above, 0.0, density))

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Logarithm of `pdf`, not by way of it: finite where the density underflows."""
        inner, below, above = self._locate(x)
        t = self._p.logit_cdf(inner)[0]
        log_density = log_sigmoid(t) + log_sigmoid(-t) + np.log(self._density_factor(inner))
        return self._p.round(np.where(below | above, -np.inf, log_density))

    def cdf(self, x: ArrayLike) -> FloatArray:
        """P(X <= x) = sigmoid(t(x))."""
        inner, below, above = self._locate(x)
        value = sigmoids(self._p.logit_cdf(inner)[0])[0]
        return self._p.round(np.where(below, 0.0, np.where(above, 1.0, value)))

    def sf(self, x: ArrayLike) -> FloatArray:
        """P(X > x) = sigmoid(-t(x)), accurate where it is tiny."""
        inner, below, above = self._locate(x)
        value = sigmoids(self._p.logit_cdf(inner)[0])[1]
        return self._p.round(np.where(below, 1.0, np.where(above, 0.0, value)))

    def logcdf(self, x: ArrayLike) -> FloatArray:
        """Logarithm of `cdf`."""
        inner, below, above = self._locate(x)
        value = log_sigmoid(self._p.logit_cdf(inner)[0])
        return self._p.round(np.where(below, -np.inf, np.where(above, 0.0, value)))

    def logsf(self, x: ArrayLike) -> FloatArray:
        """Logarithm of `sf`."""
        inner, below, above = self._locate(x)
        value = log_sigmoid(-self._p.logit_cdf(inner)[0])
        return self._p.round(np.where(below, 0.0, np.where(above, -np.inf, value)))

    # --- derivatives in the parameters, at fixed x -----------------------------------------------

    def _chain(
        self,
        x: ArrayLike,
        outer: Callable[[Float64Array], Float64Array],
        direct: Callable[[Float64Array], list[Float64Array]] | None = None,
    ) -> Partials:
        """Return outer(t) dt/dp + direct(x), and 0 where x is outside the support."""
        inner, below, above = self._locate(x)
        t, log_odds = self._p.logit_cdf(inner)
        slope = outer(t)
        terms = [slope * dt for dt in self._p.logit_cdf_partials(inner, log_odds)]
        if direct is not None:
            terms = [a + b for a, b in zip(terms, direct(inner), strict=True)]
        shape = np.broadcast_shapes(inner.shape, self.shape)
        outside = below | above
        return Partials(
            *(self._p.round(np.where(outside, 0.0, np.broadcast_to(v, shape))) for v in terms)
        )

    def cdf_partials(self, x: ArrayLike) -> Partials:
        """Derivatives of `cdf`: sigmoid(t) sigmoid(-t) dt/dp."""
        return self._chain(x, lambda t: np.multiply(*sigmoids(t)))

    def sf_partials(self, x: ArrayLike) -> Partials:
        """Derivatives of `sf`: -sigmoid(t) sigmoid(-t) dt/dp."""
        return self._chain(x, lambda t: -np.multiply(*sigmoids(t)))

    def logcdf_partials(self, x: ArrayLike) -> Partials:
        """Derivatives of `logcdf`: sigmoid(-t) dt/dp."""
        return self._chain(x, lambda t: sigmoids(t)[1])

    def logsf_partials(self, x: ArrayLike) -> Partials:
        """Derivatives of `logsf`: -sigmoid(t) dt/dp."""
        return self._chain(x, lambda t: -sigmoids(t)[0])

    def _log_density_factor_partials(self, x: Float64Array) -> list[Float64Array]:
        p = self._p
        width = p.zeta - p.gamma
        return [
            np.zeros(()),
            1 / p.beta,
            (p.zeta - x) / (width * (x - p.gamma)),
            -(x - p.gamma) / (width * (p.zeta - x)),
        ]

    def logpdf_partials(self, x: ArrayLike) -> Partials:
        """Derivatives of `logpdf` (the score): -tanh(t/2) dt/dp + d log(dt/dx)/dp."""
        return self._chain(x, lambda t: -np.tanh(t / 2), self._log_density_factor_partials)

    def pdf_partials(self, x: ArrayLike) -> Partials:
        """Derivatives of `pdf`: pdf times the score."""
        inner = self._locate(x)[0]
        factor = self._density_factor(inner)

        def density(t: Float64Array) -> Float64Array:
            return np.multiply(*sigmoids(t)) * factor

        t = self._p.logit_cdf(inner)[0]
        return self._chain(
            x,
            lambda t: -np.tanh(t / 2) * density(t),
            lambda x: [density(t) * term for term in self._log_density_factor_partials(x)],
        )

    # --- drawing -------------------------------------------------------------------------------

    def _stretch(self, t: Float64Array) -> Float64Array:
        """Return s_bar = sigmoid(t) (zeta - gamma) + gamma."""
        return sigmoids(t)[0] * (self._p.zeta - self._p.gamma) + self._p.gamma

    def _is_clipped(self, s_bar: Float64Array) -> NDArray[np.bool_]:
        return np.zeros(s_bar.shape, dtype=bool)

    def sample(self, u: ArrayLike) -> FloatArray:
        """Draw from the law with noise u, uniform on (0, 1) (Eq. 10)."""
        return self._p.round(self._finish(self._stretch(self._p.logit_sample(as_noise(u)))))

    def _slope(self, t: Float64Array) -> Float64Array:
        """(zeta - gamma) s (1-s) / beta, with s = sigmoid(t)."""
        return (self._p.zeta - self._p.gamma) * np.multiply(*sigmoids(t)) / self._p.beta

    def sample_and_slope(self, u: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Draw, and return with the draw its derivative in log_alpha: all that training needs."""
        t = self._p.logit_sample(as_noise(u))
        s_bar = self._stretch(t)
        slope = np.where(self._is_clipped(s_bar), 0.0, self._slope(t))
        return self._p.round(self._finish(s_bar)), self._p.round(slope)

    def _sample_partials(self, u: Float64Array) -> SamplePartials:
        t = self._p.logit_sample(u)
        s, one_minus_s = sigmoids(t)
        slope = self._slope(t)
        with np.errstate(invalid="ignore"):
            # 0 times an infinite t: the limit is 0, for the sigmoid decays faster than t grows.
            in_beta = np.where(np.isinf(t), 0.0, -slope * t)
        terms = (slope, in_beta, one_minus_s, s, slope / (u * (1 - u)))
        clipped = self._is_clipped(self._stretch(t))
        return SamplePartials(*(np.where(clipped, 0.0, term) for term in terms))

    def sample_partials(self, u: ArrayLike) -> SamplePartials:
        r"""Derivatives of the draw at fixed noise, 0 where the draw is clipped.

        With s the unstretched draw: d/d log_alpha = (zeta - gamma) s (1-s) / beta,
        d/d beta = -(zeta - gamma) s (1-s) (logit u + log_alpha) / beta^2, d/d gamma = 1 - s, d/d
        zeta = s, and d/du = (d/d log_alpha) / (u (1-u)).
        """
        return SamplePartials(*(self._p.round(v) for v in self._sample_partials(as_noise(u))))

    def sample_vjp(
        self, u: ArrayLike, dz: ArrayLike, wrt: str | tuple[str, ...] = "log_alpha"
    ) -> Any:
        """Pull the cotangent dz of `sample(u)` back to the parameters.

        Parameters
        ----------
        u : array_like of float
            The noise that was drawn with.
        dz : array_like of float
            Derivative of a scalar with respect to the draw, of the draw's shape.
        wrt : str or tuple of str, optional
            One or more of log_alpha, beta, gamma, zeta, u; the binary concrete law has no gamma
            and no zeta.

        Returns
        -------
        array, or tuple of arrays where `wrt` is a tuple
            Each of the shape of what it differentiates: broadcast axes are summed.

        Raises
        ------
        ValueError
            If u is not strictly between 0 and 1, `wrt` names anything else, or dz has another
            shape than the draw.
        """
        noise = as_noise(u)
        names = (wrt,) if isinstance(wrt, str) else wrt
        for name in names:
            if name not in self._differentiable:
                raise ValueError(f"wrt must be among {self._differentiable}, got {name!r}")
        partials = self._sample_partials(noise)
        shape = np.broadcast_shapes(noise.shape, self.shape)
        cotangent = np.asarray(dz, dtype=np.float64)
        if cotangent.shape != shape:
            raise ValueError(f"dz must have the shape of the draw, {shape}, got {cotangent.shape}")
        own = {"u": noise.shape} | {n: getattr(self._p, n).shape for n in Partials._fields}
        pulled = tuple(
            self._p.round(sum_to_shape(cotangent * getattr(partials, n), own[n])) for n in names
        )
        return pulled[0] if isinstance(wrt, str) else pulled

    def _from_logistic(self, logistic: Float64Array) -> Float64Array:
        return self._stretch((logistic + self._p.log_alpha) / self._p.beta)

    def ppf(self, q: ArrayLike) -> FloatArray:
        """Return the quantile: the draw at u = q; NaN where q is not in [0, 1]."""
        return self._quantile(q, upper=False)

    def isf(self, q: ArrayLike) -> FloatArray:
        """Return the inverse of `sf`: the quantile of 1 - q, without forming 1 - q."""
        return self._quantile(q, upper=True)

    def _quantile(self, q: ArrayLike, *, upper: bool) -> FloatArray:
        q = np.asarray(q, dtype=np.float64)
        inside = (q > 0) & (q < 1)
        p = self._p
        if upper:  # logit u and -logit u have one law: isf at log_alpha mirrors ppf at -log_alpha
            mirrored = dataclasses.replace(p, log_alpha=-p.log_alpha)
            t = -mirrored.logit_sample(np.where(inside, q, 0.5))
        else:
            t = p.logit_sample(np.where(inside, q, 0.5))
        first, last = (np.inf, -np.inf) if upper else (-np.inf, np.inf)
        t = np.where(
            np.isnan(p.log_alpha), np.nan, np.where(q == 0, first, np.where(q == 1, last, t))
        )
        return p.round(np.where((q >= 0) & (q <= 1), self._finish(self._stretch(t)), np.nan))

    def _finish(self, s_bar: Float64Array) -> Float64Array:
        return s_bar

    def rvs(
        self,
        size: int | np.integer[Any] | Sequence[int] | None = None,
        random_state: RandomState = None,
    ) -> FloatArray:
        """Draw at random.

        Parameters
        ----------
        size : int or sequence of int, optional
            Shape of the result, one that the parameters broadcast to; their own shape by default.
        random_state : None, int or numpy.random.Generator, optional
            None draws a fresh seed from the system; NumPy's global state is never touched.

        Raises
        ------
        ValueError
            If size is no shape, or one that the parameters do not broadcast to.
        """
        try:
            shape = self.shape if size is None else tuple(map(operator.index, np.atleast_1d(size)))
            fits = np.broadcast_shapes(shape, self.shape) == shape
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"size must be a shape that {self.shape} broadcasts to, got {size}")
        return self.sample(open_uniform(np.random.default_rng(random_state), shape))

    # --- moments -------------------------------------------------------------------------------

    def _log_odds_range(self) -> tuple[Float64Array, Float64Array]:
        """Log-odds of x that enclose all but 1e-17 of the law and of its moments' integrands."""
        p = self._p
        centre = np.where(np.isfinite(p.log_alpha), p.log_alpha, 0.0) / p.beta
        margin = 40.0 / p.beta
        return np.minimum(centre, 0.0) - margin, np.maximum(centre, 0.0) + margin

    def _integrate(
        self, integrand: Callable[[Float64Array, Float64Array, Float64Array], Float64Array]
    ) -> Float64Array:
        """Integrate integrand(x, y, t) over y, the log-odds of x; t = beta y - log_alpha."""
        p = self._p
        lower, upper = self._log_odds_range()

        def at(y: Float64Array) -> Float64Array:
            return integrand(self._stretch(y), y, p.beta * y - p.log_alpha)

        return gauss_legendre(at, lower, upper, p.beta)

    def _density_in_log_odds(self, t: Float64Array) -> Float64Array:
        return self._p.beta * np.multiply(*sigmoids(t))

    def _from_near_end(self, y: Float64Array) -> Float64Array:
        """Distance of x from zeta where log_alpha > 0, else from gamma, at log-odds y of x.

        Most of the law may lie so near an end that x itself rounds to it; the distance does not.
        """
        p = self._p
        s, one_minus_s = sigmoids(y)
        return (p.zeta - p.gamma) * np.where(p.log_alpha > 0, one_minus_s, s)

    def _mean_from_near_end(self) -> Float64Array:
        return self._integrate(
            lambda x, y, t: self._from_near_end(y) * self._density_in_log_odds(t)
        )

    def _mean(self) -> Float64Array:
        p = self._p
        distance = self._mean_from_near_end()
        return np.where(p.log_alpha > 0, p.zeta - distance, p.gamma + distance)

    def mean(self) -> FloatArray:
        """E[X], by quadrature: no closed form at a general beta."""
        return self._p.round(self._mean())

    def var(self) -> FloatArray:
        """E[(X - E X)^2], by quadrature about the mean: E[X^2] - E[X]^2 would cancel.

        X and its mean are both measured from the end that most of the law is near.
        """
        mean = self._mean_from_near_end()

        def integrand(x: Float64Array, y: Float64Array, t: Float64Array) -> Float64Array:
            return (self._from_near_end(y) - mean) ** 2 * self._density_in_log_odds(t)

        return self._p.round(self._integrate(integrand))

    def std(self) -> FloatArray:
        """Square root of the variance."""
        return np.sqrt(self.var())

    def median(self) -> FloatArray:
        """Return the quantile of 1/2."""
        return self.ppf(0.5)

    def expect(self, func: Callable[[Any], Any]) -> FloatArray:
        """E[func(X)], by adaptive quadrature.

        Parameters
        ----------
        func : callable
            Takes an array of values of X of the law's shape and gives an array of that shape. It
            may be rough: the quadrature refines where it must, to a relative 1e-12 or as near as
            it comes.
        """
        p = self._p
        missing = np.isnan(p.log_alpha)  # one NaN would keep the adaptive rule from ever stopping
        law = copy.copy(self)
        law._p = dataclasses.replace(p, log_alpha=np.where(missing, 0.0, p.log_alpha))
        return p.round(np.where(missing, np.nan, law._expect(func)))

    def _expect(self, func: Callable[[Any], Any]) -> Float64Array:
        # Over the logistic noise, where every law of this family has its bulk at the same place.
        def at(logistic: float) -> Float64Array:
            density = np.multiply(*sigmoids(np.asarray(logistic)))
            return np.asarray(
                func(self._from_logistic(np.asarray(logistic))) * density, dtype=np.float64
            )

        return adaptive(at, -45.0, 45.0, 0.0)

    def _surprise(self, x: Float64Array, y: Float64Array, t: Float64Array) -> Float64Array:
        """-log q(x) times the density of y: what entropies integrate."""
        p = self._p
        t = np.clip(t, -1e6, 1e6)  # t is infinite where log_alpha is, and 0 log 0 = 0
        log_density = log_sigmoid(t) + log_sigmoid(-t) - log_sigmoid(y) - log_sigmoid(-y)
        log_density = log_density + np.log(p.beta / (p.zeta - p.gamma))
        return -log_density * self._density_in_log_odds(t)

    def entropy(self) -> FloatArray:
        r"""Differential entropy :math:`-\int q \log q`, in nats.

        It is -inf where log_alpha is infinite: the law has become a point.
        """
        p = self._p
        return p.round(np.where(np.isinf(p.log_alpha), -np.inf, self._integrate(self._surprise)))


class BinaryConcrete(StretchedConcrete):
    r"""The binary concrete law on (0, 1): a smoothed coin (s of Eq. 10, before the stretch).

    .. math:: q(s) = \frac{\beta\alpha s^{-\beta-1}(1-s)^{-\beta-1}}{(\alpha s^{-\beta} +
    (1-s)^{-\beta})^2},
              \quad Q(s) = \sigma(\beta(\log s - \log(1-s)) - \log\alpha).

    P(s > 1/2) = sigmoid(log_alpha) at every beta, and beta -> 0 gives the coin itself.

    It is the stretched law with its ends held at gamma = 0 and zeta = 1, which are no parameters:
    `sample_vjp` does not pull back to them. The methods named `*_partials` give what they give for
    every law of the family, so their gamma and zeta are slopes in moving the ends 0 and 1.

    Parameters
    ----------
    log_alpha : array_like of float
        Location; its dtype is that of every result.
    beta : array_like of float, optional
        Temperature, > 0.

    Raises
    ------
    ValueError
        If beta is out of range, or the shapes do not broadcast.

    Examples
    --------
    >>> round(float(BinaryConcrete(0.0, beta=0.1).cdf(0.5)), 12)
    0.5
    """

    _differentiable = ("log_alpha", "beta", "u")

    def __init__(self, log_alpha: ArrayLike, beta: ArrayLike = BETA) -> None:
        p = Parameters.check(log_alpha, beta, GAMMA, ZETA)
        self._p = Parameters(p.log_alpha, p.beta, np.zeros(()), np.ones(()), p.dtype)

    def __repr__(self) -> str:
        return f"BinaryConcrete(log_alpha={self.log_alpha}, beta={self.beta})"
