r"""Penalties under gates, each beside its derivative, and the lambda that AIC and BIC choose.

Everything here is a sum over parameters, **not** divided by N and not multiplied by lambda: a
count for L0, a sum of squares for L2. The objective (Eq. 9, 14, 15) is

.. math:: \text{data loss} + \frac{\lambda}{N} \sum_g |g|\,P(z_g\ne 0)
          + \frac{\lambda_2}{2N} \sum_g P(z_g\ne 0) \sum_{j\in g} \tilde\theta_j^2 .

L2 and L1 weigh theta with P(z != 0), not with z: the prior's scale follows the gate, so that the
gate's value does not shrink the weight (Eq. 14). A bias that no gate switches off is in none of
these sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .concrete import BETA, GAMMA, ZETA, FloatArray, sum_to_shape
from .gates import Gates
from .hard_concrete import prob_active, prob_zero

Elementwise = Callable[[Any], Any]


class WeightGradients(NamedTuple):
    """Derivatives of a penalty on gated weights; `bias` is None where no gate switches it off."""

    weight: FloatArray
    bias: FloatArray | None
    log_alpha: FloatArray


def expected_l0(
    log_alpha: ArrayLike,
    group_size: ArrayLike = 1,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> float:
    r"""Expected number of parameters left on, a count (Eq. 12, 15).

    .. math:: \sum_g |g| \, \sigma(\log\alpha_g - \beta\log(-\gamma/\zeta))

    Parameters
    ----------
    log_alpha : array_like of float
        One a gate, any shape.
    group_size : array_like of int, optional
        |g|, broadcast against log_alpha.
    beta, gamma, zeta : array_like of float, optional
        Hyperparameters of the law.

    Examples
    --------
    >>> round(expected_l0([0.5, -0.3], [300, 10]), 4)
    275.086
    """
    active = prob_active(log_alpha, beta=beta, gamma=gamma, zeta=zeta)
    return float(np.sum(np.multiply(active, group_size), dtype=np.float64))


def expected_l0_grad(
    log_alpha: ArrayLike,
    group_size: ArrayLike = 1,
    *,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> FloatArray:
    r"""Derivative of `expected_l0` in log_alpha: |g| P (1-P), never 0 where it is representable."""
    slope = _slope(log_alpha, beta, gamma, zeta)
    grad = np.asarray(slope * np.asarray(group_size).astype(slope.dtype))
    return sum_to_shape(grad, np.shape(log_alpha))


def gate_gradient(
    dz: ArrayLike,
    slope: ArrayLike,
    log_alpha: ArrayLike,
    group_size: ArrayLike = 1,
    *,
    lam: float,
    beta: ArrayLike = BETA,
    gamma: ArrayLike = GAMMA,
    zeta: ArrayLike = ZETA,
) -> tuple[FloatArray, float]:
    r"""Derivative of the objective in log_alpha, by both ways: through the draw, and the penalty.

    .. math:: \frac{\partial R}{\partial\log\alpha_g} =
              \sum_n \frac{\partial L}{\partial z_{ng}} \frac{\partial z_{ng}}
              {\partial\log\alpha_g} + \lambda\,|g|\,P_g (1-P_g), \quad P_g = P(z_g \ne 0)

    The first term is the VJP of `l0ref.hard_concrete.sample_and_slope`; where one draw serves the
    whole batch there is one n. The second is lam times `expected_l0_grad`, without noise (Eq. 9).

    Parameters
    ----------
    dz : array_like of float
        Derivative of the data loss with respect to the gates drawn, of log_alpha's shape, or with
        one more axis in front: one draw for each example.
    slope : array_like of float
        dz/dlog_alpha of the draw, of dz's shape.
    log_alpha : array_like of float
        One a gate, any shape.
    group_size : array_like of int, optional
        |g|, broadcast against log_alpha.
    lam : float
        The factor in front of the count, **as it stands in the objective**: lambda / N for a data
        loss averaged over examples.
    beta, gamma, zeta : array_like of float, optional
        Hyperparameters of the law.

    Returns
    -------
    d_log_alpha : array
        Of log_alpha's shape.
    l0 : float
        `expected_l0`: a count, **not** multiplied by lam.

    Raises
    ------
    ValueError
        If dz and slope are not of one shape, that of log_alpha or with one more axis in front.

    Examples
    --------
    >>> gradient, l0 = gate_gradient([2.0, 1.0], [0.4, 0.0], [0.5, -0.3], [300, 10], lam=0.001)
    >>> gradient.round(6), round(l0, 4)
    (array([0.82919 , 0.001684]), 275.086)
    """
    through, slopes, shape = np.asarray(dz), np.asarray(slope), np.shape(log_alpha)
    per_example = through.ndim == len(shape) + 1
    if through.shape[per_example:] != shape or slopes.shape != through.shape:
        raise ValueError(
            f"dz and slope must both have the shape of log_alpha, {shape}, or one more axis in "
            f"front, got {through.shape} and {slopes.shape}"
        )
    law = {"beta": beta, "gamma": gamma, "zeta": zeta}
    pulled = through * slopes
    drawn = pulled.sum(axis=0) if per_example else pulled
    penalty = float(lam) * expected_l0_grad(log_alpha, group_size, **law)
    return np.asarray(drawn + penalty), expected_l0(log_alpha, group_size, **law)


def _slope(log_alpha: ArrayLike, beta: ArrayLike, gamma: ArrayLike, zeta: ArrayLike) -> FloatArray:
    """dP/dlog_alpha = P(z != 0) P(z = 0)."""
    active = prob_active(log_alpha, beta=beta, gamma=gamma, zeta=zeta)
    return active * prob_zero(log_alpha, beta=beta, gamma=gamma, zeta=zeta)


def expected_l2(
    weight: FloatArray, log_alpha: FloatArray, gates: Gates, bias: FloatArray | None = None
) -> float:
    r"""Sum of squares under the gates (Eq. 14, 15); without the 1/2.

    .. math:: \sum_g P(z_g\ne 0) \sum_{j\in g} \tilde\theta_j^2

    Parameters
    ----------
    weight : array, of gates.weight_shape
        The weights theta_tilde, before the gate.
    log_alpha : array, of gates.shape
        One a gate.
    gates : Gates
        Which gate governs which weight.
    bias : array, optional
        The units' biases; required where the gates switch them off, refused where they do not.
    """
    return _weighted(np.square, weight, log_alpha, gates, bias)


def expected_l2_grad(
    weight: FloatArray, log_alpha: FloatArray, gates: Gates, bias: FloatArray | None = None
) -> WeightGradients:
    """Derivatives of `expected_l2`: 2 P theta, and P (1-P) times the group's sum of squares."""
    return _weighted_grad(np.square, lambda a: 2 * a, weight, log_alpha, gates, bias)


def expected_l1(
    weight: FloatArray, log_alpha: FloatArray, gates: Gates, bias: FloatArray | None = None
) -> float:
    r"""Sum of absolute values under the gates: Eq. 14's argument for the L1 norm.

    .. math:: \sum_g P(z_g\ne 0) \sum_{j\in g} |\tilde\theta_j|

    That is the expectation of the norm for the binary gate 1[z != 0]; the parameters are those of
    `expected_l2`.
    """
    return _weighted(np.abs, weight, log_alpha, gates, bias)


def expected_l1_grad(
    weight: FloatArray, log_alpha: FloatArray, gates: Gates, bias: FloatArray | None = None
) -> WeightGradients:
    """Derivatives of `expected_l1`: P sign(theta), where sign(0) = 0 is a convention."""
    return _weighted_grad(np.abs, np.sign, weight, log_alpha, gates, bias)


def _group_sums(
    norm: Elementwise, weight: FloatArray, gates: Gates, bias: FloatArray | None
) -> FloatArray:
    if gates.gates_bias != (bias is not None):
        rule = "is required: the gates switch it off" if gates.gates_bias else "is not gated"
        raise ValueError(f"bias {rule}; got {None if bias is None else bias.shape}")
    sums = gates.contract(norm(weight))
    if bias is not None and bias.shape != gates.shape:
        raise ValueError(f"bias must have one entry a gate, {gates.shape}, got {bias.shape}")
    return sums if bias is None else sums + norm(bias)


def _weighted(
    norm: Elementwise,
    weight: FloatArray,
    log_alpha: FloatArray,
    gates: Gates,
    bias: FloatArray | None,
) -> float:
    sums = _group_sums(norm, weight, gates, bias)
    return float(np.sum(gates.law(log_alpha).prob_active() * sums, dtype=np.float64))


def _weighted_grad(
    norm: Elementwise,
    slope: Elementwise,
    weight: FloatArray,
    log_alpha: FloatArray,
    gates: Gates,
    bias: FloatArray | None,
) -> WeightGradients:
    sums = _group_sums(norm, weight, gates, bias)
    active = gates.law(log_alpha).prob_active()
    return WeightGradients(
        weight=gates.expand(active) * slope(weight),
        bias=None if bias is None else active * slope(bias),
        log_alpha=_slope(log_alpha, **gates.hyperparameters) * sums,
    )


# --- information criteria ---


def lam_aic(n_examples: int) -> float:
    """Lambda per parameter that makes the objective AIC / (2N), for a loss averaged over N: 1/N."""
    return 1.0 / _positive("n_examples", n_examples)


def lam_bic(n_examples: int) -> float:
    """Lambda per parameter that makes the objective BIC / (2N): log(N) / (2N)."""
    return float(np.log(_positive("n_examples", n_examples))) / (2 * n_examples)


def aic(nll: float, n_params: float, n_examples: int) -> float:
    """Akaike's criterion, 2 k - 2 log L, in nats.

    Parameters
    ----------
    nll : float
        Negative log-likelihood in nats, **averaged** over the examples.
    n_params : float
        k, the number of parameters left on (an expected number is allowed).
    n_examples : int
        N.

    Examples
    --------
    >>> aic(0.1, n_params=5, n_examples=1000)
    210.0
    """
    return 2.0 * n_params + 2.0 * _positive("n_examples", n_examples) * nll


def bic(nll: float, n_params: float, n_examples: int) -> float:
    """Schwarz's criterion, k log N - 2 log L, in nats; the arguments are those of `aic`."""
    n = _positive("n_examples", n_examples)
    return n_params * float(np.log(n)) + 2.0 * n * nll


def _positive(name: str, value: int) -> int:
    if not value >= 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value
