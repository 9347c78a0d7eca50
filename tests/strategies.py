"""Points of a gate's law, from the strategies that the package has for everyone.

Hyperparameters are any float64 here: the formulas are checked at the very numbers they are given.
"""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from l0ref.testing import strategies
from l0ref.testing.strategies import dtypes, log_alphas, noise
from tests import naive

__all__ = [
    "DTYPES",
    "Point",
    "active_points",
    "betas",
    "broadcasting_shapes",
    "dtypes",
    "gammas",
    "inside",
    "log_alphas",
    "noise",
    "points",
    "zetas",
]

DTYPES = (np.float32, np.float64)


class Point(NamedTuple):
    """One gate and one number that goes with it: its noise, or an argument of its law."""

    log_alpha: Any
    beta: float
    gamma: float
    zeta: float
    last: Any

    @property
    def hyperparameters(self) -> dict[str, float]:
        return {"beta": self.beta, "gamma": self.gamma, "zeta": self.zeta}


def betas(lower: float = 0.1, upper: float = 2.0) -> st.SearchStrategy[float]:
    return strategies.betas(lower, upper, dtype=np.float64)


def gammas() -> st.SearchStrategy[float]:
    return strategies.gammas(dtype=np.float64)


def zetas() -> st.SearchStrategy[float]:
    return strategies.zetas(dtype=np.float64)


def inside(dtype: Any) -> st.SearchStrategy[Any]:
    """Draw from (0, 1), but for no reason near an end: arguments of a density."""
    width = np.finfo(dtype).bits
    return st.floats(0, 1, width=width, exclude_min=True, exclude_max=True).map(dtype)


@st.composite
def points(draw: st.DrawFn, last: Any = noise, bound: float = 40.0) -> Point:
    """Draw any valid gate with any valid noise (or, with `last=inside`, argument of its law)."""
    dtype = draw(dtypes())
    gate = (draw(log_alphas(dtype, bound)), draw(betas()), draw(gammas()), draw(zetas()))
    return Point(*gate, draw(last(dtype)))


@st.composite
def active_points(draw: st.DrawFn) -> Point:
    """Draw float64 gates open by 0.05 < z < 0.95, well away from both kinks.

    The noise is drawn first and log_alpha is solved for, so the two cancel when u is extreme.
    """
    u = draw(noise(np.float64).filter(lambda u: u > 1e-15))
    beta, gamma, zeta = draw(betas()), draw(gammas()), draw(zetas())
    s = (draw(st.floats(0.06, 0.94)) - gamma) / (zeta - gamma)
    return Point(beta * naive.logit(s) - naive.logit(float(u)), beta, gamma, zeta, u)


def broadcasting_shapes(count: int) -> st.SearchStrategy[Any]:
    """Draw shapes that broadcast together, of up to three axes."""
    return hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=3, max_side=4)
