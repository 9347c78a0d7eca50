"""Compaction of dense stacks: the same outputs from what a search of the graph says must be left.

Graphs with feature maps are in `test_compaction`.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from l0ref.gates import by_label, per_input, per_output, per_weight
from l0ref.layers import Dense, Dropout, Layer, ReLU, Tanh
from l0ref.network import Network
from l0ref.pruning import CompactNetwork, compact, prune
from l0ref.storage import FileError, load_arrays, save_arrays

# Far below and just below the -log 11 at which the test-time gate closes; just above; between; 1.
LOG_ALPHA = np.array([-30.0, -2.41, -2.39, -0.7, 0.4, 3.0])
CLOSED = 2  # the first so many of them


class Case(NamedTuple):
    """What a network is made of; `gate` holds places in LOG_ALPHA."""

    gates: str
    activation: str
    dtype: Any
    weights: list[Any]
    biases: list[Any]
    gate: list[Any]

    def network(self) -> Network:
        layers: list[Layer] = []
        for weight, bias, gate in zip(self.weights, self.biases, self.gate, strict=True):
            w, b = weight.astype(self.dtype), bias.astype(self.dtype)
            if self.gates == "none":
                layers.append(Dense(w, b))
            else:
                family = {"unit": per_input, "weight": per_weight}[self.gates](w.shape)
                layers.append(Dense(w, b, family, LOG_ALPHA[gate].astype(self.dtype)))
            layers += [ReLU() if self.activation == "relu" else Tanh(), Dropout(0.5)]
        return Network(layers[:-2])

    def edges(self) -> list[Any]:
        """Which weights are left, before any unit is removed."""
        left = []
        for weight, gate in zip(self.weights, self.gate, strict=True):
            is_open = (gate >= CLOSED) | (self.gates == "none")
            left.append((weight != 0) & (is_open if is_open.ndim == 2 else is_open[:, None]))
        return left


@st.composite
def cases(draw: st.DrawFn) -> Case:
    widths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    gates = draw(st.sampled_from(["unit", "weight", "none"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights, biases, gate = [], [], []
    for shape in pairwise(widths):
        values = rng.choice([-1, 1], shape) * rng.uniform(0.2, 2.0, shape)
        weights.append(values * (rng.uniform(size=shape) < draw(st.sampled_from([1.0, 0.6, 0.2]))))
        biases.append(rng.choice([-0.8, 0.0, 0.5, 1.7], shape[1]))
        places = st.integers(0, draw(st.sampled_from([len(LOG_ALPHA) - 1, CLOSED, CLOSED - 1])))
        size = shape if gates == "weight" else shape[:1]
        gate.append(draw(hnp.arrays(np.int64, size, elements=places)))
    activation = draw(st.sampled_from(["relu", "tanh"]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return Case(gates, activation, dtype, weights, biases, gate)


def by_hand() -> Case:
    """3-3-3-2. Hidden unit b reads nothing: tanh(0.5). Unit c feeds only the dead unit e."""
    weights = [
        np.array([[1.0, 0, 2], [0, 0, 3], [4, 0, 0]]),
        np.array([[1.0, 0, -1], [2, 0, 3], [0, 5, 0]]),
        np.array([[1.0, 2], [7, 7], [0, 3]]),
    ]
    biases = [np.array([0.1, 0.5, 0.3]), np.array([0.2, 0.9, -0.4]), np.array([0.6, 0.7])]
    gate = [np.array([4, 4, 5]), np.array([5, 5, 5]), np.array([5, 0, 5])]
    return Case("unit", "tanh", np.float64, weights, biases, gate)


def scale(weights: list[Any], biases: list[Any], x: Any) -> Any:
    """Bound what any sum on the way can reach: the network of absolute values, linear."""
    total = np.abs(x)
    for weight, bias in zip(weights, biases, strict=True):
        total = total @ np.abs(weight) + np.abs(bias)
    return total


def survivors(edges: list[Any]) -> list[set[int]]:
    """Drop the edges into units that feed nothing and out of hidden units fed by nothing.

    One at a time, in no clever order, until none is left to drop; return the units with edges out.
    """
    left = {(k, int(i), int(o)) for k, e in enumerate(edges) for i, o in np.argwhere(e)}
    last = len(edges) - 1
    while True:
        heads = {(k, i) for k, i, _ in left}
        tails = {(k + 1, o) for k, _, o in left}
        useless = {
            (k, i, o)
            for k, i, o in left
            if (k < last and (k + 1, o) not in heads) or (k > 0 and (k, i) not in tails)
        }
        if not useless:
            return [{i for k, i in heads if k == layer} for layer in range(len(edges))]
        left -= useless


@given(cases())
@example(by_hand())
def test_the_outputs_stay_and_nothing_else(case: Case) -> None:
    network = case.network()
    before = {name: array.copy() for name, array in network.params.items()}
    small = compact(network)

    rng = np.random.default_rng(1)
    x = rng.normal(size=(7, case.weights[0].shape[0])).astype(case.dtype)
    expected, got = network.predict(x), small.predict(x)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype == case.dtype
    # Each layer rounds a product, its sum, a gate and an activation, n + 6 times at most; later
    # layers pass errors on as they pass numbers on, no activation having a slope above 1.
    roundings = sum(w.shape[0] + 6 for w in case.weights)
    size = scale(case.weights, case.biases, x)
    allowed = 2 * roundings * np.finfo(case.dtype).eps * size
    assert (np.abs(got - expected) <= allowed).all()
    promised = 1e-5 if case.dtype == np.float32 else 1e-12
    assert (np.abs(got - expected) <= promised * size).all()

    assert [set(kept.tolist()) for kept in small.kept] == survivors(case.edges())
    for array, name in [(network.params[n], n) for n in before]:
        np.testing.assert_array_equal(array, before[name])  # the trained network is still whole


@given(cases())
def test_no_unit_is_left_that_could_go(case: Case) -> None:
    small = compact(case.network())
    for k, weight in enumerate(small.weights):
        assert weight.any(axis=1).all()  # every unit feeds one
        if k < len(small.weights) - 1:
            assert weight.any(axis=0).all()  # and is fed
            assert weight.shape[1] == small.weights[k + 1].shape[0]
        assert small.biases[k].shape == (weight.shape[1],)
        assert (np.diff(small.kept[k]) > 0).all()
        assert small.kept[k].shape == (weight.shape[0],)
    assert small.weights[-1].shape[1] == case.weights[-1].shape[1]
    np.testing.assert_array_equal(small.inputs, small.kept[0])


def test_a_network_compacted_by_hand() -> None:
    r"""Units a b c, then d e f. The gate of e is closed; c fed e alone; the input 1 fed c alone.

    b is tanh(0.5), and goes into the biases of d and f: 0.2 + 2 tanh(0.5), -0.4 + 3 tanh(0.5).
    """
    small = compact(by_hand().network())
    z_hat = 1.2 / (1 + np.exp(-0.4)) - 0.1
    b = np.tanh(0.5)
    assert small.architecture == [2, 1, 2]
    assert [kept.tolist() for kept in small.kept] == [[0, 2], [0], [0, 2]]
    assert small.n_params == (2 * 1 + 1) + (1 * 2 + 2) + (2 * 2 + 2)
    assert small.flops == 2 * (2 * 1 + 1 * 2 + 2 * 2)
    assert small.input_shape == (3,)
    assert small.names == ["layer 0", "layer 3", "layer 6"]
    kinds = [type(layer) for layer in small.network.layers]
    assert kinds == [Dense, Tanh, Dense, Tanh, Dense]  # dropout has nothing to do here
    assert not small.is_constant
    expected = [
        ([[z_hat], [4.0]], [0.1]),
        ([[1.0, -1.0]], [0.2 + 2 * b, -0.4 + 3 * b]),
        ([[1.0, 2.0], [0.0, 3.0]], [0.6, 0.7]),
    ]
    for weight, bias, (w, c) in zip(small.weights, small.biases, expected, strict=True):
        np.testing.assert_allclose(weight, w, rtol=1e-15)
        np.testing.assert_allclose(bias, c, rtol=1e-15)


def test_a_closed_layer_leaves_a_constant() -> None:
    """Every gate of the middle layer closed: no input is read, and the answer is one vector."""
    rng = np.random.default_rng(3)
    shapes = [(4, 3), (3, 5), (5, 2)]
    weights = [rng.normal(size=s) for s in shapes]
    biases = [rng.normal(size=s[1]) for s in shapes]
    gate = [np.full(4, 5), np.zeros(3, int), np.full(5, 5)]
    small = compact(Case("unit", "relu", np.float64, weights, biases, gate).network())
    assert small.architecture == [0, 0, 0]
    assert (small.n_params, small.flops) == (2, 0)
    assert small.is_constant
    constant = np.maximum(biases[1], 0) @ weights[2] + biases[2]
    got = small.predict(rng.normal(size=(6, 4)))
    np.testing.assert_allclose(got, np.tile(constant, (6, 1)), rtol=1e-13)


@pytest.mark.parametrize("gates_bias", [False, True])
def test_a_closed_output_is_its_bias_or_nothing(gates_bias: bool) -> None:
    """Gates on outputs, a closed one with its bias or without; and gates by label."""
    rng = np.random.default_rng(4)
    outputs = per_output((3, 4), gates_bias=gates_bias)
    labels = by_label([[0, 1], [2, 2], [1, 0], [3, 3]])
    w, b = rng.normal(size=(3, 4)), rng.uniform(0.5, 1.0, size=4)
    v, c = rng.normal(size=(4, 2)), rng.normal(size=2)
    network = Network([
        Dense(w, b, outputs, np.array([0.4, -9.0, 9.0, 9.0])),
        ReLU(),
        Dense(v, c, labels, np.array([9.0, 0.1, 9.0, -9.0])),
    ])  # fmt: skip
    small = compact(network)
    assert small.architecture == [3, 2]  # unit 1 is a constant or nothing, unit 3 feeds none
    x = rng.normal(size=(5, 3))
    np.testing.assert_allclose(small.predict(x), network.predict(x), rtol=0, atol=1e-14)
    constant = b[1] * v[1] if not gates_bias else 0
    np.testing.assert_allclose(small.biases[-1], c + constant, rtol=1e-14)


def test_hard_pruning_keeps_the_shapes() -> None:
    case = by_hand()
    network = case.network()
    hard = prune(network)
    assert [type(layer) for layer in hard.layers] == [type(layer) for layer in network.layers]
    assert hard.gated == []
    for (_, layer), edges, bias in zip(hard.weighted, case.edges(), case.biases, strict=True):
        assert layer.params.keys() == {"weight", "bias"}
        np.testing.assert_array_equal(layer.params["weight"] != 0, edges)
        np.testing.assert_array_equal(layer.params["bias"], bias)
    x = np.random.default_rng(8).normal(size=(5, 3))
    np.testing.assert_allclose(hard.predict(x), network.predict(x), rtol=1e-13)

    for gates in ("unit", "none"):  # copies, gates or not
        network = case._replace(gates=gates).network()
        hard = prune(network)
        for array in hard.params.values():
            array[...] = 99.0
        assert network.params["0.weight"].max() == 4.0
        assert network.params["0.bias"].max() == 0.5


def test_one_dense_layer() -> None:
    network = Network([Dense(np.array([[1.0, 2], [0, 0], [3, 0]]), np.array([0.5, 0.25]))])
    small = compact(network)
    assert small.architecture == [2]
    np.testing.assert_array_equal(small.inputs, [0, 2])
    np.testing.assert_array_equal(small.predict(np.array([[1.0, 7, 2]])), [[7.5, 2.25]])


def dense(d_in: int, d_out: int) -> Dense:
    return Dense(np.ones((d_in, d_out)), np.zeros(d_out))


@pytest.mark.parametrize(
    "layers",
    [
        [dense(2, 3), dense(3, 2)],
        [dense(2, 3), ReLU(), dense(3, 2), Tanh(), dense(2, 2)],
        [dense(2, 3), ReLU(), Tanh(), dense(3, 2)],
        [dense(2, 3), dense(3, 2), ReLU()],
        [Tanh(), dense(2, 3), dense(3, 2)],
    ],
)
def test_activations_may_stand_anywhere(layers: list[Layer]) -> None:
    """Unit 1 behind the first layer is a constant, tanh(0.7) or relu(0.7) or 0.7 or both."""
    network = Network(layers)
    first = network.weighted[0][1]
    first.params["weight"][:, 1] = 0
    first.params["bias"][1] = 0.7
    small = compact(network)
    assert [type(layer) for layer in small.network.layers] == [type(layer) for layer in layers]
    assert small.architecture[1] == 2
    x = np.random.default_rng(9).normal(size=(5, 2))
    np.testing.assert_allclose(small.predict(x), network.predict(x), rtol=1e-13)


def test_other_networks_are_refused() -> None:
    class Maxout(Layer):
        def forward(self, x: Any, u: Any, *, training: bool = False) -> Any:
            return x, None

        def backward(self, dy: Any, residuals: Any) -> Any:
            return dy, {}

    with pytest.raises(ValueError, match="cannot compact a network with a Maxout layer"):
        compact(Network([dense(2, 3), Maxout(), dense(3, 2)]))
    with pytest.raises(ValueError, match="cannot compact a network without parameters"):
        compact(Network([ReLU()], input_shape=(3,)))


@pytest.mark.parametrize("shape", [(5, 2), (5, 4), (3,), (0, 2), (1, 3, 3)])
def test_inputs_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    """The compact network reads 2 of 3 inputs; it still takes all 3."""
    small = compact(by_hand().network())
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3\), got \("):
        small.predict(np.zeros(shape))
    assert small.predict(np.zeros((0, 3))).shape == (0, 2)


# Files


@given(cases())
@example(by_hand())
def test_saved_and_loaded_it_is_the_same(tmp_path_factory: Any, case: Case) -> None:
    path = tmp_path_factory.mktemp("compact") / "small.npz"
    small = compact(case.network())
    small.save(path)
    again = CompactNetwork.load(str(path))
    x = np.random.default_rng(2).normal(size=(4, *small.input_shape)).astype(case.dtype)
    assert again.predict(x).tobytes() == small.predict(x).tobytes()
    assert again.architecture == small.architecture
    assert (again.input_shape, again.names) == (small.input_shape, small.names)
    assert [type(layer) for layer in again.network.layers] == [
        type(layer) for layer in small.network.layers
    ]
    for one, other in zip(
        [again.inputs, *again.weights, *again.biases, *again.kept],
        [small.inputs, *small.weights, *small.biases, *small.kept],
        strict=True,
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_ten_lines_of_numpy_can_run_it(tmp_path: Path) -> None:
    path = tmp_path / "small.npz"
    small = compact(by_hand().network())
    small.save(path)
    x = np.random.default_rng(5).normal(size=(4, 3))
    with np.load(path) as file:
        h = x[:, file["inputs"]]
        for k in range(3):
            h = np.tanh(h) if k else h
            h = h @ file[f"weight_{k}"] + file[f"bias_{k}"]
    np.testing.assert_array_equal(h, small.predict(x))


def changed(path: Path, **arrays: Any) -> bytes:
    """Rewrite a file with some arrays changed, or taken out (None)."""
    kept = load_arrays(path) | arrays
    save_arrays(path, {n: np.asarray(a) for n, a in kept.items() if a is not None})
    return path.read_bytes()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"format": "l0ref checkpoint 1"}, "not a compact network but 'l0ref checkpoint 1'"),
        ({"format": None}, "lacks format"),
        ({"format": "l0ref compact network 1"}, "not a compact network but"),
        ({"layers": None, "inputs": None}, "lacks layers, inputs"),
        ({"bias_2": None, "kept_0": None}, "lacks (bias_2|kept_0)"),
        ({"kept_2": None}, "lacks kept_2"),
        ({"weight_1": None}, "lacks weight_1"),
        ({"weight_0": None}, "lacks weight_0"),
        ({"weight_1": np.ones((2, 2))}, "."),
        ({"weight_1": np.ones(2)}, "."),
        ({"bias_1": np.ones(3)}, "."),
        ({"weight_1": np.ones((2, 2)), "kept_1": np.array([0, 1])}, "."),
        ({"inputs": np.array([0, 3])}, "."),
        ({"inputs": np.array([0.0, 2.0])}, "."),
        ({"inputs": np.array([0, 1, 2])}, "."),
        ({"inputs": np.array([2, 0])}, "inputs must ascend"),
        ({"inputs": np.array([2, 2])}, "inputs must ascend"),
        ({"inputs": np.array([-1, 2])}, "inputs must ascend"),
        ({"inputs": np.array([[0, 2]])}, "inputs must be a list of integers"),
        ({"kept_1": np.array([0, 0])}, "kept_1 must ascend"),
        ({"kept_1": np.array([-1])}, "kept_1 must ascend"),
        ({"kept_1": np.array([0.0])}, "kept_1 must be a list of integers"),
        ({"layers": "{"}, "."),
        ({"layers": "[]"}, "."),
        ({"layers": "3"}, "."),
        ({"layers": np.ones(3)}, "."),
    ],
)
def test_files_that_hold_something_else(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    path = tmp_path / "small.npz"
    compact(by_hand().network()).save(path)
    content = changed(path, **arrays)
    with pytest.raises(FileError, match=message) as caught:
        CompactNetwork.load(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "small.npz"
    compact(by_hand().network()).save(path)
    whole = path.read_bytes()
    half, flipped = whole[: len(whole) // 2], bytearray(whole)
    flipped[whole.index(np.float64(4.0).tobytes())] ^= 1  # one bit of a weight
    for content in (half, bytes(flipped), b""):
        path.write_bytes(content)
        with pytest.raises(FileError, match=re.escape(str(path))):
            CompactNetwork.load(path)
        assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(FileError, match="no such file"):
        CompactNetwork.load(path)
