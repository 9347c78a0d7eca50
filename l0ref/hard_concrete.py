r"""The hard concrete distribution: a gate that is exactly 0 or exactly 1 with positive probability.

Stretch a binary concrete variable to (gamma, zeta) and clip it to [0, 1] (Eq. 10-11):

.. math:: s = \sigma((\log u - \log(1-u) + \log\alpha)/\beta), \quad
          \bar s = s(\zeta-\gamma)+\gamma, \quad z = \min(1, \max(0, \bar s)) .

What was below 0 becomes an atom at 0, what was above 1 an atom at 1, and the density between
stays. The functions here are the formulas, each beside its derivatives; `HardConcrete` is the same
as a distribution object.

=====================  ==========================================  ==================
P(z != 0)              sigmoid(log_alpha - beta log(-gamma/zeta))  Eq. 12
P(z = 1)               sigmoid(log_alpha - beta log((1-gamma)/(zeta-1)))
test-time gate z_hat   clip(sigmoid(log_alpha)(zeta-gamma)+gamma)  Eq. 13, **no beta**
=====================  ==========================================  ==================

E[z], z_hat and the median gate are three different numbers that agree at log_alpha = 0. There is
no clamp in any formula: each tail is computed as itself, and no gradient dies.

C. Louizos, M. Welling, D. P. Kingma, *Learning sparse neural networks through L0 regularization*,
ICLR 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .concrete import (
    BETA,
    GAMMA,
    ZETA,
    Float64Array,
    FloatArray,
    Parameters,
    Partials,
    SamplePartials,
    StretchedConcrete,
    adaptive,
    log_sigmoid,
    sigmoids,
)

__all__ = [
    "HardConcrete",
    "Partials",
    "SamplePartials",
    "TestTimePartials",
    "log_prob_active",
    "log_prob_active_partials",
    "log_prob_one",
    "log_prob_one_partials",
    "log_prob_zero",
    "log_prob_zero_partials",
    "prob_active",
    "prob_active_partials",
    "prob_one",
    "prob_one_partials",
    "prob_zero",
    "prob_zero_partials",
    "sample",
    "sample_and_slope",
    "sample_partials",
    "test_time",
    "test_time_partials",
]

_ZERO, _ONE = np.zeros(()), np.ones(())


class TestTimePartials(NamedTuple):
    """Elementwise partial derivatives of the test-time gate, which does not depend on beta."""

    log_alpha: FloatArray
    gamma: FloatArray
    zeta: FloatArray


# --- the sampling path (Eq. 10, 11) ---------------------------------------------------------------


def sample(
    log_alpha: ArrayLike,
    u: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> FloatArray:
    r"""Gate drawn with noise u (Eq. 10, 11).

    Parameters
    ----------
    log_alpha : array_like of float
        Location. Its dtype is the result's.
    u : array_like of float
        Noise, uniform on the open interval (0, 1); broadcasts with log_alpha.
    beta, gamma, zeta : array_like of float, optional
        Temperature > 0, stretch gamma < 0 and zeta > 1.

    Returns
    -------
    array or scalar
        z in [0, 1], to an absolute error of a few eps.

    Raises
    ------
    ValueError
        If a hyperparameter is out of range, or u is not strictly between 0 and 1.

    Examples
    --------
    >>> round(float(sample(0.5, 0.3)), 6)
    0.347157
    """
    return HardConcrete(log_alpha, beta, gamma, zeta).sample(u)


def sample_and_slope(
    log_alpha: ArrayLike,
    u: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> tuple[FloatArray, FloatArray]:
    r"""Gate drawn with noise u, and its derivative in log_alpha: all that training needs.

    .. math:: z = \min(1, \max(0, \bar s)), \quad \frac{\partial z}{\partial\log\alpha} =
              \frac{(\zeta-\gamma)s(1-s)}{\beta} \text{ where } 0 < \bar s < 1, \text{ else } 0

    Parameters
    ----------
    log_alpha : array_like of float
        Location. Its dtype is that of both results.
    u : array_like of float, or Uniforms
        Noise, uniform on the open interval (0, 1); broadcasts with log_alpha. A
        `l0ref.noise.Uniforms` is a draw that is made here.
    beta, gamma, zeta : array_like of float, optional
        Temperature > 0, stretch gamma < 0 and zeta > 1.

    Returns
    -------
    z : array or scalar
        The gates, as `sample` gives them.
    slope : array or scalar
        dz/dlog_alpha, one for each gate; see `sample_partials`.

    Raises
    ------
    ValueError
        If a hyperparameter is out of range, or u is not strictly between 0 and 1.

    Examples
    --------
    >>> z, slope = sample_and_slope(0.5, 0.3)
    >>> round(float(z), 6), round(float(slope), 6)
    (0.347157, 0.420799)
    """
    return HardConcrete(log_alpha, beta, gamma, zeta).sample_and_slope(u)


def sample_partials(
    log_alpha: ArrayLike,
    u: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> SamplePartials:
    r"""Derivatives of the draw at fixed noise: the reparameterised path (Eq. 9).

    .. math:: \frac{\partial z}{\partial\log\alpha} = \frac{(\zeta-\gamma)s(1-s)}{\beta}, \quad
              \frac{\partial z}{\partial\beta} =
              -\frac{(\zeta-\gamma)s(1-s)(\mathrm{logit}\,u+\log\alpha)}{\beta^2}, \quad
              \frac{\partial z}{\partial\gamma} = 1-s, \quad \frac{\partial z}{\partial\zeta} = s

    where 0 < s_bar < 1, and 0 where the draw is clipped. On a kink itself, s_bar exactly 0 or 1 (a
    null set), 0 is a convention.

    Examples
    --------
    >>> round(float(sample_partials(0.5, 0.3).log_alpha), 6)
    0.420799
    """
    return HardConcrete(log_alpha, beta, gamma, zeta).sample_partials(u)


# --- the atoms, and what is left between them (Eq. 12) --------------------------------------------


class _Edge(NamedTuple):
    """sigmoid(t) is the probability of falling at or below an edge (0 or 1); dt holds dt/dp."""

    p: Parameters
    t: Float64Array
    dt: list[Float64Array]

    @classmethod
    def at(
        cls,
        x: Float64Array,
        log_alpha: ArrayLike,
        beta: ArrayLike,
        gamma: ArrayLike,
        zeta: ArrayLike,
    ) -> _Edge:
        p = Parameters.check(log_alpha, beta, gamma, zeta)
        t, log_odds = p.logit_cdf(x)
        return cls(p, t, p.logit_cdf_partials(x, log_odds))

    def value(self, of_t: Float64Array) -> FloatArray:
        return self.p.round(of_t)

    def partials(self, slope: Float64Array) -> Partials:
        return Partials(*(self.p.round(slope * d) for d in self.dt))


def prob_active(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> FloatArray:
    r"""P(z != 0), the probability that the gate is on (Eq. 12).

    .. math:: P(z \ne 0) = \sigma(\log\alpha - \beta\log(-\gamma/\zeta))

    Accurate relative to itself however small; `prob_zero` is 1 minus it, accurate likewise.

    Examples
    --------
    >>> round(float(prob_active(0.5)), 6)
    0.890767
    """
    edge = _Edge.at(_ZERO, log_alpha, beta, gamma, zeta)
    return edge.value(sigmoids(edge.t)[1])


def prob_active_partials(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> Partials:
    r"""Derivatives of `prob_active`: in log_alpha, P(1-P).

    Examples
    --------
    >>> round(float(prob_active_partials(0.5).log_alpha), 6)
    0.097301
    """
    edge = _Edge.at(_ZERO, log_alpha, beta, gamma, zeta)
    return edge.partials(-np.multiply(*sigmoids(edge.t)))


def prob_zero(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> FloatArray:
    """P(z = 0), the mass of the atom at 0."""
    edge = _Edge.at(_ZERO, log_alpha, beta, gamma, zeta)
    return edge.value(sigmoids(edge.t)[0])


def prob_zero_partials(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> Partials:
    """Derivatives of `prob_zero`: in log_alpha, -P(1-P)."""
    edge = _Edge.at(_ZERO, log_alpha, beta, gamma, zeta)
    return edge.partials(np.multiply(*sigmoids(edge.t)))


def prob_one(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> FloatArray:
    r"""P(z = 1), the mass of the atom at 1.

    .. math:: P(z = 1) = \sigma\left(\log\alpha - \beta\log\frac{1-\gamma}{\zeta-1}\right)
    """
    edge = _Edge.at(_ONE, log_alpha, beta, gamma, zeta)
    return edge.value(sigmoids(edge.t)[1])


def prob_one_partials(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> Partials:
    """Derivatives of `prob_one`."""
    edge = _Edge.at(_ONE, log_alpha, beta, gamma, zeta)
    return edge.partials(-np.multiply(*sigmoids(edge.t)))


def log_prob_active(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> FloatArray:
    """Log P(z != 0), in nats."""
    edge = _Edge.at(_ZERO, log_alpha, beta, gamma, zeta)
    return edge.value(log_sigmoid(-edge.t))


def log_prob_active_partials(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> Partials:
    """Derivatives of `log_prob_active`: in log_alpha, 1 - P."""
    edge = _Edge.at(_ZERO, log_alpha, beta, gamma, zeta)
    return edge.partials(-sigmoids(edge.t)[0])


def log_prob_zero(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> FloatArray:
    """Log P(z = 0), in nats: a log **mass**."""
    edge = _Edge.at(_ZERO, log_alpha, beta, gamma, zeta)
    return edge.value(log_sigmoid(edge.t))


def log_prob_zero_partials(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> Partials:
    """Derivatives of `log_prob_zero`: in log_alpha, -P."""
    edge = _Edge.at(_ZERO, log_alpha, beta, gamma, zeta)
    return edge.partials(sigmoids(edge.t)[1])


def log_prob_one(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> FloatArray:
    """Log P(z = 1), in nats: a log **mass**."""
    edge = _Edge.at(_ONE, log_alpha, beta, gamma, zeta)
    return edge.value(log_sigmoid(-edge.t))


def log_prob_one_partials(
    log_alpha: ArrayLike,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> Partials:
    """Derivatives of `log_prob_one`: in log_alpha, 1 - P(z = 1)."""
    edge = _Edge.at(_ONE, log_alpha, beta, gamma, zeta)
    return edge.partials(-sigmoids(edge.t)[0])


# --- the gate at test time (Eq. 13) ---------------------------------------------------------------


def test_time(
    log_alpha: ArrayLike, *, gamma: ArrayLike = GAMMA, zeta: ArrayLike = ZETA
) -> FloatArray:
    r"""Deterministic gate used once training is over (Eq. 13); beta is not in it.

    .. math:: \hat z = \min(1, \max(0, \sigma(\log\alpha)(\zeta-\gamma)+\gamma))

    It is exactly 0 when log_alpha <= log(-gamma/zeta).

    Examples
    --------
    >>> round(float(test_time(0.5)), 6)
    0.646951
    """
    p = Parameters.check(log_alpha, BETA, gamma, zeta)
    return p.round(_clip(sigmoids(p.log_alpha)[0] * (p.zeta - p.gamma) + p.gamma))


def test_time_partials(
    log_alpha: ArrayLike, *, gamma: ArrayLike = GAMMA, zeta: ArrayLike = ZETA
) -> TestTimePartials:
    """Derivatives of the test-time gate, 0 where it is clipped."""
    p = Parameters.check(log_alpha, BETA, gamma, zeta)
    s, one_minus_s = sigmoids(p.log_alpha)
    clipped = _is_clipped(s * (p.zeta - p.gamma) + p.gamma)
    terms = ((p.zeta - p.gamma) * s * one_minus_s, one_minus_s, s)
    return TestTimePartials(*(p.round(np.where(clipped, 0.0, term)) for term in terms))


# Pytest must not collect these names where a test imports them.
for _name in (test_time, test_time_partials, TestTimePartials):
    setattr(_name, "__test__", False)  # noqa: B010


def _clip(s_bar: Float64Array) -> Float64Array:
    return np.clip(s_bar, 0.0, 1.0)  # NaN stays NaN, which min(1, max(0, nan)) would close


def _is_clipped(s_bar: Float64Array) -> NDArray[np.bool_]:
    return (s_bar <= 0) | (s_bar >= 1)


# --- the distribution -----------------------------------------------------------------------------


class HardConcrete(StretchedConcrete):
    r"""The hard concrete distribution on [0, 1], with SciPy's names for SciPy's methods.

    Its density is taken with respect to Lebesgue measure on (0, 1) **plus a unit atom at 0 and one
    at 1**. Under that measure `pdf(0)` is the mass P(z=0), `pdf(1)` the mass P(z=1), the integral
    of `pdf` is 1, `logpdf` is a log-likelihood, and `entropy` is its expectation's negative.

    Parameters
    ----------
    log_alpha : array_like of float
        Location. NaN gives NaN everywhere; plus and minus infinity give gates of 1 and 0. Its
        dtype is the dtype of every result: float32 stays float32, anything else real gives float64.
    beta : array_like of float, optional
        Temperature, > 0.
    gamma, zeta : array_like of float, optional
        Ends of the stretched support, gamma < 0 and zeta > 1.

    Raises
    ------
    ValueError
        If a hyperparameter is out of range, or the shapes do not broadcast.

    Examples
    --------
    >>> import numpy as np
    >>> d = HardConcrete(np.array([-3.0, 0.5, 4.0]))
    >>> d.sample(np.array([0.3, 0.3, 0.3])).round(4)
    array([0.    , 0.3472, 1.    ])
    >>> d.prob_active().round(4)
    array([0.1976, 0.8908, 0.9963])
    >>> d.test_time().round(4)
    array([0.   , 0.647, 1.   ])
    """

    @property
    def _hyperparameters(self) -> dict[str, Float64Array]:
        return {"beta": self._p.beta, "gamma": self._p.gamma, "zeta": self._p.zeta}

    def prob_active(self) -> FloatArray:
        """P(z != 0); see `l0ref.hard_concrete.prob_active`."""
        return prob_active(self.log_alpha, **self._hyperparameters)

    def prob_active_partials(self) -> Partials:
        """Derivatives of `prob_active`."""
        return prob_active_partials(self.log_alpha, **self._hyperparameters)

    def prob_zero(self) -> FloatArray:
        """P(z = 0)."""
        return prob_zero(self.log_alpha, **self._hyperparameters)

    def prob_zero_partials(self) -> Partials:
        """Derivatives of `prob_zero`."""
        return prob_zero_partials(self.log_alpha, **self._hyperparameters)

    def prob_one(self) -> FloatArray:
        """P(z = 1)."""
        return prob_one(self.log_alpha, **self._hyperparameters)

    def prob_one_partials(self) -> Partials:
        """Derivatives of `prob_one`."""
        return prob_one_partials(self.log_alpha, **self._hyperparameters)

    def log_prob_active(self) -> FloatArray:
        """Log P(z != 0)."""
        return log_prob_active(self.log_alpha, **self._hyperparameters)

    def log_prob_active_partials(self) -> Partials:
        """Derivatives of `log_prob_active`."""
        return log_prob_active_partials(self.log_alpha, **self._hyperparameters)

    def log_prob_zero(self) -> FloatArray:
        """Log P(z = 0)."""
        return log_prob_zero(self.log_alpha, **self._hyperparameters)

    def log_prob_zero_partials(self) -> Partials:
        """Derivatives of `log_prob_zero`."""
        return log_prob_zero_partials(self.log_alpha, **self._hyperparameters)

    def log_prob_one(self) -> FloatArray:
        """Log P(z = 1)."""
        return log_prob_one(self.log_alpha, **self._hyperparameters)

    def log_prob_one_partials(self) -> Partials:
        """Derivatives of `log_prob_one`."""
        return log_prob_one_partials(self.log_alpha, **self._hyperparameters)

    def test_time(self) -> FloatArray:
        """Return the test-time gate (Eq. 13); no property of the law, for it has no beta."""
        return test_time(self.log_alpha, gamma=self._p.gamma, zeta=self._p.zeta)

    def test_time_partials(self) -> TestTimePartials:
        """Derivatives of `test_time`."""
        return test_time_partials(self.log_alpha, gamma=self._p.gamma, zeta=self._p.zeta)

    # The cdf family of the stretched law holds on [0, 1) as it stands; 0 itself belongs to the law.

    def _beyond(self, x: Float64Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return x < 0, x >= 1

    def _between(
        self,
        x: ArrayLike,
        inside: FloatArray,
        at_zero: FloatArray,
        at_one: FloatArray,
        outside: float,
    ) -> FloatArray:
        x = np.asarray(x, dtype=np.float64)
        at_edge = np.where(x == 0, at_zero, np.where(x == 1, at_one, inside))
        nan = np.isnan(x) | np.isnan(self._p.log_alpha)
        value = np.where((x < 0) | (x > 1), outside, at_edge)
        return self._p.round(np.where(nan, np.nan, value))

    def pdf(self, x: ArrayLike) -> FloatArray:
        """Density for Lebesgue measure plus atoms: P(z=0) at 0, P(z=1) at 1, 0 outside [0, 1]."""
        return self._between(x, super().pdf(x), self.prob_zero(), self.prob_one(), 0.0)

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Logarithm of `pdf`; log P(z=0) at 0 and log P(z=1) at 1."""
        return self._between(
            x, super().logpdf(x), self.log_prob_zero(), self.log_prob_one(), -np.inf
        )

    def pdf_partials(self, x: ArrayLike) -> Partials:
        """Derivatives of `pdf` in the parameters; of the masses at 0 and 1."""
        rows = zip(
            super().pdf_partials(x),
            self.prob_zero_partials(),
            self.prob_one_partials(),
            strict=True,
        )
        return Partials(*(self._between(x, *row, 0.0) for row in rows))

    def logpdf_partials(self, x: ArrayLike) -> Partials:
        """Derivatives of `logpdf` in the parameters (the score); of the log masses at 0 and 1."""
        rows = zip(
            super().logpdf_partials(x),
            self.log_prob_zero_partials(),
            self.log_prob_one_partials(),
            strict=True,
        )
        return Partials(*(self._between(x, *row, 0.0) for row in rows))

    def _finish(self, s_bar: Float64Array) -> Float64Array:
        return _clip(s_bar)

    def _is_clipped(self, s_bar: Float64Array) -> NDArray[np.bool_]:
        return _is_clipped(s_bar)

    def _from_logistic(self, logistic: Float64Array) -> Float64Array:
        return _clip(super()._from_logistic(logistic))

    # --- moments: E[g(z)] = g(0) P(z=0) + integral of g q + g(1) P(z=1) ---

    def _log_odds_range(self) -> tuple[Float64Array, Float64Array]:
        p = self._p
        return p.logit_cdf(_ZERO)[1], p.logit_cdf(_ONE)[1]

    def _both_means(self) -> tuple[Float64Array, Float64Array]:
        """E[z] and E[1-z], each by an integral of positive terms, so that neither cancels.

        E[z] is the integral of P(z > x) over [0, 1], and E[1-z] that of P(z <= x).
        """
        p = self._p

        def dx_dy(y: Float64Array) -> Float64Array:
            return (p.zeta - p.gamma) * np.multiply(*sigmoids(y))

        mean = self._integrate(lambda x, y, t: sigmoids(t)[1] * dx_dy(y))
        rest = self._integrate(lambda x, y, t: sigmoids(t)[0] * dx_dy(y))
        return np.where(mean > rest, 1 - rest, mean), np.where(mean > rest, rest, 1 - mean)

    def _mean(self) -> Float64Array:
        return self._both_means()[0]

    def var(self) -> FloatArray:
        """E[(z - E z)^2]: atoms and density about the mean, all terms positive."""
        mean, rest = self._both_means()
        interior = self._integrate(lambda x, y, t: (x - mean) ** 2 * self._density_in_log_odds(t))
        at_zero, at_one = self._masses()
        return self._p.round(at_zero * mean**2 + at_one * rest**2 + interior)

    def _masses(self) -> tuple[Float64Array, Float64Array]:
        p = self._p
        return sigmoids(p.logit_cdf(_ZERO)[0])[0], sigmoids(p.logit_cdf(_ONE)[0])[1]

    def moment(self, order: int) -> FloatArray:
        """E[z^order], about 0: the integral of order x^(order-1) P(z > x) over [0, 1].

        Parameters
        ----------
        order : int
            At least 0; E[z^0] = 1.

        Raises
        ------
        ValueError
            If order is not a whole number of at least 0.
        """
        if not (float(order).is_integer() and order >= 0):
            raise ValueError(f"order must be a whole number of at least 0, got {order}")
        p = self._p
        if order == 0:
            return p.round(np.where(np.isnan(p.log_alpha), np.nan, np.ones(self.shape)))
        if order == 1:
            return self.mean()

        def integrand(x: Float64Array, y: Float64Array, t: Float64Array) -> Float64Array:
            dx_dy = (p.zeta - p.gamma) * np.multiply(*sigmoids(y))
            return order * x ** (order - 1) * sigmoids(t)[1] * dx_dy

        return p.round(self._integrate(integrand))

    def _expect(self, func: Callable[[Any], Any]) -> Float64Array:
        p = self._p
        lower, upper = self._log_odds_range()

        def at(fraction: float) -> Float64Array:
            y = lower + (upper - lower) * fraction
            density = self._density_in_log_odds(p.beta * y - p.log_alpha)
            return np.asarray(func(self._stretch(y)) * density * (upper - lower), dtype=np.float64)

        interior = adaptive(at, 0.0, 1.0)
        at_zero, at_one = self._masses()
        shape = self.shape
        return np.asarray(
            at_zero * func(np.zeros(shape)) + at_one * func(np.ones(shape)) + interior
        )

    def entropy(self) -> FloatArray:
        r"""Entropy with respect to the dominating measure of `pdf`, in nats.

        .. math:: -P(z=0)\log P(z=0) - P(z=1)\log P(z=1) - \int_0^1 q \log q .
        """
        p = self._p
        edges = np.zeros(())
        for x, sign in ((_ZERO, 1.0), (_ONE, -1.0)):
            t = sign * p.logit_cdf(x)[0]
            log_mass = np.where(np.isneginf(t), 0.0, log_sigmoid(t))  # 0 log 0 = 0
            edges = edges - sigmoids(t)[0] * log_mass

        return p.round(edges + self._integrate(self._surprise))
