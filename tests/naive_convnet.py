"""Scalar twins of networks with maps: a graph of stages, its objective; equations and loops.

Nothing here imports the package. Gates are multiplied into the single weight, theta_ocij =
theta_tilde_ocij z_g(o,c,i,j) (Eq. 2), whatever they lie on, and examples are taken one by one: the
convolution itself knows of no gates.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from tests import naive_conv
from tests import naive_network as naive
from tests.naive_conv import Pair

Geometry = tuple[Pair, Pair, Pair]  # of a pooling: kernel, stride, padding


class Conv(NamedTuple):
    """Parameters of one convolution, and the noise of its gates (None at test time)."""

    weight: Any
    bias: Any = None
    log_alpha: Any = None
    u: Any = None
    per_example: bool = False
    on: str = ""
    axis: int | None = None
    labels: Any = None
    gates_bias: bool = False
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def owner(self) -> naive.Owner:
        return naive.owner(self.on, self.axis, self.labels)

    def shape(self) -> tuple[int, ...]:
        w = self.weight
        return len(w), len(w[0]), len(w[0][0]), len(w[0][0][0])


class Norm(NamedTuple):
    """Batch norm: by the batch's statistics, or by those given."""

    weight: Any
    bias: Any
    eps: Any
    mean: Any = None
    var: Any = None


class Pool(NamedTuple):
    kind: str  # "max" or "avg"
    geometry: Geometry


Stage = Conv | Norm | Pool | naive.Dense | str  # "relu", "tanh" or "flatten"


def theta(stage: Conv, z: Any) -> tuple[Any, Any]:
    """Weight and bias with one draw of the gates multiplied in."""
    if z is None:
        return stage.weight, stage.bias
    owns = stage.owner()
    c_out, c_in, kh, kw = stage.shape()
    weight = [
        [
            [
                [stage.weight[o][c][i][j] * naive.pick(z, owns((o, c, i, j))) for j in range(kw)]
                for i in range(kh)
            ]
            for c in range(c_in)
        ]
        for o in range(c_out)
    ]
    bias = stage.bias
    if stage.gates_bias:
        bias = [b * z[o] for o, b in enumerate(bias)]
    return weight, bias


# Differences ask for the same draws again and again.
draw, test_gate = cache(naive.draw), cache(naive.test_gate)
test_gate.__test__ = False  # type: ignore[attr-defined]  # a formula, whatever its name looks like


def gates(stage: Conv, m: Any, hyper: dict[str, Any]) -> Any:
    if stage.log_alpha is None:
        return None
    if stage.u is None:
        stretch = {name: hyper[name] for name in ("gamma", "zeta") if name in hyper}
        return naive.convert(stage.log_alpha, lambda a: test_gate(a, m, **stretch))
    draws = [naive._nested(lambda a, b: draw(a, b, m, **hyper), stage.log_alpha, u)
             for u in (stage.u if stage.per_example else [stage.u])]  # fmt: skip
    return draws if stage.per_example else draws[0]


def conv(stage: Conv, x: Any, m: Any = math, **hyper: Any) -> Any:
    """y_n = x_n * theta_n + b_n, example by example."""
    z = gates(stage, m, hyper)
    each_its_own = stage.per_example and stage.u is not None
    y = []
    for n, example in enumerate(x):
        weight, bias = theta(stage, z[n] if each_its_own else z)
        y += naive_conv.conv2d([example], weight, bias, stride=stage.stride, padding=stage.padding,
                               dilation=stage.dilation, groups=stage.groups)  # fmt: skip
    return y


def apply(stage: Stage, x: Any, m: Any = math, **hyper: Any) -> Any:
    if isinstance(stage, Conv):
        return conv(stage, x, m, **hyper)
    if isinstance(stage, Norm):
        return naive_conv.batch_norm(x, stage.weight, stage.bias, stage.eps, m, stage.mean,
                                     stage.var)  # fmt: skip
    if isinstance(stage, Pool):
        return getattr(naive_conv, f"{stage.kind}_pool2d")(x, *stage.geometry)
    if stage == "relu":
        return naive.convert(x, lambda v: v if v > 0 else 0 * v)
    if stage == "tanh":
        return naive.convert(x, m.tanh)
    if stage == "flatten":
        return [[v for one_map in example for row in one_map for v in row] for example in x]
    return naive.logits([stage], x, m, **hyper)


def logits(
    stages: Sequence[Stage], x: Any, m: Any = math, *, sources: Mapping[int, int] | None = None,
    skips: Mapping[int, int] | None = None, **hyper: Any,
) -> Any:  # fmt: skip
    """Stage i takes what stage sources[i], or i - 1, gives, and adds what stage skips[i] gives.

    -1 is the input.
    """
    given = {-1: x}
    for i, stage in enumerate(stages):
        y = apply(stage, given[(sources or {}).get(i, i - 1)], m, **hyper)
        if i in (skips or {}):
            y = naive._nested(lambda a, b: a + b, y, given[skips[i]])  # type: ignore[index]
        given[i] = y
    return given[len(stages) - 1]


def objective(
    stages: Sequence[Stage], x: Any, labels: Sequence[int], lam: Sequence[Any], l2: Any,
    n_train: int, m: Any = math, *, sources: Mapping[int, int] | None = None,
    skips: Mapping[int, int] | None = None, **hyper: Any,
) -> dict[str, Any]:  # fmt: skip
    """Mean loss + (1/N) sum_l lam_l sum_g |g| P_g + (l2/2N) sum_g P_g sum_j theta_j^2."""
    outputs = logits(stages, x, m, sources=sources, skips=skips, **hyper)
    data = naive.cross_entropy(outputs, labels, m)
    count, squares, lams = 0, 0, iter(lam)
    for stage in stages:
        if isinstance(stage, Conv | naive.Dense):
            if stage.log_alpha is not None:
                count += next(lams) * norm(stage, lambda w: 1, m, **hyper)
            squares += norm(stage, lambda w: w * w, m, **hyper)
    parts = {"data": data, "l0": count / n_train, "l2": l2 * squares / (2 * n_train)}
    return {"total": parts["data"] + parts["l0"] + parts["l2"], **parts}


def norm(stage: Conv | naive.Dense, of: Any, m: Any = math, **hyper: Any) -> Any:
    """Sum over the parameters of P(its gate is on) of(parameter); without gates P = 1."""
    if stage.log_alpha is None:
        return sum(of(w) for w in naive.flat(stage.weight))
    if isinstance(stage, naive.Dense):
        return naive.layer_norm(stage, of, m, **hyper)
    on_probability = lambda place: naive.prob_on(naive.pick(stage.log_alpha, place), m, **hyper)  # noqa: E731
    bias = stage.bias if stage.gates_bias else ()
    return naive.gated_norm(stage.weight, stage.owner(), stage.shape(), on_probability, of, bias)
