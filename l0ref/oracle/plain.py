r"""The method once more, as short as it goes, in small pieces that can be made wrong one at a time.

`Plain` has every function of `l0ref.oracle.interface.Target`. It is written from the equations, in
NumPy and float64, and shares no line with the rest of l0ref. It is here to be *changed*: a known
mistake is a subclass that overrides one of the small methods whose names begin with an underscore,
and everything that is built on it follows, derivatives included (see `l0ref.oracle.deviations`).

Examples
--------
>>> gate = dict(beta=2 / 3, gamma=-0.1, zeta=1.1)
>>> float(Plain().prob_active(np.array(0.5), **gate).round(6))
0.890767

>>> class WrongSign(Plain):
...     def _active_logit(self, log_alpha, beta, gamma, zeta):
...         return log_alpha + beta * np.log(-gamma / zeta)
>>> float(WrongSign().prob_active(np.array(0.5), **gate).round(6))
0.250003
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Draw", "Plain"]

Array = NDArray[Any]
Pair = tuple[int, int]
Layer = Mapping[str, Any]
Law = Mapping[str, float]
"""beta, gamma and zeta, by these names."""


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), to its own relative accuracy where it is small."""
    return np.exp(-np.logaddexp(0.0, -x))


def logit(u: Any) -> Any:
    """Log of u / (1 - u)."""
    return np.log(u) - np.log1p(-u)


def _times(is_open: Any, slope: Any) -> Any:
    """Multiply; what is closed is 0, even where the slope is infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(is_open == 0, 0.0, is_open * slope)


def law_of(network: Mapping[str, Any]) -> Law:
    """Return what all gates of a network share."""
    return {name: network[name] for name in ("beta", "gamma", "zeta")}


class Draw(NamedTuple):
    """A gate and its derivatives, elementwise."""

    z: Array
    d_log_alpha: Array
    d_beta: Array
    d_gamma: Array
    d_zeta: Array


class Moments(NamedTuple):
    """Mean and variance of a gate, and the derivatives of E[z] and E[z^2] in log_alpha."""

    mean: Array
    var: Array
    d_mean: Array
    d_second: Array


class Plain:
    """Every function of the interface, in its plainest form."""

    LOSES_DIGITS: tuple[str, ...] = ()
    """Functions in which the mistake is in the rounding: few digits of them can be told."""
    IN_SINGLE = False
    """Whether everything is computed in float32, whatever came in."""

    # --- how a gate is drawn (Eq. 10, 11) ---

    def _noise(self, u: Any) -> Any:
        return logit(u)

    def _location(self, log_alpha: Any) -> tuple[Any, Any]:
        """Return what the noise is added to, and its derivative in log_alpha."""
        return log_alpha, np.ones_like(log_alpha)

    def _heat(self, noise: Any, location: Any, slope: Any, beta: float) -> tuple[Any, Any, Any]:
        """Return t, dt/dlog_alpha and dt/dbeta of t = (noise + location) / beta."""
        t = (noise + location) / beta
        return t, slope / beta, -t / beta

    def _squash(self, t: Any, beta: float) -> tuple[Any, Any, Any]:
        """Return s, ds/dt, and ds/dbeta at fixed t."""
        return sigmoid(t), sigmoid(t) * sigmoid(-t), 0.0

    def _stretch(self, s: Any, gamma: float, zeta: float) -> tuple[Any, Any, Any, Any]:
        """Return s_bar and its derivatives in s, gamma and zeta."""
        return s * (zeta - gamma) + gamma, zeta - gamma, 1 - s, s

    def _clip(self, s_bar: Any) -> tuple[Any, Any]:
        """Return z and dz/ds_bar; at the kinks, 0 by convention."""
        is_open = np.where(np.isnan(s_bar), s_bar, (s_bar > 0) & (s_bar < 1))
        return np.minimum(1.0, np.maximum(0.0, s_bar)), is_open

    def _draw(self, log_alpha: Any, u: Any, beta: float, gamma: float, zeta: float) -> Draw:
        location, slope = self._location(log_alpha)
        t, t_log_alpha, t_beta = self._heat(self._noise(u), location, slope, beta)
        s, s_t, s_beta = self._squash(t, beta)
        s_bar, by_s, by_gamma, by_zeta = self._stretch(s, gamma, zeta)
        z, is_open = self._clip(s_bar)

        slopes = (by_s * s_t * t_log_alpha, by_s * (s_t * t_beta + s_beta), by_gamma, by_zeta)
        return Draw(z, *(_times(is_open, slope) for slope in slopes))

    # --- the gate at test time (Eq. 13) ---

    def _test_score(self, log_alpha: Any, beta: float) -> tuple[Any, Any]:
        """Return s and ds/dlog_alpha."""
        return sigmoid(log_alpha), sigmoid(log_alpha) * sigmoid(-log_alpha)

    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> tuple[Any, Any]:
        """Return z_hat and its derivative in log_alpha."""
        s, slope = self._test_score(log_alpha, beta)
        s_bar, by_s, _, _ = self._stretch(s, gamma, zeta)
        z, is_open = self._clip(s_bar)
        return z, _times(is_open, by_s * slope)

    # --- P(z != 0) (Eq. 12) ---

    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha - beta * np.log(-gamma / zeta)

    def _active_slope(self, beta: float) -> float:
        """Return the derivative of `_active_logit` in log_alpha."""
        return 1.0

    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> tuple[Any, Any, Any]:
        """Return P(z != 0), its log, and its derivative in log_alpha."""
        x = self._active_logit(log_alpha, beta, gamma, zeta)
        slope = sigmoid(x) * sigmoid(-x) * self._active_slope(beta)
        return sigmoid(x), -np.logaddexp(0.0, -x), slope

    # --- the law ---

    def _unit(self, x: Any, gamma: float, zeta: float) -> tuple[Any, Any]:
        """Return the logit of (x - gamma) / (zeta - gamma), and its derivative in x."""
        return np.log(x - gamma) - np.log(zeta - x), 1 / (x - gamma) + 1 / (zeta - x)

    def _cdf_logit(
        self, x: Any, log_alpha: Any, beta: float, gamma: float, zeta: float
    ) -> tuple[Any, Any]:
        """Return the logit of P(s_bar <= x), and its derivative in x."""
        place, d_place = self._unit(x, gamma, zeta)
        return beta * place - log_alpha, beta * d_place

    def _with_atoms(self, inside: Any, x: Any, below: float, above: float) -> Any:
        """Return `inside` where 0 <= x < 1."""
        inside = np.where(x >= 1, above, np.where(x < 0, below, inside))
        return np.where(np.isnan(x), np.nan, inside)

    def _moments(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Moments:
        """Integrate the tail of the law."""
        # Tanh-sinh nodes on (0, 1), as distances from both ends.
        k = np.arange(-70, 71) * 0.05
        q = np.pi * np.sinh(k)
        left, right = sigmoid(q), sigmoid(-q)
        weight = 0.05 * np.pi * np.cosh(k) * left * right
        flat = np.ravel(np.asarray(log_alpha, np.float64))[:, None]
        # P(z > x) falls fastest where its logit is 0: the panels end there.
        edge = gamma + (zeta - gamma) * sigmoid(flat / beta)
        edge = np.where((edge > 0.01) & (edge < 0.99), edge, 0.5)
        below, above = edge * left, edge * right
        x = np.concatenate([below, edge + (1 - edge) * left], axis=1)
        to_one = np.concatenate([(1 - edge) + above, (1 - edge) * right], axis=1)
        w = np.concatenate([edge * weight, (1 - edge) * weight], axis=1)
        logits, _ = self._cdf_logit(x, flat, beta, gamma, zeta)
        tail, head = sigmoid(-logits), sigmoid(logits)
        mean, from_one = (w * tail).sum(1), (w * head).sum(1)
        # The second moment about the nearer end, for that is where nothing is lost.
        low = (2 * w * x * tail).sum(1) - mean**2
        high = (2 * w * to_one * head).sum(1) - from_one**2
        near_zero = flat[:, 0] < 0
        mean = np.where(near_zero, mean, 1 - from_one)
        var = np.where(near_zero, low, high)
        falls = w * tail * head
        found = (mean, var, falls.sum(1), (2 * x * falls).sum(1))
        return Moments(*(part.reshape(np.shape(log_alpha)) for part in found))

    def prob_active(self, log_alpha: Array, **law: float) -> Any:
        """Return P(z != 0)."""
        return self._prob(log_alpha, **law)[0]

    def log_prob_active(self, log_alpha: Array, **law: float) -> Any:
        """Return its log."""
        return self._prob(log_alpha, **law)[1]

    def prob_active_grad(self, log_alpha: Array, **law: float) -> Any:
        """Return its derivative."""
        return self._prob(log_alpha, **law)[2]

    def cdf(self, x: Array, log_alpha: Array, **law: float) -> Any:
        """Return P(z <= x)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = sigmoid(self._cdf_logit(x, log_alpha, **law)[0])
        return self._with_atoms(inside, x, 0.0, 1.0)

    def sf(self, x: Array, log_alpha: Array, **law: float) -> Any:
        """Return P(z > x)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = sigmoid(-self._cdf_logit(x, log_alpha, **law)[0])
        return self._with_atoms(inside, x, 1.0, 0.0)

    def pdf(self, x: Array, log_alpha: Array, **law: float) -> Any:
        """Return the density of s_bar."""
        with np.errstate(invalid="ignore", divide="ignore"):
            t, slope = self._cdf_logit(x, log_alpha, **law)
            inside = sigmoid(t) * sigmoid(-t) * slope
        return np.where((x <= law["gamma"]) | (x >= law["zeta"]), 0.0, inside)

    def logpdf(self, x: Array, log_alpha: Array, **law: float) -> Any:
        """Return its log."""
        with np.errstate(invalid="ignore", divide="ignore"):
            t, slope = self._cdf_logit(x, log_alpha, **law)
            inside = np.log(slope) - np.logaddexp(0.0, t) - np.logaddexp(0.0, -t)
        return np.where((x <= law["gamma"]) | (x >= law["zeta"]), -np.inf, inside)

    def ppf(self, q: Array, log_alpha: Array, **law: float) -> Any:
        """Return the quantile: a gate's value grows with its noise."""
        return self._draw(log_alpha, q, **law).z

    def mean(self, log_alpha: Array, **law: float) -> Any:
        """Return E[z]."""
        return self._moments(log_alpha, **law).mean

    def var(self, log_alpha: Array, **law: float) -> Any:
        """Return Var[z]."""
        return self._moments(log_alpha, **law).var

    # --- the gate ---

    def sample(self, log_alpha: Array, u: Array, **law: float) -> Any:
        """Draw z from noise u."""
        return self._draw(log_alpha, u, **law).z

    def _pull(self, draw: Draw, dz: Any) -> Any:
        return dz * draw.d_log_alpha

    def sample_vjp(self, log_alpha: Array, u: Array, dz: Array, **law: float) -> Any:
        """Pull dz back to log_alpha."""
        return self._pull(self._draw(log_alpha, u, **law), dz)

    def sample_partials(
        self, log_alpha: Array, u: Array, **law: float
    ) -> tuple[Any, Any, Any, Any]:
        """Return the four derivatives of z."""
        draw = self._draw(log_alpha, u, **law)
        return draw.d_log_alpha, draw.d_beta, draw.d_gamma, draw.d_zeta

    def test_time(self, log_alpha: Array, **law: float) -> Any:
        """Return the gate of Eq. 13."""
        return self._test_gate(log_alpha, **law)[0]

    def test_time_grad(self, log_alpha: Array, **law: float) -> Any:
        """Return its derivative."""
        return self._test_gate(log_alpha, **law)[1]

    # --- drawing by itself ---

    def _uniform(self, shape: tuple[int, ...], n: int, seed: int) -> Array:
        # Half a step from both ends: neither 0 nor 1 can come.
        integers = np.random.default_rng(seed).integers(0, 2**52, (n, *shape))
        return (integers + 0.5) / 2.0**52

    def draw(self, log_alpha: Array, n: int, seed: int, **law: float) -> Any:
        """Draw n times."""
        u = self._uniform(np.shape(log_alpha), n, seed)
        return self._draw(log_alpha, u, **law).z

    def draw_vjp(self, log_alpha: Array, n: int, seed: int, dz: Array, **law: float) -> Any:
        """Pull dz back through the same draws."""
        u = self._uniform(np.shape(log_alpha), n, seed)
        return self._pull(self._draw(log_alpha, u, **law), dz).sum(0)

    # --- initialisation ---

    def _init_location(self, drop_rate: float) -> float:
        return float(np.log((1 - drop_rate) / drop_rate))

    def _init_spread(self) -> float:
        return 0.01

    def _fan_in(self, shape: tuple[int, ...]) -> int:
        return shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))

    def _init_gain(self) -> float:
        return 2.0

    def init_log_alpha(self, drop_rate: float, normal: Array) -> Any:
        """Return the first log_alpha."""
        return self._init_location(drop_rate) + self._init_spread() * normal

    def init_weight(self, normal: Array) -> Any:
        """Return the first weights."""
        return np.sqrt(self._init_gain() / self._fan_in(normal.shape)) * normal

    # --- penalties (Eq. 12, 14, 15) ---

    def _gates_shape(self, weight_shape: tuple[int, ...], on: str) -> tuple[int, ...]:
        if on == "weights":
            return weight_shape
        is_first = (on == "inputs") == (len(weight_shape) == 2)
        return weight_shape[:1] if is_first else weight_shape[1:2]

    def _sum_group(self, weights: Any, on: str) -> Any:
        """Add up an array of the weights' shape over each gate's weights."""
        if on == "weights":
            return weights
        axis = self._gates_axis(weights.ndim, on)
        return weights.sum(tuple(a for a in range(weights.ndim) if a != axis))

    def _gates_axis(self, ndim: int, on: str) -> int:
        return 0 if (on == "inputs") == (ndim == 2) else 1

    def _spread(self, gates: Any, shape: tuple[int, ...], on: str) -> Any:
        """Bring an array of the gates' shape to where it multiplies a weight of this shape."""
        if on == "weights":
            return gates
        axis = self._gates_axis(len(shape), on)
        return np.reshape(gates, [-1 if a == axis else 1 for a in range(len(shape))])

    def _bias_is_gated(self, on: str | None, gates_bias: bool) -> bool:
        return on == "outputs" and gates_bias

    def _count(self, weight_shape: tuple[int, ...], on: str, gates_bias: bool) -> Any:
        """Return |g|."""
        size = self._sum_group(np.ones(weight_shape, np.int64), on)
        return size + 1 if self._bias_is_gated(on, gates_bias) else size

    def _norm(self, power: int, x: Any) -> tuple[Any, Any]:
        """Return |x|^power and its derivative."""
        return (x * x, 2 * x) if power == 2 else (np.abs(x), np.sign(x))

    def _norm_weight(
        self, log_alpha: Any, beta: float, gamma: float, zeta: float
    ) -> tuple[Any, Any]:
        """Return what multiplies a group's norm, and its derivative in log_alpha."""
        prob, _, slope = self._prob(log_alpha, beta, gamma, zeta)
        return prob, slope

    def _expected_norm(
        self,
        power: int,
        log_alpha: Any,
        weight: Any,
        bias: Any,
        on: str,
        gates_bias: bool,
        law: Law,
    ) -> tuple[Any, tuple[Any, Any, Any]]:
        """Return the expected L2 or L1, and its derivatives in log_alpha, weight and bias."""
        prob, slope = self._norm_weight(log_alpha, **law)
        of_weight, d_weight = self._norm(power, weight)
        of_bias, d_bias = self._norm(power, bias)
        group = self._sum_group(of_weight, on)
        if self._bias_is_gated(on, gates_bias):
            group = group + of_bias
            d_bias = prob * d_bias
        else:
            d_bias = np.zeros_like(d_bias)
        d_weight = self._spread(prob, weight.shape, on) * d_weight
        return (prob * group).sum(), (slope * group, d_weight, d_bias)

    def group_size(self, weight_shape: tuple[int, ...], *, on: str, gates_bias: bool) -> Any:
        """Return |g|."""
        return self._count(tuple(weight_shape), on, gates_bias)

    def expected_l0(self, log_alpha: Array, group_size: Array, **law: float) -> Any:
        """Return the expected number of parameters that are on."""
        return (self._prob(log_alpha, **law)[0] * group_size).sum()

    def expected_l0_grad(self, log_alpha: Array, group_size: Array, **law: float) -> Any:
        """Return its derivative."""
        return self._prob(log_alpha, **law)[2] * group_size

    def expected_l2(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        **law: float,
    ) -> Any:
        """Return the expected L2."""
        return self._expected_norm(2, log_alpha, weight, bias, on, gates_bias, law)[0]

    def expected_l2_grad(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        **law: float,
    ) -> Any:
        """Return its derivatives."""
        return self._expected_norm(2, log_alpha, weight, bias, on, gates_bias, law)[1]

    def expected_l1(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        **law: float,
    ) -> Any:
        """Return the expected L1."""
        return self._expected_norm(1, log_alpha, weight, bias, on, gates_bias, law)[0]

    def expected_l1_grad(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        **law: float,
    ) -> Any:
        """Return its derivatives."""
        return self._expected_norm(1, log_alpha, weight, bias, on, gates_bias, law)[1]

    def _l0_scale(self, lam: float, n_train: int) -> float:
        """Return what multiplies the expected L0 in the loss."""
        return lam / n_train

    def _l2_scale(self, l2: float, n_train: int) -> float:
        """Return what multiplies the expected L2 in the loss."""
        return l2 / (2 * n_train)

    def _l0(
        self, log_alpha: Any, weight: Any, on: str, gates_bias: bool, law: Law
    ) -> tuple[Any, Any]:
        """Return the expected L0 of a layer, and its derivative in log_alpha."""
        size = self._count(weight.shape, on, gates_bias)
        value = self.expected_l0(log_alpha, size, **law)
        return value, self.expected_l0_grad(log_alpha, size, **law)

    def _penalty(
        self,
        log_alpha: Any,
        weight: Any,
        bias: Any,
        on: str,
        gates_bias: bool,
        lam: float,
        l2: float,
        n_train: int,
        law: Law,
    ) -> tuple[Any, tuple[Any, Any, Any]]:
        a, b = self._l0_scale(lam, n_train), self._l2_scale(l2, n_train)
        l0, d_l0 = self._l0(log_alpha, weight, on, gates_bias, law)
        norm, (by_log_alpha, by_weight, by_bias) = self._expected_norm(
            2, log_alpha, weight, bias, on, gates_bias, law
        )
        return a * l0 + b * norm, (a * d_l0 + b * by_log_alpha, b * by_weight, b * by_bias)

    def penalty(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        lam: float,
        l2: float,
        n_train: int,
        **law: float,
    ) -> Any:
        """Return the penalty of a layer."""
        return self._penalty(log_alpha, weight, bias, on, gates_bias, lam, l2, n_train, law)[0]

    def penalty_grad(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        lam: float,
        l2: float,
        n_train: int,
        **law: float,
    ) -> Any:
        """Return its derivatives."""
        return self._penalty(log_alpha, weight, bias, on, gates_bias, lam, l2, n_train, law)[1]

    # --- layers: both are a linear map of the weights, gated in one of three places ---

    def _linear(self, x: Any, weight: Any, how: Mapping[str, Any] | None) -> Any:
        """Return y (N, units, ...), without bias."""
        return x @ weight if how is None else self._convolve(x, weight, **how)

    def _linear_vjp(
        self, dy: Any, x: Any, weight: Any, how: Mapping[str, Any] | None
    ) -> tuple[Any, Any]:
        if how is None:
            return dy @ weight.T, x.T @ dy
        return self._convolve_vjp(dy, x, weight, **how)

    def _over_places(self, values: Any, ndim: int) -> Any:
        """Bring (units,) or (N, units) to where it multiplies (N, units, ...)."""
        values = np.asarray(values)
        return values.reshape(values.shape + (1,) * (ndim - 2))

    def _bias_in_training(self, bias: Any, on: str | None) -> Any:
        """Return the bias that a layer adds when its gates are drawn."""
        return bias

    def _weigh(self, weight: Any, z: Any) -> Any:
        return weight * z

    def _layer(
        self,
        x: Any,
        weight: Any,
        bias: Any,
        z: Any,
        on: str | None,
        gates_bias: bool,
        how: Mapping[str, Any] | None,
    ) -> Any:
        if on == "weights":
            if z.ndim > weight.ndim:  # one draw for each example
                y = np.concatenate(
                    [
                        self._linear(x[i : i + 1], self._weigh(weight, z[i]), how)
                        for i in range(len(x))
                    ]
                )
            else:
                y = self._linear(x, self._weigh(weight, z), how)
        elif on == "inputs":
            y = self._linear(x * self._over_places(z, x.ndim), weight, how)
        else:
            y = self._linear(x, weight, how)
        add = 0.0 if bias is None else self._over_places(bias, y.ndim)
        if on != "outputs":
            return y + add
        gate = self._over_places(z, y.ndim)
        return (y + add) * gate if self._bias_is_gated(on, gates_bias) else y * gate + add

    def _layer_vjp(
        self,
        dy: Any,
        x: Any,
        weight: Any,
        bias: Any,
        z: Any,
        on: str | None,
        gates_bias: bool,
        how: Mapping[str, Any] | None,
    ) -> tuple[Any, Any, Any, Any]:
        places = (0, *range(2, dy.ndim))
        if on == "weights":
            if z.ndim > weight.ndim:
                one = [
                    self._linear_vjp(dy[i : i + 1], x[i : i + 1], self._weigh(weight, z[i]), how)
                    for i in range(len(x))
                ]
                dx = np.concatenate([a for a, _ in one])
                each = np.stack([b for _, b in one])
                return dx, (each * z).sum(0), dy.sum(places), each * weight
            dx, d_product = self._linear_vjp(dy, x, self._weigh(weight, z), how)
            return dx, d_product * z, dy.sum(places), d_product * weight
        if on == "inputs":
            gate = self._over_places(z, x.ndim)
            d_gated, d_weight = self._linear_vjp(dy, x * gate, weight, how)
            dz = d_gated * x
            dz = dz.sum(tuple(range(2, dz.ndim)))
            dz = dz if np.ndim(z) == 2 else dz.sum(0)
            return d_gated * gate, d_weight, dy.sum(places), dz
        if on is None:
            dx, d_weight = self._linear_vjp(dy, x, weight, how)
            return dx, d_weight, dy.sum(places), np.zeros(())
        gate = self._over_places(z, dy.ndim)
        dx, d_weight = self._linear_vjp(dy * gate, x, weight, how)
        y = self._linear(x, weight, how)
        gated = self._bias_is_gated(on, gates_bias)
        if gated and bias is not None:
            y = y + self._over_places(bias, y.ndim)
        dz = (dy * y).sum(tuple(range(2, dy.ndim)))
        d_bias = ((dy * gate) if gated else dy).sum(places)
        return dx, d_weight, d_bias, dz if np.ndim(z) == 2 else dz.sum(0)

    def dense(
        self, x: Array, weight: Array, bias: Array, z: Array, *, on: str, gates_bias: bool
    ) -> Any:
        """Return the gated affine map."""
        bias = self._bias_in_training(bias, on)
        return self._layer(x, weight, bias, z, on, gates_bias, None)

    def dense_vjp(
        self,
        dy: Array,
        x: Array,
        weight: Array,
        bias: Array,
        z: Array,
        *,
        on: str,
        gates_bias: bool,
    ) -> Any:
        """Pull dy back."""
        return self._vjp_in_training(dy, x, weight, bias, z, on, gates_bias, None)

    def _vjp_in_training(
        self,
        dy: Any,
        x: Any,
        weight: Any,
        bias: Any,
        z: Any,
        on: str | None,
        gates_bias: bool,
        how: Mapping[str, Any] | None,
    ) -> tuple[Any, Any, Any, Any]:
        added = self._bias_in_training(bias, on)
        dx, dw, db, dz = self._layer_vjp(dy, x, weight, added, z, on, gates_bias, how)
        return dx, dw, db if added is not None else np.zeros_like(bias), dz

    # --- convolution ---

    def _output_size(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Any:
        return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1

    def _windows(self, x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
        """Return (N, C, H_out, W_out, kh, kw)."""
        (kh, kw), (sh, sw), (ph, pw), (eh, ew) = kernel, stride, padding, dilation
        x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        span = (eh * (kh - 1) + 1, ew * (kw - 1) + 1)
        all_windows = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
        return all_windows[:, :, ::sh, ::sw, ::eh, ::ew]

    def _grouped(self, windows: Any, weight: Any, groups: int) -> tuple[Any, Any]:
        n, c, h, w, kh, kw = windows.shape
        a = windows.reshape(n, groups, c // groups, h, w, kh, kw)
        return a, weight.reshape(groups, len(weight) // groups, *weight.shape[1:])

    def _convolve(
        self,
        x: Any,
        weight: Any,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Any:
        windows = self._windows(x, weight.shape[2:], stride, padding, dilation)
        a, w = self._grouped(windows, weight, groups)
        y = np.einsum("ngchwkl,gockl->ngohw", a, w, optimize=True)
        return y.reshape(len(x), len(weight), *y.shape[3:])

    def _convolve_vjp(
        self,
        dy: Any,
        x: Any,
        weight: Any,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> tuple[Any, Any]:
        windows = self._windows(x, weight.shape[2:], stride, padding, dilation)
        a, w = self._grouped(windows, weight, groups)
        g = dy.reshape(len(x), groups, len(weight) // groups, *dy.shape[2:])
        d_weight = np.einsum("ngchwkl,ngohw->gockl", a, g, optimize=True)
        d_windows = np.einsum("ngohw,gockl->ngchwkl", g, w, optimize=True)
        d_windows = d_windows.reshape(windows.shape)
        (sh, sw), (ph, pw), (eh, ew) = stride, padding, dilation
        (h, w_out), (n, c, height, width) = dy.shape[2:], x.shape
        dx = np.zeros((n, c, height + 2 * ph, width + 2 * pw))
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                rows = slice(i * eh, i * eh + sh * (h - 1) + 1, sh)
                columns = slice(j * ew, j * ew + sw * (w_out - 1) + 1, sw)
                dx[:, :, rows, columns] += d_windows[..., i, j]
        inner = dx[:, :, ph : ph + height, pw : pw + width]
        return inner, d_weight.reshape(weight.shape)

    def _how(self, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Mapping[str, Any]:
        return {
            "stride": tuple(stride),
            "padding": tuple(padding),
            "dilation": tuple(dilation),
            "groups": groups,
        }

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array,
        z: Array,
        *,
        on: str,
        gates_bias: bool,
        **geometry: Any,
    ) -> Any:
        """Return the gated convolution."""
        how = self._how(**geometry)
        bias = self._conv_bias_in_training(bias)
        return self._layer(x, weight, bias, z, on, gates_bias, how)

    def _conv_bias_in_training(self, bias: Any) -> Any:
        return bias

    def conv2d_vjp(
        self,
        dy: Array,
        x: Array,
        weight: Array,
        bias: Array,
        z: Array,
        *,
        on: str,
        gates_bias: bool,
        **geometry: Any,
    ) -> Any:
        """Pull dy back."""
        how = self._how(**geometry)
        added = self._conv_bias_in_training(bias)
        dx, dw, db, dz = self._layer_vjp(dy, x, weight, added, z, on, gates_bias, how)
        return dx, dw, np.zeros_like(bias) if added is None else db, dz

    # --- cost ---

    def _flops(self, terms: Any, sums: Any, bias: bool) -> Any:
        """Return FLOPs of sums with so many terms in all; a sum of nothing costs nothing."""
        return 2 * terms if bias else 2 * terms - sums

    def _params(self, terms: Any, outputs: Any, bias: bool) -> Any:
        return terms + outputs if bias else terms

    def dense_flops(self, n_in: int, n_out: int, *, bias: bool) -> Any:
        """Return FLOPs."""
        return self._flops(n_in * n_out, n_out if n_in else 0, bias)

    def dense_params(self, n_in: int, n_out: int, *, bias: bool) -> Any:
        """Return the number of parameters."""
        return self._params(n_in * n_out, n_out, bias)

    def _conv_reads(self, c_in: int, kernel: Pair, groups: int) -> int:
        """Return the number of weights an output reads."""
        return c_in // groups * kernel[0] * kernel[1]

    def _places(
        self,
        c_in: int,
        kernel: Pair,
        size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
    ) -> Any:
        """Return H_out W_out."""
        each = zip(size, kernel, stride, padding, dilation, strict=True)
        h, w = (self._output_size(*one) for one in each)
        return h * w

    def conv2d_flops(
        self,
        c_in: int,
        c_out: int,
        kernel: Pair,
        size: Pair,
        *,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        bias: bool,
    ) -> Any:
        """Return FLOPs."""
        k = self._conv_reads(c_in, kernel, groups)
        places = self._places(c_in, kernel, size, stride, padding, dilation)
        return self._flops(k * c_out, c_out, bias) * places

    def conv2d_params(self, c_in: int, c_out: int, kernel: Pair, *, groups: int, bias: bool) -> Any:
        """Return the number of parameters."""
        return self._params(self._conv_reads(c_in, kernel, groups) * c_out, c_out, bias)

    def _both_sides(self, own: Any, other: Any) -> Any:
        """Return how probable it is that a unit is on, from the gates at both its ends."""
        return own * other

    def _weight_on(self, reads: Any, writes: Any) -> Any:
        """Return how probable it is that what a weight reads and what it writes are both on."""
        return reads * writes

    def _shapes(self, network: Mapping[str, Any]) -> list[tuple[int, ...]]:
        """Return one example's shape before each layer, and behind the last."""
        shapes = [tuple(network["input_shape"])]
        for layer in network["layers"]:
            shape, kind = shapes[-1], layer["kind"]
            if kind == "dense":
                shape = (layer["weight"].shape[1],)
            elif kind == "conv2d":
                each = zip(
                    shape[1:],
                    layer["weight"].shape[2:],
                    layer["stride"],
                    layer["padding"],
                    layer["dilation"],
                    strict=True,
                )
                # Plain.: what a tensor is like is not a matter of counting
                shape = (len(layer["weight"]), *(Plain._output_size(self, *one) for one in each))
            elif kind == "max_pool2d":
                kh, kw = layer["kernel_size"]
                shape = (shape[0], shape[1] // kh, shape[2] // kw)
            elif kind == "flatten":
                shape = (int(np.prod(shape)),)
            elif kind == "select":
                shape = (len(layer["index"]), *shape[1:])
            shapes.append(shape)
        return shapes

    def _network_cost(self, network: Mapping[str, Any], on: Sequence[Any]) -> dict[str, Any]:
        """Return the cost, with `on` the gates of each layer, open (1), closed (0), or between."""
        layers, shapes = network["layers"], self._shapes(network)
        carries = [np.ones(shapes[0][0])]
        for i, (layer, gate) in enumerate(zip(layers, on, strict=True)):
            signal, kind = carries[-1], layer["kind"]
            if kind in ("dense", "conv2d"):
                signal = gate if layer["on"] == "outputs" else np.ones(shapes[i + 1][0])
            elif kind == "flatten":
                signal = np.repeat(signal, int(np.prod(shapes[i][1:])))
            carries.append(signal)
        read = np.ones(shapes[-1][0])
        flops: Any = 0.0
        params: Any = 0.0
        for i in reversed(range(len(layers))):
            layer, gate, kind = layers[i], on[i], layers[i]["kind"]
            if kind in ("dense", "conv2d"):
                flops_here, params_here = self._layer_cost(layer, gate, carries[i], read, shapes[i])
                flops, params = flops + flops_here, params + params_here
                read = gate if layer["on"] == "inputs" else np.ones(shapes[i][0])
            elif kind == "flatten":
                read = self._read_through(read.reshape(shapes[i][0], -1))
        return {"flops": flops, "params": params}

    def _read_through(self, units: Any) -> Any:
        """Return how probable it is that at least one of a map's flat units is read."""
        return 1 - np.prod(1 - units, axis=1)

    def _layer_cost(
        self, layer: Layer, gate: Any, carries: Any, read: Any, shape: tuple[int, ...]
    ) -> tuple[Any, Any]:
        weight, has_bias = layer["weight"], layer.get("bias") is not None
        if layer["kind"] == "dense":
            weight, places, groups = weight.T[:, :, None, None], 1, 1
        else:
            groups = layer["groups"]
            places = self._places(
                shape[0],
                weight.shape[2:],
                shape[1:],  # type: ignore[arg-type]
                layer["stride"],
                layer["padding"],
                layer["dilation"],
            )
        ins, outs = np.ones_like(carries), np.ones_like(read)
        within = np.ones(weight.shape)
        if layer["on"] == "inputs":
            ins = gate
        elif layer["on"] == "outputs":
            outs = gate
        elif layer["on"] == "weights":
            within = gate.T[:, :, None, None] if layer["kind"] == "dense" else gate
        ins, outs = self._both_sides(ins, carries), self._both_sides(outs, read)
        # the inputs that each output reads
        of_output = np.repeat(ins.reshape(groups, -1), len(weight) // groups, axis=0)
        each = within * self._weight_on(of_output, outs[:, None])[:, :, None, None]
        # once each, unless counting does not know of groups
        terms = each.sum() * self._conv_reads(groups, (1, 1), groups)
        reads = 1 - np.prod(1 - of_output * (1 - np.prod(1 - within, axis=(2, 3))), axis=1)
        sums = (outs * reads).sum()
        flops = self._flops(terms, sums, has_bias) * places
        return flops, self._params(terms, outs.sum(), has_bias)

    def _expected_on(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._prob(log_alpha, beta, gamma, zeta)[0]

    def _is_on(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._test_gate(log_alpha, beta, gamma, zeta)[0] > 0

    def _open_gates(self, network: Mapping[str, Any], *, probability: bool) -> list[Any]:
        law = law_of(network)
        found: list[Any] = []
        for layer in network["layers"]:
            log_alpha = layer.get("log_alpha")
            if layer.get("on") is None or log_alpha is None:
                found.append(None)
            elif probability:
                found.append(self._expected_on(log_alpha, **law))
            else:
                found.append(self._is_on(log_alpha, **law).astype(float))
        return found

    def expected_cost(self, network: Mapping[str, Any]) -> Any:
        """Return the expected cost."""
        return self._network_cost(network, self._open_gates(network, probability=True))

    def hard_cost(self, network: Mapping[str, Any]) -> Any:
        """Return the cost at test time."""
        return self._network_cost(network, self._open_gates(network, probability=False))

    # --- training ---

    def _moment_decays(self) -> Pair:
        return 0.9, 0.999  # type: ignore[return-value]

    def _adam_step(self, m: Any, v: Any, t: int, lr: float) -> Any:
        first, second = self._moment_decays()
        return lr * (m / (1 - first**t)) / (np.sqrt(v / (1 - second**t)) + 1e-8)

    def _moments_of(self, m: Any, v: Any, g: Any) -> tuple[Any, Any]:
        first, second = self._moment_decays()
        return first * m + (1 - first) * g, second * v + (1 - second) * g * g

    def _update(
        self, theta: Any, g: Any, m: Any, v: Any, t: int, lr: float, decay: float
    ) -> tuple[Any, Any, Any]:
        """Return theta, m and v after a step; `decay`, l2/N, is for who has weight decay in it."""
        m, v = self._moments_of(m, v, g)
        return theta - self._adam_step(m, v, t, lr), m, v

    def adam(self, theta: Array, grads: Array, *, lr: float) -> Any:
        """Return the parameters after each step."""
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        path = []
        for t, g in enumerate(grads, 1):
            theta, m, v = self._update(theta, g, m, v, t, lr, 0.0)
            path.append(theta)
        return np.stack(path)

    def _average(self, values: Any, decay: float, start: Any) -> Any:
        """Return the average after each update; `start` is what there was before the first."""
        average = np.zeros_like(start)
        path = []
        for t, value in enumerate(values, 1):
            average = decay * average + (1 - decay) * value
            path.append(average / (1 - decay**t))
        return np.stack(path)

    def temporal_average(self, values: Array, *, decay: float) -> Any:
        """Return the average after each update."""
        return self._average(values, decay, values[0])

    # --- networks ---

    def _flat(self, x: Any) -> Any:
        return x.reshape(len(x), -1)

    def _flat_vjp(self, dy: Any, shape: tuple[int, ...]) -> Any:
        return dy.reshape(shape)

    def _layer_how(self, layer: Layer) -> Mapping[str, Any] | None:
        if layer["kind"] == "dense":
            return None
        return self._how(layer["stride"], layer["padding"], layer["dilation"], layer["groups"])

    def _pool(self, x: Any, kernel: Pair) -> Any:
        """Return windows of a max pool, (N, C, H_out, W_out, kh kw)."""
        kh, kw = kernel
        h, w = x.shape[2] // kh, x.shape[3] // kw
        windows = x[:, :, : h * kh, : w * kw].reshape(*x.shape[:2], h, kh, w, kw)
        return windows.swapaxes(3, 4).reshape(*x.shape[:2], h, w, kh * kw)

    def _apply(self, layer: Layer, x: Any, z: Any, training: bool) -> Any:
        kind = layer["kind"]
        if kind in ("dense", "conv2d"):
            bias, on = layer.get("bias"), layer.get("on")
            if training:
                bias = self._bias_of(layer)
            gates_bias = layer.get("gates_bias", False)
            how = self._layer_how(layer)
            return self._layer(x, layer["weight"], bias, z, on, gates_bias, how)
        if kind == "relu":
            return np.maximum(x, 0)
        if kind == "max_pool2d":
            return self._pool(x, layer["kernel_size"]).max(-1)
        if kind == "flatten":
            return self._flat(x)
        if kind == "select":
            return x[:, layer["index"]]
        if kind == "add":
            return x + layer["pattern"]
        raise ValueError(f"kind must be one of those that the interface names, got {kind!r}")

    def _bias_of(self, layer: Layer) -> Any:
        """Return the bias that a layer of a network adds when its gates are drawn."""
        bias, on = layer.get("bias"), layer.get("on")
        if on is None or bias is None:
            return bias
        if layer["kind"] == "dense":
            return self._bias_in_training(bias, on)
        return self._conv_bias_in_training(bias)

    def _gates_at_test(self, network: Mapping[str, Any]) -> list[Any]:
        law = law_of(network)
        return [
            None if layer.get("on") is None else self._test_gate(layer["log_alpha"], **law)[0]
            for layer in network["layers"]
        ]

    def predict(self, network: Mapping[str, Any], x: Array) -> Any:
        """Return the logits."""
        for layer, z in zip(network["layers"], self._gates_at_test(network), strict=True):
            x = self._apply(layer, x, z, training=False)
        return x

    def _cross_entropy(self, logits: Any, labels: Any) -> tuple[Any, Any]:
        """Return the mean cross-entropy, and its derivative in the logits."""
        shifted = logits - logits.max(1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        rows = np.arange(len(labels))
        target = np.zeros_like(logits)
        target[rows, labels] = 1
        return -log_p[rows, labels].mean(), (np.exp(log_p) - target) / len(labels)

    def _draw_layers(self, network: Mapping[str, Any], u: Sequence[Any]) -> list[Draw | None]:
        law = law_of(network)
        noise = iter(u)
        return [
            None if layer.get("on") is None else self._draw(layer["log_alpha"], next(noise), **law)
            for layer in network["layers"]
        ]

    def _penalty_per_step(self, lam: float, l2: float, n_train: int, batch: int) -> Any:
        """Return lam, l2 and N as they are used in training on a batch."""
        return lam, l2, n_train

    def loss_and_grads(
        self,
        network: Mapping[str, Any],
        x: Array,
        labels: NDArray[Any],
        u: Sequence[Array],
        *,
        lam: float,
        l2: float,
        n_train: int,
    ) -> Any:
        """Return the loss and its derivatives."""
        layers = network["layers"]
        draws = self._draw_layers(network, u)
        inputs = [x]
        for layer, draw in zip(layers, draws, strict=True):
            z = None if draw is None else draw.z
            inputs.append(self._apply(layer, inputs[-1], z, training=True))
        loss, dy = self._cross_entropy(inputs[-1], labels)
        grads: dict[str, Any] = {}
        for i in reversed(range(len(layers))):
            layer, draw, x = layers[i], draws[i], inputs[i]
            kind = layer["kind"]
            if kind in ("dense", "conv2d"):
                bias = self._bias_of(layer)
                dx, d_weight, d_bias, dz = self._layer_vjp(
                    dy,
                    x,
                    layer["weight"],
                    bias,
                    None if draw is None else draw.z,
                    layer.get("on"),
                    layer.get("gates_bias", False),
                    self._layer_how(layer),
                )
                grads[f"{i}.weight"] = d_weight
                if layer.get("bias") is not None:
                    lost = bias is None
                    grads[f"{i}.bias"] = np.zeros_like(layer["bias"]) if lost else d_bias
                if draw is not None:
                    grads[f"{i}.log_alpha"] = self._pull(draw, dz)
                dy = dx
            elif kind == "relu":
                dy = dy * (x > 0)
            elif kind == "max_pool2d":
                dy = self._pool_vjp(dy, x, layer["kernel_size"])
            elif kind == "flatten":
                dy = self._flat_vjp(dy, x.shape)
        lam, l2, n_train = self._penalty_per_step(lam, l2, n_train, len(labels))
        for i, layer in enumerate(layers):
            if layer["kind"] in ("dense", "conv2d"):
                value, parts = self._layer_penalty(network, layer, lam, l2, n_train)
                loss = loss + value
                for name, part in parts.items():
                    grads[f"{i}.{name}"] = grads[f"{i}.{name}"] + part
        return {"loss": loss, "grads": grads}

    def _layer_penalty(
        self, network: Mapping[str, Any], layer: Layer, lam: float, l2: float, n_train: int
    ) -> tuple[Any, dict[str, Any]]:
        weight, bias = layer["weight"], layer.get("bias")
        if layer.get("on") is None:
            scale = self._l2_scale(l2, n_train)
            value, slope = self._norm(2, weight)
            return scale * value.sum(), {"weight": scale * slope}
        law = law_of(network)
        shift = np.zeros(1) if bias is None else bias
        gates_bias = layer["gates_bias"] and bias is not None
        value, (by_log_alpha, by_weight, by_bias) = self._penalty(
            layer["log_alpha"], weight, shift, layer["on"], gates_bias, lam, l2, n_train, law
        )
        parts = {"log_alpha": by_log_alpha, "weight": by_weight}
        return value, parts if bias is None else parts | {"bias": by_bias}

    def _pool_vjp(self, dy: Any, x: Any, kernel: Pair) -> Any:
        windows = self._pool(x, kernel)
        winner = windows.argmax(-1)
        d_windows = np.zeros_like(windows)
        np.put_along_axis(d_windows, winner[..., None], dy[..., None], -1)
        (kh, kw), (n, c, h, w) = kernel, dy.shape
        dx = np.zeros_like(x)
        inner = d_windows.reshape(n, c, h, w, kh, kw).swapaxes(3, 4)
        dx[:, :, : h * kh, : w * kw] = inner.reshape(n, c, h * kh, w * kw)
        return dx

    def _with_params(self, network: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
        layers = [dict(layer) for layer in network["layers"]]
        for name, value in params.items():
            position, _, key = name.partition(".")
            layers[int(position)][key] = value
        return {**network, "layers": layers}

    def train(
        self,
        network: Mapping[str, Any],
        x: Array,
        labels: NDArray[Any],
        u: Sequence[Array],
        *,
        lr: float,
        lam: float,
        l2: float,
        n_train: int,
        decay: float,
    ) -> Any:
        """Return what became of each step."""
        params = {
            f"{i}.{key}": layer[key]
            for i, layer in enumerate(network["layers"])
            for key in ("weight", "bias", "log_alpha")
            if layer.get(key) is not None and (key != "log_alpha" or layer.get("on"))
        }
        m = {name: np.zeros_like(value) for name, value in params.items()}
        v = {name: np.zeros_like(value) for name, value in params.items()}
        history: dict[str, list[Any]] = {name: [] for name in params}
        starts = dict(params)
        steps = []
        for t in range(len(x)):
            now = self._with_params(network, params)
            found = self.loss_and_grads(
                now, x[t], labels[t], [one[t] for one in u], lam=lam, l2=l2, n_train=n_train
            )
            for name, g in found["grads"].items():
                params[name], m[name], v[name] = self._update(
                    params[name], g, m[name], v[name], t + 1, lr, l2 / n_train
                )
                history[name].append(params[name])
            average = {
                name: self._average(path, decay, starts[name])[-1] for name, path in history.items()
            }
            steps.append({**found, "params": dict(params), "average": average})
        return steps

    # --- compaction ---

    def _folded(self, z: Any) -> Any:
        """Return what a gate that stays multiplies its weights by."""
        return z

    def _folded_bias(self, z: Any) -> Any:
        """Return what a gate that stays multiplies its bias by, where it goes with it."""
        return self._folded(z)

    def _constant(self, values: Any) -> Any:
        """Return what a closed unit hands on."""
        return values

    def _units_of_maps(self, maps: Sequence[int], shape: tuple[int, ...]) -> list[int]:
        """Return the places that some maps of this shape take once they are flat."""
        area = int(np.prod(shape[1:]))
        return [c * area + k for c in maps for k in range(area)]

    def _is_read(
        self, network: Mapping[str, Any], gates: Sequence[Any], i: int
    ) -> NDArray[np.bool_]:
        """Return which outputs of a layer the gates on the next one's inputs leave open."""
        layers, units = network["layers"], self._shapes(network)[i + 1][0]
        following = next(j for j in range(i + 1, len(layers)) if "weight" in layers[j])
        if layers[following].get("on") != "inputs":
            return np.ones(units, np.bool_)
        return np.asarray((gates[following] != 0).reshape(units, -1).any(1))

    def compact(self, network: Mapping[str, Any]) -> Any:
        """Return the network without its closed units.

        One pass forward: `kept` are the units that are still there, and `constant` is what the
        others hand on, which the next layer with weights takes into its bias.
        """
        layers, gates = network["layers"], self._gates_at_test(network)
        shapes = self._shapes(network)
        kept = list(range(shapes[0][0]))
        constant = np.zeros((1, *shapes[0]))
        small: list[dict[str, Any]] = []
        weighted = [i for i, layer in enumerate(layers) if "weight" in layer]
        for i, (layer, z) in enumerate(zip(layers, gates, strict=True)):
            if layer["kind"] not in ("dense", "conv2d"):
                small.append(dict(layer))
                constant = self._apply(layer, constant, None, training=False)
                if layer["kind"] == "flatten":
                    kept = self._units_of_maps(kept, shapes[i])
                continue
            weight, bias, on = layer["weight"], layer.get("bias"), layer.get("on")
            bias = np.zeros(shapes[i + 1][0]) if bias is None else bias
            if on is not None:
                weight = weight * self._spread(self._folded(z), weight.shape, on)
            if on == "outputs" and self._bias_is_gated(on, layer["gates_bias"]):
                bias = bias * self._folded_bias(z)
            if on == "inputs":
                still = [j for j, unit in enumerate(kept) if z[unit] != 0]
                if len(still) < len(kept):
                    small.append({"kind": "select", "index": still})
                    kept = [kept[j] for j in still]
            # What closed units hand on, through this layer's weights.
            how, lost = self._layer_how(layer), constant.copy()
            lost[:, kept] = 0
            pattern = self._linear(self._constant(lost), weight, how)[0]
            axis = 0 if layer["kind"] == "dense" else 1
            if layer["kind"] == "dense" or layer["groups"] == 1:
                weight = np.take(weight, kept, axis=axis)
            # The last layer's outputs are the logits; groups have one size.
            last_or_split = i == weighted[-1] or any(
                layers[j].get("groups", 1) > 1 for j in (i, weighted[weighted.index(i) + 1])
            )
            now = list(range(shapes[i + 1][0]))
            if not last_or_split:
                read = self._is_read(network, gates, i)
                now = [j for j in now if read[j] and not (on == "outputs" and z[j] == 0)]
            flat = pattern.reshape(len(pattern), -1)
            even = bool((flat == flat[:, :1]).all())
            whole = bias + flat[:, 0] if even else bias
            outputs = 1 - axis
            one = {"kind": layer["kind"], "weight": np.take(weight, now, axis=outputs)}
            one |= {"bias": whole[now], "on": None, "log_alpha": None, "gates_bias": False}
            small.append(one if how is None else one | dict(how))
            if not even:
                small.append({"kind": "add", "pattern": pattern[now]})
            everything = self._over_places(bias, constant.ndim if how else 2) + pattern
            kept, constant = now, np.reshape(everything, (1, *shapes[i + 1]))
        return {**network, "layers": small}
