r"""Who owns which weights: hard concrete gates on the axes of a weight array.

A gate g multiplies a set of parameters, and |g| is how many. That count is what the expected L0
norm weighs the gate's probability with (Eq. 15), so it is made here, once, by one rule:

* a weight counts in the gate that multiplies it;
* a bias counts in |g| only if the gate switches it off together with its unit;
* a bias that stays on whatever the gate does is neither gated nor counted.

Weights of a dense layer have shape (D_in, D_out), those of a convolution (C_out, C_in/groups, kh,
kw).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .concrete import BETA, GAMMA, ZETA, Float64Array, FloatArray
from .hard_concrete import HardConcrete, sample_and_slope, test_time

INIT_JITTER = 0.01
CLOSED = -1e4
LOG_ALPHA_RANGE = (float(np.log(0.01)), float(np.log(100.0)))

IntArray = NDArray[np.int64]


class Hyperparameters(TypedDict, total=False):
    """Of the hard concrete law, as keyword arguments: temperature beta, stretch gamma and zeta."""

    beta: float
    gamma: float
    zeta: float


@dataclass(frozen=True, eq=False)
class Gates:
    r"""A family of gates over one weight array: the map between gates and weights, and the law.

    Make one with `per_weight`, `per_input`, `per_output` or `by_label`. It holds no parameters:
    log_alpha, of shape `shape`, is an argument of every method.

    Attributes
    ----------
    weight_shape : tuple of int
        Shape of the weights that are gated.
    shape : tuple of int
        Shape of one draw, and of log_alpha: (G,) for groups, `weight_shape` for a gate a weight.
    group_size : array of int, of `shape`
        |g|, the number of parameters that each gate governs.
    on : {"weights", "inputs", "outputs"}
        What an op multiplies by the gate.
    gates_bias : bool
        Whether a gate takes its unit's bias with it.
    beta, gamma, zeta : float
        Hyperparameters of the hard concrete law.

    Examples
    --------
    >>> per_input((784, 300)).group_size[:3]
    array([300, 300, 300])
    >>> per_output((20, 1, 5, 5), axis=0, gates_bias=True).group_size[:3]
    array([26, 26, 26])
    """

    weight_shape: tuple[int, ...]
    shape: tuple[int, ...]
    group_size: IntArray
    on: str
    axis: int | None = field(default=None, kw_only=True)
    labels: IntArray | None = field(default=None, kw_only=True)
    gates_bias: bool = field(default=False, kw_only=True)
    beta: float = field(default=BETA, kw_only=True)
    gamma: float = field(default=GAMMA, kw_only=True)
    zeta: float = field(default=ZETA, kw_only=True)

    def __post_init__(self) -> None:
        HardConcrete(0.0, self.beta, self.gamma, self.zeta)  # raises where one is out of range

    @property
    def hyperparameters(self) -> Hyperparameters:
        """beta, gamma and zeta, as keyword arguments."""
        return {"beta": self.beta, "gamma": self.gamma, "zeta": self.zeta}

    # --- the map between gates and weights ---

    def expand(self, z: FloatArray) -> FloatArray:
        """Spread one value a gate over the weights; the result broadcasts to `weight_shape`.

        Leading axes of `z` beyond `shape` (one draw an example) are kept in front.
        """
        self._require_shape("z", z)
        if self.labels is not None:
            return z[..., self.labels]
        if self.axis is None:
            return z
        after = len(self.weight_shape) - 1 - self.axis
        lead = z.shape[: z.ndim - 1]
        return z.reshape(lead + (1,) * self.axis + z.shape[-1:] + (1,) * after)

    def contract(self, values: FloatArray) -> FloatArray:
        """Add up one value a weight over the weights of each gate: the transpose of `expand`."""
        if values.shape != self.weight_shape:
            raise ValueError(f"values must have shape {self.weight_shape}, got {values.shape}")
        if self.labels is not None:
            sums = np.bincount(self.labels.ravel(), values.ravel(), minlength=self.shape[0])
            return sums.astype(values.dtype)
        if self.axis is None:
            return values
        others = tuple(i for i in range(values.ndim) if i != self.axis)
        return np.asarray(values.sum(axis=others))

    def _require_shape(self, name: str, value: FloatArray) -> None:
        n = len(self.shape)
        if value.shape[value.ndim - n :] != self.shape:
            raise ValueError(f"{name} must have shape (..., {self.shape}), got {value.shape}")

    # --- the law, at given log_alpha ---

    def law(self, log_alpha: FloatArray) -> HardConcrete:
        """Return the gates' distribution."""
        self._require_own_shape(log_alpha)
        return HardConcrete(log_alpha, **self.hyperparameters)

    def _require_own_shape(self, log_alpha: FloatArray) -> None:
        if log_alpha.shape != self.shape:
            raise ValueError(f"log_alpha must have shape {self.shape}, got {log_alpha.shape}")

    def noise_shape(self, n_examples: int | None = None) -> tuple[int, ...]:
        """Shape of u for one draw, or with `n_examples` for one draw an example."""
        return self.shape if n_examples is None else (n_examples, *self.shape)

    def draw(self, log_alpha: FloatArray, u: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Draw the gates, and return with them dz/dlog_alpha, which their VJP needs."""
        self._require_own_shape(log_alpha)
        return sample_and_slope(log_alpha, u, **self.hyperparameters)

    def draw_vjp(self, dz: FloatArray, slope: FloatArray) -> FloatArray:
        """Pull dz back to log_alpha; draws of several examples share it, so they add up."""
        self._require_shape("dz", dz)
        extra = tuple(range(dz.ndim - len(self.shape)))
        return np.asarray((dz * slope).sum(axis=extra))

    def test_time(self, log_alpha: FloatArray) -> FloatArray:
        """Return the deterministic gates of Eq. 13."""
        return test_time(log_alpha, gamma=self.gamma, zeta=self.zeta)


def per_weight(weight_shape: tuple[int, ...], **hyperparameters: Unpack[Hyperparameters]) -> Gates:
    """One gate a weight: |g| = 1."""
    return Gates(weight_shape, weight_shape, _all(1, weight_shape), "weights", **hyperparameters)


def per_input(
    weight_shape: tuple[int, ...], *, axis: int = 0, **hyperparameters: Unpack[Hyperparameters]
) -> Gates:
    """One gate an input unit: |g| = the number of its outgoing weights. No bias counts.

    Parameters
    ----------
    weight_shape : tuple of int
        (D_in, D_out) for a dense layer.
    axis : int, optional
        The axis of the weights that runs over input units.
    **hyperparameters : float
        beta, gamma, zeta.
    """
    return _on_axis(weight_shape, axis, "inputs", gates_bias=False, **hyperparameters)


def per_output(
    weight_shape: tuple[int, ...],
    *,
    axis: int = -1,
    gates_bias: bool = False,
    **hyperparameters: Unpack[Hyperparameters],
) -> Gates:
    """One gate an output unit or feature map: |g| = its incoming weights, + 1 if its bias goes too.

    Parameters
    ----------
    weight_shape : tuple of int
        (D_in, D_out) for a dense layer; (C_out, C_in/groups, kh, kw), with axis=0, for a
        convolution.
    axis : int, optional
        The axis of the weights that runs over outputs.
    gates_bias : bool, optional
        Whether a closed gate switches off its unit's bias. If not, the bias stays on and is not
        counted.
    **hyperparameters : float
        beta, gamma, zeta.
    """
    return _on_axis(weight_shape, axis, "outputs", gates_bias=gates_bias, **hyperparameters)


def _on_axis(
    weight_shape: tuple[int, ...],
    axis: int,
    on: str,
    *,
    gates_bias: bool,
    **hyper: Unpack[Hyperparameters],
) -> Gates:
    if not -len(weight_shape) <= axis < len(weight_shape):
        raise ValueError(f"axis must be an axis of a weight of shape {weight_shape}, got {axis}")
    axis %= len(weight_shape)
    n = weight_shape[axis]
    size = int(np.prod(weight_shape)) // max(n, 1) + gates_bias
    sizes = _all(size, (n,))
    return Gates(weight_shape, (n,), sizes, on, axis=axis, gates_bias=gates_bias, **hyper)


def _all(size: int, shape: tuple[int, ...]) -> IntArray:
    """Return an array of equal sizes, read-only, that takes up the room of one."""
    return np.broadcast_to(np.int64(size), shape)


def by_label(labels: ArrayLike, **hyperparameters: Unpack[Hyperparameters]) -> Gates:
    """One gate a label: weights with the same label share a gate.

    Parameters
    ----------
    labels : array_like of int
        One label a weight, of the weight's shape; every label from 0 to G-1 must occur.
    **hyperparameters : float
        beta, gamma, zeta.

    Raises
    ------
    ValueError
        If the labels are not integers, negative, or leave a gap (a gate that owns nothing).

    Examples
    --------
    >>> by_label([[0, 1, 1], [2, 1, 0]]).group_size
    array([2, 3, 1])
    """
    given = np.asarray(labels)
    if given.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, got dtype {given.dtype}")
    if given.size == 0:
        raise ValueError("labels must not be empty")
    if given.min() < 0:
        raise ValueError(f"labels must be at least 0, got {given.min()}")
    sizes = np.bincount(given.ravel())
    if (sizes == 0).any():
        raise ValueError(f"labels must leave no gap, got none with {int(np.argmin(sizes))}")
    shape = (len(sizes),)
    return Gates(
        given.shape, shape, sizes, "weights", labels=given.astype(np.int64), **hyperparameters
    )


def clamp_log_alpha(
    log_alpha: FloatArray, low: float = LOG_ALPHA_RANGE[0], high: float = LOG_ALPHA_RANGE[1]
) -> None:
    """Clamp log_alpha **in place** after an optimiser step, as an option of training.

    The paper's own code does so, to [log 0.01, log 100]. It is never part of a formula: a clamp
    inside one would cut the gradient, where this one only stops the walk.
    """
    np.clip(log_alpha, low, high, out=log_alpha)


def close_for_good(log_alpha: FloatArray, mask: NDArray[np.bool_]) -> None:
    """Close gates **in place**, for the rest of training, as an option of it.

    They get `CLOSED`, where P(z != 0), every draw and every derivative are exactly 0 in float32 and
    float64: no gradient opens them again, and no minibatch computes what they gate. It is finite,
    so that averages stay numbers.
    """
    log_alpha[mask] = CLOSED


def init_log_alpha(
    drop_rate: float, normal: Float64Array, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    r"""Initial log_alpha for a **drop** rate p: N(log((1-p)/p), 0.01^2).

    So that alpha/(alpha+1), the probability that s > 1/2, starts at the keep rate 1 - p.

    Parameters
    ----------
    drop_rate : float
        p, strictly between 0 and 1. The paper: 0.2 for inputs, 0.5 for hidden units.
    normal : array of float
        Standard normal noise, one for each gate.
    dtype : dtype, optional
        Of the result.

    Raises
    ------
    ValueError
        If drop_rate is not in (0, 1).

    Examples
    --------
    >>> init_log_alpha(0.2, np.zeros(2), np.float64).round(6)
    array([1.386294, 1.386294])
    """
    if not 0 < drop_rate < 1:
        raise ValueError(f"drop_rate must lie strictly between 0 and 1, got {drop_rate}")
    centre = np.log1p(-drop_rate) - np.log(drop_rate)
    return np.asarray(centre + INIT_JITTER * normal, dtype=dtype)
