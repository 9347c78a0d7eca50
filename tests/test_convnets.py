"""Networks with maps: wiring, LeNet-5, wide residual networks, and their gradients.

A small network is held against loops in mpmath; whole architectures against differences of their
own objective, taken where no rectifier, pool or gate changes side.
"""

from functools import cache
from typing import Any

import numpy as np
import pytest

from l0ref import ops
from l0ref.gates import per_output, per_weight
from l0ref.layers import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    Normalize,
    ReLU,
    Tanh,
)
from l0ref.network import INPUT, Network
from l0ref.networks import MLP, LeNet5, WideResNet
from l0ref.noise import Noise
from tests import naive_convnet
from tests import naive_network as naive
from tests.mp_reference import mp
from tests.naive_convnet import Pool
from tests.test_unbiased import axis

HYPER = {"beta": 0.5, "gamma": -0.2, "zeta": 1.3}
EXACT_HYPER = {name: mp.mpf(value) for name, value in HYPER.items()}
EPS = np.finfo(np.float64).eps


def scattered(network: Network, seed: int) -> Network:
    """Give every array a random value: log_alpha far enough to clip some, variances above 0."""
    rng = np.random.default_rng(seed)
    for name, array in (network.params | network.buffers).items():
        if name.endswith("log_alpha"):
            array[...] = rng.normal(0.3, 1.5, size=array.shape)
        elif array.ndim == 1:  # biases, and the four of batch norm
            array[...] = rng.uniform(0.4, 1.4, size=array.shape)
            if not name.endswith(("weight", "var")):
                array *= rng.choice([-1, 1], size=array.shape)
        else:  # as at the start, so that no map grows large on its way
            array[...] = rng.normal(0, np.sqrt(2 / array[0].size), size=array.shape)
    return network


def noise_for(network: Network, x: Any, seed: int) -> dict[int, Any]:
    rng = np.random.default_rng(seed)
    return {i: rng.uniform(size=shape) for i, shape in network.noise_shapes(x.shape).items()}


def freeze(*arrays: Any) -> None:
    for array in arrays:
        array.flags.writeable = False


# --- small networks, by loops ---


def gated_conv(rng: Any, shape: Any, gates: Any, bias: bool = True, **options: Any) -> Conv2d:
    log_alpha = None if gates is None else rng.normal(0.3, 1.2, size=gates.shape)
    shift = rng.normal(size=shape[0]) if bias else None
    return Conv2d(0.6 * rng.normal(size=shape), shift, gates, log_alpha, **options)


def norm(rng: Any, c: int) -> BatchNorm:
    return BatchNorm(rng.normal(size=c), rng.normal(size=c), rng.normal(size=c),
                     rng.uniform(0.5, 2, size=c))  # fmt: skip


def small_network(kind: str) -> tuple[Network, dict[str, Any]]:
    """Return a network and its wiring, each for images of 2 channels and 4 x 3 pixels."""
    rng = np.random.default_rng(21)
    per_example = "example" in kind
    if kind.startswith("plain"):
        own = per_output((3, 2, 2, 2), axis=0, gates_bias="own" in kind, **HYPER)
        layers = [
            Normalize([0.2, -0.3], [0.8, 1.7]),
            gated_conv(rng, (3, 2, 2, 2), own, padding=(1, 0), per_example=per_example),
            Tanh(),
            MaxPool2d((2, 1)),
            gated_conv(rng, (2, 3, 1, 2), per_weight((2, 3, 1, 2), **HYPER)),
            ReLU(),
            Flatten(),
            Dense(rng.normal(size=(4, 3)), rng.normal(size=3)),
        ]
        return Network(layers, input_shape=(2, 4, 3)), {}
    # Layers 1 and 2 go to several others, and the input goes round everything into the last sum.
    blocks = [per_output((3, 2, 1, 2), axis=0, **HYPER), per_weight((2, 3, 2, 1), **HYPER)]
    layers = [
        norm(rng, 2),
        ReLU(),
        gated_conv(rng, (2, 2, 1, 1), None, bias=False),
        gated_conv(rng, (3, 2, 1, 2), blocks[0], bias=False, padding=(0, 1),
                   per_example=per_example),
        norm(rng, 3),
        Tanh(),
        gated_conv(rng, (2, 3, 2, 1), blocks[1], bias=False, padding=(1, 0)),
        AvgPool2d((2, 2), stride=1),
        norm(rng, 2),
        gated_conv(rng, (2, 2, 1, 1), None),
        AvgPool2d((2, 3)),
        Flatten(),
        Dense(rng.normal(size=(4, 3)), rng.normal(size=3)),
    ]  # fmt: skip
    wiring = {"sources": {3: 1}, "skips": {7: 2, 8: 2, 9: INPUT}}
    return Network(layers, input_shape=(2, 4, 3), **wiring), wiring  # type: ignore[arg-type]


KINDS = ["plain", "plain, own bias", "plain, own bias, example", "residual", "residual, example"]


def twin(network: Network, noise: Any, number: Any, *, training: bool) -> list[Any]:
    stages: list[Any] = []
    for i, layer in enumerate(network.layers):
        p = {n: naive.convert(a.tolist(), number)
             for n, a in (layer.params | layer.buffers).items()}  # fmt: skip
        if isinstance(layer, Conv2d):
            gates, u = layer.gates, None if noise is None else noise.get(i)
            more = {} if gates is None else {
                "on": gates.on, "axis": gates.axis, "gates_bias": gates.gates_bias,
                "per_example": layer.per_example,
                "u": None if u is None else naive.convert(u.tolist(), number),
            }  # fmt: skip
            stages.append(naive_convnet.Conv(**p, **more, **layer.geometry))
        elif isinstance(layer, Dense):
            stages.append(naive.Dense(p["weight"], p["bias"]))
        elif isinstance(layer, BatchNorm):
            given = () if training else (p["running_mean"], p["running_var"])
            eps = number(layer.eps)
            stages.append(naive_convnet.Norm(p["weight"], p["bias"], eps, *given))
        elif isinstance(layer, Normalize):
            c = len(layer.mean)
            mean, std = ([number(v) for v in a.tolist()] for a in (layer.mean, layer.std))
            one, zero, var = [number(1)] * c, [number(0)] * c, [v**2 for v in std]
            stages.append(naive_convnet.Norm(one, zero, number(0), mean, var))
        elif isinstance(layer, (MaxPool2d, AvgPool2d)):
            kind = "max" if isinstance(layer, MaxPool2d) else "avg"
            stages.append(Pool(kind, (layer.kernel_size, layer.stride, layer.padding)))
        else:
            stages.append(type(layer).__name__.lower())
    return stages


LABELS = [2, 0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_and_its_whole_gradient(kind: str) -> None:
    """Every parameter and x, through gates of two kinds, skips, batch statistics, L0 and L2."""
    network, wiring = small_network(kind)
    x = np.random.default_rng(22).normal(size=(4, 2, 4, 3))
    noise = noise_for(network, x, 23)
    lam = (3.0, 0.7)
    freeze(x, *network.params.values(), *network.buffers.values(), *noise.values())
    weighing: dict[str, Any] = {"lam": lam, "l2": 1.9, "n_train": 40}
    loss, grads, buffers, _ = network.evaluate(x, LABELS, noise, **weighing)

    stages = twin(network, noise, mp.mpf, training=True)
    exact_x, exact_lam = naive.convert(x.tolist(), mp.mpf), [mp.mpf(v) for v in lam]
    names = {name: tuple(name.split(".")) for name in network.params}
    points = {name: getattr(stages[int(i)], attribute) for name, (i, attribute) in names.items()}

    def objective(x: Any = exact_x, **changed: Any) -> dict[str, Any]:
        moved = list(stages)
        for name, value in changed.items():
            i, attribute = names[name]
            moved[int(i)] = moved[int(i)]._replace(**{attribute: value})
        return naive_convnet.objective(moved, x, LABELS, exact_lam, mp.mpf(1.9), 40, mp,
                                       **wiring, **EXACT_HYPER)  # fmt: skip

    exact = objective()
    for part, value in exact.items():
        assert abs(getattr(loss, part) - value) <= 100 * EPS * (abs(value) + exact["total"]), part

    slopes = naive.gradients(lambda **a: objective(**{**points, **a})["total"], points,
                             mp.mpf("1e-20"))  # fmt: skip
    assert grads.keys() == network.params.keys()
    for name, d in grads.items():
        expected = np.array([float(v) for v in slopes[name]])
        # Some fifty operations deep, through the 1/std of a batch of a dozen values.
        atol = 1000 * EPS * max(np.abs(expected).max(), 0.1)
        np.testing.assert_allclose(d.ravel(), expected, rtol=0, atol=atol, err_msg=name)
        assert np.abs(expected).max() > 1e-6

    # Pull dlogits back to x, for a few of its numbers.
    logits, residuals = network.forward(x, noise)
    _, ce = ops.softmax_cross_entropy(logits, LABELS)
    dx, _ = network.backward(ops.softmax_cross_entropy_vjp(1.0, ce), residuals)
    assert dx.shape == x.shape
    h = mp.mpf("1e-20")
    for place in ((0, 0, 0, 0), (1, 1, 3, 2), (2, 0, 1, 1), (3, 1, 2, 0), (3, 0, 3, 1)):
        up, down = (objective(naive.moved(exact_x, place, s))["total"] for s in (h, -h))
        np.testing.assert_allclose(dx[place], float((up - down) / (2 * h)), rtol=0, atol=1e-13)

    assert buffers.keys() == network.buffers.keys()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", KINDS)
def test_predict_is_eq_13_by_loops(kind: str, backend: str) -> None:
    """And by the running statistics: no example depends on the others in its batch."""
    network, wiring = small_network(kind)
    network = network.with_backend(backend)
    x = np.random.default_rng(24).normal(size=(5, 2, 4, 3))
    stages = twin(network, None, float, training=False)
    expected = naive_convnet.logits(stages, x.tolist(), **wiring, **HYPER)
    for batch_size in (1, 2, 5):
        got = network.predict(x, batch_size=batch_size)
        np.testing.assert_allclose(got, expected, rtol=0, atol=200 * EPS)
    shapes = network.shapes(x.shape)
    assert shapes[0] == x.shape
    assert shapes[-1] == (5, 3)


# --- wiring ---


def test_a_residual_graph_is_its_composition_by_hand() -> None:
    """d = c(b(a(x)) + a(x)) + x, where a is taken twice, and the derivative of every piece."""
    rng = np.random.default_rng(25)
    a, b, c = (Dense(rng.normal(size=(3, 3)), rng.normal(size=3)) for _ in range(3))
    network = Network([a, Tanh(), b, Tanh(), c], skips={3: 1, 4: INPUT})
    x, dy = rng.normal(size=(2, 5, 3))
    freeze(x, dy)
    y, residuals = network.forward(x)
    (wa, ba), (wb, bb), (wc, bc) = (layer.params.values() for layer in (a, b, c))
    first = np.tanh(x @ wa + ba)
    second = np.tanh(first @ wb + bb)
    inner = second + first
    np.testing.assert_allclose(y, inner @ wc + bc + x, rtol=0, atol=1e-14)

    dx, grads = network.backward(dy, residuals)
    d_inner = dy @ wc.T
    d_second = d_inner * (1 - second**2)
    d_first = (d_second @ wb.T + d_inner) * (1 - first**2)
    expected = {
        "0.weight": x.T @ d_first, "0.bias": d_first.sum(axis=0),
        "2.weight": first.T @ d_second, "2.bias": d_second.sum(axis=0),
        "4.weight": inner.T @ dy, "4.bias": dy.sum(axis=0),
    }  # fmt: skip
    np.testing.assert_allclose(dx, d_first @ wa.T + dy, rtol=0, atol=1e-13)
    assert list(grads) == list(network.params) == list(expected)
    for name, d in expected.items():
        np.testing.assert_allclose(grads[name], d, rtol=0, atol=1e-13, err_msg=name)


def test_a_source_replaces_the_layer_before() -> None:
    """Two branches from one layer; the one goes on, the other is added to it later."""
    rng = np.random.default_rng(26)
    a, b, c = (Dense(rng.normal(size=s), rng.normal(size=s[1])) for s in ((3, 2), (2, 4), (2, 4)))
    network = Network([a, b, c], sources={2: 0}, skips={2: 1})
    x, dy = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    (wa, ba), (wb, bb), (wc, bc) = (layer.params.values() for layer in (a, b, c))
    hidden = x @ wa + ba
    y, residuals = network.forward(x)
    np.testing.assert_allclose(y, hidden @ wb + bb + hidden @ wc + bc, rtol=0, atol=1e-14)
    dx, grads = network.backward(dy, residuals)
    d_hidden = dy @ wb.T + dy @ wc.T
    np.testing.assert_allclose(dx, d_hidden @ wa.T, rtol=0, atol=1e-13)
    np.testing.assert_allclose(grads["0.weight"], x.T @ d_hidden, rtol=0, atol=1e-13)
    np.testing.assert_allclose(grads["1.weight"], hidden.T @ dy, rtol=0, atol=1e-13)
    np.testing.assert_allclose(grads["2.weight"], hidden.T @ dy, rtol=0, atol=1e-13)
    assert network.shapes((5, 3)) == [(5, 3), (5, 2), (5, 2), (5, 4)]


@pytest.mark.parametrize(
    ("wiring", "message"),
    [
        ({"sources": {1: 1}}, r"layer 1 of 3 must take from one before it, got 1"),
        ({"sources": {1: 2}}, r"layer 1 of 3 .*got 2"),
        ({"sources": {0: -2}}, r"layer 0 of 3 .*got -2"),
        ({"sources": {3: 1}}, r"layer 3 of 3 .*got 1"),
        ({"sources": {-1: -1}}, r"layer -1 of 3 .*got -1"),
        ({"skips": {1: 1}}, r"layer 1 of 3 .*got 1"),
        ({"skips": {0: 2}}, r"layer 0 of 3 .*got 2"),
        ({"skips": {2: -2}}, r"layer 2 of 3 .*got -2"),
        ({"skips": {3: 0}}, r"layer 3 of 3 .*got 0"),
        ({"sources": {2: 0}}, r"output of layer 1 must go somewhere"),
        ({"sources": {1: INPUT}}, r"output of layer 0 must go somewhere"),
    ],
)
def test_wiring_that_cannot_be_is_refused(wiring: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network([ReLU(), Tanh(), ReLU()], input_shape=(3,), **wiring)


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="layers must hold at least one, got none"):
        Network([])


def test_a_skip_between_maps_of_different_shapes_is_refused() -> None:
    network = Network([ReLU(), MaxPool2d(2)], input_shape=(1, 4, 4), skips={1: 0})
    with pytest.raises(ValueError, match=r"shape"):
        network.forward(np.ones((2, 1, 4, 4)))


def test_input_shape_must_be_given_to_a_network_of_maps() -> None:
    conv = Conv2d(np.ones((1, 1, 2, 2)))
    with pytest.raises(ValueError, match="input_shape must be given"):
        _ = Network([conv]).input_shape
    assert Network([conv], input_shape=(1, 3, 4)).input_shape == (1, 3, 4)
    assert MLP((4, 3)).input_shape == (4,)


# --- running statistics ---


def test_evaluate_changes_nothing_and_says_what_the_statistics_become() -> None:
    network = scattered(WideResNet(10, 1, image_shape=(3, 8, 8), dtype=np.float64), 31)
    x = np.random.default_rng(32).uniform(size=(4, 3, 8, 8))
    noise = noise_for(network, x, 33)
    freeze(x, *network.params.values(), *network.buffers.values(), *noise.values())
    before = {n: a.copy() for n, a in (network.params | network.buffers).items()}
    first = network.evaluate(x, LABELS, noise, lam=[0.1], l2=0.2, n_train=50)
    again = network.evaluate(x, LABELS, noise, lam=[0.1], l2=0.2, n_train=50)
    assert first.loss == again.loss
    for name, value in (network.params | network.buffers).items():
        np.testing.assert_array_equal(value, before[name])
    assert first.buffers.keys() == network.buffers.keys()
    for name, value in first.buffers.items():
        np.testing.assert_array_equal(value, again.buffers[name])
        assert (value != before[name]).any()
        assert value.shape == before[name].shape
    # The first batch norm sees the first convolution of x, and no gate.
    maps = network.layers[0].forward(x, None)[0]
    expected = 0.9 * before["1.running_mean"] + 0.1 * maps.mean(axis=(0, 2, 3))
    np.testing.assert_allclose(first.buffers["1.running_mean"], expected, rtol=1e-13, atol=1e-15)
    expected = 0.9 * before["1.running_var"] + 0.1 * maps.var(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(first.buffers["1.running_var"], expected, rtol=1e-13)

    for array in network.buffers.values():
        array.flags.writeable = True
    at_first = network.predict(x)
    own = network.buffers
    network.set_buffers(first.buffers)
    for name, value in first.buffers.items():
        np.testing.assert_array_equal(network.buffers[name], value)
        assert network.buffers[name] is own[name]
    assert (network.predict(x) != at_first).any()
    changed = network.evaluate(x, LABELS, noise, lam=[0.1], l2=0.2, n_train=50)
    assert changed.loss == first.loss  # in training the running statistics are not read


def test_with_params_takes_buffers_too() -> None:
    network, _ = small_network("residual")
    x = np.random.default_rng(34).normal(size=(4, 2, 4, 3))
    before = network.predict(x)
    buffers = {n: a + 1 for n, a in network.buffers.items()}
    other = network.with_params(network.params, buffers)
    assert all(other.buffers[n] is a for n, a in buffers.items())
    assert all(other.params[n] is a for n, a in network.params.items())
    assert (other.predict(x) != before).any()
    np.testing.assert_array_equal(network.predict(x), before)
    same = network.with_params(network.params)
    assert all(same.buffers[n] is a for n, a in network.buffers.items())
    np.testing.assert_array_equal(same.predict(x), before)
    assert other.sources == network.sources
    assert other.skips == network.skips
    assert other.input_shape == (2, 4, 3)


def test_with_params_refuses_other_buffers() -> None:
    network, _ = small_network("residual")
    buffers = network.buffers
    missing = {n: a for n, a in buffers.items() if n != "4.running_var"}
    with pytest.raises(ValueError, match=r"buffers .*'4.running_var'.*got"):
        network.with_params(network.params, missing)
    with pytest.raises(ValueError, match=r"buffers\['4.running_var'\] .*\(3,\), got \(2,\)"):
        network.with_params(network.params, buffers | {"4.running_var": np.ones(2)})


# --- whole architectures, against differences of their own objective ---

# Each term is near 1: a greater one would bury the others in its rounding.
WEIGHING: dict[str, Any] = {"lam": [0.1], "l2": 60.0, "n_train": 60_000}


def objective(network: Network, x: Any, labels: Any, noise: Any) -> tuple[float, list[Any]]:
    """Return the objective by its forward part alone, and on which side of every kink it is."""
    logits, residuals = network.forward(x, noise)
    data, _ = ops.softmax_cross_entropy(logits, labels)
    l0_term, l2_term, _ = network.penalties(**WEIGHING)
    sides = []
    for layer, r in zip(network.layers, residuals, strict=True):
        if isinstance(layer, ReLU):
            sides.append(r)
        elif isinstance(layer, MaxPool2d):
            sides.append(r.winner)
        elif getattr(layer, "gates", None) is not None:
            sides.append(np.where(r.slope == 0, r.z, 0.5))  # 0, 1, or between
    return float(data) + l0_term + l2_term, sides


def assert_slope(f: Any, expected: float, steps: Any, what: str, clear: bool) -> None:
    """Compare with (8 (f_1 - f_-1) - (f_2 - f_-2)) / 12 h, whose error is h^4 f^(5) / 30.

    h is the first of `steps` at which all five points lie on one side of every kink: there the
    objective is analytic. What rounding makes of the difference is known, an eps f / h or so, and
    is itself below a millionth where `clear`.
    """
    value, sides = f(0.0)
    for h in steps:
        ends = {k: f(k * h) for k in (1, -1, 2, -2)}
        if all(np.array_equal(a, b) for _, other in ends.values()
               for a, b in zip(sides, other, strict=True)):  # fmt: skip
            break
    else:
        raise AssertionError(f"{what}: a kink within {2 * steps[-1]}")
    values = {k: end for k, (end, _) in ends.items()}
    slope = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h)
    rounding = 4 * EPS * abs(value) / h
    assert not clear or rounding <= 1e-6 * abs(expected), (what, rounding, expected)
    assert abs(slope - expected) <= 1e-6 * abs(expected) + rounding, (what, slope, expected, h)


def check_gradient(
    network: Network, n: int, *, n_directions: int, n_entries: int, longest: float
) -> None:
    """In random directions of all arrays together, and in single entries of every array."""
    rng = np.random.default_rng(41)
    x = rng.uniform(size=(n, *network.input_shape))
    labels = rng.integers(10, size=n)
    noise = noise_for(network, x, 42)
    params = network.params
    freeze(x, *params.values(), *network.buffers.values(), *noise.values())
    _, grads = network.loss_and_grads(x, labels, noise, **WEIGHING)
    assert grads.keys() == params.keys()

    def along(direction: dict[str, Any]) -> Any:
        def f(t: float) -> tuple[float, list[Any]]:
            moved = {name: params[name] + t * d for name, d in direction.items()}
            return objective(network.with_params(params | moved), x, labels, noise)

        return f

    for k in range(n_directions):
        d = {name: rng.normal(size=a.shape) * np.abs(a).mean() for name, a in params.items()}
        expected = sum(float((d[name] * grads[name]).sum()) for name in params)
        assert abs(expected) > 1e-3
        assert_slope(along(d), expected, (1e-6, 1e-7, 1e-8), f"direction {k}", True)
    for name, grad in grads.items():
        large = np.flatnonzero(np.abs(grad) >= 0.3 * np.abs(grad).max())
        for k in range(n_entries):  # one where rounding hides nothing, then any
            chosen = rng.choice(large) if k == 0 else rng.integers(grad.size)
            place = np.unravel_index(chosen, grad.shape)
            one = np.zeros_like(grad)
            one[place] = 1.0
            what = f"{name}{tuple(map(int, place))}"
            steps = [longest / 10**power for power in range(4)]
            assert_slope(along({name: one}), float(grad[place]), steps, what, k == 0)


LENET_OPTIONS: dict[str, dict[str, Any]] = {
    "gates take the bias": {"gates_bias": True},
    "bias stays": {"gates_bias": False, "activation": "tanh", "normalisation": ([0.3], [0.4])},
    "gates on weights": {"gates": "weight"},
    "a draw an example": {"per_example": True, "dropout": 0.3},
    "no gates": {"gates": "none", "activation": "tanh"},
}


@pytest.mark.parametrize("kind", LENET_OPTIONS)
def test_the_gradient_of_a_whole_lenet5(kind: str) -> None:
    options = LENET_OPTIONS[kind]
    network = LeNet5(image_shape=(1, 17, 16), dtype=np.float64, **HYPER, **options)
    check_gradient(scattered(network, 43), 3, n_directions=2, n_entries=2, longest=1e-3)


def test_the_gradient_of_lenet5_at_its_real_size() -> None:
    network = LeNet5(dtype=np.float64)
    check_gradient(scattered(network, 44), 2, n_directions=2, n_entries=1, longest=1e-3)


WRN_OPTIONS: dict[str, dict[str, Any]] = {
    "gates on maps": {"normalisation": ([0.3, 0.5, 0.6], [0.2, 0.3, 0.4])},
    "gates on weights": {"gates": "weight", "dropout": 0.3},
    "a draw an example": {"per_example": True},
}


@pytest.mark.parametrize("kind", WRN_OPTIONS)
def test_the_gradient_of_a_whole_wide_resnet(kind: str) -> None:
    options = WRN_OPTIONS[kind]
    network = WideResNet(10, 1, image_shape=(3, 8, 12), dtype=np.float64, **HYPER, **options)
    # Where a gate is nearly closed batch norm divides by little, and the objective bends sooner.
    check_gradient(scattered(network, 45), 2, n_directions=2, n_entries=1, longest=1e-4)


def test_the_gradient_of_a_wide_resnet_at_its_real_size() -> None:
    network = WideResNet(10, 1, dtype=np.float64)
    check_gradient(scattered(network, 46), 2, n_directions=2, n_entries=0, longest=1e-4)


# --- the architectures as they start ---


def count(network: Network) -> int:
    return sum(a.size for name, a in network.params.items() if not name.endswith("log_alpha"))


def test_lenet5_has_the_papers_layers_and_gates() -> None:
    network = LeNet5()
    kinds = [Conv2d, ReLU, MaxPool2d] * 2 + [Flatten, Dense, ReLU, Dense]
    assert [type(layer) for layer in network.layers] == kinds
    assert [gates.shape for _, _, gates in network.gated] == [(20,), (50,), (800,), (500,)]
    sizes = [np.unique(gates.group_size).tolist() for _, _, gates in network.gated]
    assert sizes == [[26], [501], [500], [10]]
    assert count(network) == 431_080 == 20 * 26 + 50 * 501 + 801 * 500 + 501 * 10
    assert network.site_names == ["conv 1", "conv 2", "dense 1", "dense 2"]
    maps = [shape[1:] for shape in network.shapes((3, 1, 28, 28))]
    assert maps[0] == (1, 28, 28)
    assert maps[1] == maps[2] == (20, 24, 24)
    assert maps[3] == (20, 12, 12)
    assert maps[4] == maps[5] == (50, 8, 8)
    assert maps[6] == (50, 4, 4)
    assert maps[7:] == [(800,), (500,), (500,), (10,)]
    assert network.forward(np.zeros((2, 1, 28, 28), np.float32))[0].shape == (2, 10)
    free = LeNet5(gates_bias=False)
    assert [np.unique(g.group_size).tolist() for _, _, g in free.gated] == [
        [25],
        [500],
        [500],
        [10],
    ]
    assert [g.gates_bias for _, _, g in network.gated] == [True, True, False, False]


def assert_standard_normal(values: Any, what: str) -> None:
    """Mean and standard deviation within 5 standard errors: 1e-6 that chance fails one."""
    n = values.size
    assert abs(values.mean()) < 5 / np.sqrt(n), what
    assert abs(values.std() - 1) < 5 / np.sqrt(2 * n), what


def test_lenet5_starts_as_the_paper_has_it() -> None:
    """Weights N(0, 2 / fan-in), biases 0, log_alpha N(logit of the keep rate, 0.01^2)."""
    rates = (0.1, 0.5, 0.2, 0.7)
    network = LeNet5(drop_rates=rates, noise=Noise(5), dtype=np.float64)
    firsts = []
    for (i, layer, _), fan_in, drop in zip(network.gated, (25, 500, 800, 500), rates, strict=True):
        scaled = layer.params["weight"] / np.sqrt(2 / fan_in)
        assert_standard_normal(scaled, f"{i}.weight")
        firsts.append(scaled.ravel()[:500])
        assert (layer.params["bias"] == 0).all()
        jitter = (layer.params["log_alpha"] - np.log((1 - drop) / drop)) / 0.01
        assert_standard_normal(jitter, f"{i}.log_alpha")
    apart = np.corrcoef(firsts)[np.triu_indices(4, 1)]
    assert np.abs(apart).max() < 5 / np.sqrt(500)  # each layer has draws of its own
    default = LeNet5(dtype=np.float64)
    for _, layer, _ in default.gated:
        jitter = layer.params["log_alpha"] / 0.01
        assert_standard_normal(jitter, "log_alpha at a drop rate of 0.5")


def test_lenet5_options_reach_the_layers() -> None:
    network = LeNet5(7, image_shape=(3, 20, 17), gates="weight", activation="tanh", dropout=0.25,
                     normalisation=([1, 2, 3], [4, 5, 6]), per_example=True, **HYPER)  # fmt: skip
    kinds = [Normalize, *[Conv2d, Tanh, MaxPool2d] * 2, Flatten, Dense, Tanh, Dropout, Dense]
    assert [type(layer) for layer in network.layers] == kinds
    assert all(g.shape == layer.params["weight"].shape for _, layer, g in network.gated)
    assert all(layer.per_example for _, layer, _ in network.gated)
    assert all(g.hyperparameters == HYPER for _, _, g in network.gated)
    assert network.site_names == ["conv 1", "conv 2", "dense 1", "dense 2"]
    x = np.random.default_rng(51).uniform(size=(2, 3, 20, 17)).astype(np.float32)
    logits, _ = network.forward(x, noise_for(network, x, 52))
    assert logits.shape == (2, 7)
    assert logits.dtype == network.predict(x).dtype == np.float32
    assert not LeNet5(gates="none").gated


@cache
def wrn_28_10() -> WideResNet:
    return WideResNet(28, 10)


def test_wrn_28_10_has_the_published_number_of_parameters() -> None:
    """36.5 M (S. Zagoruyko, N. Komodakis, 2016, table 4), here by hand: 36,479,194."""
    network = wrn_28_10()
    expected, channels = 3 * 16 * 9, 16
    for maps in (160, 320, 640):
        for _ in range(4):
            expected += 2 * channels + channels * maps * 9 + 2 * maps + maps * maps * 9
            if channels != maps:
                expected += channels * maps  # the projection
            channels = maps
    expected += 2 * 640 + 640 * 10 + 10
    assert count(network) == expected == 36_479_194
    assert sum(a.size for a in network.buffers.values()) == 2 * sum(
        len(layer.params["weight"]) for layer in network.layers if isinstance(layer, BatchNorm)
    )


def test_wrn_28_10_is_gated_on_each_blocks_first_convolution() -> None:
    network = wrn_28_10()
    assert len(network.gated) == 12
    assert network.site_names == [f"block {k}" for k in range(1, 13)]
    widths = [16, *[160] * 4, *[320] * 4, *[640] * 4]
    sides = [32] * 4 + [16] * 4 + [8] * 4
    shapes = network.shapes((2, 3, 32, 32))
    assert shapes[1] == (2, 16, 32, 32)
    for block, (i, layer, gates) in enumerate(network.gated):
        c_in, maps, side = widths[block], widths[block + 1], sides[block]
        assert isinstance(layer, Conv2d)
        assert layer.params["weight"].shape == (maps, c_in, 3, 3)
        assert gates.shape == (maps,)
        assert (gates.group_size == 9 * c_in).all()
        assert not gates.gates_bias
        assert layer.stride == ((2, 2) if block in (4, 8) else (1, 1))
        assert shapes[i + 1] == (2, maps, side, side)
        mean = layer.params["log_alpha"].mean()
        assert abs(mean - np.log(0.7 / 0.3)) < 5 * 0.01 / np.sqrt(maps)

        # What follows: batch norm, rectifier, a 3x3 convolution without gates, and the sum.
        norm, relu, second = network.layers[i + 1 : i + 4]
        assert isinstance(norm, BatchNorm)
        assert isinstance(relu, ReLU)
        assert isinstance(second, Conv2d)
        assert second.gates is None
        assert second.params["weight"].shape == (maps, maps, 3, 3)
        # What comes before: batch norm and rectifier; where the maps change, a projection of them.
        activated = network.sources[i]
        assert isinstance(network.layers[activated], ReLU)
        assert isinstance(network.layers[activated - 1], BatchNorm)
        carried = network.skips[i + 3]
        if c_in != maps:
            projection = network.layers[carried]
            assert isinstance(projection, Conv2d)
            assert projection.gates is None
            assert projection.params["weight"].shape == (maps, c_in, 1, 1)
            assert projection.stride == layer.stride
            assert network.sources[carried] == activated
        else:
            assert carried == activated - 2 == network.sources[activated - 1]
    assert len(network.skips) == 12
    convolutions = [layer for layer in network.layers if isinstance(layer, Conv2d)]
    assert len(convolutions) == 1 + 2 * 12 + 3
    assert all("bias" not in layer.params for layer in convolutions)
    *_, pool, flatten, dense = network.layers
    assert isinstance(pool, AvgPool2d)
    assert pool.kernel_size == (8, 8)
    assert isinstance(flatten, Flatten)
    assert dense.params["weight"].shape == (640, 10)
    assert dense.gates is None


def test_a_wide_resnet_starts_as_he_has_it() -> None:
    network = WideResNet(16, 2, dtype=np.float64, noise=Noise(8))
    for name, array in network.params.items():
        if array.ndim == 4:
            assert_standard_normal(array / np.sqrt(2 / array[0].size), name)
        elif array.ndim == 2:
            assert_standard_normal(array / np.sqrt(2 / len(array)), name)
        elif name.endswith("log_alpha"):
            assert_standard_normal((array - np.log(0.7 / 0.3)) / 0.01, name)
        else:
            assert (array == (1.0 if name.endswith("weight") else 0.0)).all()
    for name, array in network.buffers.items():
        assert (array == (0.0 if name.endswith("mean") else 1.0)).all()
    assert len({id(a) for a in (network.params | network.buffers).values()}) == len(
        network.params | network.buffers
    )


@pytest.mark.parametrize("depth", [10, 16])
def test_wide_resnet_options_reach_the_layers(depth: int) -> None:
    n_blocks = 3 * (depth - 4) // 6
    network = WideResNet(depth, 1, 7, image_shape=(2, 8, 12), gates="weight", per_example=True,
                         drop_rates=(0.2, 0.6), dropout=0.25, normalisation=([0, 1], [2, 3]),
                         **HYPER)  # fmt: skip
    assert len(network.gated) == n_blocks
    assert isinstance(network.layers[0], Normalize)
    assert all(g.shape == layer.params["weight"].shape for _, layer, g in network.gated)
    assert all(layer.per_example for _, layer, _ in network.gated)
    keep = [1 / (1 + np.exp(-layer.params["log_alpha"].mean())) for _, layer, _ in network.gated]
    np.testing.assert_allclose(keep, [0.8] + [0.4] * (n_blocks - 1), rtol=0, atol=0.01)
    # Width 1: the first group keeps its 16 maps, so only the second and the third project.
    kernels = [layer.params["weight"].shape for _, layer in network.weighted]
    assert [k[:2] for k in kernels if k[2:] == (1, 1)] == [(32, 16), (64, 32)]
    for i, layer in enumerate(network.layers):
        if isinstance(layer, Dropout):
            assert isinstance(network.layers[i - 1], ReLU)
            assert i + 1 in network.skips
    assert sum(isinstance(layer, Dropout) for layer in network.layers) == n_blocks
    x = np.random.default_rng(53).uniform(size=(2, 2, 8, 12)).astype(np.float32)
    logits, _ = network.forward(x, noise_for(network, x, 54))
    assert logits.shape == (2, 7)
    assert logits.dtype == network.predict(x).dtype == np.float32


def test_lenet5_in_training_is_as_at_test_time_where_the_draw_is_eq_13() -> None:
    """u such that (logit u + log_alpha) / beta = log_alpha: one rule for the maps' biases."""
    for gates_bias in (True, False):
        network = LeNet5(image_shape=(1, 16, 17), gates_bias=gates_bias, dtype=np.float64, **HYPER)
        scattered(network, 55)
        u = {i: 1 / (1 + np.exp((1 - HYPER["beta"]) * layer.params["log_alpha"]))
             for i, layer, _ in network.gated}  # fmt: skip
        x = np.random.default_rng(56).uniform(size=(3, 1, 16, 17))
        logits, _ = network.forward(x, u)
        scale = np.abs(logits).max()
        np.testing.assert_allclose(logits, network.predict(x), rtol=0, atol=1000 * EPS * scale)
        assert not all(is_open.all() for is_open in network.open_gates())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeNet5(image_shape=(1, 15, 28)), r"kernel .*got"),
        (lambda: LeNet5(0), r"n_classes .*at least 1, got 0"),
        (lambda: LeNet5(gates="input"), r"gates .*'unit'.*got 'input'"),
        (lambda: LeNet5(activation="gelu"), r"activation .*got 'gelu'"),
        (lambda: LeNet5(drop_rates=(0.1, 0.2, 0.3)), r"drop_rates .*a layer \(4\), got"),
        (lambda: LeNet5(drop_rates=(1.0,)), r"drop_rate.*got 1.0"),
        (lambda: LeNet5(dropout=1.0), r"rate .*got 1.0"),
        (lambda: LeNet5(normalisation=([0.1], [0.0])), r"std .*positive"),
        (lambda: WideResNet(27, 1), r"depth .*6 n \+ 4.*got 27"),
        (lambda: WideResNet(4, 1), r"depth .*got 4"),
        (lambda: WideResNet(-2, 1), r"depth .*got -2"),
        (lambda: WideResNet(10, 0), r"width .*at least 1, got 0"),
        (lambda: WideResNet(10, 1, 0), r"n_classes .*got 0"),
        (lambda: WideResNet(10, 1, image_shape=(3, 30, 32)), r"image_shape .*divisible by 4"),
        (lambda: WideResNet(10, 1, image_shape=(3, 32)), r"image_shape .*got \(3, 32\)"),
        (lambda: WideResNet(10, 1, image_shape=(0, 32, 32)), r"image_shape .*got"),
        (lambda: WideResNet(10, 1, drop_rates=(0.3,) * 4), r"drop_rates .*\(3\), got"),
        (lambda: WideResNet(10, 1, gates="maps"), r"gates .*got 'maps'"),
    ],
)
def test_architectures_refuse(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- the path gradient of gated maps is unbiased ---

X = np.array([[[[0.9, -0.4, 0.3]]], [[[-1.3, 0.7, 1.1]]]])
Y = np.array([1, 0])


@cache
def two_gated_maps(gates_bias: bool) -> Network:
    """A 1 x 2 convolution to 2 gated maps of 1 x 2, tanh, a dense layer: X is 1 x 3."""
    rng = np.random.default_rng(61)
    gates = per_output((2, 1, 1, 2), axis=0, gates_bias=gates_bias, beta=0.7, gamma=-0.15, zeta=1.2)
    conv = Conv2d(rng.normal(size=(2, 1, 1, 2)), rng.normal(size=2), gates, np.array([-0.4, 0.6]),
                  per_example=True)  # fmt: skip
    dense = Dense(rng.normal(size=(4, 2)), rng.normal(size=2))
    return Network([conv, Tanh(), Flatten(), dense], input_shape=(1, 1, 3))


def grid(log_alpha: Any) -> tuple[Any, Any, Any]:
    """Return z and y = logit u, (M, 2), and weights, (M,), of the product of two gates."""
    axes = [axis(a, [], 24) for a in log_alpha]
    z, w, y = (np.stack([g.ravel() for g in np.meshgrid(*each, indexing="ij")], axis=1)
               for each in zip(*axes, strict=True))  # fmt: skip
    return z, w.prod(axis=1), y


def expected_loss(params: dict[str, Any], gates_bias: bool) -> Any:
    """Return the mean over the gates of the data loss, for real or complex parameters."""
    z, w, _ = grid(params["0.log_alpha"])
    kernel, bias = params["0.weight"][:, 0, 0], params["0.bias"]
    pairs = np.stack([X[:, 0, 0, :2], X[:, 0, 0, 1:]], axis=1)  # (N, place, element)
    maps = np.einsum("npe,oe->nop", pairs, kernel) * z[:, None, :, None]  # (M, N, map, place)
    maps = maps + (bias * (z[:, None] if gates_bias else 1 + 0 * z[:, None]))[..., None]
    logits = np.tanh(maps).reshape(len(z), len(X), 4) @ params["3.weight"] + params["3.bias"]
    nll = np.log(np.exp(logits).sum(axis=2)) - logits[:, np.arange(len(X)), Y]
    return (w * nll.mean(axis=1)).sum()


@cache
def exact_gradient(gates_bias: bool) -> dict[str, Any]:
    """By a complex step, Im f(theta + ih)/h."""
    params = two_gated_maps(gates_bias).params
    gradient = {}
    for name, array in params.items():
        gradient[name] = np.empty_like(array)
        for place in np.ndindex(array.shape):
            moved = {n: a.astype(complex) for n, a in params.items()}
            moved[name][place] += 1e-30j
            gradient[name][place] = expected_loss(moved, gates_bias).imag / 1e-30
    return gradient


@pytest.mark.parametrize("gates_bias", [True, False])
def test_the_integral_of_the_path_gradient_is_the_gradient(gates_bias: bool) -> None:
    """One example of the batch for each node of the quadrature and each example of X."""
    network = two_gated_maps(gates_bias)
    _, w, y = grid(network.params["0.log_alpha"])
    u = np.repeat(1 / (1 + np.exp(-y)), len(X), axis=0)
    logits, residuals = network.forward(np.tile(X, (len(w), 1, 1, 1)), {0: u})
    _, ce = ops.softmax_cross_entropy(logits, np.tile(Y, len(w)))
    each = ops.softmax_cross_entropy_vjp(float(len(logits)), ce)  # the derivative of the sum
    _, grads = network.backward(each * np.repeat(w, len(X))[:, None] / len(X), residuals)
    exact = exact_gradient(gates_bias)
    size = max(np.abs(d).max() for d in exact.values())
    for name, d in exact.items():
        np.testing.assert_allclose(grads[name], d, rtol=0, atol=1e-10 * size, err_msg=name)


@pytest.mark.parametrize("gates_bias", [True, False])
def test_the_mean_of_the_path_gradient_is_within_five_standard_errors(gates_bias: bool) -> None:
    network, rng = two_gated_maps(gates_bias), np.random.default_rng(62)
    rounds, repeats = 300, 20
    x, labels = np.tile(X, (repeats, 1, 1, 1)), np.tile(Y, repeats)
    samples: dict[str, list[Any]] = {name: [] for name in network.params}
    for _ in range(rounds):
        noise = {0: rng.uniform(size=(len(x), 2))}
        _, grads = network.loss_and_grads(x, labels, noise, lam=[0.0], n_train=1)
        for name, d in grads.items():
            samples[name].append(d)
    for name, exact in exact_gradient(gates_bias).items():
        values = np.array(samples[name])
        error = values.std(axis=0, ddof=1) / np.sqrt(rounds)
        assert (np.abs(values.mean(axis=0) - exact) < 5 * error + 1e-12).all(), name


def test_statistics_gathered_anew_are_those_under_the_gates_of_eq_13() -> None:
    """Each batch the same weight, biased variance made unbiased, and nothing else moved."""
    network = WideResNet(10, 1, image_shape=(2, 8, 8), dtype=np.float64)
    rng = np.random.default_rng(11)
    for _, layer, _ in network.gated:
        alpha = layer.params["log_alpha"]
        alpha[:] = rng.normal(0, 3, alpha.shape)
    before = {name: a.copy() for name, a in (network.params | network.buffers).items()}
    batches = [rng.normal(size=(n, 2, 8, 8)) for n in (5, 3)]
    again = network.with_statistics(batches)
    for name, value in (network.params | network.buffers).items():
        np.testing.assert_array_equal(value, before[name])
        if name in network.params:
            assert again.params[name] is value
    # The stem's batch norm by hand: its input has no gates before it.
    maps = [network.layers[0].forward(x, None)[0] for x in batches]
    mean = np.mean([m.mean(axis=(0, 2, 3)) for m in maps], axis=0)
    var = np.mean([m.var(axis=(0, 2, 3), ddof=1) for m in maps], axis=0)
    np.testing.assert_allclose(again.buffers["1.running_mean"], mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(again.buffers["1.running_var"], var, rtol=1e-12)
    # Behind closed maps there is 0, in every batch: mean and variance 0.
    (i, _, _) = network.gated[0]
    closed = ~network.open_gates()[0]
    assert closed.any()
    assert not again.buffers[f"{i + 1}.running_mean"][closed].any()
    assert not again.buffers[f"{i + 1}.running_var"][closed].any()
