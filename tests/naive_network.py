"""Scalar twins of ops, gates, penalties, networks and optimisers: equations, loops, `math`.

Nothing here imports the package, and everything is nested lists. Numbers may be of any type: `m` is
their arithmetic, `math` for floats or an mpmath context for as many digits as one likes (the names
of its functions are the same). Dense layers are sums and products, so they take Fractions too.

A gate is looked up in the one place where the equations put it, at the single weight: theta_io =
theta_tilde_io z_{g(i,o)} (Eq. 2), whatever the gates lie on.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
Owner = Callable[[tuple[int, ...]], tuple[int, ...]]


def pick(nested: Any, index: tuple[int, ...]) -> Any:
    """Return nested[i][j]... for index (i, j, ...)."""
    for i in index:
        nested = nested[i]
    return nested


# One gate, Eq. 10 to 13


def sigmoid(t: Any, m: Any = math) -> Any:
    return 1 / (1 + m.exp(-t)) if t >= 0 else m.exp(t) / (1 + m.exp(t))


def draw(log_alpha: Any, u: Any, m: Any = math, beta=BETA, gamma=GAMMA, zeta=ZETA) -> Any:
    """Eq. 10 and 11."""
    s = sigmoid((m.log(u) - m.log1p(-u) + log_alpha) / beta, m)
    return min(1, max(0, s * (zeta - gamma) + gamma))


def test_gate(log_alpha: Any, m: Any = math, gamma=GAMMA, zeta=ZETA) -> Any:
    """Eq. 13."""
    return min(1, max(0, sigmoid(log_alpha, m) * (zeta - gamma) + gamma))


test_gate.__test__ = False  # type: ignore[attr-defined]  # a formula, whatever its name looks like


def prob_on(log_alpha: Any, m: Any = math, beta=BETA, gamma=GAMMA, zeta=ZETA) -> Any:
    """Eq. 12, one gate."""
    return sigmoid(log_alpha - beta * m.log(-gamma / zeta), m)


# Which gate owns which weight


def owner(on: str, axis: int | None = None, labels: Any = None) -> Owner:
    """Return the map from the place of a weight to the place of its gate."""
    if labels is not None:
        return lambda place: (pick(labels, place),)
    if on == "weights":
        return lambda place: place
    if axis is None:  # of a dense layer's (D_in, D_out)
        axis = {"inputs": 0, "outputs": 1}[on]
    return lambda place: (place[axis],)


def group_sizes(shape: Sequence[int], owns: Owner, n_biases: int = 0) -> dict[Any, int]:
    """|g| by counting; bias o, where the gates own any, goes with gate (o,)."""
    sizes: dict[Any, int] = {}
    for place in product(*map(range, shape)):
        sizes[owns(place)] = sizes.get(owns(place), 0) + 1
    for o in range(n_biases):
        sizes[(o,)] += 1
    return sizes


def gated_norm(
    weight: Any, owns: Owner, shape: Sequence[int], on_probability: Callable[..., Any],
    norm: Callable[[Any], Any], bias: Sequence[Any] = (),
) -> Any:  # fmt: skip
    """Eq. 12, 14, 15: sum over parameters of P(its gate is on) norm(parameter)."""
    total = 0
    for place in product(*map(range, shape)):
        total += on_probability(owns(place)) * norm(pick(weight, place))
    for o, b in enumerate(bias):
        total += on_probability((o,)) * norm(b)
    return total


# Ops


def dense(
    x: Any, weight: Any, bias: Any, z: Any = None, on: str = "inputs", per_example: bool = False,
    labels: Any = None, gates_bias: bool = True,
) -> list[list[Any]]:  # fmt: skip
    """y_no = sum_i x_ni W_io z_g(i,o) + b_o; gates on outputs may multiply b_o too."""
    gates_bias = gates_bias and z is not None and on == "outputs"
    owns = owner(on, labels=labels)
    y = []
    for n in range(len(x)):
        gates = z[n] if per_example else z
        row = []
        for o in range(len(bias)):
            total = bias[o] * (gates[o] if gates_bias else 1)
            for i in range(len(weight)):
                gate = 1 if gates is None else pick(gates, owns((i, o)))
                total += x[n][i] * weight[i][o] * gate
            row.append(total)
        y.append(row)
    return y


def relu(x: Any) -> list[list[Any]]:
    return [[v if v > 0 else 0 * v for v in row] for row in x]


def tanh(x: Any, m: Any = math) -> list[list[Any]]:
    return [[m.tanh(v) for v in row] for row in x]


def dropout(x: Any, u: Any, rate: Any) -> list[list[Any]]:
    """0 with probability `rate`; else divided by 1 - rate, so that the mean stays."""
    return [
        [0 * a if b < rate else a / (1 - rate) for a, b in zip(x_row, u_row, strict=True)]
        for x_row, u_row in zip(x, u, strict=True)
    ]


def cross_entropy(logits: Any, labels: Sequence[int], m: Any = math) -> Any:
    """-(1/N) sum_n log(exp(a_ny) / sum_k exp(a_nk)), as it stands: give it digits or small a."""
    total = 0
    for row, label in zip(logits, labels, strict=True):
        total += m.log(sum(m.exp(a) for a in row)) - row[label]
    return total / len(logits)


# A network and its objective, Eq. 9, 14, 15


class Dense(NamedTuple):
    """Parameters of one dense layer, and the noise of its gates (None at test time)."""

    weight: Any
    bias: Any
    on: str | None = None
    log_alpha: Any = None
    u: Any = None
    per_example: bool = False
    labels: Any = None
    gates_bias: bool = False

    def owner(self) -> Owner:
        return owner(self.on or "", labels=self.labels)


class Dropout(NamedTuple):
    rate: Any
    u: Any = None


Stage = Dense | Dropout | str  # "relu" or "tanh"


def _nested(f: Callable[..., Any], first: Any, *others: Any) -> Any:
    if isinstance(first, list):
        return [_nested(f, *each) for each in zip(first, *others, strict=True)]
    return f(first, *others)


def _gates(layer: Dense, m: Any, hyper: dict[str, Any]) -> Any:
    if layer.log_alpha is None:
        return None
    if layer.u is None:
        stretch = {name: hyper[name] for name in ("gamma", "zeta") if name in hyper}
        return _nested(lambda a: test_gate(a, m, **stretch), layer.log_alpha)
    one_draw = lambda u: _nested(lambda a, b: draw(a, b, m, **hyper), layer.log_alpha, u)  # noqa: E731
    return [one_draw(u) for u in layer.u] if layer.per_example else one_draw(layer.u)


def logits(stages: Sequence[Stage], x: Any, m: Any = math, **hyper: Any) -> Any:
    for stage in stages:
        if isinstance(stage, Dense):
            per_example = stage.per_example and stage.u is not None
            z = _gates(stage, m, hyper)
            x = dense(x, stage.weight, stage.bias, z, stage.on or "inputs", per_example,
                      stage.labels, stage.gates_bias)  # fmt: skip
        elif isinstance(stage, Dropout):
            x = x if stage.u is None else dropout(x, stage.u, stage.rate)
        else:
            x = relu(x) if stage == "relu" else tanh(x, m)
    return x


def layer_norm(layer: Dense, norm: Callable[[Any], Any], m: Any = math, **hyper: Any) -> Any:
    shape = (len(layer.weight), len(layer.bias))
    probability = lambda place: prob_on(pick(layer.log_alpha, place), m, **hyper)  # noqa: E731
    bias = layer.bias if layer.gates_bias else ()
    return gated_norm(layer.weight, layer.owner(), shape, probability, norm, bias)


def objective(
    stages: Sequence[Stage], x: Any, labels: Sequence[int], lam: Sequence[Any], l2: Any,
    n_train: int, m: Any = math, **hyper: Any,
) -> dict[str, Any]:  # fmt: skip
    """Mean loss + (1/N) sum_l lam_l sum_g |g| P_g + (l2/2N) sum_g P_g sum_j theta_j^2."""
    data = cross_entropy(logits(stages, x, m, **hyper), labels, m)
    gated = [s for s in stages if isinstance(s, Dense) and s.log_alpha is not None]
    l0_term = sum(
        one_lam * layer_norm(layer, lambda w: 1, m, **hyper)
        for one_lam, layer in zip(lam, gated, strict=True)
    )
    l2_term = sum(layer_norm(layer, lambda w: w * w, m, **hyper) for layer in gated)
    plain = [s for s in stages if isinstance(s, Dense) and s.log_alpha is None]
    l2_term += sum(w * w for layer in plain for row in layer.weight for w in row)  # P = 1
    parts = {"data": data, "l0": l0_term / n_train, "l2": l2 * l2_term / (2 * n_train)}
    return {"total": parts["data"] + parts["l0"] + parts["l2"], **parts}


# Nested lists, and derivatives in every number of them


def convert(nested: Any, number: Callable[[Any], Any]) -> Any:
    if isinstance(nested, list):
        return [convert(inner, number) for inner in nested]
    return number(nested)


def places(nested: Any) -> list[tuple[int, ...]]:
    if not isinstance(nested, list):
        return [()]
    return [(i, *rest) for i, inner in enumerate(nested) for rest in places(inner)]


def flat(nested: Any) -> list[Any]:
    return [pick(nested, place) for place in places(nested)]


def moved(nested: Any, place: tuple[int, ...], h: Any) -> Any:
    """Return a copy with h added at one place."""
    if not place:
        return nested + h
    first, *rest = place
    return [moved(v, tuple(rest), h) if i == first else v for i, v in enumerate(nested)]


def gradients(f: Callable[..., Any], arguments: dict[str, Any], h: Any) -> dict[str, list[Any]]:
    """Central differences in each number of each argument: flat lists, in the order of `places`.

    Exact where f is linear in each number alone and the numbers are Fractions; off by O(h^2) else.
    """
    slopes: dict[str, list[Any]] = {}
    for name, value in arguments.items():
        slopes[name] = []
        for place in places(value):
            up, down = (f(**{**arguments, name: moved(value, place, s)}) for s in (h, -h))
            slopes[name].append((up - down) / (2 * h))
    return slopes


# Optimisers: one number, its gradients in order; the list of its values after every step


def sgd(theta: float, grads: Sequence[float], lr: float, momentum: float) -> list[float]:
    values, velocity = [], 0.0
    for g in grads:
        velocity = momentum * velocity + g
        theta = theta - lr * velocity
        values.append(theta)
    return values


def adam(
    theta: float, grads: Sequence[float], lr: float, beta1=0.9, beta2=0.999, eps=1e-8
) -> list[float]:
    """Kingma and Ba, algorithm 1, with each moment as the explicit sum that its recursion means."""
    values = []
    for t in range(1, len(grads) + 1):
        first = sum((1 - beta1) * beta1 ** (t - i) * grads[i - 1] for i in range(1, t + 1))
        second = sum((1 - beta2) * beta2 ** (t - i) * grads[i - 1] ** 2 for i in range(1, t + 1))
        m_hat, v_hat = first / (1 - beta1**t), second / (1 - beta2**t)
        theta = theta - lr * m_hat / (math.sqrt(v_hat) + eps)
        values.append(theta)
    return values


def temporal_average(thetas: Sequence[Any], decay: Any) -> Any:
    """Sum_i d^(t-i) theta_i over sum_i d^(t-i): weights that sum to 1, the latest the greatest."""
    t = len(thetas)
    weights = [decay ** (t - i) for i in range(1, t + 1)]
    return sum(w * theta for w, theta in zip(weights, thetas, strict=True)) / sum(weights)
