"""Optimisers step by step against scalar loops, and the average against its explicit sum."""

from typing import Any

import numpy as np
import pytest

from l0ref.optimizers import SGD, Adam, TemporalAverage, is_gate
from tests import naive_network as naive

STEPS = 12
SHAPES = {"0.weight": (3, 2), "0.bias": (2,), "0.log_alpha": (3,)}
OPTIMIZERS: dict[str, Any] = {
    "SGD": (lambda **o: SGD(0.03, **o), lambda t, g, lr: naive.sgd(t, g, lr, 0.0), 0.03),
    "momentum": (
        lambda **o: SGD(0.03, momentum=0.8, **o),
        lambda t, g, lr: naive.sgd(t, g, lr, 0.8),
        0.03,
    ),
    "Adam": (lambda **o: Adam(**o), naive.adam, 0.001),
    "Adam, all set": (
        lambda **o: Adam(0.02, beta1=0.7, beta2=0.95, eps=1e-3, **o),
        lambda t, g, lr: naive.adam(t, g, lr, 0.7, 0.95, 1e-3),
        0.02,
    ),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def course(seed: int, dtype: Any = np.float64) -> tuple[Any, list[Any]]:
    """Return first parameters, and gradients of every size: Adam's eps must matter to some."""
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    scale = {name: 10.0 ** rng.uniform(-9, 1, size=shape) for name, shape in SHAPES.items()}
    grads = [
        {n: (scale[n] * rng.normal(0.5, 1, size=s)).astype(dtype) for n, s in SHAPES.items()}
        for _ in range(STEPS)
    ]
    return params, grads


@every_optimizer
@pytest.mark.parametrize("gate_lr", [None, 0.4])
def test_every_step_is_the_scalar_one(name: str, gate_lr: float | None) -> None:
    make, twin, lr = OPTIMIZERS[name]
    params, grads = course(seed=1)
    first = {n: a.copy() for n, a in params.items()}
    given = [{n: a.copy() for n, a in g.items()} for g in grads]
    arrays = dict(params)
    optimizer = make(gate_lr=gate_lr)
    seen = []
    for g in grads:
        optimizer.step(params, g)
        seen.append({n: a.copy() for n, a in params.items()})
    assert all(params[n] is arrays[n] for n in SHAPES)  # moved in place
    for n, shape in SHAPES.items():
        rate = gate_lr if gate_lr is not None and n == "0.log_alpha" else lr
        for place in np.ndindex(shape):
            history = [float(g[n][place]) for g in given]
            expected = twin(float(first[n][place]), history, rate)
            got = [float(s[n][place]) for s in seen]
            # 1 - b2 = 0.001 keeps a relative error of 1000 eps / 2, which a step of size lr takes
            # over; an SGD step is as large as its gradient.
            step = rate * max(1.0, *map(abs, history)) / (1 - 0.8)
            tolerance = STEPS * 2.2e-16 * (1 + abs(expected[-1]) + 1000 * step)
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
    for g, before in zip(grads, given, strict=True):
        for n in SHAPES:
            np.testing.assert_array_equal(g[n], before[n])  # gradients are read only


def test_adams_first_step_is_the_learning_rate_whatever_the_gradients_size() -> None:
    """Bias correction: m_hat / sqrt(v_hat) = sign(g) at t = 1, where |g| is far above eps."""
    theta = {"w": np.array([1.0, 2.0, 3.0])}
    Adam(0.01).step(theta, {"w": np.array([1e-3, -30.0, 7.0])})
    np.testing.assert_allclose(theta["w"], [0.99, 2.01, 2.99], rtol=0, atol=2e-7)


@every_optimizer
def test_only_log_alpha_has_the_gates_rate(name: str) -> None:
    make = OPTIMIZERS[name][0]
    plain, fast = (course(seed=2)[0] for _ in range(2))
    first, grads = course(seed=2)
    make().step(plain, grads[0])
    make(gate_lr=0.5).step(fast, grads[0])
    for n in ("0.weight", "0.bias"):
        np.testing.assert_array_equal(plain[n], fast[n])
    assert (np.abs(fast["0.log_alpha"] - first["0.log_alpha"])
            > np.abs(plain["0.log_alpha"] - first["0.log_alpha"])).all()  # fmt: skip
    assert is_gate("3.log_alpha")
    assert is_gate("log_alpha")
    assert not is_gate("3.weight")
    assert not is_gate("log_alpha.weight")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_optimizer
def test_a_resumed_run_goes_on_bit_for_bit(name: str, dtype: Any) -> None:
    make = OPTIMIZERS[name][0]
    params, grads = course(seed=3, dtype=dtype)
    whole = make(gate_lr=0.4)
    for t, g in enumerate(grads):
        if t == 5:
            saved = {n: a.copy() for n, a in params.items()}
            state = {n: np.array(a, copy=True) for n, a in whole.state().items()}
        whole.step(params, g)

    resumed = make(gate_lr=0.4)
    resumed.load_state(state)
    for g in grads[5:]:
        resumed.step(saved, g)
    for n in SHAPES:
        assert saved[n].tobytes() == params[n].tobytes()
        assert saved[n].dtype == dtype
    last, other = whole.state(), resumed.state()
    assert last.keys() == other.keys()
    assert all(last[n].tobytes() == other[n].tobytes() for n in last)


@every_optimizer
def test_a_loaded_state_is_not_shared(name: str) -> None:
    make = OPTIMIZERS[name][0]
    params, grads = course(seed=4)
    one, other = make(), make()
    one.step(params, grads[0])
    state = one.state()
    before = {n: np.array(a, copy=True) for n, a in state.items()}
    other.load_state(state)
    other.step(params, grads[1])
    for n, array in before.items():
        np.testing.assert_array_equal(state[n], array)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999, 1 - 1e-9])
def test_the_average_is_the_explicit_weighted_sum_at_every_step(decay: float) -> None:
    rng = np.random.default_rng(5)
    average = TemporalAverage(decay)
    thetas: list[Any] = []
    for t in range(1, 21):
        theta = {"w": rng.normal(size=(2, 3)), "0.log_alpha": rng.normal(size=4)}
        thetas.append({n: a.copy() for n, a in theta.items()})
        average.update(theta)
        for n in theta:
            expected = naive.temporal_average([one[n] for one in thetas], decay)
            # 1 - d and 1 - d^t keep a relative error of eps/(1-d) between them, and their ratio
            # moves the average by it times |theta_t - average| < 8; it is 1/t for d = 1.
            atol = 2.3e-16 * (8 * t + 8 / (1 - decay) / t)
            np.testing.assert_allclose(average.params[n], expected, rtol=0, atol=atol)
            if t == 1 or decay == 0:
                np.testing.assert_array_equal(average.params[n], thetas[-1][n])
        theta["w"] += 100  # the average must not look on


def test_the_average_forgets_nothing_when_resumed() -> None:
    rng = np.random.default_rng(6)
    thetas = [{"t": rng.normal(size=(2, 3)).astype(np.float32)} for _ in range(9)]
    whole = TemporalAverage(0.7)
    for t, theta in enumerate(thetas):
        if t == 4:
            state = {n: np.array(a, copy=True) for n, a in whole.state().items()}
        whole.update(theta)
    resumed = TemporalAverage(0.7)
    resumed.load_state(state)
    for theta in thetas[4:]:
        resumed.update(theta)
    assert whole.params["t"].tobytes() == resumed.params["t"].tobytes()
    assert whole.params["t"].dtype == np.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.0), r"lr .*positive.*got 0.0"),
        (lambda: SGD(-1.0), r"lr .*got -1.0"),
        (lambda: SGD(float("nan")), r"lr .*got nan"),
        (lambda: SGD(0.1, momentum=1.0), r"momentum .*\[0, 1\), got 1.0"),
        (lambda: SGD(0.1, momentum=-0.1), r"momentum .*got -0.1"),
        (lambda: SGD(0.1, gate_lr=0.0), r"gate_lr .*positive.*got 0.0"),
        (lambda: Adam(float("inf")), r"lr .*finite, got inf"),
        (lambda: Adam(gate_lr=-2.0), r"gate_lr .*got -2.0"),
        (lambda: Adam(beta1=1.0), r"beta1 .*\[0, 1\), got 1.0"),
        (lambda: Adam(beta2=-0.1), r"beta2 .*got -0.1"),
        (lambda: Adam(eps=0.0), r"eps .*positive, got 0.0"),
        (lambda: TemporalAverage(1.0), r"decay .*\[0, 1\), got 1.0"),
        (lambda: TemporalAverage(-0.1), r"decay .*got -0.1"),
        (lambda: TemporalAverage(float("nan")), r"decay .*got nan"),
    ],
)
def test_values_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [SGD, Adam])
def test_names_must_agree(make: Any) -> None:
    with pytest.raises(ValueError, match=r"params and grads .*same names.*'b'"):
        make().step({"a": np.ones(2)}, {"a": np.ones(2), "b": np.ones(2)})
