"""The path gradient is unbiased: its mean is the gradient of the expected objective.

For a network with three gates the expectation over their noise is a sum over three axes. On each,
the gate is 0 with the mass of one atom, 1 with that of the other, and smooth between, where the
rule is Gauss-Legendre in y = logit u, whose density is logistic. A rectifier bends the objective
where its argument is 0, so the axis of the gate before it is split there too. Everything in the
quadrature is analytic in the parameters, its ends and splits included, and is written in NumPy here
from the equations: a complex step differentiates it to the last digits. Against that stand, from
the package,

- the path gradient, integrated by the same rule: equal to 1e-10 of the gradient's size;
- the mean of the path gradient over random draws: within 5 standard errors, for one draw a
  minibatch and for one draw an example.
"""

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from l0ref import ops
from l0ref.networks import MLP, Network
from l0ref.noise import open_uniform

HYPER = {"beta": 0.7, "gamma": -0.15, "zeta": 1.2}
BETA, GAMMA, ZETA = HYPER.values()
LAM, L2, N_TRAIN = (0.4, 1.1), 0.8, 5
X, LABELS = np.array([[0.9], [-1.3], [0.4]]), np.array([1, 0, 1])
# Widths, where the gates lie, activation: three gates each.
CASES = {
    "tanh, gates on inputs": ((1, 2, 2), "unit", "tanh"),
    "relu, gates on inputs": ((1, 2, 2), "unit", "relu"),
    "tanh, gates on weights": ((1, 1, 2), "weight", "tanh"),
    "relu, gates on weights": ((1, 1, 2), "weight", "relu"),
}
TWO_GATES = ((1, 1, 2), "unit", "tanh")
every_case = pytest.mark.parametrize("case", CASES)


def spec(case: str) -> tuple[Any, str, str]:
    return CASES.get(case, TWO_GATES)


@cache
def network_of(case: str, *, per_example: bool = False) -> Network:
    widths, gates, activation = spec(case)
    network = MLP(widths, gates=gates, activation=activation, per_example=per_example,
                  dtype=np.float64, **HYPER)  # fmt: skip
    rng = np.random.default_rng(17)
    for array in network.params.values():  # |x w| > |b|: each rectifier bends at a z inside (0, 1)
        scale = 0.3 if array.shape == (widths[1],) else 1.0
        array[...] = scale * rng.choice([-1, 1], array.shape) * rng.uniform(0.8, 1.8, array.shape)
    network.params["0.log_alpha"].flat[0] = -0.4
    last = network.params["2.log_alpha"]
    last.flat[:] = (0.3, -1.1)[: last.size]
    return network


# --- the expectation, from the equations, for real or complex parameters ---


def logistic(t: Any) -> Any:
    return 1 / (1 + np.exp(-t))


def axis(log_alpha: Any, bends: Any, n: int) -> tuple[Any, Any, Any]:
    """Return z, its probability weight, and y = logit u, at the nodes of one gate's noise."""

    def y_at(z: Any) -> Any:  # where s_bar(y) = z
        return BETA * np.log((z - GAMMA) / (ZETA - z)) - log_alpha

    edges = [y_at(0.0), *(y_at(z) for z in sorted(bends, key=np.real)), y_at(1.0)]
    nodes, weights = np.polynomial.legendre.leggauss(n)
    ys, ws = [edges[0] - 1, edges[-1] + 1], [logistic(edges[0]), logistic(-edges[-1])]
    zs = [0.0 * log_alpha, 1.0 + 0.0 * log_alpha]
    for a, b in pairwise(edges):
        y = (a + b) / 2 + (b - a) / 2 * nodes
        ys += list(y)
        zs += list(logistic((y + log_alpha) / BETA) * (ZETA - GAMMA) + GAMMA)
        ws += list((b - a) / 2 * weights * logistic(y) * logistic(-y))
    return np.array(zs), np.array(ws), np.array(ys)


def grid(case: str, params: dict[str, Any], n: int = 18) -> tuple[Any, Any, Any]:
    """Return z and y, (M, G), and weights, (M,), of the tensor product of the gates."""
    bends = []
    if spec(case)[2] == "relu":
        z = -params["0.bias"] / (X * params["0.weight"])  # where x z w + b = 0
        bends = [b for b in z.ravel() if 0 < np.real(b) < 1]
        assert len(bends) > 0
    alphas = [params["0.log_alpha"].ravel()[0], *params["2.log_alpha"].ravel()]
    axes = [axis(alphas[0], bends, n), *(axis(a, [], n) for a in alphas[1:])]
    z, w, y = (np.stack([g.ravel() for g in np.meshgrid(*each, indexing="ij")], axis=1)
               for each in zip(*axes, strict=True))  # fmt: skip
    return z, w.prod(axis=1), y


def data_loss(case: str, params: dict[str, Any], z: Any) -> Any:
    """Return the mean loss over the examples for each set of gates: (M,)."""
    theta_0 = params["0.weight"] * z[:, :1, None]  # one gate: an input, or the only weight
    on_rows = spec(case)[1] == "unit"
    theta_2 = params["2.weight"] * (z[:, 1:, None] if on_rows else z[:, None, 1:])
    a = X @ theta_0 + params["0.bias"]
    h = np.tanh(a) if spec(case)[2] == "tanh" else np.where(np.real(a) > 0, a, 0)
    logits = h @ theta_2 + params["2.bias"]
    rows = np.arange(len(X))
    nll = np.log(np.exp(logits).sum(axis=2)) - logits[:, rows, LABELS]
    return nll.mean(axis=1)


def penalty(case: str, params: dict[str, Any]) -> Any:
    total = 0.0
    for layer, lam in zip("02", LAM, strict=True):
        weight, log_alpha = params[f"{layer}.weight"], params[f"{layer}.log_alpha"]
        on = logistic(log_alpha - BETA * np.log(-GAMMA / ZETA))
        spread = on.reshape(-1, 1) if spec(case)[1] == "unit" else on
        total += (spread * (lam + L2 / 2 * weight**2)).sum() / N_TRAIN
    return total


def expected_objective(case: str, params: dict[str, Any]) -> Any:
    z, w, _ = grid(case, params)
    return (w * data_loss(case, params, z)).sum() + penalty(case, params)


@cache
def exact_gradient(case: str) -> dict[str, Any]:
    """Differentiate the expectation by a complex step: Im f(theta + ih)/h, without cancellation."""
    params = network_of(case).params
    gradient = {}
    for name, array in params.items():
        gradient[name] = np.empty_like(array)
        for place in np.ndindex(array.shape):
            moved = {n: a.astype(complex) for n, a in params.items()}
            moved[name][place] += 1e-30j
            gradient[name][place] = expected_objective(case, moved).imag / 1e-30
    return gradient


def size(gradient: dict[str, Any]) -> float:
    return max(float(np.abs(d).max()) for d in gradient.values())


# --- the path gradient, from the package ---


def noise_of(network: Network, u: Any) -> dict[int, Any]:
    """Give u, (..., G), to the two layers' gates."""
    shapes = [gates.shape for _, _, gates in network.gated]
    lead = u.shape[:-1]
    return {0: u[..., :1].reshape(*lead, *shapes[0]), 2: u[..., 1:].reshape(*lead, *shapes[1])}


WEIGHING: Any = {"lam": LAM, "l2": L2, "n_train": N_TRAIN}


# --- tests ---


@every_case
def test_the_quadrature_has_converged(case: str) -> None:
    params = network_of(case).params
    for n in (18, 24):
        z, w, _ = grid(case, params, n)
        assert abs(w.sum() - 1) < 1e-12  # the law has total mass 1
        coarse = (w * data_loss(case, params, z)).sum() + penalty(case, params)
        assert abs(coarse - expected_objective(case, params)) < 1e-12


@every_case
def test_the_gradient_of_the_expectation_is_right(case: str) -> None:
    """The complex step, held against sixth-order differences in the real numbers."""
    params = network_of(case).params
    for name, d in exact_gradient(case).items():
        for place in np.ndindex(d.shape):

            def along(t: float, name: str = name, place: Any = place) -> float:
                moved = {n: a.copy() for n, a in params.items()}
                moved[name][place] += t
                return float(expected_objective(case, moved))

            h, weights = 2e-3, {1: 45, 2: -9, 3: 1}
            slope = sum(c * (along(k * h) - along(-k * h)) for k, c in weights.items()) / (60 * h)
            assert abs(slope - d[place]) < 1e-10 * size(exact_gradient(case))


@every_case
def test_the_integral_of_the_path_gradient_is_the_gradient(case: str) -> None:
    """One example of the batch for each node and each example: their sum, weighed by the nodes."""
    network = network_of(case, per_example=True)
    z, w, y = grid(case, network.params)
    u = np.repeat(logistic(y), len(X), axis=0)
    noise, x, labels = noise_of(network, u), np.tile(X, (len(w), 1)), np.tile(LABELS, len(w))
    logits, residuals = network.forward(x, noise)
    loss, ce = ops.softmax_cross_entropy(logits, labels)
    assert abs(loss - data_loss(case, network.params, z).mean()) < 1e-13 * len(w)
    each = ops.softmax_cross_entropy_vjp(float(len(labels)), ce)  # the derivative of the sum
    _, grads = network.backward(each * np.repeat(w, len(X))[:, None] / len(X), residuals)
    _, _, penalty_grads = network.penalties(**WEIGHING)
    for name, exact in exact_gradient(case).items():
        got = grads[name] + penalty_grads.get(name, 0.0)
        atol = 1e-10 * size(exact_gradient(case))
        np.testing.assert_allclose(got, exact, rtol=0, atol=atol, err_msg=name)


def test_so_it_is_with_one_draw_a_minibatch() -> None:
    case = "two gates"
    network = network_of(case)
    _, w, y = grid(case, network.params)
    total = 0.0
    sums = {name: np.zeros_like(a) for name, a in network.params.items()}
    for weight, u in zip(w, logistic(y), strict=True):
        loss, grads = network.loss_and_grads(X, LABELS, noise_of(network, u), **WEIGHING)
        total += weight * loss.total
        for name, d in grads.items():
            sums[name] += weight * d
    assert abs(total - expected_objective(case, network.params)) < 1e-11
    for name, exact in exact_gradient(case).items():
        atol = 1e-10 * size(exact_gradient(case))
        np.testing.assert_allclose(sums[name], exact, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    ("case", "per_example"),
    [*((case, True) for case in CASES), *((case, False) for case in list(CASES)[::3])],
)
def test_the_mean_of_the_path_gradient_is_within_five_standard_errors(
    case: str, per_example: bool
) -> None:
    """With some ten parameters and a fixed seed: a chance of 6e-6 that a right gradient fails."""
    network = network_of(case, per_example=per_example)
    rng = np.random.default_rng(2024)
    rounds, repeats = (300, 20) if per_example else (800, 1)
    x, labels = np.tile(X, (repeats, 1)), np.tile(LABELS, repeats)
    samples: dict[str, list[Any]] = {name: [] for name in network.params}
    counts = []
    for _ in range(rounds):
        u = open_uniform(rng, (len(x), 3) if per_example else (3,))
        noise = noise_of(network, u)
        _, grads = network.loss_and_grads(x, labels, noise, **WEIGHING)
        for name, d in grads.items():
            samples[name].append(d)
        draws = [gates.draw(layer.params["log_alpha"], noise[i])[0]
                 for i, layer, gates in network.gated]  # fmt: skip
        counts.append([((z != 0) * gates.group_size).sum() / (len(x) if per_example else 1)
                       for z, (_, _, gates) in zip(draws, network.gated, strict=True)])  # fmt: skip

    for name, exact in exact_gradient(case).items():
        values = np.array(samples[name])
        error = values.std(axis=0, ddof=1) / np.sqrt(rounds)
        assert (np.abs(values.mean(axis=0) - exact) < 5 * error + 1e-12).all(), name
        assert (error < 0.1 * size(exact_gradient(case))).all()  # or nothing would be shown
    spread = np.std(counts, axis=0, ddof=1) / np.sqrt(rounds)
    assert (np.abs(np.mean(counts, axis=0) - network.expected_l0()) < 5 * spread).all()


@every_case
def test_expected_l0_is_the_quadrature_of_the_count(case: str) -> None:
    network = network_of(case)
    z, w, _ = grid(case, network.params)
    sizes = np.concatenate([gates.group_size.ravel() for _, _, gates in network.gated])
    count = w @ (z != 0) @ sizes
    np.testing.assert_allclose(sum(network.expected_l0()), count, rtol=1e-12)
