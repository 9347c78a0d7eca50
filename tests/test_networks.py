"""Whole networks: the objective and its gradient against loops in mpmath; the architectures."""

from typing import Any

import numpy as np
import pytest

from l0ref.gates import by_label, per_output, per_weight
from l0ref.layers import Dense, Dropout, ReLU, Tanh
from l0ref.networks import MLP, LeNet300100, Network, check_lam
from l0ref.noise import Noise
from tests import naive_network as naive
from tests.mp_reference import mp

HYPER = {"beta": 0.5, "gamma": -0.2, "zeta": 1.3}
EXACT_HYPER = {name: mp.mpf(value) for name, value in HYPER.items()}
LABELS = [0, 2, 1]
EPS = np.finfo(np.float64).eps


def scattered(network: Network, seed: int) -> Network:
    """Give every parameter a random value: biases too, and log_alpha far enough to clip some."""
    rng = np.random.default_rng(seed)
    for name, array in network.params.items():
        array[...] = rng.normal(0.3, 1.5 if name.endswith("log_alpha") else 0.7, size=array.shape)
    return network


def network_of(kind: str) -> Network:
    if kind != "labels and outputs":
        options = dict(option.split("=") for option in kind.split()) if kind else {}
        numbers = {"per_example": bool, "dropout": float}
        return MLP((2, 4, 3), dtype=np.float64, **HYPER,
                   **{k: numbers.get(k, str)(v) for k, v in options.items()})  # type: ignore[arg-type]  # fmt: skip
    labels = by_label([[0, 2, 1, 1], [3, 2, 0, 1]], **HYPER)
    outputs = per_output((4, 3), gates_bias=True, **HYPER)
    return Network([
        Dense(np.zeros((2, 4)), np.zeros(4), labels, np.zeros(4)),
        Tanh(),
        Dense(np.zeros((4, 3)), np.zeros(3), outputs, np.zeros(3), per_example=True),
        ReLU(),
        Dense(np.zeros((3, 3)), np.zeros(3)),
    ])  # fmt: skip


KINDS = [
    "",
    "gates=unit activation=tanh dropout=0.4",
    "gates=unit per_example=yes",
    "gates=weight",
    "gates=weight activation=tanh per_example=yes dropout=0.3",
    "gates=none",
    "gates=none activation=tanh dropout=0.5",
    "labels and outputs",
]


def twin(network: Network, noise: Any, number: Any) -> list[Any]:
    stages: list[Any] = []
    for i, layer in enumerate(network.layers):
        u = None if noise is None or i not in noise else naive.convert(noise[i].tolist(), number)
        if isinstance(layer, Dense):
            values = {n: naive.convert(a.tolist(), number) for n, a in layer.params.items()}
            gates = layer.gates
            if gates is not None:
                labels = None if gates.labels is None else gates.labels.tolist()
                values |= {"on": gates.on, "labels": labels, "gates_bias": gates.gates_bias}
                values |= {"per_example": layer.per_example, "u": u}
            stages.append(naive.Dense(**values))
        elif isinstance(layer, Dropout):
            stages.append(naive.Dropout(number(layer.rate), u))
        else:
            stages.append("relu" if isinstance(layer, ReLU) else "tanh")
    return stages


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_and_its_whole_gradient(kind: str) -> None:
    """Every weight, bias and log_alpha, through data loss, L0 with its lambda a layer, and L2."""
    network = scattered(network_of(kind), seed=1)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 2))
    noise = {i: rng.uniform(size=shape) for i, shape in network.noise_shapes(x.shape).items()}
    lam = (3.0, 0.7)[: len(network.gated)] or (1.0,)
    weighing = {"lam": lam, "l2": 1.9, "n_train": 40}
    for array in (x, *network.params.values(), *noise.values()):
        array.flags.writeable = False
    loss, grads = network.loss_and_grads(x, LABELS, noise, **weighing)  # type: ignore[arg-type]

    stages, exact_x = twin(network, noise, mp.mpf), naive.convert(x.tolist(), mp.mpf)
    names = {name: tuple(name.split(".")) for name in network.params}
    points = {name: getattr(stages[int(i)], attribute) for name, (i, attribute) in names.items()}
    exact_lam, l2 = [mp.mpf(v) for v in lam[: len(network.gated)]], mp.mpf(1.9)

    def objective(**changed: Any) -> dict[str, Any]:
        moved = list(stages)
        for name, value in changed.items():
            i, attribute = names[name]
            moved[int(i)] = moved[int(i)]._replace(**{attribute: value})
        return naive.objective(moved, exact_x, LABELS, exact_lam, l2, 40, mp, **EXACT_HYPER)

    exact = objective()
    for part, value in exact.items():
        assert abs(getattr(loss, part) - value) <= 100 * EPS * (abs(value) + exact["total"]), part

    slopes = naive.gradients(lambda **a: objective(**{**points, **a})["total"], points,
                             mp.mpf("1e-20"))  # fmt: skip
    assert grads.keys() == network.params.keys()
    for name, d in grads.items():
        expected = np.array([float(v) for v in slopes[name]])
        assert d.shape == network.params[name].shape
        # Some thirty operations deep, on numbers of size 1, against a promise of 1e-6.
        atol = 200 * EPS * np.abs(expected).max()
        np.testing.assert_allclose(d.ravel(), expected, rtol=0, atol=atol, err_msg=name)
        assert np.abs(expected).max() > 1e-6


@pytest.mark.parametrize("kind", KINDS[:2])
def test_float32_stays_float32_and_near(kind: str) -> None:
    wide = scattered(network_of(kind), seed=1)
    narrow = wide.with_params({n: a.astype(np.float32) for n, a in wide.params.items()})
    wide = narrow.with_params({n: a.astype(np.float64) for n, a in narrow.params.items()})
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 2)).astype(np.float32)
    noise = {i: rng.uniform(size=shape) for i, shape in wide.noise_shapes(x.shape).items()}
    weighing = {"lam": [3.0, 0.7], "l2": 1.9, "n_train": 40}
    one, grads = narrow.loss_and_grads(x, LABELS, noise, **weighing)
    other, exact = wide.loss_and_grads(x.astype(np.float64), LABELS, noise, **weighing)
    eps = np.finfo(np.float32).eps
    assert abs(one.total - other.total) < 100 * eps * other.total
    assert narrow.forward(x, noise)[0].dtype == narrow.predict(x).dtype == np.float32
    for name, d in grads.items():
        assert d.dtype == np.float32, name
        atol = 200 * eps * np.abs(exact[name]).max()
        np.testing.assert_allclose(d, exact[name], rtol=0, atol=atol)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", KINDS)
def test_predict_is_eq_13_by_loops(kind: str, backend: str) -> None:
    network = scattered(network_of(kind), seed=3).with_backend(backend)
    x = np.random.default_rng(4).normal(size=(5, 2))
    expected = naive.logits(twin(network, None, float), x.tolist(), **HYPER)
    for batch_size in (1, 2, 5, 10_000):
        got = network.predict(x, batch_size=batch_size)
        np.testing.assert_allclose(got, expected, rtol=0, atol=50 * EPS)
    assert network.predict(x[:0]).shape == (0, 3)
    if backend == "numpy":  # which runs no layers as one
        np.testing.assert_array_equal(network.predict(x), network.forward(x)[0])


def test_predict_calls_a_forward_that_was_written_anew() -> None:
    class Halved(Dense):
        def forward(self, *args: Any, **options: Any) -> Any:
            y, residuals = super().forward(*args, **options)
            return y / 2, residuals

    class Negative(Network):
        def forward(self, *args: Any, **options: Any) -> Any:
            y, residuals = super().forward(*args, **options)
            return -y, residuals

    weight, bias, x = np.ones((2, 3)), np.zeros(3), np.array([[1.0, 2.0]])
    for backend in ("numpy", "numba"):
        for network, y in (
            (Network([Dense(weight, bias)]), 3.0),
            (Network([Halved(weight, bias)]), 1.5),
            (Negative([Dense(weight, bias)]), -3.0),
        ):
            np.testing.assert_array_equal(network.with_backend(backend).predict(x), [[y, y, y]])


def test_backward_reaches_the_input() -> None:
    network = scattered(network_of("gates=weight activation=tanh"), seed=5)
    rng = np.random.default_rng(6)
    x, c = rng.normal(size=(3, 2)), rng.normal(size=(3, 3))
    noise = {i: rng.uniform(size=shape) for i, shape in network.noise_shapes(x.shape).items()}
    dx, _ = network.backward(c, network.forward(x, noise)[1])
    stages = twin(network, noise, mp.mpf)

    def pulled(x: Any) -> Any:
        rows = naive.logits(stages, x, mp, **EXACT_HYPER)
        return sum(a * b for row, c_row in zip(rows, c.tolist(), strict=True)
                   for a, b in zip(row, c_row, strict=True))  # fmt: skip

    slopes = naive.gradients(pulled, {"x": naive.convert(x.tolist(), mp.mpf)}, mp.mpf("1e-20"))
    np.testing.assert_allclose(dx.ravel(), [float(v) for v in slopes["x"]], rtol=0, atol=100 * EPS)


def test_a_penalty_is_shared_by_no_minibatch() -> None:
    """The penalty is divided by N of the training set, the data loss by n of the minibatch."""
    network = scattered(network_of(""), seed=7)
    x = np.random.default_rng(8).normal(size=(3, 2))
    noise = {i: np.full(s, 0.4) for i, s in network.noise_shapes(x.shape).items()}
    once, _ = network.loss_and_grads(x, LABELS, noise, lam=[2.0], l2=0.5, n_train=40)
    twice, _ = network.loss_and_grads(
        np.tile(x, (2, 1)), LABELS * 2, noise, lam=[2.0], l2=0.5, n_train=40
    )
    np.testing.assert_allclose(twice, once, rtol=1e-14)
    more, _ = network.loss_and_grads(x, LABELS, noise, lam=[2.0], l2=0.5, n_train=80)
    np.testing.assert_allclose((more.data, 2 * more.l0, 2 * more.l2), once[1:], rtol=1e-14)
    count = sum(network.expected_l0())
    np.testing.assert_allclose(once.l0, 2.0 * count / 40, rtol=1e-14)  # one lambda for all layers


# --- parameters, noise, what is left ---


def test_with_params_is_the_same_network_over_other_arrays() -> None:
    network = scattered(network_of("dropout=0.2"), seed=9)
    before = {n: a.copy() for n, a in network.params.items()}
    others = {n: a + 1 for n, a in network.params.items()}
    other = network.with_params(others)
    assert all(other.params[n] is a for n, a in others.items())  # shared, not copied
    x = np.random.default_rng(10).normal(size=(4, 2))
    reference = network_of("dropout=0.2")
    for n, a in reference.params.items():
        a[...] = others[n]
    np.testing.assert_array_equal(other.predict(x), reference.predict(x))
    for n, a in network.params.items():
        np.testing.assert_array_equal(a, before[n])
    assert (network.predict(x) != other.predict(x)).any()


def test_with_params_refuses_other_names_and_shapes() -> None:
    network = network_of("")
    params = network.params
    with pytest.raises(ValueError, match=r"params .*'0.weight'.*got"):
        network.with_params({n: a for n, a in params.items() if n != "0.weight"})
    with pytest.raises(ValueError, match=r"params\['0.bias'\] .*\(4,\), got \(5,\)"):
        network.with_params(params | {"0.bias": np.ones(5)})


def test_params_are_the_layers_own_arrays_in_order() -> None:
    network = network_of("dropout=0.2")
    names = [f"{i}.{name}" for i in (0, 3) for name in ("weight", "bias", "log_alpha")]
    assert list(network.params) == names
    assert network.params["3.bias"] is network.layers[3].params["bias"]


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("", {0: (2,), 2: (4,)}),
        ("dropout=0.2", {0: (2,), 1 + 1: (5, 4), 3: (4,)}),
        ("gates=weight", {0: (2, 4), 2: (4, 3)}),
        ("per_example=yes", {0: (5, 2), 2: (5, 4)}),
        ("gates=weight per_example=yes", {0: (5, 2, 4), 2: (5, 4, 3)}),
        ("gates=none", {}),
        ("gates=none dropout=0.2", {2: (5, 4)}),
        ("labels and outputs", {0: (4,), 2: (5, 3)}),
    ],
)
def test_noise_shapes(kind: str, shapes: dict[int, tuple[int, ...]]) -> None:
    assert network_of(kind).noise_shapes((5, 2)) == shapes


def test_expected_l0_and_open_gates_a_layer() -> None:
    network = scattered(network_of("labels and outputs"), seed=11)
    counts = [naive.layer_norm(s, lambda w: 1.0, **HYPER) for s in twin(network, None, float)
              if isinstance(s, naive.Dense) and s.log_alpha is not None]  # fmt: skip
    np.testing.assert_allclose(network.expected_l0(), counts, rtol=1e-14)
    threshold = np.log(0.2 / 1.3)  # Eq. 13 is 0 up to log(-gamma/zeta)
    network.layers[0].params["log_alpha"][:] = threshold + np.array([-0.1, 0.1, -9, 9])
    is_open, _ = network.open_gates()
    assert is_open.tolist() == [False, True, False, True]


def test_open_gates_never_takes_nan_for_closed() -> None:
    network = scattered(network_of(""), seed=12)
    network.params["0.log_alpha"][1] = np.nan
    try:
        is_open = network.open_gates()[0]
    except ValueError as error:
        assert "log_alpha" in str(error)  # noqa: PT017
    else:
        assert is_open[1]


# --- bad input ---


def loss_with(**change: Any) -> None:
    network = scattered(network_of("dropout=0.2"), seed=13)
    arguments: dict[str, Any] = {
        "x": np.ones((3, 2)),
        "labels": LABELS,
        "noise": {0: np.full(2, 0.4), 2: np.full((3, 4), 0.4), 3: np.full(4, 0.4)},
        "lam": [0.1],
        "l2": 0.1,
        "n_train": 60,
    }
    noise = arguments["noise"] | change.pop("noise", {})
    arguments["noise"] = {i: u for i, u in noise.items() if u is not None}
    network.loss_and_grads(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lam": [-0.1]}, r"lam .*at least 0.*got -0.1"),
        ({"lam": [0.1, np.nan]}, r"lam .*got nan"),
        ({"lam": [np.inf]}, r"lam .*finite, got inf"),
        ({"lam": [0.1, 0.2, 0.3]}, r"lam .*1 value or one a gated layer \(2\), got 3"),
        ({"lam": []}, r"lam .*got 0"),
        ({"l2": -0.1}, r"l2 .*at least 0.*got -0.1"),
        ({"labels": [0, 1, 3]}, r"labels .*0 \.\. 2, got 3"),
        ({"labels": [0, 1]}, r"labels .*\(3,\), got \(2,\)"),
        ({"x": np.ones((3, 4))}, r"x .*got \(3, 4\)"),
        ({"noise": {0: np.array([0.3, 1.0])}}, r"u .*between 0 and 1, got 1.0"),
        ({"noise": {0: np.full(3, 0.3)}}, r"\(3,\)"),
    ],
)
def test_loss_and_grads_refuses(change: dict[str, Any], message: str) -> None:
    loss_with()
    with pytest.raises(ValueError, match=message):
        loss_with(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"l2": np.nan}, r"l2 .*got nan"),
        ({"l2": np.inf}, r"l2 .*got inf"),
        ({"n_train": 0}, r"n_train .*at least 1, got 0"),
        ({"n_train": -60}, r"n_train .*at least 1, got -60"),
        ({"noise": {0: np.full(1, 0.3)}}, r"u .*\(2,\), got \(1,\)"),
        ({"noise": {2: None}}, r"noise .*2"),  # dropout would do nothing, as at test time
    ],
)
def test_loss_and_grads_refuses_what_would_go_unnoticed(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss_with(**change)


def test_check_lam_spreads_one_value() -> None:
    assert check_lam([0.3], 3) == [0.3, 0.3, 0.3]
    assert check_lam((1, 2.5), 2) == [1.0, 2.5]
    assert check_lam([0.0], 1) == [0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (3,)}, r"widths .*got \[3\]"),
        ({"widths": (3, 0, 2)}, r"widths .*positive.*got \[3, 0, 2\]"),
        ({"gates": "inputs"}, r"gates .*'unit'.*'weight'.*'none'.*got 'inputs'"),
        ({"activation": "gelu"}, r"activation .*'relu'.*'tanh'.*got 'gelu'"),
        ({"drop_rates": ()}, r"drop_rates .*1 value, 2 values or one a layer \(3\), got \[\]"),
        ({"drop_rates": (0.2,) * 4}, r"drop_rates .*one a layer \(3\), got \[0.2, "),
        ({"drop_rates": (0.2, 1.0)}, r"drop_rate.*between 0 and 1, got 1.0"),
        ({"drop_rates": (0.0, 0.5)}, r"drop_rate.*got 0.0"),
        ({"dropout": 1.0}, r"(dropout|rate) .*\[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"(dropout|rate) .*\[0, 1\), got -0.1"),
        ({"dropout": np.nan}, r"(dropout|rate) .*\[0, 1\), got nan"),
        ({"beta": 0.0}, r"beta .*got 0"),
        ({"gamma": 0.1}, r"gamma .*got 0.1"),
        ({"zeta": 1.0}, r"zeta .*got 1"),
    ],
)
def test_mlp_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(**({"widths": (3, 5, 4, 2)} | options))


# --- the architectures as they start ---


def test_mlp_starts_as_the_paper_has_it() -> None:
    """Weights N(0, 2/D_in), biases 0, log_alpha N(logit of the keep rate, 0.01^2)."""
    network = MLP((300, 200, 150, 10), dtype=np.float64)
    assert [type(layer) for layer in network.layers] == [Dense, ReLU, Dense, ReLU, Dense]
    for i, d_in in ((0, 300), (2, 200), (4, 150)):
        weight = network.params[f"{i}.weight"] / np.sqrt(2 / d_in)
        n = weight.size
        assert abs(weight.mean()) < 5 / np.sqrt(n)
        assert abs(weight.std() - 1) < 5 / np.sqrt(2 * n)
        assert (network.params[f"{i}.bias"] == 0).all()
        log_alpha = network.params[f"{i}.log_alpha"]
        keep = 0.8 if i == 0 else 0.5
        jitter = (log_alpha - np.log(keep / (1 - keep))) / 0.01
        assert log_alpha.shape == (d_in,)
        assert abs(jitter.mean()) < 5 / np.sqrt(d_in)
        assert abs(jitter.std() - 1) < 5 / np.sqrt(2 * d_in)
    first, second = (network.params[f"{i}.weight"].ravel()[:1500] for i in (2, 4))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(1500)  # layers draw apart


def test_mlp_options_reach_the_layers() -> None:
    network = MLP((4, 3, 5, 2), gates="weight", drop_rates=(0.1, 0.9, 0.3), activation="tanh",
                  dropout=0.25, per_example=True, **HYPER)  # fmt: skip
    kinds = [Dense, Tanh, Dropout, Dense, Tanh, Dropout, Dense]
    assert [type(layer) for layer in network.layers] == kinds
    assert [layer.rate for layer in network.layers if isinstance(layer, Dropout)] == [0.25, 0.25]
    for (_, layer, gates), drop in zip(network.gated, (0.1, 0.9, 0.3), strict=True):
        assert layer.per_example
        assert gates.hyperparameters == HYPER
        assert gates.shape == layer.params["weight"].shape
        mean = layer.params["log_alpha"].mean()
        assert abs(mean - np.log((1 - drop) / drop)) < 5 * 0.01 / np.sqrt(gates.group_size.size)
    assert all(a.dtype == np.float32 for a in network.params.values())
    assert not MLP((4, 3, 2), gates="none").gated


@pytest.mark.parametrize(
    ("rates", "expected"),
    [((0.3,), (0.3, 0.3, 0.3)), ((0.3, 0.6), (0.3, 0.6, 0.6)), ((0.3, 0.6, 0.9), (0.3, 0.6, 0.9))],
)
def test_one_drop_rate_is_for_all_two_are_for_the_first_and_the_others(
    rates: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    network = MLP((20, 30, 40, 2), drop_rates=rates)
    for (_, layer, _), drop in zip(network.gated, expected, strict=True):
        mean = layer.params["log_alpha"].mean()
        assert abs(mean - np.log((1 - drop) / drop)) < 0.02  # the jitter is 0.01


def test_a_network_is_a_function_of_its_seed() -> None:
    one, same, other = (MLP((4, 3, 2), noise=Noise(seed)) for seed in (5, 5, 6))
    for name, array in one.params.items():
        assert array.tobytes() == same.params[name].tobytes()
        if not name.endswith("bias"):
            assert (array != other.params[name]).all()
    default, zero = MLP((4, 3, 2)), MLP((4, 3, 2), noise=Noise(0))
    assert default.params["0.weight"].tobytes() == zero.params["0.weight"].tobytes()


def test_lenet300100_has_the_papers_gates() -> None:
    network = LeNet300100(noise=Noise(3), dtype=np.float64)
    shapes = [layer.params["weight"].shape for _, layer, _ in network.gated]
    assert shapes == [(784, 300), (300, 100), (100, 10)]
    assert [gates.shape for _, _, gates in network.gated] == [(784,), (300,), (100,)]
    sizes = [set(gates.group_size.tolist()) for _, _, gates in network.gated]
    assert sizes == [{300}, {100}, {10}]  # outgoing weights; no bias goes with an input
    assert network.forward(np.zeros((2, 784)))[0].shape == (2, 10)
    # At the start P = sigmoid(logit keep + (2/3) log 11) of every gate, give or take its jitter.
    p_input, p_hidden = (naive.prob_on(np.log(keep / (1 - keep))) for keep in (0.8, 0.5))
    expected = [784 * 300 * p_input, 300 * 100 * p_hidden, 100 * 10 * p_hidden]
    np.testing.assert_allclose(network.expected_l0(), expected, rtol=1e-3)


def test_gates_per_weight_own_one_weight_each() -> None:
    network = MLP((4, 3, 2), gates="weight")
    assert all((gates.group_size == 1).all() for _, _, gates in network.gated)
    assert per_weight((4, 3)).shape == network.gated[0][2].shape


def test_shapes_are_those_of_the_layers_that_are_there_now() -> None:
    rng = np.random.default_rng(0)
    network = Network([Dense(rng.normal(size=(7, 3)), np.zeros(3))])
    assert network.shapes((2, 7)) == [(2, 7), (2, 3)]
    network.layers[0] = Dense(rng.normal(size=(7, 4)), np.zeros(4))
    assert network.shapes((2, 7)) == [(2, 7), (2, 4)]
