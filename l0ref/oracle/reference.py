"""The reference as a target: every function of `interface.Target`, done by l0ref itself.

It is what random inputs are compared with, and the first implementation that the oracle checks.
There is no formula here, only the way from the interface's arrays and plain data to the library's
own classes and back. ``numba`` is the same with the fast twins in place of what they replace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import flops, layers, networks, optimizers, penalties, pruning
from ..backends import Backend, load
from ..gates import Gates, init_log_alpha, per_input, per_output, per_weight
from ..hard_concrete import HardConcrete, sample
from ..noise import open_uniform
from ..ops import conv_output_size
from .interface import Array, LayerData, Network, Pair, Scalar

__all__ = ["Reference", "gates_of", "network_data", "network_of", "noise_of", "numba", "reference"]


def gates_of(
    weight_shape: Sequence[int], on: str, *, gates_bias: bool = False, **law: float
) -> Gates:
    """Return the gates that `on` and `gates_bias` stand for.

    Parameters
    ----------
    weight_shape : sequence of int
        (D_in, D_out) of a dense layer, (C_out, C_in/groups, kh, kw) of a convolution.
    on : {"inputs", "outputs", "weights"}
    gates_bias : bool, optional
        Gates on the inputs and on weights leave the bias alone, whatever this says.
    **law : float
        beta, gamma and zeta.

    Raises
    ------
    ValueError
        If there are no such gates on weights of that shape.
    """
    shape = tuple(int(n) for n in weight_shape)
    if len(shape) not in (2, 4):
        raise ValueError(f"weight_shape must have 2 axes (dense) or 4 (conv2d), got {shape}")
    dense = len(shape) == 2
    if on == "weights":
        return per_weight(shape, **law)
    if on == "inputs" and dense:
        return per_input(shape, axis=0, **law)
    if on == "outputs":
        axis = 1 if dense else 0
        return per_output(shape, axis=axis, gates_bias=gates_bias, **law)
    allowed = "inputs, outputs or weights" if dense else "outputs or weights"
    raise ValueError(f"on must be {allowed} for weights of shape {shape}, got {on!r}")


# --- networks: plain data to objects, and back ---


def network_of(data: Network, backend: str = "numpy") -> networks.Network:
    """Make a `l0ref.networks.Network` of the interface's plain data; its arrays are copies.

    Raises
    ------
    ValueError
        If a layer is of an unknown kind, or something does not fit.
    """
    law = {name: float(data[name]) for name in ("beta", "gamma", "zeta")}
    made = [_layer_of(layer, law) for layer in data["layers"]]
    network = networks.Network(made, input_shape=tuple(data["input_shape"]))
    return network.with_backend(backend)


def _layer_of(data: LayerData, law: Mapping[str, float]) -> layers.Layer:
    kind = data["kind"]
    if kind in ("dense", "conv2d"):
        return _weighted_of(data, law)
    if kind == "relu":
        return layers.ReLU()
    if kind == "max_pool2d":
        return layers.MaxPool2d(_pair(data["kernel_size"]))
    if kind == "flatten":
        return layers.Flatten()
    if kind == "select":
        return layers.Select(np.asarray(data["index"], dtype=np.int64))
    if kind == "add":
        return layers.AddPattern.of(np.array(data["pattern"]))
    raise ValueError(f"kind must be one of the interface's layers, got {kind!r}")


def _weighted_of(data: LayerData, law: Mapping[str, float]) -> layers.Weighted:
    weight, given = np.array(data["weight"]), data.get("bias")
    bias = None if given is None else np.array(given)
    gates, log_alpha, on = None, None, data.get("on")
    if on is not None:
        gates = gates_of(weight.shape, on, gates_bias=bool(data.get("gates_bias")), **law)
        log_alpha = np.array(data["log_alpha"])
    if data["kind"] == "dense":
        if bias is None:
            raise ValueError("bias must be given to a dense layer, got None")
        return layers.Dense(weight, bias, gates, log_alpha)
    return layers.Conv2d(
        weight,
        bias,
        gates,
        log_alpha,
        stride=_pair(data.get("stride", (1, 1))),
        padding=_pair(data.get("padding", (0, 0))),
        dilation=_pair(data.get("dilation", (1, 1))),
        groups=int(data.get("groups", 1)),
    )


def _pair(value: Sequence[int]) -> Pair:
    first, second = value  # a list where it has come as JSON
    return int(first), int(second)


def network_data(small: pruning.CompactNetwork, law: Mapping[str, float]) -> Network:
    """Return a compact network as the interface's plain data; `law` has beta, gamma and zeta."""
    listed = [_layer_data(layer) for layer in small.network.layers]
    if len(small.inputs) < small.input_shape[0]:
        listed.insert(0, {"kind": "select", "index": [int(i) for i in small.inputs]})
    return {
        "input_shape": small.input_shape,
        "layers": listed,
        "beta": law["beta"],
        "gamma": law["gamma"],
        "zeta": law["zeta"],
    }


def _layer_data(layer: layers.Layer) -> LayerData:
    if isinstance(layer, layers.Weighted):
        data: LayerData = {
            "kind": "dense" if isinstance(layer, layers.Dense) else "conv2d",
            "weight": layer.params["weight"],
            "bias": layer.params.get("bias"),
            "on": None,
            "log_alpha": None,
            "gates_bias": False,
        }
        if isinstance(layer, layers.Conv2d):
            data |= {
                "stride": layer.stride,
                "padding": layer.padding,
                "dilation": layer.dilation,
                "groups": layer.groups,
            }
        return data
    if isinstance(layer, layers.ReLU):
        return {"kind": "relu"}
    if isinstance(layer, layers.MaxPool2d):
        return {"kind": "max_pool2d", "kernel_size": layer.kernel_size}
    if isinstance(layer, layers.Flatten):
        return {"kind": "flatten"}
    if isinstance(layer, layers.Select):
        return {"kind": "select", "index": [int(i) for i in layer.index]}
    if isinstance(layer, layers.AddPattern):
        return {"kind": "add", "pattern": layer.pattern}
    raise ValueError(f"a {type(layer).__name__} layer has no place in the interface")


# --- the target ---


class _Given:
    """Stands for `l0ref.noise.Noise` where the normal noise is an argument."""

    def __init__(self, normal: Array) -> None:
        self._normal = normal

    def normal(self, stream: Any, shape: tuple[int, ...], *, layer: int) -> Array:
        return self._normal


class Reference:
    """l0ref behind the oracle's interface; what each method computes is told there.

    Parameters
    ----------
    backend : {"numpy", "numba"}, optional
        "numba" uses the fast twins, wherever one takes what comes.

    Raises
    ------
    ValueError
        If there is no such backend.

    Examples
    --------
    >>> reference.prob_active(np.array([0.5]), beta=2 / 3, gamma=-0.1, zeta=1.1).round(6)
    array([0.890767])
    """

    def __init__(self, backend: str = "numpy") -> None:
        if backend != "numba":
            load(backend)
        self.backend_name = backend  # numba itself is imported when it is first needed

    def __repr__(self) -> str:
        return f"Reference(backend={self.backend_name!r})"

    @property
    def backend(self) -> Backend:
        """Where the ops are found."""
        return load(self.backend_name)

    def _twin(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.backend_name == "numpy":
            return function
        from .. import jit  # importing Numba takes as long as everything else together

        return jit.TWINS.get(function, function)

    # --- the law of one gate ---

    def prob_active(self, log_alpha: Array, **law: float) -> Array:
        """P(z != 0)."""
        return HardConcrete(log_alpha, **law).prob_active()

    def log_prob_active(self, log_alpha: Array, **law: float) -> Array:
        """Log P(z != 0)."""
        return HardConcrete(log_alpha, **law).log_prob_active()

    def prob_active_grad(self, log_alpha: Array, **law: float) -> Array:
        """dP(z != 0)/dlog_alpha."""
        return HardConcrete(log_alpha, **law).prob_active_partials().log_alpha

    def cdf(self, x: Array, log_alpha: Array, **law: float) -> Array:
        """P(z <= x)."""
        return HardConcrete(log_alpha, **law).cdf(x)

    def sf(self, x: Array, log_alpha: Array, **law: float) -> Array:
        """P(z > x)."""
        return HardConcrete(log_alpha, **law).sf(x)

    def pdf(self, x: Array, log_alpha: Array, **law: float) -> Array:
        """Density."""
        return HardConcrete(log_alpha, **law).pdf(x)

    def logpdf(self, x: Array, log_alpha: Array, **law: float) -> Array:
        """Log density; at 0 and 1 the log of the atom's mass."""
        return HardConcrete(log_alpha, **law).logpdf(x)

    def ppf(self, q: Array, log_alpha: Array, **law: float) -> Array:
        """Return the quantile."""
        return HardConcrete(log_alpha, **law).ppf(q)

    def sample(self, log_alpha: Array, u: Array, **law: float) -> Array:
        """Draw from noise u."""
        drawn: Array = self._twin(sample)(log_alpha, u, **law)
        return drawn

    def sample_vjp(self, log_alpha: Array, u: Array, dz: Array, **law: float) -> Array:
        """Pull dz back through the draw."""
        if self.backend_name == "numpy":
            pulled: Array = HardConcrete(log_alpha, **law).sample_vjp(u, dz)
            return pulled
        slope: Array = self.backend.sample_and_slope(log_alpha, u, **law)[1]
        return dz * slope

    def sample_partials(
        self, log_alpha: Array, u: Array, **law: float
    ) -> tuple[Array, Array, Array, Array]:
        """Derivatives of the draw in log_alpha, beta, gamma and zeta."""
        d = HardConcrete(log_alpha, **law).sample_partials(u)
        return d.log_alpha, d.beta, d.gamma, d.zeta

    def test_time(self, log_alpha: Array, **law: float) -> Array:
        """Return the gate of Eq. 13."""
        return HardConcrete(log_alpha, **law).test_time()

    def test_time_grad(self, log_alpha: Array, **law: float) -> Array:
        """Return its derivative."""
        return HardConcrete(log_alpha, **law).test_time_partials().log_alpha

    def mean(self, log_alpha: Array, **law: float) -> Array:
        """E[z]."""
        return HardConcrete(log_alpha, **law).mean()

    def var(self, log_alpha: Array, **law: float) -> Array:
        """Var[z]."""
        return HardConcrete(log_alpha, **law).var()

    def draw(self, log_alpha: Array, n: int, seed: int, **law: float) -> Array:
        """Draw n times, with NumPy's generator of that seed."""
        return HardConcrete(log_alpha, **law).rvs((n, *np.shape(log_alpha)), seed)

    def draw_vjp(self, log_alpha: Array, n: int, seed: int, dz: Array, **law: float) -> Array:
        """Pull dz back through the same draws."""
        u = open_uniform(np.random.default_rng(seed), (n, *np.shape(log_alpha)))
        pulled: Array = HardConcrete(log_alpha, **law).sample_vjp(u, dz)
        return pulled

    # --- initialisation ---

    def init_log_alpha(self, drop_rate: float, normal: Array) -> Array:
        """Initial log_alpha."""
        return init_log_alpha(drop_rate, normal, normal.dtype)

    def init_weight(self, normal: Array) -> Array:
        """Initial weights."""
        if normal.ndim not in (2, 4):
            raise ValueError(f"normal must have 2 axes (dense) or 4 (conv2d), got {normal.shape}")
        shape = normal.shape
        fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
        given: Any = _Given(normal)
        return networks._Maker(noise=given, dtype=normal.dtype)._weight(shape, fan_in)

    # --- penalties ---

    def group_size(
        self, weight_shape: tuple[int, ...], *, on: str, gates_bias: bool
    ) -> NDArray[Any]:
        """|g|."""
        return np.array(gates_of(weight_shape, on, gates_bias=gates_bias).group_size)

    def expected_l0(self, log_alpha: Array, group_size: Array, **law: float) -> Scalar:
        """Sum of |g| P."""
        if self.backend_name == "numpy":
            return penalties.expected_l0(log_alpha, group_size, **law)
        return self._gate_gradient(log_alpha, group_size, **law)[1]

    def expected_l0_grad(self, log_alpha: Array, group_size: Array, **law: float) -> Array:
        """|g| P (1 - P)."""
        if self.backend_name == "numpy":
            return penalties.expected_l0_grad(log_alpha, group_size, **law)
        gradient: Array = self._gate_gradient(log_alpha, group_size, **law)[0]
        return gradient

    def _gate_gradient(self, log_alpha: Array, group_size: Array, **law: float) -> tuple[Any, Any]:
        none = np.zeros_like(log_alpha)
        both: tuple[Any, Any] = self.backend.gate_gradient(
            none, none, log_alpha, group_size, lam=1.0, **law
        )
        return both

    def expected_l2(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        **law: float,
    ) -> Scalar:
        """Sum of P times squares."""
        gates = gates_of(weight.shape, on, gates_bias=gates_bias, **law)
        return penalties.expected_l2(weight, log_alpha, gates, _gated_bias(gates, bias))

    def expected_l2_grad(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        **law: float,
    ) -> tuple[Array, Array, Array]:
        """Return its derivatives."""
        gates = gates_of(weight.shape, on, gates_bias=gates_bias, **law)
        d = penalties.expected_l2_grad(weight, log_alpha, gates, _gated_bias(gates, bias))
        return d.log_alpha, d.weight, np.zeros_like(bias) if d.bias is None else d.bias

    def expected_l1(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        **law: float,
    ) -> Scalar:
        """Sum of P times absolute values."""
        gates = gates_of(weight.shape, on, gates_bias=gates_bias, **law)
        return penalties.expected_l1(weight, log_alpha, gates, _gated_bias(gates, bias))

    def expected_l1_grad(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        **law: float,
    ) -> tuple[Array, Array, Array]:
        """Return its derivatives."""
        gates = gates_of(weight.shape, on, gates_bias=gates_bias, **law)
        d = penalties.expected_l1_grad(weight, log_alpha, gates, _gated_bias(gates, bias))
        return d.log_alpha, d.weight, np.zeros_like(bias) if d.bias is None else d.bias

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
    ) -> Scalar:
        """Return the penalty of a network of one layer."""
        network = _one_layer(log_alpha, weight, bias, on, gates_bias, law)
        l0_term, l2_term, _ = network.penalties(lam=[lam], l2=l2, n_train=n_train)
        return l0_term + l2_term

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
    ) -> tuple[Array, Array, Array]:
        """Return its derivatives."""
        network = _one_layer(log_alpha, weight, bias, on, gates_bias, law)
        grads = network.penalties(lam=[lam], l2=l2, n_train=n_train)[2]
        d = {name: grads.get(f"0.{name}") for name in ("log_alpha", "weight", "bias")}
        return (
            np.zeros_like(log_alpha) if d["log_alpha"] is None else d["log_alpha"],
            np.zeros_like(weight) if d["weight"] is None else d["weight"],
            np.zeros_like(bias) if d["bias"] is None else d["bias"],
        )

    # --- layers ---

    def dense(
        self, x: Array, weight: Array, bias: Array, z: Array, *, on: str, gates_bias: bool
    ) -> Array:
        """Gated affine map."""
        y: Array = self.backend.dense(x, weight, bias, z, on=on, gates_bias=gates_bias)[0]
        return y

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
    ) -> tuple[Array, Array, Array, Array]:
        """Pull dy back."""
        residuals = self.backend.dense(x, weight, bias, z, on=on, gates_bias=gates_bias)[1]
        dx, dweight, dbias, dz = self.backend.dense_vjp(dy, residuals)
        return dx, dweight, dbias, dz

    def conv2d(
        self, x: Array, weight: Array, bias: Array, z: Array, *, on: str, **options: Any
    ) -> Array:
        """Gated convolution."""
        y: Array = self.backend.conv2d(x, weight, bias, z, on=on, **options)[0]
        return y

    def conv2d_vjp(
        self, dy: Array, x: Array, weight: Array, bias: Array, z: Array, *, on: str, **options: Any
    ) -> tuple[Array, Array, Array, Array]:
        """Pull dy back."""
        residuals = self.backend.conv2d(x, weight, bias, z, on=on, **options)[1]
        dx, dweight, dbias, dz = self.backend.conv2d_vjp(dy, residuals)
        return dx, dweight, dbias, dz

    # --- cost ---

    def dense_flops(self, n_in: int, n_out: int, *, bias: bool) -> Scalar:
        """FLOPs of a dense layer."""
        return flops.dense_flops(n_in, n_out, bias=bias)

    def dense_params(self, n_in: int, n_out: int, *, bias: bool) -> Scalar:
        """Its parameters."""
        return flops.dense_params(n_in, n_out, bias=bias)

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
    ) -> Scalar:
        """FLOPs of a convolution."""
        height, width = (
            conv_output_size(n, k, stride=s, padding=p, dilation=d)
            for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
        )
        kernel = _pair(kernel)
        return flops.conv2d_flops(c_in, c_out, kernel, (height, width), groups=groups, bias=bias)

    def conv2d_params(
        self, c_in: int, c_out: int, kernel: Pair, *, groups: int, bias: bool
    ) -> Scalar:
        """Its parameters."""
        return flops.conv2d_params(c_in, c_out, _pair(kernel), groups=groups, bias=bias)

    def expected_cost(self, network: Network) -> Mapping[str, Scalar]:
        """Return the expected cost of the drawn network."""
        return flops.expected_cost(network_of(network))._asdict()

    def hard_cost(self, network: Network) -> Mapping[str, Scalar]:
        """Cost with the gates of Eq. 13."""
        return flops.hard_cost(network_of(network))._asdict()

    # --- training ---

    def adam(self, theta: Array, grads: Array, *, lr: float) -> Array:
        """Return the parameters after each step."""
        shape = np.shape(theta)
        params = {"theta": np.array(theta).reshape(-1)}  # moved in place; a number is one element
        optimizer, average = optimizers.Adam(lr), optimizers.TemporalAverage()
        after = []
        for g in grads:
            own = {"theta": np.reshape(g, -1)}
            self.backend.step_and_average(optimizer, average, params, own, {})
            after.append(params["theta"].reshape(shape).copy())
        return np.array(after, dtype=theta.dtype).reshape(len(grads), *shape)

    def temporal_average(self, values: Array, *, decay: float) -> Array:
        """Return the average after each update."""
        average = optimizers.TemporalAverage(decay)
        after = np.empty_like(values)
        for t, value in enumerate(values):
            average.update({"theta": np.array(value).reshape(-1)})
            after[t] = average.params["theta"].reshape(np.shape(value))
        return after

    def predict(self, network: Network, x: Array) -> Array:
        """Logits at test time."""
        return network_of(network, self.backend_name).predict(x)

    def loss_and_grads(
        self,
        network: Network,
        x: Array,
        labels: NDArray[Any],
        u: Sequence[Array],
        *,
        lam: float,
        l2: float,
        n_train: int,
    ) -> Mapping[str, Any]:
        """Return the objective and its gradient."""
        made = network_of(network, self.backend_name)
        found = made.evaluate(x, labels, noise_of(made, u), lam=[lam], l2=l2, n_train=n_train)
        return {"loss": found.loss.total, "grads": found.grads}

    def train(
        self,
        network: Network,
        x: Array,
        labels: NDArray[Any],
        u: Sequence[Array],
        *,
        lr: float,
        lam: float,
        l2: float,
        n_train: int,
        decay: float,
    ) -> Sequence[Mapping[str, Any]]:
        """Return what each step of training leaves."""
        made = network_of(network, self.backend_name)
        optimizer, average = optimizers.Adam(lr), optimizers.TemporalAverage(decay)
        steps = []
        for t in range(len(x)):
            noise = noise_of(made, [one[t] for one in u])
            found = made.evaluate(x[t], labels[t], noise, lam=[lam], l2=l2, n_train=n_train)
            self.backend.step_and_average(optimizer, average, made.params, found.grads, {})
            steps.append(
                {
                    "loss": found.loss.total,
                    "grads": found.grads,
                    "params": {name: p.copy() for name, p in made.params.items()},
                    "average": {name: p.copy() for name, p in average.params.items()},
                }
            )
        return steps

    def compact(self, network: Network) -> Network:
        """Take out what the gates closed."""
        law = {"beta": network["beta"], "gamma": network["gamma"], "zeta": network["zeta"]}
        return network_data(pruning.compact(network_of(network)), law)


def _gated_bias(gates: Gates, bias: Array) -> Array | None:
    return bias if gates.gates_bias else None


def _one_layer(
    log_alpha: Array,
    weight: Array,
    bias: Array,
    on: str,
    gates_bias: bool,
    law: Mapping[str, float],
) -> networks.Network:
    gates = gates_of(weight.shape, on, gates_bias=gates_bias, **law)
    kind = layers.Dense if weight.ndim == 2 else layers.Conv2d
    layer: layers.Layer = kind(weight, bias, gates, log_alpha)
    return networks.Network([layer], input_shape=(1,))


def noise_of(network: networks.Network, u: Sequence[Array]) -> dict[int, Array]:
    """Return the noise by the position of its layer, from u of each gated layer."""
    gated = network.gated
    if len(u) != len(gated):
        raise ValueError(f"u must have one array a gated layer ({len(gated)}), got {len(u)}")
    return {i: one for (i, _, _), one in zip(gated, u, strict=True)}


reference = Reference()
"""The NumPy reference."""

numba = Reference("numba")
"""Its fast twins; Numba is imported when one is first called."""
