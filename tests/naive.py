"""Scalar twins of the formulas, written from the equations with loops and `math` alone.

Nothing here is fast, vectorised or careful beyond plain floating point, and nothing here imports
the package. The equation numbers are those of Louizos, Welling and Kingma (arXiv 1712.01312).
"""

from collections.abc import Sequence
from math import exp, log, log1p

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


def sigmoid(t: float) -> float:
    """Return 1/(1 + exp(-t)), on the side where exp cannot overflow."""
    return 1 / (1 + exp(-t)) if t >= 0 else exp(t) / (1 + exp(t))


def logit(u: float) -> float:
    """Return log u - log(1 - u), the inverse of the sigmoid."""
    return log(u) - log1p(-u)


# The hard concrete distribution, Eq. 10-13


def concrete_sample(log_alpha: float, u: float, beta: float = BETA) -> float:
    """Eq. 10, left: s = sigmoid((log u - log(1 - u) + log_alpha) / beta)."""
    return sigmoid((logit(u) + log_alpha) / beta)


def stretched_sample(
    log_alpha: float, u: float, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> float:
    """Eq. 10, right: s_bar = s (zeta - gamma) + gamma."""
    return concrete_sample(log_alpha, u, beta) * (zeta - gamma) + gamma


def sample(
    log_alpha: float, u: float, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> float:
    """Eq. 11: z = min(1, max(0, s_bar))."""
    return min(1.0, max(0.0, stretched_sample(log_alpha, u, beta, gamma, zeta)))


def sample_partials(
    log_alpha: float, u: float, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> dict[str, float]:
    """Differentiate Eq. 10-11 by the chain rule; all 0 unless 0 < s_bar < 1."""
    if not 0 < stretched_sample(log_alpha, u, beta, gamma, zeta) < 1:
        return dict.fromkeys(("log_alpha", "beta", "gamma", "zeta", "u"), 0.0)
    t = (logit(u) + log_alpha) / beta
    ds_dt = sigmoid(t) * sigmoid(-t)
    return {
        "log_alpha": (zeta - gamma) * ds_dt / beta,
        "beta": -(zeta - gamma) * ds_dt * t / beta,
        "gamma": sigmoid(-t),
        "zeta": sigmoid(t),
        "u": (zeta - gamma) * ds_dt / (beta * u * (1 - u)),
    }


def z_hat(log_alpha: float, gamma: float = GAMMA, zeta: float = ZETA) -> float:
    """Eq. 13: z_hat = min(1, max(0, sigmoid(log_alpha) (zeta - gamma) + gamma)); no beta."""
    return min(1.0, max(0.0, sigmoid(log_alpha) * (zeta - gamma) + gamma))


def cdf(
    x: float, log_alpha: float, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> float:
    """P(z <= x): Q_s((x - gamma)/(zeta - gamma)) on [0, 1), with the atom at 0 inside it."""
    if x < 0:
        return 0.0
    if x >= 1:
        return 1.0
    return sigmoid(beta * logit((x - gamma) / (zeta - gamma)) - log_alpha)


def pdf(
    x: float, log_alpha: float, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> float:
    """Density of z inside (0, 1), the masses of the atoms at 0 and at 1, and 0 elsewhere."""
    if x == 0:
        return prob_zero(log_alpha, beta, gamma, zeta)
    if x == 1:
        return prob_one(log_alpha, beta, gamma, zeta)
    if not 0 < x < 1:
        return 0.0
    alpha, s = exp(log_alpha), (x - gamma) / (zeta - gamma)
    density = beta * alpha * s ** (-beta - 1) * (1 - s) ** (-beta - 1)
    return density / (alpha * s**-beta + (1 - s) ** -beta) ** 2 / (zeta - gamma)


def prob_zero(
    log_alpha: float, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> float:
    """P(z = 0) = Q_s_bar(0)."""
    return sigmoid(beta * log(-gamma / zeta) - log_alpha)


def prob_active(
    log_alpha: float, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> float:
    """Eq. 12, one gate: P(z != 0) = sigmoid(log_alpha - beta log(-gamma/zeta))."""
    return sigmoid(log_alpha - beta * log(-gamma / zeta))


def prob_one(
    log_alpha: float, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> float:
    """P(z = 1) = 1 - Q_s_bar(1)."""
    return sigmoid(log_alpha - beta * log((1 - gamma) / (zeta - 1)))


# The penalties, Eq. 12, 14 and 15. labels[j] is the group, hence the gate, of the weight theta[j].


def expected_l0(
    log_alpha: Sequence[float], beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> float:
    """Eq. 12: sum_j P(z_j != 0), one gate a weight."""
    return group_l0(log_alpha, [1] * len(log_alpha), beta, gamma, zeta)


def group_l0(
    log_alpha: Sequence[float],
    group_size: Sequence[float],
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> float:
    """Eq. 15: sum_g |g| P(z_g != 0)."""
    total = 0.0
    for one, size in zip(log_alpha, group_size, strict=True):
        total += size * prob_active(one, beta, gamma, zeta)
    return total


def gated_l2(
    theta: Sequence[float],
    labels: Sequence[int],
    log_alpha: Sequence[float],
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> float:
    """Eq. 14 and 15: sum_g P(z_g != 0) sum_{j in g} theta_j^2, with neither lambda nor the half."""
    total = 0.0
    for weight, group in zip(theta, labels, strict=True):
        total += prob_active(log_alpha[group], beta, gamma, zeta) * weight**2
    return total


def gated_l1(
    theta: Sequence[float],
    labels: Sequence[int],
    log_alpha: Sequence[float],
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> float:
    """Eq. 14 with |theta_j| for theta_j^2: sum_g P(z_g != 0) sum_{j in g} |theta_j|."""
    total = 0.0
    for weight, group in zip(theta, labels, strict=True):
        total += prob_active(log_alpha[group], beta, gamma, zeta) * abs(weight)
    return total
