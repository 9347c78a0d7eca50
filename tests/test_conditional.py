"""What closed gates leave out changes nothing: against the whole network, and the reference.

The three ways to the loss and its gradient are the packed one, the one that leaves nothing out, and
`Network.forward` and `backward`, which know of neither. They add up the same terms, without the
zeros, in other orders: some hundred operations deep, each to an eps of the greatest gradient.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l0ref import backends, conditional, ops
from l0ref.conditional import Packing, Pass
from l0ref.gates import Gates, by_label, per_input, per_output, per_weight
from l0ref.jit._compile import Kernel
from l0ref.layers import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2d,
    Normalize,
    ReLU,
    Select,
    Tanh,
)
from l0ref.network import INPUT, Network
from l0ref.networks import MLP, LeNet5, WideResNet

HYPER: dict[str, float] = {"beta": 0.5, "gamma": -0.2, "zeta": 1.3}
EPS = np.finfo(np.float64).eps
CLOSED = -60.0  # log_alpha of a gate that no u opens
both_backends = pytest.mark.parametrize("backend", ["numpy", "numba"])


@pytest.fixture(autouse=True)
def always_pack(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(conditional, "WORTH", 0)
    monkeypatch.setattr(conditional, "ENOUGH", 0)
    with backends.load("numba").exclusive():
        yield


# --- random networks ---


class Builder:
    """Puts a network together by what Hypothesis draws."""

    def __init__(self, draw: st.DrawFn, shape: tuple[int, ...]) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 999)))
        self.layers: list[Layer] = []
        self.shapes = {INPUT: shape}  # of one example, at each layer's output
        self.sources: dict[int, int] = {}
        self.skips: dict[int, int] = {}
        self.openness = draw(st.sampled_from(["none", "one", "some", "some", "some", "all"]))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[len(self.layers) - 1]

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(1, 100)) <= percent

    def add(self, layer: Layer) -> None:
        i = len(self.layers)
        source = self.shapes[self.sources.get(i, i - 1)]
        self.shapes[i] = layer.output_shape((1, *source))[1:]
        self.layers.append(layer)
        alike = [j for j in range(INPUT, i) if self.shapes[j] == self.shapes[i]]
        if i not in self.skips and alike and self.chance(25):
            self.skips[i] = self.draw(st.sampled_from(alike))

    def log_alpha(self, gates: Gates) -> Any:
        values = self.rng.normal(1, 1.5, size=gates.shape)
        if self.openness == "all":
            return np.abs(values) + 8
        closed = np.ones(values.size, bool)
        if self.openness == "one":
            closed[self.rng.integers(values.size)] = False
        elif self.openness == "some":
            closed = self.rng.uniform(size=values.size) < 0.5
        values.ravel()[closed] = CLOSED
        return values

    def gated(self, kinds: dict[str, Any]) -> tuple[Any, Any, bool]:
        kind = self.draw(st.sampled_from([None, *kinds, *kinds]))
        if kind is None:
            return None, None, False
        gates = kinds[kind]()
        return gates, self.log_alpha(gates), self.chance(25)

    def labels(self, shape: tuple[int, ...]) -> Gates:
        n = math.prod(shape)
        labels = np.arange(n) % min(3, n)
        return by_label(self.rng.permutation(labels).reshape(shape), **HYPER)

    def dense(self, d_out: int, d_in: int | None = None) -> Dense:
        shape = (self.shape[0] if d_in is None else d_in, d_out)
        gates, log_alpha, per_example = self.gated({
            "inputs": lambda: per_input(shape, **HYPER),
            "outputs": lambda: per_output(shape, **HYPER),
            "outputs, bias": lambda: per_output(shape, gates_bias=True, **HYPER),
            "weights": lambda: per_weight(shape, **HYPER),
            "labels": lambda: self.labels(shape),
        })  # fmt: skip
        weight = self.rng.normal(size=shape) / np.sqrt(shape[0])
        bias = self.rng.normal(size=d_out)
        return Dense(weight, bias, gates, log_alpha, per_example=per_example)

    def conv(self, maps: int) -> Conv2d:
        c, h, w = self.shape
        groups = c if self.chance(15) else 1
        kernel = (self.draw(st.integers(1, min(h, 3))), self.draw(st.integers(1, min(w, 2))))
        shape = (maps * groups, c // groups, *kernel)
        has_bias = self.chance(70)
        gates, log_alpha, per_example = self.gated({
            "outputs": lambda: per_output(shape, axis=0, **HYPER),
            "outputs, bias": lambda: per_output(shape, axis=0, gates_bias=has_bias, **HYPER),
            "inputs": lambda: per_input(shape, axis=1, **HYPER),
            "weights": lambda: per_weight(shape, **HYPER),
            "labels": lambda: self.labels(shape),
        })  # fmt: skip
        weight = self.rng.normal(size=shape) / np.sqrt(math.prod(shape[1:]))
        bias = self.rng.normal(size=shape[0]) if has_bias else None
        options: dict[str, Any] = {"padding": (self.draw(st.integers(0, 1)), 0), "groups": groups}
        if self.chance(20):
            options["stride"] = (2, 1)
        return Conv2d(weight, bias, gates, log_alpha, per_example=per_example, **options)

    def batch_norm(self) -> BatchNorm:
        c, rng = self.shape[0], self.rng
        # A closed map has the variance 0: every such layer grows a rounding by 1 / sqrt(eps).
        return BatchNorm(rng.normal(size=c), rng.normal(size=c), rng.normal(size=c),
                         rng.uniform(0.5, 2, size=c), eps=0.1)  # fmt: skip

    def between(self) -> None:
        """Add what stands between layers with weights: nothing, or some of it."""
        maps = len(self.shape) == 3
        if maps and self.chance(25):
            self.add(self.batch_norm())
        choice = self.draw(st.sampled_from(["relu", "relu", "tanh", "none"]))
        if choice != "none":
            self.add(ReLU() if choice == "relu" else Tanh())
        if maps and min(self.shape[1:]) >= 2 and self.chance(60):
            pool = MaxPool2d if self.chance(70) else AvgPool2d
            self.add(pool((2, 2), stride=self.draw(st.sampled_from([None, (2, 1)]))))
        if self.chance(20):
            self.add(Dropout(0.4))
        if self.chance(8):
            self.add(Select(self.rng.permutation(self.shape[0])))

    def branch(self) -> None:
        """Add a dense layer that takes from anywhere, and to which what came last is added."""
        i = len(self.layers)
        flat = [j for j in range(INPUT, i) if len(self.shapes[j]) == 1]
        if len(self.shape) == 1 and flat and self.chance(30):
            self.sources[i] = self.draw(st.sampled_from(flat))
            self.skips[i] = i - 1
            self.add(self.dense(self.shape[0], self.shapes[self.sources[i]][0]))

    def network(self) -> Network:
        return Network(self.layers, sources=self.sources, skips=self.skips,
                       input_shape=self.shapes[INPUT])  # fmt: skip


@st.composite
def dense_chains(draw: st.DrawFn) -> Network:
    builder = Builder(draw, (draw(st.integers(2, 6)),))
    for _ in range(draw(st.integers(1, 3))):
        builder.add(builder.dense(draw(st.integers(1, 6))))
        builder.between()
        builder.branch()
    builder.add(builder.dense(3))
    return builder.network()


@st.composite
def convolutional(draw: st.DrawFn) -> Network:
    builder = Builder(draw, (draw(st.integers(1, 3)), 6, 5))
    if builder.chance(20):
        builder.add(Normalize([0.1] * builder.shape[0], [0.7] * builder.shape[0]))
    for _ in range(draw(st.integers(1, 3))):
        builder.add(builder.conv(draw(st.integers(1, 5))))
        builder.between()
    builder.add(Flatten())
    if builder.chance(50):
        builder.add(builder.dense(draw(st.integers(1, 6))))
        builder.between()
        builder.branch()
    builder.add(builder.dense(3))
    return builder.network()


def noise_for(network: Network, x: Any, rng: Any) -> dict[int, Any]:
    return {i: rng.uniform(size=shape) for i, shape in network.noise_shapes(x.shape).items()}


def by_reference(network: Network, x: Any, labels: Any, noise: Any) -> tuple[float, Any]:
    """Data loss and its gradient, by `forward` and `backward`."""
    logits, residuals = network.forward(x, noise)
    loss, ce = ops.softmax_cross_entropy(logits, labels)
    return float(loss), network.backward(ops.softmax_cross_entropy_vjp(1.0, ce), residuals)[1]


WEIGHING: dict[str, Any] = {"lam": [0.7], "l2": 0.3, "n_train": 11}
NO_PENALTY: dict[str, Any] = {"lam": [0.0], "n_train": 11}


def check(network: Network, x: Any, seed: int, multiple: float = 300) -> Any:
    """Hold the three ways against each other, on both backends; return the packed gradients."""
    rng = np.random.default_rng(seed)
    noise, labels = noise_for(network, x, rng), rng.integers(0, 3, size=len(x))
    given_arrays = [x, *network.params.values(), *network.buffers.values(), *noise.values()]
    before = [np.copy(a) for a in given_arrays]
    data, exact = by_reference(network, x, labels, noise)
    size = max(1.0, *(np.abs(g).max(initial=0) for g in exact.values()))
    atol = multiple * EPS * size
    for name in backends.BACKENDS:
        own = network.with_backend(name)
        packed = own.evaluate(x, labels, noise, **NO_PENALTY)
        whole = own.evaluate(x, labels, noise, **NO_PENALTY, dense=True)
        assert packed.loss.total == pytest.approx(data, rel=multiple * EPS, abs=multiple * EPS)
        assert packed.grads.keys() == exact.keys()
        for key, g in exact.items():
            got, unpacked = packed.grads[key], whole.grads[key]
            assert got.shape == g.shape
            assert got.dtype == g.dtype
            np.testing.assert_allclose(got, g, rtol=0, atol=atol, err_msg=f"{name} {key}")
            np.testing.assert_allclose(got, unpacked, rtol=0, atol=atol, err_msg=f"{name} {key}")
            if not network.buffers:  # batch norm's derivatives cancel, or do but for a rounding
                assert (got[unpacked == 0] == 0).all(), key
        assert_exact_zeros(own, packed)
        for i, z in whole.gates.items():
            np.testing.assert_array_equal(packed.gates[i], z)
        assert packed.buffers.keys() == network.buffers.keys()
        for key, b in whole.buffers.items():
            np.testing.assert_allclose(packed.buffers[key], b, rtol=multiple * EPS, atol=atol)
        # With both penalties, which packing has nothing to do with.
        both = [own.evaluate(x, labels, noise, **WEIGHING, dense=d) for d in (False, True)]
        np.testing.assert_allclose(both[0].loss, both[1].loss, rtol=multiple * EPS, atol=atol)
        for key, g in both[1].grads.items():
            np.testing.assert_allclose(both[0].grads[key], g, rtol=0, atol=atol, err_msg=key)
    for a, b in zip(given_arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
    return packed


def assert_exact_zeros(network: Network, evaluation: Any) -> None:
    """What a closed gate owns has no derivative at all, and neither has its log_alpha."""
    for i, layer, gates in network.gated:
        z = evaluation.gates[i]
        closed = (z == 0) if z.ndim == len(gates.shape) else (z == 0).all(axis=0)
        weight = np.broadcast_to(gates.expand(closed.astype(float)), gates.weight_shape) != 0
        assert (evaluation.grads[f"{i}.weight"][weight] == 0).all()
        assert (evaluation.grads[f"{i}.log_alpha"][closed] == 0).all()
        if gates.gates_bias and "bias" in layer.params:
            assert (evaluation.grads[f"{i}.bias"][closed] == 0).all()


@settings(max_examples=120)
@given(network=dense_chains(), n=st.integers(1, 7), seed=st.integers(0, 99))
def test_dense_networks(network: Network, n: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, *network.input_shape))
    check(network, x, seed)


@settings(max_examples=60)
@given(network=dense_chains(), n=st.integers(1, 7), seed=st.integers(0, 99))
def test_dense_networks_whose_examples_read_their_own_rows(
    network: Network, n: int, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=(n, *network.input_shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditional, "OPEN_SHARE", 1.0)
        check(network, x, seed)


@settings(max_examples=120)
@given(network=convolutional(), n=st.integers(1, 4), seed=st.integers(0, 99))
def test_convolutional_networks(network: Network, n: int, seed: int) -> None:
    n += bool(network.buffers)  # batch norm wants two values, and a map may be one pixel
    x = np.random.default_rng(seed).normal(size=(n, *network.input_shape))
    check(network, x, seed)


# --- the architectures ---


def scattered(network: Network, seed: int, closed: float = 0.5) -> Network:
    """Close a share of the gates, for every draw, and leave the others undecided."""
    rng = np.random.default_rng(seed)
    for _, layer, gates in network.gated:
        shut = rng.uniform(size=gates.shape) < closed
        layer.params["log_alpha"][...] = np.where(shut, CLOSED, rng.normal(1, 1.5, gates.shape))
        if "bias" in layer.params:
            layer.params["bias"][...] = rng.normal(size=layer.params["bias"].shape)
    return network


@pytest.mark.parametrize("make", [
    lambda: MLP((784, 300, 100, 10), dtype=np.float64),
    lambda: LeNet5(dtype=np.float64),
    lambda: LeNet5(dtype=np.float64, per_example=True, dropout=0.3),
    lambda: WideResNet(10, 1, dtype=np.float64),
], ids=["lenet-300-100", "lenet-5", "lenet-5, example", "wrn-10-1"])  # fmt: skip
def test_whole_architectures(make: Any) -> None:
    """At their real size, where many more terms are added up, and by several threads."""
    network = scattered(make(), 3)
    x = np.random.default_rng(4).uniform(size=(9, *network.input_shape))
    check(network, x, 5, multiple=3000)


# --- what is left out ---


class Spy:
    """The reference's ops, and what the products among them were asked for."""

    def __init__(self) -> None:
        self.weights: list[tuple[int, ...]] = []
        self.multiplications = 0

        def dense(x: Any, weight: Any, *args: Any, **options: Any) -> Any:
            self.weights.append(weight.shape)
            self.multiplications += len(x) * weight.size
            return ops.dense(x, weight, *args, **options)

        def conv2d(x: Any, weight: Any, *args: Any, **options: Any) -> Any:
            y, residuals = ops.conv2d(x, weight, *args, **options)
            self.weights.append(weight.shape)
            self.multiplications += len(x) * weight.size * math.prod(y.shape[2:])
            return y, residuals

        def gated_matmul(x: Any, weight: Any, z: Any, *, rows: Any, columns: Any) -> Any:
            y, residuals = ops.gated_matmul(x, weight, z, rows=rows, columns=columns)
            self.weights.append((x.shape[1], y.shape[1]))
            self.multiplications += len(x) * x.shape[1] * y.shape[1]
            return y, residuals

        own = {"dense": dense, "conv2d": conv2d, "gated_matmul": gated_matmul}
        functions = {**backends.NUMPY.functions, **own}
        self.backend = replace(backends.NUMPY, functions=MappingProxyType(functions))

    def evaluate(self, network: Network, n: int, **options: Any) -> Any:
        for layer in network.layers:
            layer.ops = self.backend
        rng = np.random.default_rng(8)
        x = rng.normal(size=(n, *network.input_shape))
        return network.evaluate(x, [0] * n, noise_for(network, x, rng), **NO_PENALTY, **options)


def open_by(network: Network, n_open: tuple[int, ...]) -> Network:
    """Leave the first so many of each layer's gates open, and close the others."""
    for (_, layer, _), n in zip(network.gated, n_open, strict=True):
        layer.params["log_alpha"][...] = CLOSED
        layer.params["log_alpha"].reshape(-1)[:n] = -CLOSED
    return network


def test_a_perceptron_multiplies_what_is_open() -> None:
    spy, network = Spy(), open_by(MLP((12, 9, 7, 3), dtype=np.float64), (5, 4, 2))
    evaluation = spy.evaluate(network, 6)
    assert spy.weights == [(5, 4), (4, 2), (2, 3)]
    # Nothing flows back to what is not read, or from what is not there: exact zeros.
    for i, rows, columns in ((0, 5, 4), (2, 4, 2), (4, 2, 3)):
        g = evaluation.grads[f"{i}.weight"]
        assert g[:rows, :columns].any()
        assert not g[rows:].any()
        assert not g[:, columns:].any()
        assert not evaluation.grads[f"{i}.bias"][columns:].any()
    spy = Spy()
    spy.evaluate(network, 6, dense=True)
    assert spy.weights == [(12, 9), (9, 7), (7, 3)]


@both_backends
def test_a_perceptron_whose_examples_read_their_own_rows(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rectifier that is one op with the layer before it, and one that is not."""
    own = backends.load(backend)
    network = scattered(MLP((30, 12, 8, 3), dtype=np.float64, per_example=True), 5)
    network = network.with_backend(backend)
    seen = []
    apply = Pass._apply_by_example

    def spy(run: Pass, i: int, layer: Any, x: Any, z: Any, rectified: bool) -> Any:
        seen.append((i, rectified))
        return apply(run, i, layer, x, z, rectified)

    monkeypatch.setattr(Pass, "_apply_by_example", spy)
    monkeypatch.setattr(conditional, "OPEN_SHARE", 1.0)
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(9, 30)), rng.integers(0, 3, 9)
    noise = noise_for(network, x, rng)
    got = network.evaluate(x, labels, noise, **WEIGHING)
    assert seen == [(0, own.fuses), (2, own.fuses), (4, False)]
    wanted = network.evaluate(x, labels, noise, **WEIGHING, dense=True)
    assert len(seen) == 3
    np.testing.assert_allclose(got.loss, wanted.loss, rtol=300 * EPS)
    for name, g in wanted.grads.items():
        np.testing.assert_allclose(
            got.grads[name], g, rtol=0, atol=300 * EPS * max(1, np.abs(g).max()), err_msg=name
        )


def test_what_an_example_does_not_read_is_no_matter_of_the_backend() -> None:
    """A NaN behind a gate that is closed for one example, and open for others."""
    network = MLP((40, 9, 3), dtype=np.float64, per_example=True)
    for _, layer, _ in network.gated:
        layer.params["log_alpha"][...] = -4.0
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(40, 40)), rng.integers(0, 3, 40)
    noise = noise_for(network, x, rng)
    clean = network.evaluate(x, labels, noise, **WEIGHING)
    z = clean.gates[0]
    example, unit = np.argwhere((z == 0) & (z != 0).any(axis=0))[0]
    x[example, unit] = np.nan
    for backend in backends.BACKENDS:
        got = network.with_backend(backend).evaluate(x, labels, noise, **WEIGHING)
        np.testing.assert_allclose(got.loss, clean.loss, rtol=300 * EPS, err_msg=backend)
        for name, g in clean.grads.items():
            atol = 300 * EPS * max(1, np.abs(g).max())
            np.testing.assert_allclose(got.grads[name], g, rtol=0, atol=atol, err_msg=backend)


def own_rows(network: Network, **options: Any) -> list[tuple[tuple[int, ...], float]]:
    """Shape of the weights, and the share of open gates, where examples read their own rows."""
    seen = []

    def example_matmul(x: Any, weight: Any, z: Any) -> Any:
        seen.append((weight.shape, np.count_nonzero(z) / z.size))
        return ops.example_matmul(x, weight, z)

    functions = {**backends.NUMPY.functions, "example_matmul": example_matmul}
    for layer in network.layers:
        layer.ops = replace(backends.NUMPY, functions=MappingProxyType(functions))
    rng = np.random.default_rng(8)
    x = rng.normal(size=(40, *network.input_shape))
    network.evaluate(x, [0] * 40, noise_for(network, x, rng), **NO_PENALTY, **options)
    return seen


def test_examples_read_their_own_rows_where_few_gates_are_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def network(log_alpha: float) -> Network:
        """Of the first layer, ten gates are closed; the second layer's are open."""
        one = MLP((40, 9, 3), dtype=np.float64, per_example=True)
        first, second = (layer.params["log_alpha"] for _, layer, _ in one.gated)
        first[...], first[:10], second[...] = log_alpha, CLOSED, -CLOSED
        return one

    ((shape, share),) = own_rows(network(-4.0))  # open with a probability of 0.08
    assert 20 < shape[0] <= 30  # what is closed for all is left out before
    assert shape[1] == 9
    assert 0 < share <= 0.15
    assert own_rows(network(0.0)) == []
    assert own_rows(network(-4.0), dense=True) == []
    monkeypatch.setattr(conditional, "ENOUGH", 40 * 40 * 9)
    assert own_rows(network(-4.0)) == []


def test_lenet5_multiplies_what_is_open() -> None:
    network = open_by(LeNet5(image_shape=(1, 20, 16), dtype=np.float64), (7, 11, 3, 9))
    spy = Spy()
    spy.evaluate(network, 3)
    # Two places a map: the three inputs that the first dense layer reads are of maps 0 and 1.
    assert spy.weights == [(7, 1, 5, 5), (2, 7, 5, 5), (3, 9), (9, 10)]


def test_skips_keep_what_either_side_needs() -> None:
    """What is added is there if one of the two is open; what neither reads is nowhere."""
    rng = np.random.default_rng(2)

    def dense(shape: tuple[int, int], is_open: Any, kind: Any) -> Dense:
        gates = kind(shape)
        log_alpha = np.where(is_open, -CLOSED, CLOSED)
        return Dense(rng.normal(size=shape), rng.normal(size=shape[1]), gates, log_alpha)

    def outputs(shape: tuple[int, int]) -> Gates:
        return per_output(shape, gates_bias=True)

    layers = [
        dense((3, 5), [1, 1, 0, 0, 0], outputs),
        dense((5, 5), [0, 1, 1, 0, 1], outputs),
        dense((5, 2), [1, 1, 1, 1, 0], per_input),
    ]
    network = Network(layers, skips={1: 0})
    spy = Spy()
    spy.evaluate(network, 4)
    # Units 0, 1 of the first; 1, 2 (not 4, which is not read) and 0 of the sum.
    assert spy.weights == [(3, 2), (2, 3), (3, 2)]


def test_saved_is_what_is_not_multiplied() -> None:
    for network in (
        scattered(MLP((12, 9, 7, 3), dtype=np.float64), 1),
        scattered(LeNet5(image_shape=(1, 16, 20), dtype=np.float64), 2),
        scattered(WideResNet(10, 1, image_shape=(2, 8, 12), dtype=np.float64), 3),
    ):
        packed, whole = Spy(), Spy()
        gates = packed.evaluate(network, 5).gates
        whole.evaluate(network, 5, dense=True)
        packing = Packing(network, gates, (5, *network.input_shape))
        saved = whole.multiplications - packed.multiplications
        assert saved > 0
        assert packing.saved() == pytest.approx(saved, rel=1e-12)


def test_packing_is_left_where_it_would_cost_more_than_it_saves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = open_by(MLP((12, 9, 7, 3), dtype=np.float64), (5, 4, 2))
    saved = 6 * (12 * 9 - 5 * 4 + 9 * 7 - 4 * 2 + 7 * 3 - 2 * 3)
    for worth, is_packed in ((saved, True), (saved + 1, False)):
        monkeypatch.setattr(conditional, "WORTH", worth)
        spy = Spy()
        spy.evaluate(network, 6)
        assert (spy.weights[0] == (5, 4)) == is_packed
    monkeypatch.undo()
    assert conditional.WORTH > 1e6


def test_nothing_is_packed_where_all_is_open_or_each_weight_has_its_gate() -> None:
    rng = np.random.default_rng(6)
    for network in (open_by(MLP((5, 4, 3), dtype=np.float64), (5, 4)),
                    scattered(MLP((5, 4, 3), gates="weight", dtype=np.float64), 1),
                    MLP((5, 4, 3), gates="none", dtype=np.float64)):  # fmt: skip
        x = rng.normal(size=(2, 5))
        assert Pass(network, x, noise_for(network, x, rng)).packing is None
    x = rng.normal(size=(2, 5))
    network = open_by(MLP((5, 4, 3), dtype=np.float64), (4, 4))
    assert Pass(network, x, noise_for(network, x, rng)).packing is not None
    assert Pass(network, x, noise_for(network, x, rng), dense=True).packing is None


@both_backends
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_left_out_is_not_looked_at(backend: str, value: float) -> None:
    """0 times infinity is NaN for who multiplies; who leaves it out gets the 0 of a closed gate."""
    network = open_by(MLP((6, 5, 4), dtype=np.float64), (4, 3)).with_backend(backend)
    rng = np.random.default_rng(7)
    x = rng.normal(size=(3, 6))
    noise = noise_for(network, x, rng)
    odd = x.copy()
    odd[1, 5] = value
    with np.errstate(invalid="ignore"):
        clean, left_out, whole = (
            network.evaluate(a, [0, 1, 2], noise, **NO_PENALTY, dense=dense)
            for a, dense in ((x, False), (odd, False), (odd, True))
        )
    assert np.isnan(whole.loss.total)
    assert left_out.loss == clean.loss
    for name, g in clean.grads.items():
        np.testing.assert_array_equal(left_out.grads[name], g)
    odd[1, 0] = value  # an open input is looked at
    with np.errstate(invalid="ignore"):
        assert np.isnan(network.evaluate(odd, [0, 1, 2], noise, **NO_PENALTY).loss.total)


@both_backends
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("shape", [(9, 7), (9, 1), (6,), (2, 9, 6)])
def test_examples_of_another_shape_are_refused(backend: str, dense: bool, shape: Any) -> None:
    """In the same words, whatever the gates are."""
    network = open_by(MLP((6, 5, 4), dtype=np.float64), (4, 3)).with_backend(backend)
    noise = noise_for(network, np.zeros((9, 6)), np.random.default_rng(3))
    with pytest.raises(ValueError, match=rf"x must have shape \(N, 6\), got \({shape[0]}, ?"):
        network.evaluate(np.zeros(shape), [0] * 9, noise, **NO_PENALTY, dense=dense)
    images = open_by(LeNet5(image_shape=(1, 20, 16)), (7, 11, 3, 9)).with_backend(backend)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 1, 20, 16\), got \(3, 20, 16\)"):
        images.evaluate(np.zeros((3, 20, 16)), [0] * 3, {}, **NO_PENALTY, dense=dense)


# --- layers that are run as one ---


def dense_relu_dense(
    skips: dict[int, int] | None = None, sources: dict[int, int] | None = None
) -> Network:
    rng = np.random.default_rng(8)
    layers: list[Layer] = []
    for shape in ((4, 4), (4, 4)):
        gates, log_alpha = per_input(shape), rng.normal(size=shape[0])
        layers += [Dense(rng.normal(size=shape), rng.normal(size=4), gates, log_alpha), ReLU()]
    layers.append(Dense(rng.normal(size=(4, 3)), rng.normal(size=3)))
    return Network(layers, skips=skips, sources=sources)


def test_a_dense_layer_is_run_with_its_rectifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional, "WORTH", math.inf)  # nothing is left out
    network, ran, run = dense_relu_dense().with_backend("numba"), [], Kernel._run
    assert network.plan.blocks == {0: 1, 2: 3}
    assert LeNet5().plan.blocks == {0: 2, 3: 5, 7: 8}
    assert MLP((4, 3, 2), activation="tanh").plan.blocks == {}

    def spy(kernel: Any, *args: Any) -> Any:
        ran.append(kernel.__name__)
        return run(kernel, *args)

    monkeypatch.setattr(Kernel, "_run", spy)
    x = np.random.default_rng(9).normal(size=(5, 4))
    check(network, x, 9)
    assert "affine_in_blocks" in ran
    assert "pull_in_blocks" in ran
    passed = [name for name in ran if name.startswith("_relu")]
    assert len(passed) == 4  # of the check's own way there and back, layer by layer


@pytest.mark.parametrize(("skips", "sources"), [
    ({2: 0}, {}), ({0: INPUT}, {}), ({1: INPUT}, {}), ({1: 0}, {}), ({3: 1}, {2: 0}),
])  # fmt: skip
def test_what_else_reads_a_layer_meets_it_without_its_rectifier(
    skips: dict[int, int], sources: dict[int, int]
) -> None:
    """Or adds to it, before the rectifier or after it."""
    network = dense_relu_dense(skips, sources)
    assert 0 not in network.plan.blocks
    x = np.random.default_rng(10).normal(size=(5, 4))
    check(network, x, 10)


def test_a_plan_is_made_anew_where_layers_or_gates_change() -> None:
    network = dense_relu_dense()
    plan = network.plan
    assert network.plan is plan
    assert [i for i, _, _ in network.gated] == [0, 2]
    network.layers[3] = Tanh()
    assert network.plan.blocks == {0: 1}
    dense = network.layers[2]
    assert isinstance(dense, Dense)
    dense.gates = None
    assert [i for i, _, _ in network.gated] == [0]
    network.skips[1] = 0
    assert network.plan.blocks == {}
    assert plan.blocks == {0: 1, 2: 3}


# --- wirings that once went wrong ---


@pytest.mark.parametrize("gates_bias", [True, False])
def test_logits_behind_closed_gates(gates_bias: bool) -> None:
    """A class without a unit still has its logit, which is 0 or the bias."""
    rng = np.random.default_rng(9)
    gates = per_output((4, 3), gates_bias=gates_bias)
    log_alpha = np.array([-CLOSED, CLOSED, 0.3])
    last = Dense(rng.normal(size=(4, 3)), rng.normal(size=3), gates, log_alpha)
    network = Network([last])
    check(network, rng.normal(size=(5, 4)), 1)
    network = Network([Conv2d(rng.normal(size=(3, 2, 2, 2)), rng.normal(size=3),
                              per_output((3, 2, 2, 2), axis=0, gates_bias=gates_bias), log_alpha),
                       ReLU(), Flatten()], input_shape=(2, 2, 2))  # fmt: skip
    check(network, rng.normal(size=(5, 2, 2, 2)), 1)


def test_a_layer_that_its_own_input_is_added_to() -> None:
    rng = np.random.default_rng(10)
    layers = []
    for d_in, d_out, every in ((4, 6, 2), (6, 6, 2), (6, 3, 3)):
        gates = per_input((d_in, d_out), **HYPER)
        log_alpha = np.where(np.arange(d_in) % every, CLOSED, 0.7)
        layers.append(Dense(rng.normal(size=(d_in, d_out)), rng.normal(size=d_out), gates,
                            log_alpha))  # fmt: skip
    check(Network(layers, skips={1: 0}), rng.normal(size=(5, 4)), 2)


def test_maps_added_behind_a_pool() -> None:
    rng = np.random.default_rng(11)

    def conv(c_in: int, kernel: int, is_open: Any) -> Conv2d:
        shape = (3, c_in, kernel, kernel)
        return Conv2d(rng.normal(size=shape), rng.normal(size=3),
                      per_output(shape, axis=0, gates_bias=True, **HYPER),
                      np.where(is_open, 1.0, CLOSED))  # fmt: skip

    last = Dense(rng.normal(size=(12, 3)), rng.normal(size=3))
    layers = [conv(2, 3, [1, 1, 0]), ReLU(), MaxPool2d(2),
              conv(3, 1, [0, 1, 1]), ReLU(), MaxPool2d(1), Flatten(), last]  # fmt: skip
    check(Network(layers, skips={5: 2}, input_shape=(2, 6, 6)), rng.normal(size=(4, 2, 6, 6)), 3)


def test_dropout_has_the_noise_of_the_units_that_are_left() -> None:
    rng = np.random.default_rng(15)
    gates = per_output((5, 8), gates_bias=True, **HYPER)
    log_alpha = np.where(np.arange(8) % 3 == 1, 1.0, CLOSED)
    layers = [Dense(rng.normal(size=(5, 8)), rng.normal(size=8), gates, log_alpha), Tanh(),
              Dropout(0.5), Dense(rng.normal(size=(8, 3)), rng.normal(size=3))]  # fmt: skip
    check(Network(layers), rng.normal(size=(9, 5)), 5)


def test_a_convolution_in_groups_before_a_pool() -> None:
    """It gives all of its maps, of which one is read."""
    rng = np.random.default_rng(14)
    conv = Conv2d(rng.normal(size=(2, 1, 2, 2)), rng.normal(size=2), groups=2)
    gates = per_input((4, 3), **HYPER)
    last = Dense(rng.normal(size=(4, 3)), rng.normal(size=3), gates,
                 np.array([CLOSED, CLOSED, 0.4, 0.9]))  # fmt: skip
    layers = [conv, ReLU(), MaxPool2d(2), Dropout(0.3), Flatten(), last]
    check(Network(layers, input_shape=(2, 3, 5)), rng.normal(size=(4, 2, 3, 5)), 4)


def test_gates_on_a_convolutions_inputs_an_example_each() -> None:
    rng = np.random.default_rng(12)
    shape = (2, 3, 2, 2)
    gates = per_output((3, 1, 2, 2), axis=0, gates_bias=True)
    weight, bias = rng.normal(size=(3, 1, 2, 2)), rng.normal(size=3)
    first = Conv2d(weight, bias, gates, np.array([0.5, CLOSED, 1]))
    second = Conv2d(rng.normal(size=shape), rng.normal(size=2), per_input(shape, axis=1),
                    np.array([CLOSED, 0.2, 0.4]), per_example=True)  # fmt: skip
    layers = [first, Tanh(), second, Flatten(), Dense(rng.normal(size=(12, 3)), np.ones(3))]
    check(Network(layers, input_shape=(1, 5, 4)), rng.normal(size=(4, 1, 5, 4)), 3)


@both_backends
def test_a_network_that_was_not_told_its_input_shape(backend: str) -> None:
    rng = np.random.default_rng(13)
    gates = per_output((4, 1, 2, 2), axis=0, gates_bias=True)
    weight, bias = rng.normal(size=(4, 1, 2, 2)), rng.normal(size=4)
    conv = Conv2d(weight, bias, gates, np.array([1, CLOSED, 1, 1]))
    network = Network([conv, Flatten(), Dense(rng.normal(size=(24, 3)), np.ones(3))])
    x = rng.normal(size=(5, 1, 4, 3))
    noise, own = noise_for(network, x, rng), network.with_backend(backend)
    packed = own.evaluate(x, [0, 1, 2, 0, 1], noise, **NO_PENALTY)
    _, exact = by_reference(network, x, [0, 1, 2, 0, 1], noise)
    for name, g in exact.items():
        np.testing.assert_allclose(packed.grads[name], g, rtol=0, atol=300 * EPS * abs(g).max())


def test_batch_norm_makes_something_of_a_closed_map() -> None:
    rng = np.random.default_rng(15)
    shape = (3, 2, 2, 2)
    gates = per_output(shape, axis=0, gates_bias=True, **HYPER)
    conv = Conv2d(rng.normal(size=shape), rng.normal(size=3), gates, np.array([0.5, CLOSED, 0.8]))
    norm = BatchNorm(rng.normal(size=3), np.array([0.4, 0.9, -0.3]), np.zeros(3), np.ones(3))
    layers = [conv, norm, ReLU(), Flatten(), Dense(rng.normal(size=(12, 3)), rng.normal(size=3))]
    network = Network(layers, input_shape=(2, 3, 3))
    packed = check(network, rng.normal(size=(5, 2, 3, 3)), 6)
    assert packed.grads["4.weight"].reshape(3, 4, 3)[1].any()


def test_a_skip_onto_a_flatten_keeps_what_it_adds() -> None:
    rng = np.random.default_rng(16)
    shape = (2, 2, 1, 1)
    gates = per_output(shape, axis=0, gates_bias=True, **HYPER)
    conv = Conv2d(rng.normal(size=shape), rng.normal(size=2), gates, np.array([0.5, CLOSED]))
    dense = Dense(rng.normal(size=(18, 3)), rng.normal(size=3))
    network = Network(
        [Flatten(), conv, Flatten(), dense], input_shape=(2, 3, 3), sources={1: INPUT}, skips={2: 0}
    )
    packed = check(network, rng.normal(size=(5, 2, 3, 3)), 7)
    assert packed.grads["3.weight"][9:].any()  # of the map that is closed, but added to


def test_a_layer_that_packs_nothing_before_one_that_does() -> None:
    """A gate a weight and an example: all units go in and out, and behind the rectifier some go."""
    rng = np.random.default_rng(0)
    w1, w2 = rng.normal(size=(5, 12)), rng.normal(size=(12, 7))
    g1, g2 = per_weight(w1.shape), per_input(w2.shape)
    layers = [
        Dense(w1, rng.normal(size=12), g1, np.full(g1.shape, 2.0), per_example=True),
        ReLU(),
        Dense(w2, rng.normal(size=7), g2, np.where(np.arange(12) % 3, CLOSED, 2.0)),
    ]
    x, labels = rng.normal(size=(4, 5)), rng.integers(0, 7, size=4)
    net = Network(layers)
    noise = {i: rng.random(shape) for i, shape in net.noise_shapes(x.shape).items()}
    results = [
        net.with_backend(backend).evaluate(x, labels, noise, lam=[0.1, 0.1], n_train=4, dense=dense)
        for backend, dense in (("numpy", True), ("numba", True), ("numpy", False), ("numba", False))
    ]
    for other in results[1:]:
        assert other.loss == pytest.approx(results[0].loss, rel=100 * EPS)
        for name, grad in results[0].grads.items():
            np.testing.assert_allclose(
                other.grads[name], grad, rtol=0, atol=100 * EPS * max(np.abs(grad).max(), 1)
            )
