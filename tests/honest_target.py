"""An honest implementation of some functions of the interface, in plain NumPy, nothing of l0ref.

Written as a user would write it, without care for tails: what its author would not call a bug must
not be called one. `planted` makes a dishonest one of it.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


def sigmoid(t: Any) -> Any:
    return np.exp(np.minimum(t, 0)) / (1 + np.exp(-np.abs(t)))


def logistic(u: Any) -> Any:
    return np.log(u) - np.log(1 - u)


def like(value: Any, x: Any) -> Any:
    return np.asarray(value, dtype=x.dtype)


def lawful(beta: float, gamma: float, zeta: float) -> None:
    if not (beta > 0 and gamma < 0 and zeta > 1):
        raise ValueError("beta > 0, gamma < 0 and zeta > 1")


class Honest:
    """Some functions, each a line or two."""

    def prob_active(self, log_alpha: Any, *, beta: float, gamma: float, zeta: float) -> Any:
        lawful(beta, gamma, zeta)
        return sigmoid(log_alpha - beta * math.log(-gamma / zeta))

    def prob_active_grad(self, log_alpha: Any, **law: float) -> Any:
        p = self.prob_active(log_alpha, **law)
        return p * (1 - p)

    def cdf(self, x: Any, log_alpha: Any, *, beta: float, gamma: float, zeta: float) -> Any:
        lawful(beta, gamma, zeta)
        s = np.clip((x - gamma) / (zeta - gamma), 1e-6, 1 - 1e-6)
        inside = sigmoid(beta * logistic(s) - log_alpha)
        return like(np.where(x < 0, 0 * inside, np.where(x >= 1, 1 + 0 * inside, inside)), x)

    def sample(self, log_alpha: Any, u: Any, *, beta: float, gamma: float, zeta: float) -> Any:
        lawful(beta, gamma, zeta)
        s = sigmoid((logistic(u) + log_alpha) / beta)
        return np.clip(s * (zeta - gamma) + gamma, 0, 1)

    def sample_vjp(
        self, log_alpha: Any, u: Any, dz: Any, *, beta: float, gamma: float, zeta: float
    ) -> Any:
        lawful(beta, gamma, zeta)
        s = sigmoid((logistic(u) + log_alpha) / beta)
        s_bar = s * (zeta - gamma) + gamma
        clipped = (s_bar <= 0) | (s_bar >= 1)
        return np.where(clipped, 0 * s, dz * (zeta - gamma) * s * (1 - s) / beta)

    def test_time(self, log_alpha: Any, *, beta: float, gamma: float, zeta: float) -> Any:
        lawful(beta, gamma, zeta)
        return np.clip(sigmoid(log_alpha) * (zeta - gamma) + gamma, 0, 1)

    def expected_l0(self, log_alpha: Any, group_size: Any, **law: float) -> Any:
        return float((group_size * self.prob_active(log_alpha, **law)).sum())

    def temporal_average(self, values: Any, *, decay: float) -> Any:
        total, after = np.zeros_like(values[0]), []
        for t, value in enumerate(values, 1):
            total = decay * total + (1 - decay) * value
            after.append(total / (1 - decay**t))
        return like(after, values)

    def dense(self, x: Any, weight: Any, bias: Any, z: Any, *, on: str, gates_bias: bool) -> Any:
        if on == "inputs":
            return (x * z) @ weight + bias
        if on == "weights":
            product = x @ (weight * z) if z.ndim == 2 else np.einsum("ni,nio->no", x, weight * z)
            return product + bias
        return (x @ weight + bias) * z if gates_bias else (x @ weight) * z + bias

    def dense_params(self, n_in: int, n_out: int, *, bias: bool) -> int:
        return (n_in + bias) * n_out

    def draw(self, log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        u = np.random.default_rng(seed).random((n, *log_alpha.shape))
        return like(self.sample(log_alpha.astype(float), np.maximum(u, 1e-12), **law), log_alpha)

    def draw_vjp(self, log_alpha: Any, n: int, seed: int, dz: Any, **law: float) -> Any:
        u = np.random.default_rng(seed).random((n, *log_alpha.shape))
        wide = (log_alpha.astype(float), np.maximum(u, 1e-12), dz)
        return like(self.sample_vjp(*wide, **law).sum(axis=0), log_alpha)


FUNCTIONS = [name for name in vars(Honest) if not name.startswith("_")]


def planted(**functions: Callable[..., Any]) -> SimpleNamespace:
    """Return the honest target with other functions in place of some of its own."""
    honest = Honest()
    own = {name: getattr(honest, name) for name in FUNCTIONS}
    return SimpleNamespace(name="planted", **(own | functions))


def only(**functions: Callable[..., Any]) -> SimpleNamespace:
    """Return a target that has these functions and no others."""
    return SimpleNamespace(name="planted", **functions)
