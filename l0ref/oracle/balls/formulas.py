r"""The method in balls: the law of a gate, layers, networks, their loss, training and cost.

Everything is written from the equations, with nested lists and loops, and nothing is shared with
the rest of the package. Numbers are `Var` on a tape, so that gradients are read off it. Network
data is that of `l0ref.oracle.interface.Network` with `Fraction` in place of floats.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

from flint import arb

from .arithmetic import Num, exact, flat, fmap, integral, paired
from .tape import (
    FAR,
    KinkError,
    Var,
    backward,
    constant,
    grad_of,
    greatest,
    greatest_value,
    total,
    value_of,
)

ZERO, ONE, TWO = (Num(arb(n)) for n in (0, 1, 2))


def variables(nested: Any) -> Any:
    """Put nested fractions on the tape."""
    return fmap(lambda value: Var(exact(value)), nested)


# --- the law of one gate ---


class Law(NamedTuple):
    """beta, gamma and zeta, with what follows from them."""

    beta: Var
    gamma: Var
    zeta: Var

    @classmethod
    def of(cls, beta: Fraction, gamma: Fraction, zeta: Fraction) -> Law:
        """Take them from exact numbers."""
        return cls(*(Var(exact(value)) for value in (beta, gamma, zeta)))

    def logit_active(self, log_alpha: Var) -> Var:
        """Return the logit of P(z != 0): log_alpha - beta log(-gamma/zeta), Eq. 12."""
        return log_alpha - self.beta * (self._minus(self.gamma) / self.zeta).log()

    def prob_active(self, log_alpha: Var) -> Var:
        """P(z != 0), Eq. 12."""
        return self.logit_active(log_alpha).sigmoid()

    def logit_sf(self, x: Var, log_alpha: Var) -> Var:
        """Return the logit of P(s_bar > x): log_alpha - beta (log s - log(1-s))."""
        s = self.unstretched(x)
        return log_alpha - self.beta * (s.log() - (constant(ONE) - s).log())

    def unstretched(self, x: Var) -> Var:
        """Return (x - gamma) / (zeta - gamma)."""
        return (x - self.gamma) / (self.zeta - self.gamma)

    def log_density(self, x: Var, log_alpha: Var) -> Num:
        r"""Log density of s_bar.

        log beta - log(zeta-gamma) - log s - log(1-s) + log sigmoid(t) + log sigmoid(-t), with
        t the logit of P(s_bar > x).
        """
        s = self.unstretched(x).value
        t = self.logit_sf(x, log_alpha).value
        outer = self.beta.value.log() - (self.zeta - self.gamma).value.log()
        inner = -(s.log()) - (ONE - s).log()
        return outer + inner + t.log_sigmoid() + (-t).log_sigmoid()

    def sample(
        self,
        log_alpha: Var,
        u: Num,
        *,
        at_kink: Num | None = None,
        values_only: bool = False,
    ) -> Var:
        """Eq. 10 and 11."""
        logit_u = constant(u.log() - (-u).log1p())
        s = ((logit_u + log_alpha) / self.beta).sigmoid()
        return self._stretched(s, at_kink, values_only=values_only)

    def test_time(
        self, log_alpha: Var, *, at_kink: Num | None = None, values_only: bool = False
    ) -> Var:
        """Eq. 13."""
        return self._stretched(log_alpha.sigmoid(), at_kink, values_only=values_only)

    def _stretched(self, s: Var, at_kink: Num | None, *, values_only: bool = False) -> Var:
        s_bar = s * (self.zeta - self.gamma) + self.gamma
        return s_bar.clip(at_kink=at_kink, values_only=values_only)

    @staticmethod
    def _minus(x: Var) -> Var:
        return constant(ZERO) - x


def moments(
    log_alpha: Fraction, *, beta: Fraction, gamma: Fraction, zeta: Fraction
) -> tuple[Num, Num]:
    r"""Mean and variance, by rigorous integration.

    E[z] = \int_0^1 P(z > x) dx and E[z^2] = \int_0^1 2 x P(z > x) dx. With y the log odds of the
    concrete variable, x = gamma + (zeta-gamma) sigmoid(y), both integrands are meromorphic.
    """
    la, b, g, z = (exact(value).v for value in (log_alpha, beta, gamma, zeta))
    low, high = (-g / z).log(), ((1 - g) / (z - 1)).log()

    def weighted(y: Any, power: int) -> Any:
        s = 1 / (1 + (-y).exp())
        dx = (z - g) * s * (1 / (1 + y.exp()))
        x = g + (z - g) * s
        active = 1 / (1 + (b * y - la).exp())
        return active * dx if power == 1 else 2 * x * active * dx

    ends = Num(low), Num(high)
    first = integral(lambda y: weighted(y, 1), *ends)
    second = integral(lambda y: weighted(y, 2), *ends)
    return Num(first), Num(second - first * first)


# --- layers ---


def depth(nested: Any) -> int:
    """Return the number of axes."""
    return 1 + depth(nested[0]) if isinstance(nested, list) else 0


def shape(nested: Any) -> tuple[int, ...]:
    """Return the shape of a nested list that has no empty axis."""
    return (len(nested), *shape(nested[0])) if isinstance(nested, list) else ()


def _for_example(z: Any, axes: int, n: int) -> Any:
    """Return the gates of example n: its own draw, or the one that all share."""
    return z[n] if depth(z) == axes + 1 else z


def dense(x: Any, weight: Any, bias: Any, z: Any, *, on: str | None, gates_bias: bool) -> Any:
    """Gated affine map, as `interface.Target.dense` has it."""
    y: list[list[Var]] = []
    for n, row in enumerate(x):
        gate: Any = None if on is None else _for_example(z, 2 if on == "weights" else 1, n)
        y.append([])
        for o in range(len(weight[0])):
            terms = []
            for i, value in enumerate(row):
                term = value * weight[i][o]
                if on == "inputs":
                    term = value * gate[i] * weight[i][o]
                elif on == "weights":
                    term = value * (weight[i][o] * gate[i][o])
                terms.append(term)
            y[n].append(_with_bias(total(terms), bias[o], gate, o, on, gates_bias))
    return y


def _with_bias(sum_: Var, bias: Var | None, gate: Any, o: int, on: str | None, both: bool) -> Var:
    if on == "outputs" and not both:
        sum_ = sum_ * gate[o]
    if bias is not None:
        sum_ = sum_ + bias
    return sum_ * gate[o] if on == "outputs" and both else sum_


def output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> list[int]:
    """Return (H_out, W_out), floored."""
    return [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    ]


def conv2d(
    x: Any,
    weight: Any,
    bias: Any,
    z: Any,
    *,
    on: str | None,
    gates_bias: bool,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Any:
    """Gated convolution, as `interface.Target.conv2d` has it."""
    n_examples, _, height, width = shape(x)
    c_out, per_group, kh, kw = shape(weight)
    h_out, w_out = output_size((height, width), (kh, kw), stride, padding, dilation)
    y: Any = []
    for n in range(n_examples):
        gate: Any = None if on is None else _for_example(z, 4 if on == "weights" else 1, n)
        y.append([])
        for o in range(c_out):
            first = o // (c_out // groups) * per_group
            gated = [
                [[w * gate[o][c][i][j] for j, w in enumerate(row)] for i, row in enumerate(plane)]
                if on == "weights"
                else plane
                for c, plane in enumerate(weight[o])
            ]
            y[n].append([])
            for h in range(h_out):
                y[n][o].append([])
                for w in range(w_out):
                    terms = []
                    for c, i, j in itertools.product(range(per_group), range(kh), range(kw)):
                        row = h * stride[0] - padding[0] + i * dilation[0]
                        column = w * stride[1] - padding[1] + j * dilation[1]
                        if 0 <= row < height and 0 <= column < width:
                            terms.append(x[n][first + c][row][column] * gated[c][i][j])
                    own = None if bias is None else bias[o]
                    y[n][o][h].append(_with_bias(total(terms), own, gate, o, on, gates_bias))
    return y


def _max_pool2d(x: Any, kernel: tuple[int, int], pick: Callable[[list[Var]], Var]) -> Any:
    kh, kw = kernel
    return [
        [
            [
                [
                    pick([plane[h * kh + i][w * kw + j] for i in range(kh) for j in range(kw)])
                    for w in range(len(plane[0]) // kw)
                ]
                for h in range(len(plane) // kh)
            ]
            for plane in example
        ]
        for example in x
    ]


def group_size(weight_shape: Sequence[int], *, on: str, gates_bias: bool) -> Any:
    """Count the parameters of each gate one by one."""
    is_conv = len(weight_shape) == 4
    out_axis = 0 if is_conv else 1
    axis = {"inputs": 1 - out_axis, "outputs": out_axis}
    if on == "weights":
        counts: Any = 1
        for n in reversed(weight_shape):
            counts = [counts] * n
        return counts
    counts = [0] * weight_shape[axis[on]]
    for index in itertools.product(*map(range, weight_shape)):
        counts[index[axis[on]]] += 1
    if on == "outputs" and gates_bias:
        counts = [count + 1 for count in counts]
    return counts


def _members(weight: Any, bias: Any, on: str | None, gates_bias: bool) -> Any:
    """Return the parameters of each gate, in the gates' shape."""
    is_conv = depth(weight) == 4
    if on == "weights":
        return fmap(lambda w: [w], weight)
    columns = (
        [flat(w) for w in weight]
        if (on == "outputs") == is_conv
        else [[row[o] for row in weight] for o in range(len(weight[0]))]
    )
    if on == "outputs" and gates_bias and bias is not None:
        columns = [[*column, b] for column, b in zip(columns, bias, strict=True)]
    return columns


def governed(
    log_alpha: Any, weight: Any, bias: Any, *, on: str, gates_bias: bool, law: Law
) -> list[tuple[Var, list[Var]]]:
    """Return for each gate P(z != 0), and the parameters that it switches off."""
    members = _members(weight, bias, on, gates_bias)
    groups = _groups(members, on, depth(weight))
    return [(law.prob_active(la), own) for la, own in zip(flat(log_alpha), groups, strict=True)]


def expected_l0(gates: Sequence[tuple[Var, list[Var]]]) -> Var:
    """Return the sum of |g| P."""
    return total(p * constant(Num(arb(len(own)))) for p, own in gates)


def expected_l2(gates: Sequence[tuple[Var, list[Var]]]) -> Var:
    """Return the sum of P times squares."""
    return total(p * total(theta.square() for theta in own) for p, own in gates)


def expected_l1(gates: Sequence[tuple[Var, list[Var]]], *, at_zero: Num | None = None) -> Var:
    """Return the sum of P times absolute values, with this slope at 0."""
    return total(p * total(theta.abs(at_zero=at_zero) for theta in own) for p, own in gates)


def _groups(members: Any, on: str, axes: int) -> list[Any]:
    """Return the gates' lists of parameters in one list."""
    if on != "weights":
        return list(members)
    for _ in range(axes - 1):
        members = [part for block in members for part in block]
    return list(members)


# --- networks ---


PARAMETERS = ("weight", "bias", "log_alpha")


def parameters(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters by name."""
    return {
        f"{i}.{name}": layer[name]
        for i, layer in enumerate(network["layers"])
        for name in PARAMETERS
        if layer.get(name) is not None
    }


def law_of(network: Mapping[str, Any]) -> Law:
    """Return the law of a network's gates."""
    return Law.of(network["beta"], network["gamma"], network["zeta"])


def gated_layers(network: Mapping[str, Any]) -> list[int]:
    """Return the positions of layers with gates."""
    return [i for i, layer in enumerate(network["layers"]) if layer.get("on") is not None]


def forward(
    network: Mapping[str, Any],
    params: Mapping[str, Any],
    x: Any,
    gates: Mapping[int, Any],
    *,
    at_zero: Num = ZERO,
    at_tie: tuple[Num, Num] | None = None,
    values_only: bool = False,
) -> Any:
    """Logits, with the gates given, and what goes back where a ReLU or a pool has a kink."""

    def pick(window: list[Var]) -> Var:
        if values_only:
            return greatest_value(window)
        return greatest(window, at_tie=at_tie)

    for i, layer in enumerate(network["layers"]):
        kind = layer["kind"]
        if kind in ("dense", "conv2d"):
            geometry = {
                k: layer[k] for k in ("stride", "padding", "dilation", "groups") if k in layer
            }
            op: Any = dense if kind == "dense" else conv2d
            x = op(
                x,
                params[f"{i}.weight"],
                params.get(f"{i}.bias"),
                gates.get(i),
                on=layer.get("on"),
                gates_bias=layer.get("gates_bias", False),
                **geometry,
            )
        elif kind == "relu":
            x = fmap(lambda v: v.relu(at_zero=at_zero, values_only=values_only), x)
        elif kind == "max_pool2d":
            x = _max_pool2d(x, layer["kernel_size"], pick)
        elif kind == "flatten":
            x = [flat(example) for example in x]
        else:
            raise ValueError(kind)
    return x


def predict(network: Mapping[str, Any], x: Any) -> Any:
    """Logits under the gates of Eq. 13."""
    law, params = law_of(network), variables(parameters(network))
    gates = {
        i: fmap(partial(law.test_time, values_only=True), params[f"{i}.log_alpha"])
        for i in gated_layers(network)
    }
    return value_of(forward(network, params, variables(x), gates, values_only=True))


def _cross_entropy(logits: Any, labels: Sequence[int]) -> Var:
    """Return the mean over examples of log sum exp(l - m) - (l_label - m)."""
    terms = []
    for row, label in zip(logits, labels, strict=True):
        top = constant(max((v.value for v in row), key=lambda value: float(value.v)))
        shifted = [v - top for v in row]
        terms.append(total(v.exp() for v in shifted).log() - shifted[label])
    return total(terms) / constant(Num(arb(len(terms))))


def loss_and_grads(
    network: Mapping[str, Any],
    params: Mapping[str, Any],
    x: Any,
    labels: Sequence[int],
    u: Sequence[Any],
    *,
    lam: Fraction,
    l2: Fraction,
    n_train: int,
    **kinks: Any,
) -> dict[str, Any]:
    """Eq. 9 on one minibatch and draw, as `interface.Target.loss_and_grads` has it.

    The parameters are nested lists of `Num`, those of the network or later ones; `kinks` are
    arguments of `forward`.
    """
    law = law_of(network)
    theta = fmap(Var, dict(params))
    gated = gated_layers(network)
    gates = {
        i: paired(lambda la, noise: law.sample(la, exact(noise)), theta[f"{i}.log_alpha"], own)
        for i, own in zip(gated, u, strict=True)
    }
    data = variables(x)
    logits = forward(network, theta, data, gates, **kinks)
    loss = _cross_entropy(logits, labels)
    l0, squares = [], []
    for i, layer in enumerate(network["layers"]):
        if layer["kind"] not in ("dense", "conv2d"):
            continue
        weight, bias = theta[f"{i}.weight"], theta.get(f"{i}.bias")
        if i not in gated:
            squares.append(total(w.square() for w in flat(weight)))
            continue
        rules = {"on": layer["on"], "gates_bias": layer["gates_bias"], "law": law}
        gates_here = governed(theta[f"{i}.log_alpha"], weight, bias, **rules)
        l0.append(expected_l0(gates_here))
        squares.append(expected_l2(gates_here))
    loss = loss + constant(exact(lam) / exact(n_train)) * total(l0)
    if l2:
        loss = loss + constant(exact(l2) / exact(2 * n_train)) * total(squares)
    backward([(loss, ONE)])
    return {"loss": loss.value, "grads": {name: grad_of(value) for name, value in theta.items()}}


# --- training ---

FIRST_DECAY, SECOND_DECAY, EPSILON = Fraction(9, 10), Fraction(999, 1000), Fraction(1, 10**8)


def adam(theta: Any, grads: Sequence[Any], *, lr: Fraction) -> list[Any]:
    """Parameters after each step: D. P. Kingma, J. Ba, ICLR 2015, algorithm 1."""
    state = fmap(lambda value: Adam(value, lr), theta)
    after = []
    for t, gradient in enumerate(grads, start=1):
        after.append(paired(lambda one, g, t=t: one.step(g, t), state, gradient))
    return after


class Adam:
    r"""One parameter and its moments.

    The likely error of a step is not that of its operations one by one: m and sqrt(v) come of the
    same gradients, whose errors cancel in their quotient (wholly so in the first step). It is that
    of the roundings, plus each gradient's error times \|d step / d gradient\|. And 1 - 0.999^t,
    which is small, has the error of 0.999 and of its power: (1+t)/16 epsilons, before the safety.
    """

    def __init__(self, theta: Num, lr: Fraction) -> None:
        self.theta, self.lr = theta, exact(lr)
        self.m, self.v = ZERO, ZERO
        self.gradients: list[Num] = []

    def step(self, g: Num, t: int) -> Num:
        """Take one step."""
        self.gradients.append(g)
        g = Num(g.v)
        first, second = exact(FIRST_DECAY), exact(SECOND_DECAY)
        rests = [Num(1 - d.v**t, (1 + t) / 16) for d in (first, second)]
        self.m = first * self.m + exact(1 - FIRST_DECAY) * g
        self.v = second * self.v + exact(1 - SECOND_DECAY) * (g * g)
        m, v = self.m / rests[0], self.v / rests[1]
        root = v.sqrt()
        step = self.lr * m / (root + exact(EPSILON))
        if not v.is_zero():
            step = Num(step.v, step.err + self._carried(float(m.v), float(root.v), t))
        self.theta = self.theta - step
        return self.theta

    def _carried(self, m: float, root: float, t: int) -> float:
        """Return what the gradients' errors make of the step."""
        lr, eps = float(self.lr.v), float(EPSILON)
        b1, b2 = float(FIRST_DECAY), float(SECOND_DECAY)
        sum_ = 0.0
        for i, g in enumerate(self.gradients, start=1):
            through_m = (1 - b1) * b1 ** (t - i) / (1 - b1**t) / (root + eps)
            dv = 2 * float(g.v) * (1 - b2) * b2 ** (t - i) / (1 - b2**t)
            through_v = m / (root + eps) ** 2 * dv / (2 * root)
            sum_ += abs(through_m - through_v) * g.err
        return lr * sum_


def averages(values: Sequence[Any], *, decay: Fraction, first: Any = None) -> list[Any]:
    """Return the temporal average after each update.

    One that starts at 0 and is divided by 1 - decay^t; or, with a first value, one that starts
    there and is not divided.
    """
    d = exact(decay)
    start = fmap(lambda _: ZERO, values[0]) if first is None else first
    results = []
    for t, value in enumerate(values, start=1):
        start = paired(lambda a, v: d * a + (ONE - d) * v, start, value)
        results.append(start if first is not None else _divided(start, d, t))
    return results


def _divided(average: Any, decay: Num, t: int) -> Any:
    rest = Num(1 - decay.v**t, (1 + t) / 16)  # as in `Adam`
    return fmap(lambda value: value / rest, average)


def train(
    network: Mapping[str, Any],
    x: Sequence[Any],
    labels: Sequence[Any],
    u: Sequence[Any],
    *,
    lr: Fraction,
    lam: Fraction,
    l2: Fraction,
    n_train: int,
    decay: Fraction,
    start_at_first: bool = False,
) -> list[dict[str, Any]]:
    """Train, as `interface.Target.train` has it; the other average if it starts at the first."""
    params = fmap(exact, parameters(network))
    start = params
    state = fmap(lambda value: Adam(value, lr), params)
    steps = []
    for t in range(len(x)):
        noise = [own[t] for own in u]
        options: dict[str, Any] = {"lam": lam, "l2": l2, "n_train": n_train}
        step = loss_and_grads(network, params, x[t], labels[t], noise, **options)
        _well_conditioned(step["grads"])
        params = {
            name: paired(lambda one, g, t=t: one.step(g, t + 1), state[name], step["grads"][name])
            for name in params
        }
        steps.append(step | {"params": params})
    for name, first in start.items():
        values = [step["params"][name] for step in steps]
        kept = averages(values, decay=decay, first=first if start_at_first else None)
        for step, value in zip(steps, kept, strict=True):
            step.setdefault("average", {})[name] = value
    return steps


def _well_conditioned(grads: Mapping[str, Any]) -> None:
    """Refuse gradients of which float32 may not know the sign, or that are all small."""
    for name, nested in grads.items():
        each = flat(nested)
        if any(not g.is_zero() and g.size < FAR * g.err for g in each):
            raise KinkError(f"a gradient in {name} may be 0 in float32")
        if max(g.size for g in each) < 50 * FAR * max(g.err for g in each):
            raise KinkError(f"the gradients in {name} are small beside their errors in float32")


# --- cost ---


class Cost(NamedTuple):
    """FLOPs and parameters, counted."""

    flops: int
    params: int


def _unit_shapes(network: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Return the shape of one example before each layer and after the last."""
    shapes = [tuple(network["input_shape"])]
    for layer in network["layers"]:
        now = shapes[-1]
        kind = layer["kind"]
        if kind == "dense":
            now = (shape(layer["weight"])[1],)
        elif kind == "conv2d":
            c_out, _, *kernel = shape(layer["weight"])
            geometry = (layer[name] for name in ("stride", "padding", "dilation"))
            now = (c_out, *output_size(now[1:], kernel, *geometry))
        elif kind == "max_pool2d":
            now = (now[0], *(n // k for n, k in zip(now[1:], layer["kernel_size"], strict=True)))
        elif kind == "flatten":
            size = 1
            for n in now:
                size *= n
            now = (size,)
        shapes.append(now)
    return shapes


def count(network: Mapping[str, Any], is_open: Mapping[int, Any]) -> Cost:
    """Count weight by weight what a hard network costs, for one example."""
    layers, shapes = network["layers"], _unit_shapes(network)
    carries = [[True] * shapes[0][0]]
    for i, layer in enumerate(layers):
        now = carries[-1]
        if layer["kind"] in ("dense", "conv2d"):
            now = [True] * shapes[i + 1][0]
            if layer.get("on") == "outputs":
                now = list(is_open[i])
        elif layer["kind"] == "flatten":
            each = shapes[i + 1][0] // shapes[i][0]
            now = [on for on in now for _ in range(each)]
        carries.append(now)
    is_read = [[True] * shapes[-1][0]]
    for i in reversed(range(len(layers))):
        now, layer = is_read[0], layers[i]
        if layer["kind"] in ("dense", "conv2d"):
            now = [True] * shapes[i][0]
            if layer.get("on") == "inputs":
                now = list(is_open[i])
        elif layer["kind"] == "flatten":
            each = shapes[i + 1][0] // shapes[i][0]
            now = [any(now[c * each : (c + 1) * each]) for c in range(shapes[i][0])]
        is_read.insert(0, now)
    flops = params = 0
    for i, layer in enumerate(layers):
        if layer["kind"] not in ("dense", "conv2d"):
            continue
        places = 1
        for n in shapes[i + 1][1:]:
            places *= n
        has_bias = layer.get("bias") is not None
        for o in range(shapes[i + 1][0]):
            if not is_read[i + 1][o] or (layer.get("on") == "outputs" and not is_open[i][o]):
                continue
            terms = 0
            for c, gate in _reads(layer, o, is_open.get(i)):
                reads_open = carries[i][c]
                if layer.get("on") == "inputs":
                    reads_open = reads_open and is_open[i][c]
                terms += bool(reads_open and gate)
            flops += (2 * terms - 1 + has_bias if terms else 0) * places
            params += terms + has_bias
    return Cost(flops, params)


def _reads(layer: Mapping[str, Any], o: int, is_open: Any) -> Iterator[tuple[int, bool]]:
    """Give each weight of output o: which input it reads, and whether its own gate is open."""
    own = layer.get("on") == "weights"
    if layer["kind"] == "dense":
        for c in range(shape(layer["weight"])[0]):
            yield c, is_open[c][o] if own else True
        return
    c_out, per_group, kh, kw = shape(layer["weight"])
    first = o // (c_out // layer["groups"]) * per_group
    for c, i, j in itertools.product(range(per_group), range(kh), range(kw)):
        yield first + c, is_open[o][c][i][j] if own else True


def hard_cost(network: Mapping[str, Any], *, values_only: bool = False) -> Cost:
    """Count with the gates that Eq. 13 leaves open; those near 0 may be refused, see `Var.clip`."""
    law = law_of(network)
    is_open = {
        i: fmap(
            lambda la: not law.test_time(Var(exact(la)), values_only=values_only).value.is_zero(),
            network["layers"][i]["log_alpha"],
        )
        for i in gated_layers(network)
    }
    return count(network, is_open)


def expected_cost(network: Mapping[str, Any]) -> dict[str, Num]:
    """Add up over all ways to open and close the gates: probability times count."""
    law = law_of(network)
    gated = gated_layers(network)
    probabilities = [
        law.prob_active(Var(exact(la))).value.v
        for i in gated
        for la in flat(network["layers"][i]["log_alpha"])
    ]
    flops = params = arb(0)
    for ways in itertools.product((False, True), repeat=len(probabilities)):
        weight = arb(1)
        for p, on in zip(probabilities, ways, strict=True):
            weight *= p if on else 1 - p
        cost = count(network, _in_order(network, gated, iter(ways)))
        flops += weight * cost.flops
        params += weight * cost.params
    return {"flops": Num(flops), "params": Num(params)}


def _in_order(network: Mapping[str, Any], gated: Sequence[int], ways: Iterator[bool]) -> Any:
    """Give the gates of all layers, in order, what comes next."""
    return {i: fmap(lambda _: next(ways), network["layers"][i]["log_alpha"]) for i in gated}
