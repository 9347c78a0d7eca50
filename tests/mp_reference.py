"""The formulas in mpmath, 60 digits wide, on the exact values of the floats they are given.

Three devices keep this page short and independent of any formula the package may share with it.

- Derivatives come from the definition: a central difference with step h = 1e-20 (scaled) leaves a
  truncation error near h**2 = 1e-40 and a rounding error near 1e-60/h = 1e-40.
- Moments are integrals over the *noise*, in the logistic variable logit u, not over the gate.
- A 60-digit number is handed over as `Exact`, an unevaluated sum of two float64, so that
  errors far below one float64 epsilon are measured by plain NumPy.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from mpmath import MPContext

mp = MPContext()  # private: nobody else's precision changes
mp.dps = 60

PARAMETERS = ("log_alpha", "beta", "gamma", "zeta")


class Exact(NamedTuple):
    """The sum high + low of two float64 arrays: some 32 digits."""

    high: Any
    low: Any

    def error(self, got: Any) -> Any:
        """Return |got - exact| elementwise, itself accurate to about an epsilon."""
        return np.abs((np.asarray(got, np.float64) - self.high) - self.low)


def exact(values: Sequence[Any]) -> Exact:
    high = np.array([float(v) for v in values])
    low = np.array([float(v - mp.mpf(h)) for v, h in zip(values, high, strict=True)])
    return Exact(high, low)


# Building blocks; every one keeps the relative accuracy of its result in both tails


def sigmoid(t):
    return 1 / (1 + mp.exp(-t))


def log_sigmoid(t):
    return -mp.log1p(mp.exp(-t))


def logit(u):
    return mp.log(u) - mp.log1p(-u)


# Formulas: mpf in, a dict of mpf out


def law(log_alpha, beta, gamma, zeta, x):
    """Return the law of s_bar at gamma < x < zeta; at x = 0 and x = 1 it gives the hard atoms."""
    t = beta * (mp.log(x - gamma) - mp.log(zeta - x)) - log_alpha
    cdf, sf = sigmoid(t), sigmoid(-t)
    pdf = beta * cdf * sf * (1 / (x - gamma) + 1 / (zeta - x))
    return {
        "t": t,
        "cdf": cdf,
        "sf": sf,
        "logcdf": log_sigmoid(t),
        "logsf": log_sigmoid(-t),
        "pdf": pdf,
        "logpdf": mp.log(pdf),
    }


def path(log_alpha, beta, gamma, zeta, u):
    """Return Eq. 10-11."""
    t = (logit(u) + log_alpha) / beta
    s = sigmoid(t)
    s_bar = s * (zeta - gamma) + gamma
    return {"t": t, "s": s, "s_bar": s_bar, "z": min(mp.one, max(mp.zero, s_bar))}


def gate(log_alpha, beta, gamma, zeta, _):
    """Return Eq. 13, which has no beta."""
    s_bar = sigmoid(log_alpha) * (zeta - gamma) + gamma
    return {"t": log_alpha, "s_bar": s_bar, "z_hat": min(mp.one, max(mp.zero, s_bar))}


def table(
    formula: Callable[..., dict[str, Any]],
    log_alpha: Any,
    beta: Any,
    gamma: Any,
    zeta: Any,
    last: Any,
    wrt: Sequence[str] = PARAMETERS,
) -> dict[str, Exact]:
    """Evaluate a formula and its derivatives at every point of some float arrays.

    The keys of the result are those of the formula, say `cdf`, and `cdf/beta` and its like;
    `u` in `wrt` stands for the last argument.
    """
    index = {name: i for i, name in enumerate((*PARAMETERS, "u"))}
    columns: dict[str, list[Any]] = {}
    arrays = np.broadcast_arrays(log_alpha, beta, gamma, zeta, last)
    for point in zip(*(np.ravel(a).astype(np.float64) for a in arrays), strict=True):
        values = [mp.mpf(float(v)) for v in point]
        center = formula(*values)
        for key, value in center.items():
            columns.setdefault(key, []).append(value)
        for name in wrt:
            i = index[name]
            # A step no larger than the distance to the nearest singularity of any formula here.
            h = (
                mp.mpf("1e-20")
                * {
                    "log_alpha": 1,
                    "beta": values[1],
                    "gamma": values[2],
                    "zeta": values[3] - 1 if formula is law else 1,
                    "u": values[4] * (1 - values[4]),
                }[name]
            )
            up, down = (
                formula(*values[:i], values[i] + step, *values[i + 1 :]) for step in (h, -h)
            )
            slope = {key: (up[key] - down[key]) / (2 * h) for key in up}
            # A probability of 1 - 1e-30 has lost its slope to rounding; its logarithm has not.
            slope |= {
                key: value * slope[f"log{key}"]
                for key, value in center.items()
                if f"log{key}" in slope
            }
            for key in slope:
                columns.setdefault(f"{key}/{name}", []).append(slope[key])
    return {key: exact(column) for key, column in columns.items()}


# Integrals over the noise


def _integral(f, points, scale):
    """Integrate by tanh-sinh between consecutive points, none further apart than 4 units.

    mpmath stops at an absolute error: `scale` brings tails of e**-40 to the order of 1.
    """
    edges = [mp.mpf(points[0])]
    for point in points[1:]:
        pieces = max(1, int(mp.ceil((point - edges[-1]) / 4)))
        start = edges[-1]
        edges += [start + (point - start) * k / pieces for k in range(1, pieces + 1)]
    with mp.workdps(25):
        return mp.quad(lambda y: scale * f(y), edges) / scale


def _remembering(f):
    seen: dict[Any, Any] = {}

    def remembered(t):
        if t not in seen:
            seen[t] = f(t)
        return seen[t]

    return remembered


def hard_moments(log_alpha, beta, gamma, zeta, functions=()) -> dict[str, Any]:
    """Return mean, var, third, entropy, its size (sum of the parts' magnitudes) and E[f(z)].

    With y = logit u logistic, z = 0 for y <= y0, z = 1 for y >= y1, and s_bar(y) between.
    """
    log_alpha, beta, gamma, zeta = (mp.mpf(float(v)) for v in (log_alpha, beta, gamma, zeta))
    y0 = beta * mp.log(-gamma / zeta) - log_alpha
    y1 = beta * mp.log((1 - gamma) / (zeta - 1)) - log_alpha
    p0, p1 = sigmoid(y0), sigmoid(-y1)

    def integral(f):
        return _integral(f, (y0, y1), mp.exp(abs(log_alpha)))

    @_remembering
    def at(y):
        weight = sigmoid(y) * sigmoid(-y)
        s = sigmoid((y + log_alpha) / beta)
        jacobian = beta / (s * (1 - s) * (zeta - gamma))  # dy/ds_bar
        return weight, s * (zeta - gamma) + gamma, mp.log(weight * jacobian)

    def mean_of(g, first, last):
        return p0 * first + p1 * last + integral(lambda y: at(y)[0] * g(at(y)))

    mean = mean_of(lambda a: a[1], 0, 1)
    return {
        "mean": mean,
        "var": mean_of(lambda a: (a[1] - mean) ** 2, mean**2, (1 - mean) ** 2),
        "third": mean_of(lambda a: a[1] ** 3, 0, 1),
        "entropy": -mean_of(lambda a: a[2], mp.log(p0), log_sigmoid(-y1)),
        "entropy_size": mean_of(lambda a: abs(a[2]), -mp.log(p0), -log_sigmoid(-y1)),
        "expect": [mean_of(lambda a, f=f: f(a[1]), f(mp.zero), f(mp.one)) for f in functions],
    }


def concrete_moments(log_alpha, beta, functions=()) -> dict[str, Any]:
    """Return mean, var, entropy, its size and E[f(s)] of the binary concrete, over the noise."""
    log_alpha, beta = (mp.mpf(float(v)) for v in (log_alpha, beta))
    # Beyond 90 units of noise lies 1e-39, nothing beside e**-40; s bends at y = -log_alpha.
    edges = sorted({mp.mpf(-90), -log_alpha - 8 * beta, -log_alpha, -log_alpha + 8 * beta,
                    mp.zero, mp.mpf(90)})  # fmt: skip

    @_remembering
    def at(y):
        weight = sigmoid(y) * sigmoid(-y)
        r = (y + log_alpha) / beta
        log_pdf = mp.log(beta) + mp.log(weight) - log_sigmoid(r) - log_sigmoid(-r)
        return weight, sigmoid(r), log_pdf

    def mean_of(g):
        return _integral(lambda y: at(y)[0] * g(at(y)), edges, mp.exp(abs(log_alpha)))

    mean = mean_of(lambda a: a[1])
    return {
        "mean": mean,
        "var": mean_of(lambda a: (a[1] - mean) ** 2),
        "entropy": -mean_of(lambda a: a[2]),
        "entropy_size": mean_of(lambda a: abs(a[2])),
        "expect": [mean_of(lambda a, f=f: f(a[1])) for f in functions],
    }
