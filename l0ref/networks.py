r"""Networks: a stack of layers, its objective (Eq. 9) and gradient; the paper's architectures."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import gates as gate_families
from . import ops
from .concrete import BETA, GAMMA, ZETA
from .gates import Gates, init_log_alpha
from .layers import Dense, Dropout, Layer, ReLU, Tanh
from .noise import Noise, Stream
from .penalties import expected_l0, expected_l0_grad, expected_l2, expected_l2_grad

Array = NDArray[Any]


class Loss(NamedTuple):
    """The objective and its parts: total = data + l0 + l2, each as it enters the sum."""

    total: float
    data: float
    l0: float
    l2: float


class Network:
    r"""A stack of layers ending in logits, and its objective.

    .. math:: \frac1n\sum_{i} L_i + \frac1N \sum_l \lambda_l \sum_{g\in l} |g| P(z_g\ne 0)
              + \frac{\lambda_2}{2N} \sum_l \sum_{g \in l} P(z_g\ne 0) \sum_{j\in g}\tilde\theta_j^2

    over n examples of a minibatch and N of the training set. The weights of a layer without gates
    are always on: they enter the L2 sum with P = 1. Biases that no gate switches off enter neither
    sum.

    Parameters
    ----------
    layers : sequence of Layer

    Attributes
    ----------
    params : dict of str to array
        Every trainable array, named ``"<layer>.<name>"``; the layers' own arrays, not copies.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    @property
    def params(self) -> dict[str, Array]:  # noqa: D102
        return {
            f"{i}.{name}": value
            for i, layer in enumerate(self.layers)
            for name, value in layer.params.items()
        }

    def with_params(self, params: dict[str, Array]) -> Network:
        """Return the same network over other arrays, which it shares and does not copy."""
        own = self.params
        if own.keys() != params.keys():
            raise ValueError(f"params must have the names {sorted(own)}, got {sorted(params)}")
        for name, value in own.items():
            if params[name].shape != value.shape:
                raise ValueError(
                    f"params[{name!r}] must have shape {value.shape}, got {params[name].shape}"
                )
        other = copy.copy(self)
        other.layers = [copy.copy(layer) for layer in self.layers]
        for i, layer in enumerate(other.layers):
            layer.params = {name: params[f"{i}.{name}"] for name in layer.params}
        return other

    @property
    def gated(self) -> list[tuple[int, Dense, Gates]]:
        """The layers that have gates, in order: position, layer, gates."""
        return [
            (i, layer, layer.gates)
            for i, layer in enumerate(self.layers)
            if isinstance(layer, Dense) and layer.gates is not None
        ]

    # --- forward and backward ---

    def noise_shapes(self, x_shape: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
        """Shape of u for each layer that takes noise, by position, for a batch of that shape."""
        shapes = {}
        for i, layer in enumerate(self.layers):
            shape = layer.noise_shape(x_shape)
            if shape is not None:
                shapes[i] = shape
            x_shape = layer.output_shape(x_shape)
        return shapes

    def forward(self, x: Array, noise: dict[int, Array] | None = None) -> tuple[Array, list[Any]]:
        """Return logits (N, K) and the residuals of every layer.

        Parameters
        ----------
        x : array, (N, D_in)
        noise : dict of int to array, optional
            u for each layer of `noise_shapes`; None for test time.
        """
        if noise is not None:
            missing = sorted(self.noise_shapes(x.shape).keys() - noise.keys())
            if missing:
                raise ValueError(
                    f"noise must have u for every layer that takes it; lacks {missing}"
                )
        residuals = []
        for i, layer in enumerate(self.layers):
            x, r = layer.forward(x, None if noise is None else noise.get(i))
            residuals.append(r)
        return x, residuals

    def backward(self, dlogits: Array, residuals: list[Any]) -> tuple[Array, dict[str, Array]]:
        """Pull dlogits back: the derivative in x, and one for every parameter."""
        grads: dict[str, Array] = {}
        dx = dlogits
        for i in reversed(range(len(self.layers))):
            dx, own = self.layers[i].backward(dx, residuals[i])
            grads |= {f"{i}.{name}": g for name, g in own.items()}
        return dx, {name: grads[name] for name in self.params}

    def predict(self, x: Array, *, batch_size: int = 10_000) -> Array:
        """Logits at test time (Eq. 13)."""
        starts = range(0, max(len(x), 1), batch_size)
        return np.concatenate([self.forward(x[i : i + batch_size])[0] for i in starts])

    # --- the objective ---

    def penalties(
        self, *, lam: Sequence[float], l2: float, n_train: int
    ) -> tuple[float, float, dict[str, Array]]:
        """Return the L0 and L2 terms of the objective, and their gradient.

        Parameters
        ----------
        lam : sequence of float
            lambda for each gated layer, per parameter; "0.1/N" is 0.1 here, for the division by N
            is done here.
        l2 : float
            lambda_2, likewise.
        n_train : int
            N, the number of training examples.
        """
        lams = check_lam(lam, len(self.gated))
        if not (l2 >= 0 and np.isfinite(l2)):
            raise ValueError(f"l2 must be at least 0 and finite, got {l2}")
        if n_train < 1:
            raise ValueError(f"n_train must be at least 1, got {n_train}")
        l0_term = l2_term = 0.0
        grads: dict[str, Array] = {}
        for (i, layer, gates), layer_lam in zip(self.gated, lams, strict=True):
            log_alpha = layer.params["log_alpha"]
            scale = layer_lam / n_train
            l0_term += scale * expected_l0(log_alpha, gates.group_size, **gates.hyperparameters)
            grads[f"{i}.log_alpha"] = scale * expected_l0_grad(
                log_alpha, gates.group_size, **gates.hyperparameters
            )
            if l2 > 0:
                bias = layer.params["bias"] if gates.gates_bias else None
                arguments = (layer.params["weight"], log_alpha, gates, bias)
                half = l2 / (2 * n_train)
                l2_term += half * expected_l2(*arguments)
                d = expected_l2_grad(*arguments)
                grads[f"{i}.weight"] = half * d.weight
                grads[f"{i}.log_alpha"] += half * d.log_alpha
                if d.bias is not None:
                    grads[f"{i}.bias"] = half * d.bias
        if l2 > 0:  # a layer without gates is always on: P = 1
            for i, plain in enumerate(self.layers):
                if isinstance(plain, Dense) and plain.gates is None:
                    weight = plain.params["weight"]
                    squares = float(np.sum(np.square(weight), dtype=np.float64))
                    l2_term += l2 / (2 * n_train) * squares
                    grads[f"{i}.weight"] = l2 / n_train * weight
        return l0_term, l2_term, grads

    def loss_and_grads(
        self,
        x: Array,
        labels: ArrayLike,
        noise: dict[int, Array],
        *,
        lam: Sequence[float],
        l2: float = 0.0,
        n_train: int,
    ) -> tuple[Loss, dict[str, Array]]:
        """Evaluate the objective on a minibatch, one draw of the gates, and its gradient.

        Parameters
        ----------
        x : array, (N, D_in)
        labels : array_like of int, (N,)
        noise : dict of int to array
            u for each layer of `noise_shapes(x.shape)`.
        lam, l2, n_train
            See `penalties`.
        """
        logits, residuals = self.forward(x, noise)
        data, ce = ops.softmax_cross_entropy(logits, labels)
        _, grads = self.backward(ops.softmax_cross_entropy_vjp(1.0, ce), residuals)
        l0_term, l2_term, penalty_grads = self.penalties(lam=lam, l2=l2, n_train=n_train)
        for name, g in penalty_grads.items():
            grads[name] = grads[name] + g
        loss = float(data)
        return Loss(loss + l0_term + l2_term, loss, l0_term, l2_term), grads

    # --- what is left ---

    def expected_l0(self) -> list[float]:
        """Expected number of parameters on, for each gated layer: a count."""
        return [
            expected_l0(layer.params["log_alpha"], gates.group_size, **gates.hyperparameters)
            for _, layer, gates in self.gated
        ]

    def open_gates(self) -> list[NDArray[np.bool_]]:
        """Which gates are on at test time, for each gated layer, of gates.shape.

        On is z_hat != 0: a NaN is a gate gone wrong, not a closed one.
        """
        return [gates.test_time(layer.params["log_alpha"]) != 0 for _, layer, gates in self.gated]


def check_lam(lam: Sequence[float], n_layers: int) -> list[float]:
    """Return one lambda a gated layer from one for all or one each; raise where it does not fit."""
    values = [float(v) for v in lam]
    if len(values) not in (1, n_layers):
        raise ValueError(
            f"lam must have 1 value or one a gated layer ({n_layers}), got {len(values)}"
        )
    for value in values:
        if not (value >= 0 and np.isfinite(value)):
            raise ValueError(f"lam must be at least 0 and finite, got {value}")
    return values * n_layers if len(values) == 1 else values


ACTIVATIONS: dict[str, type[Layer]] = {"relu": ReLU, "tanh": Tanh}
GATES = ("input", "weight", "none")


def mlp(
    widths: Sequence[int],
    *,
    gates: str = "input",
    drop_rates: Sequence[float] = (0.2, 0.5),
    noise: Noise | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    per_example: bool = False,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
    dtype: DTypeLike = np.float32,
) -> Network:
    r"""Multilayer perceptron with gates on every dense layer.

    Weights start at He's N(0, 2/D_in), biases at 0, and gates at a drop rate
    (`l0ref.gates.init_log_alpha`).

    Parameters
    ----------
    widths : sequence of int
        D_in, the hidden widths, and the number of classes.
    gates : {"input", "weight", "none"}, optional
        A gate an input unit of each dense layer (the paper's main setting), a gate a weight, or
        none.
    drop_rates : sequence of float, optional
        Initial drop rate of the first layer's gates and of all others', or one a layer.
    noise : Noise, optional
        Where the initial values come from; seed 0 by default.
    activation : {"relu", "tanh"}, optional
    dropout : float, optional
        Drop rate of ordinary dropout on the hidden activations.
    per_example : bool, optional
        One draw of the gates an example rather than one a minibatch.
    beta, gamma, zeta : float, optional
        Hyperparameters of the gates.
    dtype : dtype, optional
        Of every parameter.

    Raises
    ------
    ValueError
        If a width is below 1, a rate out of range, or a name unknown.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths must be two or more positive integers, got {list(widths)}")
    if gates not in GATES:
        raise ValueError(f"gates must be one of {GATES}, got {gates!r}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {tuple(ACTIVATIONS)}, got {activation!r}")
    noise = Noise(0) if noise is None else noise
    n_layers = len(widths) - 1
    rates = list(drop_rates)
    if len(rates) == 2:
        rates = rates[:1] + rates[1:] * (n_layers - 1)
    if len(rates) != n_layers:
        raise ValueError(f"drop_rates must have 2 values or one a layer ({n_layers}), got {rates}")

    layers: list[Layer] = []
    for depth, shape in enumerate(itertools.pairwise(widths)):
        he = np.sqrt(2 / shape[0])
        weight = he * noise.normal(Stream.WEIGHT_INIT, shape, layer=depth)
        parameters = weight.astype(dtype), np.zeros(shape[1], dtype)
        if gates == "none":
            layers.append(Dense(*parameters))
        else:
            make = gate_families.per_input if gates == "input" else gate_families.per_weight
            family = make(shape, beta=beta, gamma=gamma, zeta=zeta)
            normal = noise.normal(Stream.GATE_INIT, family.shape, layer=depth)
            log_alpha = init_log_alpha(rates[depth], normal, dtype)
            layers.append(Dense(*parameters, family, log_alpha, per_example=per_example))
        if depth < n_layers - 1:
            layers.append(ACTIVATIONS[activation]())
            if dropout != 0:
                layers.append(Dropout(dropout))
    return Network(layers)


def lenet300100(**options: Any) -> Network:
    """LeNet-300-100: dense 784-300-100-10 with ReLU, gates on the 784, 300 and 100 units.

    Takes the options of `mlp`, whose defaults are the paper's: drop rates 0.2 at the input, 0.5
    elsewhere.

    Examples
    --------
    >>> sum(p.size for name, p in lenet300100().params.items() if "log_alpha" not in name)
    266610
    """
    return mlp((784, 300, 100, 10), **options)
