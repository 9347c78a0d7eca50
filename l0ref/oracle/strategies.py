"""Random inputs for every function of `interface.Target`, as Hypothesis draws and shrinks them.

All numbers are exact in float32, so that an implementation in float32 has no error of input. Mostly
shapes are not square and sizes differ from each other where they can, for where they agree the
classic mistakes hide; in a quarter of the cases they may agree, for there the others are. Where a
function has kinks and derivatives are asked for, the inputs are *made* to lie clear of them rather
than drawn until they do. Small elementwise inputs are drawn number by number; those of layers and
networks are drawn as sizes and a seed, on a coarse grid, so that what is left after shrinking can
be read.

Strategies are made once and kept: Hypothesis looks into a new one before it draws from it, which
takes longer than the drawing.
"""

from __future__ import annotations

import itertools
import math
from functools import cache, lru_cache
from math import log
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ..ops import conv_output_size

__all__ = ["PROBES", "STRATEGIES", "laws", "log_alpha_clear_of_kinks", "networks"]

Args = dict[str, Any]
Draw = st.DrawFn

PROBES = "probes"
"""Key of inputs that are for the comparison alone, and are not given to the target."""


def single(value: float) -> float:
    """Round to the nearest float32."""
    return float(np.float32(value))


BETA, GAMMA, ZETA = single(2 / 3), single(-0.1), single(1.1)
SHAPES = ((1,), (2,), (3,), (5,), (1, 3), (2, 3), (3, 2), (3, 1, 2))


@cache
def floats(lower: float, upper: float) -> st.SearchStrategy[float]:
    """Draw float32 numbers between two, which are float32 themselves."""
    return st.floats(lower, upper, width=32, allow_subnormal=False)


_BETAS = st.one_of(st.just(BETA), floats(0.125, 2.0))
_GAMMAS = st.one_of(st.just(GAMMA), floats(-1.0, -0.0625))
_ZETAS = st.one_of(st.just(ZETA), floats(1.0625, 2.0))


@cache
@st.composite
def laws(draw: Draw) -> dict[str, float]:
    """Draw beta, gamma and zeta: often the paper's, and each of them otherwise."""
    if draw(st.booleans()):
        return {"beta": draw(_BETAS), "gamma": draw(_GAMMAS), "zeta": draw(_ZETAS)}
    return {"beta": BETA, "gamma": GAMMA, "zeta": ZETA}


@lru_cache(256)
def _lists(elements: st.SearchStrategy[Any], n: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(elements, min_size=n, max_size=n)


def arrays(draw: Draw, elements: st.SearchStrategy[Any], shape: Any = None) -> NDArray[Any]:
    """Draw an array, number by number."""
    if shape is None:
        shape = draw(st.sampled_from(SHAPES))
    n = math.prod(shape)
    return np.array(draw(_lists(elements, n)), np.float64).reshape(shape)


def together(draw: Draw, elements: st.SearchStrategy[tuple[float, ...]]) -> list[NDArray[Any]]:
    """Draw arrays of one shape whose numbers belong together."""
    shape = draw(st.sampled_from(SHAPES))
    drawn = draw(_lists(elements, math.prod(shape)))
    return [np.array(one, np.float64).reshape(shape) for one in zip(*drawn, strict=True)]


@cache
def noise() -> st.SearchStrategy[float]:
    """Draw from (0, 1), both ends as near as float32 goes."""
    return st.one_of(
        st.integers(0, 31).map(lambda k: (k + 0.5) / 32), floats(2.0**-24, 1 - 2.0**-24)
    )


@cache
def log_alphas(bound: float = 24.0) -> st.SearchStrategy[float]:
    """Draw log_alpha: moderate, or anything up to the bound."""
    return st.one_of(st.integers(-64, 64).map(lambda k: k / 16), floats(-bound, bound))


# --- the law and the path ---


def _logit(u: float) -> float:
    return float(np.log(u) - np.log1p(-u))


def kinks(law: dict[str, float]) -> tuple[float, float]:
    """Logit s at which s_bar is 0 and 1."""
    return (
        log(-law["gamma"] / law["zeta"]),
        log((1 - law["gamma"]) / (law["zeta"] - 1)),
    )


@cache
def _away() -> st.SearchStrategy[float]:
    return st.one_of(st.integers(1, 8).map(lambda k: k / 4), floats(0.0625, 8.0))


def log_alpha_clear_of_kinks(draw: Draw, lower: float, upper: float) -> float:
    """Draw a log_alpha that lies clear of both: below, between or above them."""
    where = draw(st.sampled_from(("between", "below", "above")))
    if where == "between":
        return single(lower + draw(floats(0.0625, 0.9375)) * (upper - lower))
    away = draw(_away())
    return single(lower - away if where == "below" else upper + away)


Law = tuple[tuple[str, float], ...]
"""A law that a strategy can be kept by."""


def _key(law: dict[str, float]) -> Law:
    return tuple(law.items())


@lru_cache(64)
@st.composite
def _draws_clear_of_kinks(draw: Draw, key: Law) -> tuple[float, float]:
    law, u = dict(key), draw(noise())
    lower, upper = (law["beta"] * k - _logit(u) for k in kinks(law))
    return log_alpha_clear_of_kinks(draw, lower, upper), u


@lru_cache(64)
@st.composite
def _tests_clear_of_kinks(draw: Draw, key: Law) -> float:
    return log_alpha_clear_of_kinks(draw, *kinks(dict(key)))


@st.composite
def _log_alpha(draw: Draw) -> Args:
    return {"log_alpha": arrays(draw, log_alphas()), **draw(laws())}


@st.composite
def _moments(draw: Draw) -> Args:
    return {"log_alpha": arrays(draw, log_alphas(12.0)), **draw(laws())}


@st.composite
def _test_time_grad(draw: Draw) -> Args:
    law = draw(laws())
    return {"log_alpha": arrays(draw, _tests_clear_of_kinks(_key(law))), **law}


def _pairs(name: str, last: st.SearchStrategy[float], bound: float) -> st.SearchStrategy[Args]:
    """Draw log_alpha and one other number of the same shape, by that name."""
    pairs = st.tuples(log_alphas(bound), last)

    @st.composite
    def draw_pairs(draw: Draw) -> Args:
        law = draw(laws())
        log_alpha, other = together(draw, pairs)
        return {name: other, "log_alpha": log_alpha, **law}

    return draw_pairs()


@cache
def _inside() -> st.SearchStrategy[float]:
    """Draw from (0, 1), between the atoms."""
    return st.one_of(
        st.integers(1, 15).map(lambda k: k / 16), floats(0.0, 1.0).map(lambda x: x or 0.5)
    ).map(lambda x: x if x < 1 else 0.5)


@cache
def _around() -> st.SearchStrategy[float]:
    return st.one_of(_inside(), floats(-1.0, 2.0), st.sampled_from((0.0, 1.0)))


@lru_cache(64)
def _draws(key: Law) -> st.SearchStrategy[tuple[float, float]]:
    return st.one_of(_draws_clear_of_kinks(key), st.tuples(log_alphas(), noise()))


@st.composite
def _sample(draw: Draw) -> Args:
    law = draw(laws())
    log_alpha, u = together(draw, _draws(_key(law)))
    return {"log_alpha": log_alpha, "u": u, **law}


@st.composite
def _sample_partials(draw: Draw) -> Args:
    law = draw(laws())
    log_alpha, u = together(draw, _draws_clear_of_kinks(_key(law)))
    return {"log_alpha": log_alpha, "u": u, **law}


@st.composite
def _sample_vjp(draw: Draw) -> Args:
    args = draw(_sample_partials())
    return {**args, "dz": arrays(draw, _cotangents(), args["log_alpha"].shape)}


@cache
def _cotangents() -> st.SearchStrategy[float]:
    """Draw from the multiples of 1/8 up to 3, but not 0, the simplest being 5/8 rather than 1."""
    return st.integers(0, 47).map(lambda k: ((k + 4) % 24 + 1) / 8 * (1 if k < 24 else -1))


# --- initialisation and penalties ---


_RATES = st.one_of(st.sampled_from((0.25, 0.75, 0.5)), floats(0.015625, 0.984375))


@st.composite
def _init_log_alpha(draw: Draw) -> Args:
    return {"drop_rate": draw(_RATES), "normal": arrays(draw, floats(-4.0, 4.0))}


def _filled(
    draw: Draw, shape: tuple[int, ...], *, scale: float = 2.0, grid: int = 32
) -> NDArray[Any]:
    """Fill an array from a seed with multiples of 1/grid in [-scale, scale], none of them 0."""
    generator = np.random.default_rng(draw(st.integers(0, 2**16 - 1)))
    n = int(scale * grid)
    k = generator.integers(1, n + 1, size=shape) * generator.choice((-1, 1), size=shape)
    return np.asarray(k / grid, np.float64)


def _may_agree(draw: Draw) -> bool:
    """Draw whether sizes may agree; the simplest is that they may not."""
    return draw(st.sampled_from((False, False, False, True)))


def _sizes(draw: Draw, count: int, upper: int = 5) -> list[int]:
    """Draw sizes that differ from each other; or, in a quarter of the cases, of few."""
    if _may_agree(draw):
        return draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    return draw(st.lists(st.integers(1, upper), min_size=count, max_size=count, unique=True))


@st.composite
def _weight_shapes(draw: Draw) -> tuple[int, ...]:
    if draw(st.booleans()):
        return tuple(_sizes(draw, 4, 4))
    return tuple(_sizes(draw, 2))


def _gates_on(draw: Draw, shape: tuple[int, ...]) -> tuple[str, bool, tuple[int, ...]]:
    """Draw what gates multiply, whether the bias is theirs, and give their shape."""
    dense = len(shape) == 2
    on = draw(
        st.sampled_from(("inputs", "outputs", "weights") if dense else ("outputs", "weights"))
    )
    gates_bias = draw(st.booleans()) if on == "outputs" else False
    return on, gates_bias, gate_shape(shape, on)


def gate_shape(weight_shape: tuple[int, ...], on: str) -> tuple[int, ...]:
    """Shape of the gates on weights of this shape."""
    if on == "weights":
        return weight_shape
    if len(weight_shape) == 2:
        return (weight_shape[0 if on == "inputs" else 1],)
    return (weight_shape[0],)


@st.composite
def _init_weight(draw: Draw) -> Args:
    return {"normal": _filled(draw, draw(_weight_shapes()))}


@st.composite
def _group_size(draw: Draw) -> Args:
    shape = draw(_weight_shapes())
    on, gates_bias, _ = _gates_on(draw, shape)
    return {"weight_shape": shape, "on": on, "gates_bias": gates_bias}


_SIZED = st.tuples(log_alphas(), st.integers(1, 800))


@st.composite
def _expected_l0(draw: Draw) -> Args:
    log_alpha, sizes = together(draw, _SIZED)
    return {"log_alpha": log_alpha, "group_size": sizes.astype(np.int64), **draw(laws())}


@st.composite
def _penalised(draw: Draw) -> Args:
    shape = draw(_weight_shapes())
    on, gates_bias, gates = _gates_on(draw, shape)
    return {
        "log_alpha": _filled(draw, gates, scale=6.0, grid=16),
        "weight": _filled(draw, shape),
        "bias": _filled(draw, (shape[0] if len(shape) == 4 else shape[1],)),
        "on": on,
        "gates_bias": gates_bias,
        **draw(laws()),
    }


@cache
def _factors(simple: float, upper: float) -> st.SearchStrategy[float]:
    return st.one_of(st.just(simple), floats(0.0, upper))


@st.composite
def _penalty(draw: Draw) -> Args:
    return {
        **draw(_penalised()),
        "lam": draw(_factors(0.5, 8.0)),
        "l2": draw(_factors(0.25, 8.0)),
        "n_train": draw(st.integers(2, 60_000)),
    }


# --- layers ---


def _gate_values(draw: Draw, shape: tuple[int, ...]) -> NDArray[Any]:
    """Fill an array of gates from a seed: zeros, ones, and sixteenths between."""
    generator = np.random.default_rng(draw(st.integers(0, 2**16 - 1)))
    return np.clip(generator.integers(-5, 22, size=shape) / 16, 0.0, 1.0)


@st.composite
def _dense(draw: Draw) -> Args:
    n, d_in, d_out = _sizes(draw, 3)
    on, gates_bias, gates = _gates_on(draw, (d_in, d_out))
    if draw(st.booleans()):
        gates = (n, *gates)
    return {
        "x": _filled(draw, (n, d_in)),
        "weight": _filled(draw, (d_in, d_out)),
        "bias": _filled(draw, (d_out,)),
        "z": _gate_values(draw, gates),
        "on": on,
        "gates_bias": gates_bias,
    }


@st.composite
def _dense_vjp(draw: Draw) -> Args:
    args = draw(_dense())
    shape = (args["x"].shape[0], args["weight"].shape[1])
    return {"dy": _filled(draw, shape), **args}


OBLONG = ((1, 2), (2, 1), (3, 2), (2, 3), (1, 3), (3, 1))
SQUARE = ((1, 1), (2, 2), (3, 3), (5, 5))


@st.composite
def _convolutions(draw: Draw) -> Args:
    """Draw the sizes and options of a convolution that has an output."""
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    c_in = groups * draw(st.integers(1, 2 if groups > 1 else 3))
    c_out = groups * draw(st.integers(1, 2 if groups > 1 else 4))
    agree = _may_agree(draw)
    if c_out == c_in and not agree:
        c_out += groups
    kernel = draw(st.sampled_from(SQUARE if agree else OBLONG))
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    widest = 3 if agree else 2
    padding = draw(st.tuples(st.integers(0, widest), st.integers(0, widest)))
    size = []
    for k, d, p in zip(kernel, dilation, padding, strict=True):
        least = max(1, d * (k - 1) + 1 - 2 * p)
        size.append(least + draw(st.integers(0, 3)))
    if size[0] == size[1] and not agree:
        size[0] += 1
    return {
        "groups": groups,
        "c_in": c_in,
        "c_out": c_out,
        "kernel": kernel,
        "size": tuple(size),
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
    }


def _output_size(sizes: Args) -> tuple[int, int]:
    height, width = (
        conv_output_size(n, k, stride=s, padding=p, dilation=d)
        for n, k, s, p, d in zip(
            sizes["size"],
            sizes["kernel"],
            sizes["stride"],
            sizes["padding"],
            sizes["dilation"],
            strict=True,
        )
    )
    return height, width


OPTIONS = ("stride", "padding", "dilation", "groups")


@st.composite
def _conv2d(draw: Draw) -> Args:
    sizes = draw(_convolutions())
    n = draw(st.integers(1, 3))
    shape = (sizes["c_out"], sizes["c_in"] // sizes["groups"], *sizes["kernel"])
    on, gates_bias, gates = _gates_on(draw, shape)
    if on == "outputs" and draw(st.booleans()):
        gates = (n, *gates)
    return {
        "x": _filled(draw, (n, sizes["c_in"], *sizes["size"])),
        "weight": _filled(draw, shape),
        "bias": _filled(draw, (sizes["c_out"],)),
        "z": _gate_values(draw, gates),
        "on": on,
        "gates_bias": gates_bias,
        **{name: sizes[name] for name in OPTIONS},
    }


@st.composite
def _conv2d_vjp(draw: Draw) -> Args:
    args = draw(_conv2d())
    _, _, *kernel = args["weight"].shape
    sizes = {**args, "size": args["x"].shape[2:], "kernel": tuple(kernel)}
    shape = (args["x"].shape[0], args["weight"].shape[0], *_output_size(sizes))
    return {"dy": _filled(draw, shape), **args}


# --- cost ---


@st.composite
def _dense_cost(draw: Draw) -> Args:
    n_in, n_out = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    if _may_agree(draw):
        n_out = n_in
    return {"n_in": n_in, "n_out": n_out, "bias": draw(st.booleans())}


@st.composite
def _conv2d_flops(draw: Draw) -> Args:
    args = draw(_convolutions())
    scale = draw(st.sampled_from((1, 5, 30)))
    args["c_in"] *= scale
    args["c_out"] *= scale
    return {**args, "bias": draw(st.booleans())}


@st.composite
def _conv2d_params(draw: Draw) -> Args:
    args = draw(_conv2d_flops())
    return {name: args[name] for name in ("c_in", "c_out", "kernel", "groups", "bias")}


# --- networks ---


@st.composite
def networks(draw: Draw) -> Args:
    """Draw a network of one to three layers with weights, dense or convolutional."""
    law = draw(laws())
    made = _convnet(draw, law) if draw(st.booleans()) else _mlp(draw, law)
    return {**made, **law}


def _gated(draw: Draw, shape: tuple[int, ...], law: dict[str, float]) -> Args:
    """Draw the gates of a layer, or none; a closed, an open and a half-open one are likely."""
    if not draw(st.sampled_from((True, True, True, False))):
        return {"on": None, "log_alpha": None, "gates_bias": False}
    on, gates_bias, gates = _gates_on(draw, shape)
    log_alpha = _filled(draw, gates, scale=4.0, grid=16)
    for kink in kinks(law):
        near = np.abs(log_alpha - kink) < 0.125
        log_alpha = np.where(near, np.round((kink + 0.25) * 32) / 32, log_alpha)
    return {"on": on, "log_alpha": log_alpha, "gates_bias": gates_bias}


def _mlp(draw: Draw, law: dict[str, float]) -> Args:
    depth, agree = draw(st.integers(1, 3)), _may_agree(draw)
    widths = [draw(st.integers(1, 4))]
    for position in range(depth):
        width = draw(st.integers(2 if position == depth - 1 else 1, 5))
        widths.append(width + (width == widths[-1] and not agree))
    layers: list[Args] = []
    for shape in itertools.pairwise(widths):
        layers += [_dense_layer(draw, shape, law), {"kind": "relu"}]
    return {"input_shape": (widths[0],), "layers": layers[:-1]}


def _dense_layer(draw: Draw, shape: tuple[int, ...], law: dict[str, float]) -> Args:
    return {
        "kind": "dense",
        "weight": _filled(draw, shape, scale=1.5, grid=1024),
        "bias": _filled(draw, (shape[1],), scale=1.0, grid=1024),
        **_gated(draw, shape, law),
    }


def _convnet(draw: Draw, law: dict[str, float]) -> Args:
    agree = _may_agree(draw)
    channels, size = draw(st.integers(1, 2)), (draw(st.integers(5, 6)), draw(st.integers(3, 4)))
    if agree:
        size = (size[0], size[0])
    input_shape = (channels, *size)
    layers: list[Args] = []
    for _ in range(draw(st.integers(1, 2))):
        groups = channels if draw(st.booleans()) else 1
        maps = groups * draw(st.integers(1, 4 // groups)) if groups <= 4 else groups
        if maps == channels and not agree:
            maps += groups
        kernel = draw(st.sampled_from(((1, 1), (2, 2), (3, 3)) if agree else OBLONG[:3]))
        options: Args = {
            "kernel": kernel,
            "size": size,
            "stride": draw(st.sampled_from(((1, 1), (2, 1)))),
            "padding": draw(st.sampled_from(((0, 0), (1, 0), (0, 1)))),
            "dilation": draw(st.sampled_from(((1, 1), (1, 2)))),
        }
        needed = [
            d * (k - 1) + 1 - 2 * p
            for k, d, p in zip(kernel, options["dilation"], options["padding"], strict=True)
        ]
        if any(n < least for n, least in zip(size, needed, strict=True)):
            break
        shape = (maps, channels // groups, *kernel)
        with_bias = draw(st.sampled_from((True, True, False)))
        gates = _gated(draw, shape, law)
        layers.append(
            {
                "kind": "conv2d",
                "weight": _filled(draw, shape, scale=1.0, grid=1024),
                "bias": _filled(draw, (maps,), scale=1.0, grid=1024) if with_bias else None,
                **gates,
                "gates_bias": gates["gates_bias"] and with_bias,
                "groups": groups,
                **{name: options[name] for name in ("stride", "padding", "dilation")},
            }
        )
        layers.append({"kind": "relu"})
        channels, size = maps, _output_size(options)
        pool = draw(st.sampled_from((None, (2, 1), (1, 2))))
        if pool is not None and size[0] >= pool[0] and size[1] >= pool[1]:
            layers.append({"kind": "max_pool2d", "kernel_size": pool})
            size = (size[0] // pool[0], size[1] // pool[1])
    layers.append({"kind": "flatten"})
    features = channels * size[0] * size[1]
    classes = draw(st.integers(2, 4))
    classes += features == classes and not agree
    layers.append(_dense_layer(draw, (features, classes), law))
    return {"input_shape": input_shape, "layers": layers}


def gated_shapes(network: Args) -> list[tuple[int, ...]]:
    """Shape of the gates of each gated layer, in order."""
    return [layer["log_alpha"].shape for layer in network["layers"] if layer.get("on") is not None]


def classes_of(network: Args) -> int:
    """How many logits a network has."""
    return int(network["layers"][-1]["weight"].shape[1])


def _noise_of(draw: Draw, shape: tuple[int, ...]) -> NDArray[Any]:
    """Fill an array of noise from a seed: the middles of 512 cells of (0, 1)."""
    generator = np.random.default_rng(draw(st.integers(0, 2**16 - 1)))
    return np.asarray((generator.integers(8, 504, size=shape) + 0.5) / 512, np.float64)


@st.composite
def _network(draw: Draw) -> Args:
    return {"network": draw(networks())}


@st.composite
def _predict(draw: Draw) -> Args:
    network = draw(networks())
    n = _examples(draw, network)
    return {"network": network, "x": _filled(draw, (n, *network["input_shape"]), grid=128)}


def _examples(draw: Draw, network: Args) -> int:
    """Draw a number of examples, mostly other than the number of inputs."""
    n = draw(st.integers(1, 4))
    return n + 1 if n == network["input_shape"][-1] and not _may_agree(draw) else n


@st.composite
def _compact(draw: Draw) -> Args:
    args = draw(_predict())
    return {"network": args["network"], PROBES: args["x"]}


def _objective(draw: Draw) -> Args:
    return {
        "lam": draw(_factors(0.5, 4.0)),
        "l2": draw(_factors(0.25, 4.0)),
        "n_train": draw(st.integers(2, 50)),
    }


def _batch(draw: Draw, network: Args, lead: tuple[int, ...]) -> Args:
    generator = np.random.default_rng(draw(st.integers(0, 2**16 - 1)))
    n = _examples(draw, network)
    return {
        "x": _filled(draw, (*lead, n, *network["input_shape"]), grid=128),
        "labels": generator.integers(0, classes_of(network), size=(*lead, n)),
        "u": [_noise_of(draw, (*lead, *shape)) for shape in gated_shapes(network)],
    }


@st.composite
def _loss_and_grads(draw: Draw) -> Args:
    network = draw(networks())
    return {"network": network, **_batch(draw, network, ()), **_objective(draw)}


def _move_out(network: Args) -> None:
    """Start gates far out: open or closed nearly always, and free to go further."""
    for layer in network["layers"]:
        log_alpha = layer.get("log_alpha")
        if log_alpha is not None:
            far = np.abs(log_alpha) >= 2
            layer["log_alpha"] = np.where(far, log_alpha + 3 * np.sign(log_alpha), log_alpha)


@st.composite
def _train(draw: Draw) -> Args:
    network = draw(networks())
    if draw(st.booleans()):
        _move_out(network)
    steps = draw(st.integers(1, 3))
    return {
        "network": network,
        **_batch(draw, network, (steps,)),
        "lr": draw(st.sampled_from((0.0078125, 0.03125))),
        **_objective(draw),
        "decay": draw(st.sampled_from((0.5, 0.9375))),
    }


_GRADIENTS = st.one_of(
    st.just(0.0), _cotangents(), floats(2.0**-20, 64.0), floats(-64.0, -(2.0**-20))
)
_RATES_OF_LEARNING = st.one_of(st.just(0.125), floats(2.0**-10, 0.5))


@st.composite
def _adam(draw: Draw) -> Args:
    shape = draw(st.sampled_from(SHAPES))
    steps = draw(st.integers(1, 6))
    return {
        "theta": arrays(draw, floats(-4.0, 4.0), shape),
        "grads": arrays(draw, _GRADIENTS, (steps, *shape)),
        "lr": draw(_RATES_OF_LEARNING),
    }


_DECAYS = st.one_of(st.just(0.5), floats(0.125, 0.9990234375))


@st.composite
def _temporal_average(draw: Draw) -> Args:
    shape = draw(st.sampled_from(SHAPES))
    steps = draw(st.integers(1, 6))
    return {
        "values": arrays(draw, floats(-4.0, 4.0), (steps, *shape)),
        "decay": draw(_DECAYS),
    }


STRATEGIES: dict[str, st.SearchStrategy[Args]] = {
    "prob_active": _log_alpha(),
    "log_prob_active": _log_alpha(),
    "prob_active_grad": _log_alpha(),
    "cdf": _pairs("x", _around(), 24.0),
    "sf": _pairs("x", _around(), 24.0),
    "pdf": _pairs("x", _inside(), 6.0),
    "logpdf": _pairs("x", _inside(), 6.0),
    "ppf": _pairs("q", noise(), 24.0),
    "mean": _moments(),
    "var": _moments(),
    "sample": _sample(),
    "sample_vjp": _sample_vjp(),
    "sample_partials": _sample_partials(),
    "test_time": _log_alpha(),
    "test_time_grad": _test_time_grad(),
    "init_log_alpha": _init_log_alpha(),
    "init_weight": _init_weight(),
    "group_size": _group_size(),
    "expected_l0": _expected_l0(),
    "expected_l0_grad": _expected_l0(),
    "expected_l2": _penalised(),
    "expected_l2_grad": _penalised(),
    "expected_l1": _penalised(),
    "expected_l1_grad": _penalised(),
    "penalty": _penalty(),
    "penalty_grad": _penalty(),
    "dense": _dense(),
    "dense_vjp": _dense_vjp(),
    "conv2d": _conv2d(),
    "conv2d_vjp": _conv2d_vjp(),
    "dense_flops": _dense_cost(),
    "dense_params": _dense_cost(),
    "conv2d_flops": _conv2d_flops(),
    "conv2d_params": _conv2d_params(),
    "expected_cost": _network(),
    "hard_cost": _network(),
    "adam": _adam(),
    "temporal_average": _temporal_average(),
    "predict": _predict(),
    "loss_and_grads": _loss_and_grads(),
    "train": _train(),
    "compact": _compact(),
}
