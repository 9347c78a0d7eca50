"""Known mistakes that go through everything: arguments that are not read, and the precision."""

# What a class is, its entry says.
# ruff: noqa: D101

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..interface import FUNCTIONS
from ..plain import Draw, Moments, Plain
from .catalogue import AUTHORS, known

# At the paper's values these show in the last digits alone: measured where others are asked for.
_fixed = partial(known, area="Everywhere", given=1)

# --- hyperparameters that are given, and not read ---


class _Fixed(Plain):
    """Some of beta, gamma and zeta are the paper's, whatever is given."""

    FIXED: tuple[float | None, float | None, float | None]

    def _law(self, *given: float) -> list[float]:
        both = zip(self.FIXED, given, strict=True)
        return [own if fixed is None else fixed for fixed, own in both]

    def _draw(self, log_alpha: Any, u: Any, beta: float, gamma: float, zeta: float) -> Draw:
        return super()._draw(log_alpha, u, *self._law(beta, gamma, zeta))

    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return super()._test_gate(log_alpha, *self._law(beta, gamma, zeta))

    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return super()._prob(log_alpha, *self._law(beta, gamma, zeta))

    def _cdf_logit(self, x: Any, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return super()._cdf_logit(x, log_alpha, *self._law(beta, gamma, zeta))

    def _moments(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Moments:
        return super()._moments(log_alpha, *self._law(beta, gamma, zeta))


@_fixed(
    "beta-hard-coded",
    at="sample",
    formula="beta = 2/3, whatever is given",
    sentence="your beta is 2/3, whatever beta is given",
)
class BetaHardCoded(_Fixed):
    FIXED = (2 / 3, None, None)


@_fixed(
    "gamma-hard-coded",
    at="test_time",
    formula="gamma = -0.1, whatever is given",
    sentence="your gamma is -0.1, whatever gamma is given",
)
class GammaHardCoded(_Fixed):
    FIXED = (None, -0.1, None)


@_fixed(
    "zeta-hard-coded",
    at="test_time",
    formula="zeta = 1.1, whatever is given",
    sentence="your zeta is 1.1, whatever zeta is given",
)
class ZetaHardCoded(_Fixed):
    FIXED = (None, None, 1.1)


@_fixed(
    "stretch-hard-coded",
    at="test_time",
    formula="gamma = -0.1 and zeta = 1.1, whatever is given",
    sentence="your stretch is from -0.1 to 1.1, whatever gamma and zeta are given",
    wild=f"{AUTHORS}, l0_layers.py (`limit_a` and `limit_b` are constants of the module)",
)
class StretchHardCoded(_Fixed):
    FIXED = (None, -0.1, 1.1)


@_fixed(
    "law-hard-coded",
    at="sample",
    formula="beta = 2/3, gamma = -0.1 and zeta = 1.1, whatever is given",
    sentence="your beta, gamma and zeta are 2/3, -0.1 and 1.1, whatever is given",
)
class LawHardCoded(_Fixed):
    FIXED = (2 / 3, -0.1, 1.1)


# --- precision ---


def _rounded(value: Any) -> Any:
    """Return what is left of floats in float32."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_rounded(part) for part in value)
    if np.asarray(value).dtype.kind == "f":
        return np.asarray(value).astype(np.float32).astype(np.float64)
    return value


def _in_single(name: str) -> Callable[..., Any]:
    def function(self: Plain, *args: Any, **more: Any) -> Any:
        return _rounded(getattr(Plain, name)(self, *args, **more))

    return function


@known(
    "computed-in-float32",
    area="Everywhere",
    at="prob_active",
    formula="every result as a float32 number, though float64 was given",
    sentence="you compute in float32 what was given in float64: more than half of the digits are "
    "lost",
)
class ComputedInFloat32(Plain):
    IN_SINGLE = True


# A compacted network is judged by what it predicts, which says nothing of how it was rounded.
for _name in FUNCTIONS:
    if _name != "compact":
        setattr(ComputedInFloat32, _name, _in_single(_name))
