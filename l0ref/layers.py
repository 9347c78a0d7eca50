r"""Layers: parameters and gates, and the pair of ops that uses them.

Every layer has ``forward(x, u) -> (y, residuals)`` and ``backward(dy, residuals) -> (dx, grads)``.
``u`` is the layer's noise, of shape ``noise_shape(n_examples)``; None stands for test time, where
gates are those of Eq. 13 and dropout does nothing. Layers never draw noise themselves.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import ops
from .gates import Gates
from .ops.dense import DenseResiduals

Array = NDArray[Any]


class Layer(abc.ABC):
    """One stage of a network.

    Attributes
    ----------
    params : dict of str to array
        Trainable arrays by name; optimisers move them in place.
    """

    params: dict[str, Array]

    @abc.abstractmethod
    def forward(self, x: Array, u: Array | None) -> tuple[Array, Any]:
        """Return y, and what `backward` will need."""

    @abc.abstractmethod
    def backward(self, dy: Array, residuals: Any) -> tuple[Array, dict[str, Array]]:
        """Return dx, and a gradient for every entry of `params`."""

    def noise_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of u for a batch of shape `x_shape`; None for a layer without noise."""
        return None

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of y for a batch of shape `x_shape`."""
        return x_shape


class GatedDenseResiduals(NamedTuple):
    """What `Dense.backward` needs."""

    op: DenseResiduals
    slope: Array | None  # dz / dlog_alpha


class Dense(Layer):
    """Dense layer, y = x @ weight + bias, with or without gates.

    Parameters
    ----------
    weight : array, (D_in, D_out)
    bias : array, (D_out,)
    gates : Gates, optional
        Which weights the gates own; see `l0ref.gates`.
    log_alpha : array, of gates.shape
        Required with gates.
    per_example : bool, optional
        One draw of the gates for each example rather than one for the minibatch.

    Raises
    ------
    ValueError
        If the shapes do not fit, or only one of gates and log_alpha is given.
    """

    def __init__(
        self,
        weight: Array,
        bias: Array,
        gates: Gates | None = None,
        log_alpha: Array | None = None,
        *,
        per_example: bool = False,
    ) -> None:
        if (gates is None) != (log_alpha is None):
            raise ValueError("gates and log_alpha must be given together")
        if bias.shape != weight.shape[1:]:
            raise ValueError(f"bias must have shape {weight.shape[1:]}, got {bias.shape}")
        self.params = {"weight": weight, "bias": bias}
        self.gates = gates
        self.per_example = per_example
        if gates is not None and log_alpha is not None:
            if gates.weight_shape != weight.shape:
                raise ValueError(f"gates are for a weight {gates.weight_shape}, got {weight.shape}")
            if gates.shape != log_alpha.shape:
                raise ValueError(f"log_alpha must have shape {gates.shape}, got {log_alpha.shape}")
            self.params["log_alpha"] = log_alpha

    def noise_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the gates' u."""
        if self.gates is None:
            return None
        return self.gates.noise_shape(x_shape[0] if self.per_example else None)

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(N, D_out)."""
        return (x_shape[0], self.params["weight"].shape[1])

    @property
    def _spread(self) -> bool:
        """Whether the op takes the gates spread over the weights.

        So it is for labels, and for gates on outputs that leave the bias on: the op's own gates on
        outputs switch it off.
        """
        gates = self.gates
        return gates is not None and (
            gates.labels is not None or (gates.on == "outputs" and not gates.gates_bias)
        )

    def _apply(self, x: Array, z: Array | None) -> tuple[Array, DenseResiduals]:
        weight, bias, gates = self.params["weight"], self.params["bias"], self.gates
        if gates is None or z is None:
            return ops.dense(x, weight, bias)
        if self._spread:
            lead = z.shape[: z.ndim - 1]
            over_weights = np.broadcast_to(gates.expand(z), lead + weight.shape)
            return ops.dense(x, weight, bias, over_weights, on="weights")
        return ops.dense(x, weight, bias, z, on=gates.on)

    def forward(self, x: Array, u: Array | None) -> tuple[Array, GatedDenseResiduals]:
        """Apply the op with gates drawn from u, or with those of Eq. 13."""
        gates = self.gates
        z: Array | None = None
        slope: Array | None = None
        if gates is None:
            pass
        elif u is None:
            z = gates.test_time(self.params["log_alpha"])
        else:
            shape = self.noise_shape(x.shape)
            if u.shape != shape:
                raise ValueError(f"u must have shape {shape}, got {u.shape}")
            z, slope = gates.draw(self.params["log_alpha"], u)
        y, residuals = self._apply(x, z)
        return y, GatedDenseResiduals(residuals, slope)

    def backward(self, dy: Array, residuals: GatedDenseResiduals) -> tuple[Array, dict[str, Array]]:
        """Pull dy back through the op, and dz through the draw."""
        dx, dweight, dbias, dz = ops.dense_vjp(dy, residuals.op)
        grads = {"weight": dweight, "bias": dbias}
        if self.gates is not None:
            if residuals.slope is None:
                raise ValueError("backward needs a forward pass with noise, not one at test time")
            assert dz is not None
            if self._spread:
                contract = self.gates.contract
                per_draw = dz.ndim == len(self.gates.weight_shape)
                dz = contract(dz) if per_draw else np.array([contract(d) for d in dz])
            grads["log_alpha"] = self.gates.draw_vjp(dz, residuals.slope)
        return dx, grads

    def test_time_weights(self) -> tuple[Array, Array]:
        """Weight and bias with the gates of Eq. 13 multiplied in: theta* of Eq. 13."""
        weight, bias, gates = self.params["weight"], self.params["bias"], self.gates
        if gates is None:
            return weight, bias
        z_hat = gates.test_time(self.params["log_alpha"])
        return weight * gates.expand(z_hat), bias * z_hat if gates.gates_bias else bias


class _Elementwise(Layer):
    """A parameter-free function of each element."""

    def __init__(
        self, op: Callable[[Array], tuple[Array, Array]], vjp: Callable[[Array, Array], Array]
    ) -> None:
        self.params = {}
        self._op, self._vjp = op, vjp

    def forward(self, x: Array, u: Array | None) -> tuple[Array, Array]:
        return self._op(x)

    def backward(self, dy: Array, residuals: Array) -> tuple[Array, dict[str, Array]]:
        return self._vjp(dy, residuals), {}


class ReLU(_Elementwise):
    """max(x, 0)."""

    def __init__(self) -> None:
        super().__init__(ops.relu, ops.relu_vjp)


class Tanh(_Elementwise):
    """Hyperbolic tangent."""

    def __init__(self) -> None:
        super().__init__(ops.tanh, ops.tanh_vjp)


class Dropout(Layer):
    """Dropout of each activation with probability `rate`; nothing at test time.

    Parameters
    ----------
    rate : float
        Drop rate, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.params = {}
        self.rate = rate

    def noise_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """One u an activation."""
        return x_shape

    def forward(self, x: Array, u: Array | None) -> tuple[Array, Array | None]:
        """Drop where u < rate; pass x on at test time."""
        return (x, None) if u is None else ops.dropout(x, u, self.rate)

    def backward(self, dy: Array, residuals: Array | None) -> tuple[Array, dict[str, Array]]:
        """Meet the same factors."""
        return (dy if residuals is None else ops.dropout_vjp(dy, residuals)), {}
