r"""Hypothesis strategies for gates, gated layers and whole networks.

What they draw is meant to find the classic bugs. Noise reaches both far ends of (0, 1), log_alpha
is rarely 0, weights are never square, cotangents are never ones, and gates are closed, half open
and open side by side. Hyperparameters are exact in float32, so that a float32 implementation reads
the very numbers that a float64 one does.

These are parts to build tests of one's own from, in either dtype. The oracle's own inputs,
`l0ref.oracle.strategies`, are whole calls of its functions, and belong to what a check is.

A **kink** is a place where a derivative jumps: a gate at the moment it is clipped, a rectifier at
0, a max pool with two equal winners. What a gradient is there is a convention, and differences are
wrong there. Strategies with a `margin` keep away from kinks by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import inf, log
from typing import Any, Literal, NamedTuple

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import DTypeLike, NDArray

from .. import ops
from ..oracle.interface import LayerData, Network, Pair

Array = NDArray[Any]
Shape = tuple[int, ...] | st.SearchStrategy[tuple[int, ...]]
Where = Literal["inside", "closed", "open", "off kinks", "anywhere"]

__all__ = [
    "Gates",
    "Layer",
    "Problem",
    "betas",
    "conv2d_layers",
    "dense_layers",
    "dtypes",
    "gammas",
    "gates",
    "hyperparameters",
    "log_alpha_arrays",
    "log_alphas",
    "noise",
    "noise_arrays",
    "problems",
    "zetas",
]


def dtypes() -> st.SearchStrategy[Any]:
    """Draw `numpy.float32` or `numpy.float64`.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(dtypes())
    ... def test(dtype):
    ...     assert np.finfo(dtype).bits in (32, 64)
    >>> test()
    """
    return st.sampled_from((np.float32, np.float64))


# --- hyperparameters ---


def betas(
    min_value: float = 0.1, max_value: float = 2.0, *, dtype: DTypeLike = np.float32
) -> st.SearchStrategy[float]:
    """Draw a temperature: 2/3, or anything from min_value to max_value.

    Parameters
    ----------
    min_value, max_value : float, optional
    dtype : dtype, optional
        The float drawn is exact in it.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(betas())
    ... def test(beta):
    ...     assert beta > 0
    ...     assert float(np.float32(beta)) == beta
    >>> test()
    """
    if not 0 < min_value <= max_value < inf:
        raise ValueError(
            f"min_value and max_value must satisfy 0 < min_value <= max_value < inf, "
            f"got {min_value} and {max_value}"
        )
    width: Any = np.finfo(dtype).bits
    low, high = _rounded(min_value, inf, dtype), _rounded(max_value, -inf, dtype)
    anything = st.floats(low, high, width=width)
    usual = _nearest(2 / 3, dtype)
    return st.one_of(st.just(usual), anything) if low <= usual <= high else anything


def gammas(*, dtype: DTypeLike = np.float32) -> st.SearchStrategy[float]:
    """Draw the lower end of the stretch: -0.1, or about [-1, -0.01], even on a log scale.

    Parameters
    ----------
    dtype : dtype, optional
        The float drawn is exact in it.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(gammas())
    ... def test(gamma):
    ...     assert -1 <= gamma < 0
    >>> test()
    """
    powers = st.floats(-2, 0).map(lambda power: _nearest(-(10.0**power), dtype))
    return st.one_of(st.just(_nearest(-0.1, dtype)), powers)


def zetas(*, dtype: DTypeLike = np.float32) -> st.SearchStrategy[float]:
    """Draw the upper end of the stretch: 1.1, or anything in (1.01, 2].

    Parameters
    ----------
    dtype : dtype, optional
        The float drawn is exact in it.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(zetas())
    ... def test(zeta):
    ...     assert 1 < zeta <= 2
    >>> test()
    """
    width: Any = np.finfo(dtype).bits
    low = _rounded(1.01, inf, dtype)
    return st.one_of(
        st.just(_nearest(1.1, dtype)), st.floats(low, 2, exclude_min=True, width=width)
    )


def hyperparameters(*, dtype: DTypeLike = np.float32) -> st.SearchStrategy[dict[str, float]]:
    """Draw valid ``beta``, ``gamma`` and ``zeta``, ready to be passed with ``**``.

    Parameters
    ----------
    dtype : dtype, optional
        The floats drawn are exact in it.

    Examples
    --------
    >>> from hypothesis import given
    >>> from l0ref import HardConcrete
    >>> @given(hyperparameters())
    ... def test(hyper):
    ...     p = HardConcrete(0.5, **hyper).prob_active()
    ...     assert 0 < p < 1
    >>> test()
    """
    ends = {"gamma": gammas(dtype=dtype), "zeta": zetas(dtype=dtype)}
    return st.builds(dict, beta=betas(dtype=dtype), **ends)


# --- gates ---


def log_alphas(dtype: DTypeLike = np.float64, bound: float = 40.0) -> st.SearchStrategy[Any]:
    """Draw one log_alpha, from -bound to bound, as a NumPy scalar.

    Parameters
    ----------
    dtype : dtype, optional
    bound : float, optional
        At 40, P(z != 0) is 1 to rounding, and at -40 about 1e-17.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(log_alphas(np.float32, bound=5))
    ... def test(log_alpha):
    ...     assert log_alpha.dtype == np.float32
    ...     assert -5 <= log_alpha <= 5
    >>> test()
    """
    kind = np.dtype(dtype).type
    width: Any = np.finfo(dtype).bits
    return st.floats(-bound, bound, width=width).map(kind)


def log_alpha_arrays(
    shape: Shape | None = None, dtype: DTypeLike = np.float64, bound: float = 40.0
) -> st.SearchStrategy[Array]:
    """Draw an array of log_alpha.

    Parameters
    ----------
    shape : tuple of int, or a strategy for one; optional
        By default one to three axes of up to four gates.
    dtype : dtype, optional
    bound : float, optional
        The largest absolute value.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(log_alpha_arrays((2, 3)))
    ... def test(log_alpha):
    ...     assert log_alpha.shape == (2, 3)
    >>> test()
    """
    return hnp.arrays(
        np.dtype(dtype),
        _shape(shape),
        elements=log_alphas(dtype, bound).map(float),
        fill=st.nothing(),
    )


def noise(dtype: DTypeLike = np.float64) -> st.SearchStrategy[Any]:
    """Draw one u in (0, 1), as a NumPy scalar.

    It is the middle of one of 2**23 cells, as generators make them, or lies at a far end: down to
    2**-25 and up to 1 - 2**-24 in float32, to about 1e-300 and to 1 - 2**-53 in float64.

    Parameters
    ----------
    dtype : dtype, optional

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(noise(np.float32))
    ... def test(u):
    ...     assert 0 < u < 1
    ...     assert np.isfinite(np.log(u) - np.log1p(-u))
    >>> test()
    """
    kind = np.dtype(dtype).type
    bits = 24 if kind is np.float32 else 53
    cells = st.integers(0, 2**23 - 1).map(lambda k: (k + 0.5) / 2**23)
    ends = st.sampled_from((2.0 ** -(bits + 1), 2.0**-bits, 0.5, 1 - 2.0**-10, 1 - 2.0**-bits))
    tiny = st.floats(-25 * log(2) if kind is np.float32 else -690.0, -1.0).map(np.exp)
    return st.one_of(cells, ends, tiny).map(kind)


def noise_arrays(
    shape: Shape | None = None, dtype: DTypeLike = np.float64
) -> st.SearchStrategy[Array]:
    """Draw an array of `noise`.

    Parameters
    ----------
    shape : tuple of int, or a strategy for one; optional
        By default one to three axes of up to four elements.
    dtype : dtype, optional

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(noise_arrays((4,), np.float32))
    ... def test(u):
    ...     assert ((0 < u) & (u < 1)).all()
    >>> test()
    """
    return hnp.arrays(
        np.dtype(dtype), _shape(shape), elements=noise(dtype).map(float), fill=st.nothing()
    )


class Gates(NamedTuple):
    """Gates, the noise they are drawn with, and a cotangent for the draw.

    ``log_alpha``, ``u`` and ``dz`` have one shape and dtype. ``hyperparameters`` holds beta, gamma
    and zeta.
    """

    log_alpha: Array
    u: Array
    dz: Array
    hyperparameters: dict[str, float]


@st.composite
def gates(
    draw: st.DrawFn,
    shape: Shape | None = None,
    dtype: DTypeLike = np.float64,
    *,
    where: Where = "anywhere",
    margin: float = 0.05,
) -> Gates:
    r"""Draw gates with their noise, hyperparameters and a cotangent.

    Anywhere but "anywhere", u is drawn first, its far ends included, and so is the place of

    .. math:: \bar s = \gamma + (\zeta - \gamma)\,\sigma\big((\log\tfrac{u}{1-u} +
              \log\alpha)/\beta\big)

    which is then solved for log_alpha. Where u is extreme, the two terms cancel, as they must.

    Parameters
    ----------
    shape : tuple of int, or a strategy for one; optional
        By default one to three axes of up to four gates.
    dtype : dtype, optional
    where : {"anywhere", "inside", "closed", "open", "off kinks"}, optional
        "inside": 0 < s_bar < 1, so that z moves with log_alpha. "closed" and "open": clipped, z is
        0 or 1. "off kinks": any of these three, gate by gate. "anywhere": log_alpha and u are
        drawn each by itself.
    margin : float, optional
        How far s_bar keeps from both ends of its stretch, (gamma, 0), (0, 1) or (1, zeta), as a
        part of its length.

    Examples
    --------
    The path derivative by a central difference, safe because no gate is near a kink:

    >>> from hypothesis import given
    >>> from l0ref import HardConcrete
    >>> @given(gates(where="off kinks"))
    ... def test(case):
    ...     h = 1e-5
    ...     above = HardConcrete(case.log_alpha + h, **case.hyperparameters).sample(case.u)
    ...     below = HardConcrete(case.log_alpha - h, **case.hyperparameters).sample(case.u)
    ...     gate = HardConcrete(case.log_alpha, **case.hyperparameters)
    ...     d_log_alpha = gate.sample_vjp(case.u, case.dz)
    ...     np.testing.assert_allclose(d_log_alpha, case.dz * (above - below) / (2 * h), atol=1e-5)
    >>> test()
    """
    if not 0 < margin < 0.5:
        raise ValueError(f"margin must lie in (0, 0.5), got {margin}")
    places = ("inside", "closed", "open")
    if where not in (*places, "off kinks", "anywhere"):
        allowed = sorted((*places, "off kinks", "anywhere"))
        raise ValueError(f"where must be one of {allowed}, got {where!r}")
    hyper = draw(hyperparameters())
    u = draw(noise_arrays(shape, dtype))
    if where == "anywhere":
        log_alpha = draw(log_alpha_arrays(u.shape, dtype))
    else:
        s_bar = np.empty(u.shape)
        stretches = {"inside": (0.0, 1.0), "closed": (hyper["gamma"], 0.0),
                     "open": (1.0, hyper["zeta"])}  # fmt: skip
        for index in np.ndindex(u.shape):
            place = draw(st.sampled_from(places)) if where == "off kinks" else where
            low, high = stretches[place]
            s_bar[index] = low + (high - low) * draw(st.floats(margin, 1 - margin))
        s = (s_bar - hyper["gamma"]) / (hyper["zeta"] - hyper["gamma"])
        log_alpha = (hyper["beta"] * _logit(s) - _logit(u)).astype(u.dtype)
    return Gates(log_alpha, u, _values(draw(_generators()), u.shape, dtype), hyper)


# --- layers ---


class Layer(NamedTuple):
    """Arguments of a gated layer: ``layer.call(dense)``, ``layer.call_vjp(dense_vjp)``.

    ``arrays`` holds x, weight, bias and z, in the order of the arguments; ``options`` the rest, by
    name; ``dy`` is a cotangent of the shape of the output. `l0ref.oracle.interface` says what
    shapes and options mean.
    """

    arrays: dict[str, Array]
    options: dict[str, Any]
    dy: Array

    def call(self, function: Any) -> Any:
        """Return function(x, weight, bias, z, **options)."""
        return function(*self.arrays.values(), **self.options)

    def call_vjp(self, function: Any) -> Any:
        """Return function(dy, x, weight, bias, z, **options)."""
        return function(self.dy, *self.arrays.values(), **self.options)


@st.composite
def dense_layers(
    draw: st.DrawFn,
    dtype: DTypeLike = np.float64,
    *,
    on: str | None = None,
    gates_bias: bool | None = None,
    per_example: bool | None = None,
) -> Layer:
    """Draw the arguments of a gated dense layer.

    D_in and D_out differ; N may equal either, so that gates of one draw are seen to be taken for
    gates of an example. Values are multiples of 1/16 of at most 3, none of them 0; gates are
    multiples of 1/16 in [0, 1], many of them exactly 0 or 1.

    Parameters
    ----------
    dtype : dtype, optional
    on : {"inputs", "outputs", "weights"}, optional
        What the gates multiply; by default any.
    gates_bias : bool, optional
        By default either.
    per_example : bool, optional
        Whether z has one draw for each example; by default either.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(dense_layers(on="inputs"))
    ... def test(layer):
    ...     x, weight, bias, z = layer.arrays.values()
    ...     y, _ = layer.call(ops.dense)
    ...     np.testing.assert_allclose(y, (x * z) @ weight + bias, atol=1e-12)
    >>> test()
    """
    on = draw(st.sampled_from(("inputs", "outputs", "weights"))) if on is None else on
    n, d_in = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    d_out = draw(st.integers(1, 5).filter(lambda size: size != d_in))
    shapes = {"inputs": (d_in,), "outputs": (d_out,), "weights": (d_in, d_out)}
    if on not in shapes:
        raise ValueError(f"on must be one of {sorted(shapes)}, got {on!r}")
    gates_bias = draw(st.booleans()) if gates_bias is None else gates_bias
    per_example = draw(st.booleans()) if per_example is None else per_example
    rng = draw(_generators())
    arrays = {
        "x": _values(rng, (n, d_in), dtype),
        "weight": _values(rng, (d_in, d_out), dtype),
        "bias": _values(rng, (d_out,), dtype),
        "z": _openings(rng, (n, *shapes[on]) if per_example else shapes[on], dtype),
    }
    return Layer(arrays, {"on": on, "gates_bias": gates_bias}, _values(rng, (n, d_out), dtype))


@st.composite
def conv2d_layers(
    draw: st.DrawFn,
    dtype: DTypeLike = np.float64,
    *,
    on: str | None = None,
    gates_bias: bool | None = None,
    per_example: bool | None = None,
) -> Layer:
    """Draw the arguments of a gated convolution.

    C_in and C_out differ, and so do H and W; strides, paddings and dilations are pairs that mostly
    differ; there are up to three groups. Values are as in `dense_layers`.

    Parameters
    ----------
    dtype : dtype, optional
    on : {"outputs", "weights"}, optional
        What the gates multiply; by default either.
    gates_bias : bool, optional
        By default either.
    per_example : bool, optional
        Whether z has one draw for each example; by default either.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(conv2d_layers(np.float32))
    ... def test(layer):
    ...     y, residuals = layer.call(ops.conv2d)
    ...     assert y.shape == layer.dy.shape
    ...     dx, dweight, dbias, dz = ops.conv2d_vjp(layer.dy, residuals)
    ...     assert dz.shape == layer.arrays["z"].shape
    >>> test()
    """
    on = draw(st.sampled_from(("outputs", "weights"))) if on is None else on
    if on not in ("outputs", "weights"):
        raise ValueError(f"on must be one of ['outputs', 'weights'], got {on!r}")
    groups = draw(st.integers(1, 3))
    per_group = draw(st.integers(1, 2))
    c_out = groups * draw(st.integers(1, 3).filter(lambda size: size != per_group))
    kernel, stride, dilation = (_pair(draw, 1, high) for high in (3, 3, 2))
    padding = _pair(draw, 0, 2)
    spans = [d * (k - 1) + 1 - 2 * p for k, d, p in zip(kernel, dilation, padding, strict=True)]
    smallest = [max(1, span) for span in spans]
    height = draw(st.integers(smallest[0], smallest[0] + 4))
    width = draw(st.integers(smallest[1], smallest[1] + 4).filter(lambda size: size != height))
    out = [
        ops.conv_output_size(size, k, stride=s, padding=p, dilation=d)
        for size, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)
    ]
    gates_bias = draw(st.booleans()) if gates_bias is None else gates_bias
    per_example = draw(st.booleans()) if per_example is None else per_example
    n, rng = draw(st.integers(1, 3)), draw(_generators())
    weight = _values(rng, (c_out, per_group, *kernel), dtype)
    one_draw = (c_out,) if on == "outputs" else weight.shape
    arrays = {
        "x": _values(rng, (n, groups * per_group, height, width), dtype),
        "weight": weight,
        "bias": _values(rng, (c_out,), dtype),
        "z": _openings(rng, (n, *one_draw) if per_example else one_draw, dtype),
    }
    options = {"on": on, "gates_bias": gates_bias, "stride": stride, "padding": padding,
               "dilation": dilation, "groups": groups}  # fmt: skip
    return Layer(arrays, options, _values(rng, (n, c_out, *out), dtype))


# --- networks ---


class Problem(NamedTuple):
    """A network, a minibatch, noise and an objective: `loss_and_grads(**problem._asdict())`.

    ``network`` is `l0ref.oracle.interface.Network` data; ``u`` has the noise of each gated layer;
    ``lam``, ``l2`` and ``n_train`` weigh the penalties.
    """

    network: Network
    x: Array
    labels: NDArray[np.int64]
    u: list[Array]
    lam: float
    l2: float
    n_train: int


@st.composite
def problems(
    draw: st.DrawFn,
    dtype: DTypeLike = np.float64,
    *,
    convolutional: bool | None = None,
    margin: float | None = 1e-3,
) -> Problem:
    """Draw a small gated network with all that a training step needs.

    It is dense, with or without gates in each layer, or has a convolution, perhaps a max pool, and
    dense layers behind them. At least one layer has gates.

    Parameters
    ----------
    dtype : dtype, optional
    convolutional : bool, optional
        By default either.
    margin : float or None, optional
        How far the network keeps from every kink, for the gates drawn from u and for those of
        test time: rectifiers from 0, the winner of a pool from the second, gates from where they
        are clipped. Exact ties and zeros that closed gates bring do no harm, and stay. None: no
        matter how far.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(problems(np.float32, convolutional=False))
    ... def test(problem):
    ...     assert len(problem.x) == len(problem.labels)
    ...     gated = [layer for layer in problem.network["layers"] if layer.get("on")]
    ...     assert [u.shape for u in problem.u] == [layer["log_alpha"].shape for layer in gated]
    >>> test()
    """
    if margin is not None and not 0 < margin <= 0.02:
        raise ValueError(f"margin must be None or lie in (0, 0.02], got {margin}")
    convolutional = draw(st.booleans()) if convolutional is None else convolutional
    hyper = draw(hyperparameters())
    n, classes = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    gating = [(draw(st.sampled_from(("inputs", "outputs", "weights", None))), draw(st.booleans()))
              for _ in range(3)]  # fmt: skip
    depth = draw(st.integers(1, 2))
    widths = [draw(st.integers(2, 5)) for _ in range(depth)]
    geometry = draw(_geometries()) if convolutional else None
    weighing: dict[str, Any] = {
        "lam": draw(st.integers(1, 32)) / 16,
        "l2": draw(st.integers(0, 32)) / 16,
        "n_train": draw(st.integers(n, 50)),
    }
    rng = draw(_generators())
    for _ in range(200):
        network, u = _network(rng, dtype, hyper, classes, widths, gating, geometry, margin)
        x = rng.uniform(0, 1, (n, *network["input_shape"])).astype(dtype)
        if margin is None or _off_kinks(network, x, u, margin):
            labels = rng.integers(0, classes, n)
            return Problem(network, x, labels, u, **weighing)
    return reject()


class _Geometry(NamedTuple):
    size: Pair
    channels: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    groups: int
    pool: Pair | None
    on: str | None


@st.composite
def _geometries(draw: st.DrawFn) -> _Geometry:
    groups = draw(st.integers(1, 2))
    height = draw(st.integers(4, 6))
    width = draw(st.integers(4, 6).filter(lambda size: size != height))
    c_out = groups * draw(st.integers(1, 2))
    c_in = groups * draw(st.integers(1, 2).filter(lambda size: groups * size != c_out))
    kernel, stride, padding = _pair(draw, 1, 3), _pair(draw, 1, 2), _pair(draw, 0, 1)
    out = [
        ops.conv_output_size(size, k, stride=s, padding=p)
        for size, k, s, p in zip((height, width), kernel, stride, padding, strict=True)
    ]
    pool = (draw(st.integers(1, min(2, out[0]))), draw(st.integers(1, min(2, out[1]))))
    on = draw(st.sampled_from(("outputs", "weights", None)))
    sizes = (height, width), (c_in, c_out)
    return _Geometry(
        *sizes, kernel, stride, padding, groups, draw(st.sampled_from((pool, None))), on
    )


def _network(
    rng: np.random.Generator,
    dtype: DTypeLike,
    hyper: Mapping[str, float],
    classes: int,
    widths: list[int],
    gating: list[tuple[str | None, bool]],
    geometry: _Geometry | None,
    margin: float | None,
) -> tuple[Network, list[Array]]:
    """Make a network, and the noise of its gated layers."""
    noise: list[Array] = []
    layers: list[LayerData] = []

    def gated(layer: LayerData, on: str | None, shape: tuple[int, ...]) -> None:
        log_alpha, u = _settled(rng, shape, dtype, hyper, margin)
        layer["on"] = on
        layer["log_alpha"] = log_alpha if on else None
        if on:
            noise.append(u)
        layers.append(layer)

    def normal(shape: tuple[int, ...], scale: float) -> Array:
        return (scale * rng.normal(size=shape)).astype(dtype)

    input_shape: tuple[int, ...] = (int(rng.integers(2, 6)),)
    d_in = input_shape[0]
    if geometry is not None:
        (c_in, c_out), g = geometry.channels, geometry
        input_shape = (c_in, *g.size)
        weight = normal((c_out, c_in // g.groups, *g.kernel), 1.0)
        convolution: LayerData = {
            "kind": "conv2d", "weight": weight, "bias": normal((c_out,), 0.5),
            "gates_bias": gating[2][1], "stride": g.stride, "padding": g.padding,
            "dilation": (1, 1), "groups": g.groups,
        }  # fmt: skip
        gated(convolution, g.on, weight.shape if g.on == "weights" else (c_out,))
        out = [
            ops.conv_output_size(size, k, stride=s, padding=p)
            for size, k, s, p in zip(g.size, g.kernel, g.stride, g.padding, strict=True)
        ]
        layers.append({"kind": "relu"})
        if g.pool:
            layers.append({"kind": "max_pool2d", "kernel_size": g.pool})
            out = [size // k for size, k in zip(out, g.pool, strict=True)]
        layers.append({"kind": "flatten"})
        d_in = c_out * out[0] * out[1]
    sizes = [d_in, *widths, classes]
    has_gates = geometry is not None and geometry.on is not None
    for i, (d_in, d_out) in enumerate(pairwise(sizes)):
        last = i == len(widths)
        on, gates_bias = gating[i % 3]
        if last and on == "outputs":
            on = "inputs"  # nobody gates the logits
        if last and on is None and not has_gates:
            on = "inputs"
        has_gates = has_gates or on is not None
        shape = {"inputs": (d_in,), "outputs": (d_out,)}.get(on or "", (d_in, d_out))
        dense: LayerData = {"kind": "dense", "weight": normal((d_in, d_out), 1.5 / d_in**0.5),
                            "bias": normal((d_out,), 0.5), "gates_bias": gates_bias}  # fmt: skip
        gated(dense, on, shape)
        if not last:
            layers.append({"kind": "relu"})
    network: Network = {"input_shape": input_shape, "layers": layers, **hyper}  # type: ignore[typeddict-item]
    return network, noise


def _settled(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    hyper: Mapping[str, float],
    margin: float | None,
) -> tuple[Array, Array]:
    """Draw log_alpha and u, again where the gate drawn or that of test time is near a kink."""
    gamma, zeta = hyper["gamma"], hyper["zeta"]
    away = 0.0 if margin is None else min(margin, -gamma / 4, (zeta - 1) / 4)
    log_alpha, u = np.empty(shape, dtype), np.empty(shape, dtype)
    todo = np.ones(shape, bool)
    while todo.any():
        log_alpha[todo] = rng.uniform(-5, 5, int(todo.sum()))
        u[todo] = rng.uniform(0.02, 0.98, int(todo.sum()))
        s_bars = [gamma + (zeta - gamma) * s for s in _openness(log_alpha, u, hyper)]
        todo = np.any([np.abs(s_bar - kink) < away for s_bar in s_bars for kink in (0, 1)], axis=0)
    return log_alpha, u


def _openness(log_alpha: Array, u: Array, hyper: Mapping[str, float]) -> tuple[Array, Array]:
    """Return s of the draw and of test time, in float64."""
    wide = log_alpha.astype(np.float64)
    drawn = 1 / (1 + np.exp(-(_logit(u) + wide) / hyper["beta"]))
    return drawn, 1 / (1 + np.exp(-wide))


def _off_kinks(network: Network, x: Array, u: list[Array], margin: float) -> bool:
    """Say whether rectifiers and pools are far from their kinks, on both kinds of gates."""
    for test_time in (False, True):
        h: Array = x.astype(np.float64)
        fixed = np.zeros(1, bool)  # which of h's maps are 0 whatever the parameters do
        noise = iter(u)
        for layer in network["layers"]:
            kind = layer["kind"]
            if kind in ("dense", "conv2d"):
                h, fixed = _affine(layer, h, next(noise) if layer["on"] else None, network,
                                   test_time=test_time)  # fmt: skip
            elif kind == "relu":
                if (np.abs(h[:, ~fixed]) < margin).any():
                    return False
                h = np.maximum(h, 0)
            elif kind == "max_pool2d":
                (kh, kw), (height, width) = layer["kernel_size"], h.shape[2:]
                rows, columns = height // kh, width // kw
                blocks = h[:, :, : rows * kh, : columns * kw]
                blocks = blocks.reshape(*h.shape[:2], rows, kh, columns, kw).swapaxes(3, 4)
                ranked = np.sort(blocks.reshape(*blocks.shape[:4], -1), axis=-1)
                if ranked.shape[-1] > 1:
                    gap = ranked[..., -1] - ranked[..., -2]
                    if ((gap > 0) & (gap < margin)).any():
                        return False
                h = ranked[..., -1]
            else:
                h = h.reshape(len(h), -1)
    return True


def _affine(
    layer: LayerData, h: Array, u: Array | None, network: Network, *, test_time: bool
) -> tuple[Array, NDArray[np.bool_]]:
    """Return the layer's output, and which units or maps closed gates hold at 0."""
    weight, bias = layer["weight"].astype(np.float64), np.asarray(layer["bias"], np.float64)
    fixed = np.zeros(len(bias), bool)
    z = None
    if u is not None:
        log_alpha = layer["log_alpha"]
        assert log_alpha is not None
        hyper = {name: network[name] for name in ("beta", "gamma", "zeta")}
        s = _openness(log_alpha, u, hyper)[test_time]
        z = np.clip(network["gamma"] + (network["zeta"] - network["gamma"]) * s, 0, 1)
        if layer["on"] == "outputs" and layer["gates_bias"]:
            fixed = z == 0
    options: dict[str, Any] = {"on": layer["on"] or "weights", "gates_bias": layer["gates_bias"]}
    if layer["kind"] == "dense":
        return ops.dense(h, weight, bias, z, **options)[0], fixed
    options |= {name: layer[name] for name in ("stride", "padding", "dilation", "groups")}
    return ops.conv2d(h, weight, bias, z, **options)[0], fixed


# --- numbers ---


def _shape(shape: Shape | None) -> Shape:
    return hnp.array_shapes(max_dims=3, max_side=4) if shape is None else shape


def _pair(draw: st.DrawFn, low: int, high: int) -> Pair:
    return draw(st.integers(low, high)), draw(st.integers(low, high))


def _generators() -> st.SearchStrategy[np.random.Generator]:
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def _values(rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return multiples of 1/16 between -3 and 3, none of them 0: short to read, exact to add."""
    values = rng.integers(1, 49, shape) * rng.choice((-1, 1), shape) / 16
    return np.asarray(values).astype(dtype)


def _openings(rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return gates: about a fifth closed, a fifth open, the others multiples of 1/16 between."""
    return np.asarray(np.clip(rng.integers(-5, 22, shape) / 16, 0, 1)).astype(dtype)


def _logit(u: Any) -> Any:
    wide = np.asarray(u, np.float64)
    return np.log(wide) - np.log1p(-wide)


def _nearest(value: float, dtype: DTypeLike) -> float:
    return float(np.asarray(value, dtype))


def _rounded(value: float, toward: float, dtype: DTypeLike) -> float:
    """Return value if dtype has it, else its next number on the side of `toward`."""
    near = np.asarray(value, dtype)
    outside = near < value if toward > 0 else near > value
    return float(np.nextafter(near, np.asarray(toward, dtype)) if outside else near)
