"""Hypothesis strategies for gates: parameters, hyperparameters and noise, extremes included."""

from math import log
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests import naive

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


def dtypes() -> st.SearchStrategy[Any]:
    return st.sampled_from(DTYPES)


def log_alphas(dtype: Any, bound: float = 40.0) -> st.SearchStrategy[Any]:
    width = np.finfo(dtype).bits
    return st.floats(-bound, bound, width=width).map(dtype)


def betas(lower: float = 0.1, upper: float = 2.0) -> st.SearchStrategy[float]:
    return st.one_of(st.just(2 / 3), st.floats(lower, upper))


def gammas() -> st.SearchStrategy[float]:
    """About [-1, -0.01], even on a log scale."""
    return st.one_of(st.just(-0.1), st.floats(-2, 0).map(lambda power: -(10.0**power)))


def zetas() -> st.SearchStrategy[float]:
    return st.one_of(st.just(1.1), st.floats(1.01, 2, exclude_min=True))


def noise(dtype: Any) -> st.SearchStrategy[Any]:
    """Draw from (0, 1): the middle of integer cells, as generators make them, and both far ends.

    The ends are 2**-25 and 1 - 2**-24 in float32, 1e-300 and 1 - 2**-53 in float64.
    """
    bits = 24 if dtype is np.float32 else 53
    nearest_one = 1 - 2.0**-bits
    cells = st.integers(0, 2**23 - 1).map(lambda k: (k + 0.5) / 2**23)
    ends = st.sampled_from((2.0 ** -(bits + 1), 2.0**-bits, 0.5, 1 - 2.0**-10, nearest_one))
    tiny = st.floats(-25 * log(2) if dtype is np.float32 else -690.0, -1.0).map(np.exp)
    return st.one_of(cells, ends, tiny).map(dtype)


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
